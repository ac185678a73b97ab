//! A compile error at a place in the author's source.

use crate::template::fill;
use crate::tokens::{Group, Literal, Span, TokenStream, TokenTree};

/// Why a function cannot be a test, and the token that is to blame.
#[derive(Debug)]
pub(crate) struct Refusal {
    span: Span,
    message: String,
}

impl Refusal {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }

    /// `compile_error!` that points at the token.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let message = TokenStream::from(TokenTree::from(Literal::string(&self.message)));
        at(self.span, fill("::core::compile_error! { MESSAGE }", &[("MESSAGE", &message)]))
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// The same tokens with another place in the source.
fn at(span: Span, tokens: TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut tree| {
            if let TokenTree::Group(group) = &tree {
                tree = Group::new(group.delimiter(), at(span, group.stream())).into();
            }
            tree.set_span(span);
            tree
        })
        .collect()
}
