//! Code written as text with named gaps: what `quote` does, as far as it is needed here.

use crate::tokens::{Group, Span, TokenStream, TokenTree};

/// The tokens of `template`, each identifier that names a gap replaced by the gap's tokens.
///
/// Templates are constants of this crate, so one that is no Rust is a defect and panics.
pub(crate) fn fill(template: &str, gaps: &[(&str, &TokenStream)]) -> TokenStream {
    let tokens: TokenStream = template.parse().expect("templates are tokens of Rust");
    replace(tokens, gaps)
}

/// The same, as if the template stood at `span`: what the compiler finds wrong is shown there. What fills the
/// gaps keeps its own place.
pub(crate) fn fill_at(span: Span, template: &str, gaps: &[(&str, &TokenStream)]) -> TokenStream {
    // The place is the author's, the meaning of the names is that of all other templates.
    replace(place(Span::call_site().located_at(span), fill(template, &[])), gaps)
}

/// The same tokens with another place in the source.
fn place(span: Span, tokens: TokenStream) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut tree| {
            if let TokenTree::Group(group) = &tree {
                tree = Group::new(group.delimiter(), place(span, group.stream())).into();
            }
            tree.set_span(span);
            tree
        })
        .collect()
}

fn replace(tokens: TokenStream, gaps: &[(&str, &TokenStream)]) -> TokenStream {
    let mut filled = TokenStream::new();
    for tree in tokens {
        match tree {
            TokenTree::Group(group) => {
                let mut copy = Group::new(group.delimiter(), replace(group.stream(), gaps));
                copy.set_span(group.span());
                filled.extend([TokenTree::Group(copy)]);
            }
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                match gaps.iter().find(|(gap, _)| *gap == name) {
                    Some((_, tokens)) => filled.extend((*tokens).clone()),
                    None => filled.extend([TokenTree::Ident(ident)]),
                }
            }
            other => filled.extend([other]),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_at_every_depth_and_nothing_else_changes() {
        let value: TokenStream = "a + b".parse().unwrap();
        let filled = fill("f(VALUE, [VALUES, { VALUE }])", &[("VALUE", &value)]);
        let expected: TokenStream = "f(a + b, [VALUES, { a + b }])".parse().unwrap();
        assert_eq!(filled.to_string(), expected.to_string());
    }

    #[test]
    fn what_fills_a_gap_is_not_searched_for_gaps() {
        let value: TokenStream = "VALUE".parse().unwrap();
        assert_eq!(fill("VALUE", &[("VALUE", &value)]).to_string(), "VALUE");
    }
}
