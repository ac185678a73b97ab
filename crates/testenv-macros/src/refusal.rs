//! A compile error at a place in the author's source.

use crate::template::fill_at;
use crate::tokens::{Literal, Span, TokenStream, TokenTree};

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
        let mut message = Literal::string(&self.message);
        message.set_span(self.span);
        let message = TokenStream::from(TokenTree::Literal(message));
        fill_at(self.span, "::core::compile_error! { MESSAGE }", &[("MESSAGE", &message)])
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}
