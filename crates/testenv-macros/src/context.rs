//! Writes what `#[derive(testenv::Context)]` derives.

use crate::expand::isolation;
use crate::parse::{Param, params};
use crate::refusal::Refusal;
use crate::template::{fill, fill_at};
use crate::tokens::{Delimiter, Ident, Literal, Span, TokenStream, TokenTree};

/// Expands `#[derive(Context)] item`.
///
/// The fields are asked for together, each by the role that has its name, and received in order.
pub(crate) fn context(item: TokenStream) -> Result<TokenStream, Refusal> {
    let (name, fields) = parse(item)?;
    let name = TokenStream::from(TokenTree::Ident(name));
    let (mut types, mut asks, mut names, mut receives, mut envs) = Default::default();
    for (index, field) in fields.iter().enumerate() {
        let Some(own) = &field.name else {
            return Err(Refusal::new(Span::call_site(), "a context has fields with names"));
        };
        let span = field.ty.clone().into_iter().next().map_or_else(Span::call_site, |first| first.span());
        let role = field.options.role.clone().unwrap_or_else(|| Literal::string(&own.to_string()));
        let asked = Ident::new(&format!("__testenv_asked_{index}"), Span::call_site().located_at(span));
        let [role, asked, own] =
            [TokenTree::Literal(role), TokenTree::Ident(asked), TokenTree::Ident(own.clone())]
                .map(TokenStream::from);
        let isolation = isolation(field.options.isolation);
        let faults = fill(if field.options.faults { "true" } else { "false" }, &[]);
        let gaps = [
            ("TYPE", &field.ty),
            ("ROLE", &role),
            ("ASKED", &asked),
            ("OWN", &own),
            ("ISOLATION", &isolation),
            ("FAULTS", &faults),
        ];
        let add = |to: &mut TokenStream, template| to.extend(fill_at(span, template, &gaps));
        add(&mut types, "<TYPE as ::testenv::__private::Ask>::Asked,");
        add(
            &mut asks,
            "<TYPE as ::testenv::__private::Ask>::ask(&__testenv_wish.of(ROLE, ISOLATION, FAULTS))?,",
        );
        add(&mut names, "ASKED,");
        add(&mut receives, "OWN: <TYPE as ::testenv::__private::Ask>::receive(ASKED, __testenv_scope)?,");
        add(&mut envs, "__testenv_env.extend(::testenv::Context::env(&self.OWN));");
    }
    Ok(fill(
        "#[automatically_derived]
        impl ::testenv::__private::Ask for NAME {
            type Asked = (TYPES);
            fn ask(
                __testenv_wish: &::testenv::__private::Wish<'_>,
            ) -> ::core::result::Result<Self::Asked, ::testenv::Error> {
                __testenv_wish.refuse_role()?;
                ::core::result::Result::Ok((ASKS))
            }
            fn receive(
                (NAMES): Self::Asked,
                __testenv_scope: &::testenv::__private::Scope,
            ) -> ::core::result::Result<Self, ::testenv::Error> {
                ::core::result::Result::Ok(Self { RECEIVES })
            }
        }
        #[automatically_derived]
        impl ::testenv::Needs for NAME {}
        #[automatically_derived]
        impl ::testenv::Fixture for NAME {
            type Needs = Self;
            fn set_up(needs: Self) -> ::core::result::Result<Self, ::testenv::BoxError> {
                ::core::result::Result::Ok(needs)
            }
        }
        #[automatically_derived]
        impl ::testenv::Context for NAME {
            fn env(&self) -> ::std::collections::BTreeMap<::std::string::String, ::std::string::String> {
                let mut __testenv_env = ::std::collections::BTreeMap::new();
                ENVS
                __testenv_env
            }
        }",
        &[
            ("NAME", &name),
            ("TYPES", &types),
            ("ASKS", &asks),
            ("NAMES", &names),
            ("RECEIVES", &receives),
            ("ENVS", &envs),
        ],
    ))
}

/// The name of the struct, and its fields.
fn parse(item: TokenStream) -> Result<(Ident, Vec<Param>), Refusal> {
    let refused = |span| {
        let what = "#[derive(testenv::Context)] goes on a struct with named fields, such as \
                    `struct Backends { database: Postgres, cache: Redis }`";
        Err(Refusal::new(span, what))
    };
    let mut trees = item.into_iter().skip_while(|tree| tree.to_string() != "struct");
    let span = trees.next().map_or_else(Span::call_site, |word| word.span());
    let Some(TokenTree::Ident(name)) = trees.next() else { return refused(span) };
    match trees.next() {
        Some(TokenTree::Group(fields)) if fields.delimiter() == Delimiter::Brace => {
            Ok((name, params(fields.stream())?))
        }
        Some(TokenTree::Punct(open)) if open.as_char() == '<' => Err(Refusal::new(
            open.span(),
            "a context cannot be generic: nobody could say what to fill in for its parameters",
        )),
        _ => refused(name.span()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_asked_for_by_its_name_or_the_role_it_is_given() {
        let derived = context(
            "#[derive(Context)] pub(crate) struct Backends {
                 /// Where orders are.
                 pub database: Postgres,
                 #[testenv(role = \"sessions\", isolation = \"namespace\", faults)] cache: Redis,
             }"
            .parse()
            .unwrap(),
        );
        let text = derived.unwrap().to_string().replace([' ', '\n'], "");
        for part in [
            "impl::testenv::__private::AskforBackends",
            "<PostgresasAsk".replace("Ask", "::testenv::__private::Ask").as_str(),
            "__testenv_wish.of(\"database\",::core::option::Option::None,false)",
            "__testenv_wish.of(\"sessions\",::core::option::Option::Some(::testenv::Isolation::Namespace),true)",
            "Self{database:<Postgres",
            "cache:<Redis",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        for (item, said) in [
            ("struct S;", "a struct with named fields"),
            ("struct S(Postgres);", "a struct with named fields"),
            ("enum E { A }", "a struct with named fields"),
            ("struct S<T> { a: T }", "cannot be generic"),
            ("struct S { #[testenv(rol = \"x\")] a: Redis }", "`role`, `isolation` and `faults`"),
        ] {
            match context(item.parse().unwrap()) {
                Ok(_) => panic!("accepted: {item}"),
                Err(refusal) => assert!(refusal.message().contains(said), "{item}: {}", refusal.message()),
            }
        }
    }
}
