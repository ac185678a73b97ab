//! `#[testenv::test]` and `#[derive(testenv::Context)]`. Use them through the crate `testenv`, which re-exports them.
//!
//! A test is a function item whose signature is all that matters here, so the signature is taken apart by
//! hand: no `syn`, no `quote`, nothing for a test crate to compile but this. The body, the types and the
//! patterns pass through as the tokens they are, with their places in the source, so that every message of
//! the compiler points at what the author wrote.

#![forbid(unsafe_code)]

mod context;
mod expand;
mod options;
mod parse;
mod refusal;
mod template;

/// The token types: those of the compiler, or in unit tests those of `proc-macro2`, which are alike.
mod tokens {
    #[cfg(not(test))]
    extern crate proc_macro;
    #[cfg(not(test))]
    pub(crate) use proc_macro::{
        Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree,
    };
    #[cfg(test)]
    pub(crate) use proc_macro2::{
        Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree,
    };
}

/// Makes a test of a function whose arguments are fixtures. See the documentation of the crate `testenv`.
#[cfg(not(test))]
#[proc_macro_attribute]
pub fn test(options: tokens::TokenStream, item: tokens::TokenStream) -> tokens::TokenStream {
    expand::test(options, item).unwrap_or_else(refusal::Refusal::into_tokens)
}

/// Makes a struct of handles something that is leased as a whole. See the documentation of the crate `testenv`.
#[cfg(not(test))]
#[proc_macro_derive(Context, attributes(testenv))]
pub fn context(item: tokens::TokenStream) -> tokens::TokenStream {
    context::context(item).unwrap_or_else(refusal::Refusal::into_tokens)
}
