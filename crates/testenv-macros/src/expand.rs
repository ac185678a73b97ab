//! Writes the test that the compiler's harness sees.

use crate::options::TestOptions;
use crate::parse::{Param, TestFn};
use crate::refusal::Refusal;
use crate::template::{fill, fill_at};
use crate::tokens::{Ident, Span, TokenStream, TokenTree};

/// Expands `#[testenv::test(options)] item`.
///
/// The function becomes an item inside a test without arguments. The test asks for what all arguments need
/// before it waits for the first of them, and the scope holds every lease until it is known how the body
/// ended.
pub(crate) fn test(options: TokenStream, item: TokenStream) -> Result<TokenStream, Refusal> {
    let item = TestFn::parse(item)?;
    let options = TestOptions::parse(options, item.is_async)?;

    let name = TokenStream::from(TokenTree::Ident(item.name.clone()));
    let asyncness = fill(if item.is_async { "async" } else { "" }, &[]);
    let (returns, run) = match item.should_panic {
        // The compiler wants `#[should_panic]` on functions that return nothing.
        true => ("", "run_should_panic"),
        false => ("-> ::std::process::ExitCode", "run"),
    };
    let work = work(&item.params, item.is_async);
    let work = match item.is_async {
        true => {
            let (call, arguments) = executor(&options);
            fill(
                "CALL(ARGUMENTS async { WORK })",
                &[("CALL", &call), ("ARGUMENTS", &arguments), ("WORK", &work)],
            )
        }
        false => work,
    };
    let declarations: TokenStream =
        item.params.iter().flat_map(|it| fill("DECLARATION,", &[("DECLARATION", &it.declaration)])).collect();

    Ok(fill(
        "ATTRIBUTES
        #[::core::prelude::v1::test]
        VISIBILITY fn NAME() RETURNS {
            ASYNC fn __testenv_body(DECLARATIONS) REST
            let __testenv_scope = ::testenv::__private::Scope::new(
                ::core::concat!(::core::module_path!(), \"::\", ::core::stringify!(NAME)),
                ISOLATION,
            );
            __testenv_scope.RUN(|| { WORK })
        }",
        &[
            ("ATTRIBUTES", &item.attributes),
            ("VISIBILITY", &item.visibility),
            ("NAME", &name),
            ("RETURNS", &fill(returns, &[])),
            ("ASYNC", &asyncness),
            ("DECLARATIONS", &declarations),
            ("REST", &item.rest),
            ("ISOLATION", &isolation(options.isolation)),
            ("RUN", &fill(run, &[])),
            ("WORK", &work),
        ],
    ))
}

/// Asks for every argument, then receives them in order and calls the body.
fn work(params: &[Param], is_async: bool) -> TokenStream {
    let (ask, receive, done) = match is_async {
        true => (
            "let ASKED = __testenv_scope.ask_async::<TYPE>(ROLE, ISOLATION, FAULTS)?;",
            "__testenv_scope.receive_async::<TYPE>(ASKED).await?,",
            "BODY(ARGUMENTS).await",
        ),
        false => (
            "let ASKED = __testenv_scope.ask::<TYPE>(ROLE, ISOLATION, FAULTS)?;",
            "__testenv_scope.receive::<TYPE>(ASKED)?,",
            "BODY(ARGUMENTS)",
        ),
    };
    let mut asks = TokenStream::new();
    let mut arguments = TokenStream::new();
    for (index, param) in params.iter().enumerate() {
        // A type that is no fixture is shown at the argument.
        let span = param.ty.clone().into_iter().next().map_or_else(Span::call_site, |first| first.span());
        let asked = TokenStream::from(TokenTree::Ident(Ident::new(
            &format!("__testenv_asked_{index}"),
            Span::call_site().located_at(span),
        )));
        let role = match &param.options.role {
            Some(role) => {
                let role = TokenStream::from(TokenTree::Literal(role.clone()));
                fill("::core::option::Option::Some(ROLE)", &[("ROLE", &role)])
            }
            None => fill("::core::option::Option::None", &[]),
        };
        asks.extend(fill_at(
            span,
            ask,
            &[
                ("ASKED", &asked),
                ("TYPE", &param.ty),
                ("ROLE", &role),
                ("ISOLATION", &isolation(param.options.isolation)),
                ("FAULTS", &fill(if param.options.faults { "true" } else { "false" }, &[])),
            ],
        ));
        arguments.extend(fill_at(span, receive, &[("TYPE", &param.ty), ("ASKED", &asked)]));
    }
    let call = fill(done, &[("BODY", &fill("__testenv_body", &[])), ("ARGUMENTS", &arguments)]);
    fill("ASKS ::core::result::Result::<_, ::testenv::Error>::Ok(CALL)", &[("ASKS", &asks), ("CALL", &call)])
}

/// The function that runs a future, and its arguments before the future.
fn executor(options: &TestOptions) -> (TokenStream, TokenStream) {
    let nothing = TokenStream::new();
    match (&options.block_on, &options.multi_thread) {
        (Some(path), _) => (path.clone(), nothing),
        (None, Some(workers)) => (
            fill("::testenv::__private::block_on_multi_thread", &[]),
            fill("WORKERS,", &[("WORKERS", workers)]),
        ),
        (None, None) => (fill("::testenv::__private::block_on", &[]), nothing),
    }
}

pub(crate) fn isolation(variant: Option<&str>) -> TokenStream {
    match variant {
        Some(variant) => fill(
            "::core::option::Option::Some(::testenv::Isolation::VARIANT)",
            &[("VARIANT", &fill(variant, &[]))],
        ),
        None => fill("::core::option::Option::None", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &str, item: &str, expected: &str) {
        let expanded = test(options.parse().unwrap(), item.parse().unwrap()).unwrap();
        let expected: TokenStream = expected.parse().unwrap();
        assert_eq!(expanded.to_string(), expected.to_string());
    }

    #[test]
    fn a_sync_test_asks_for_all_before_it_waits_for_one() {
        check(
            "isolation = \"namespace\"",
            "fn t(db: Postgres, #[testenv(role = \"cache\", faults)] mut cache: Redis) -> Result<(), E> { body() }",
            "#[::core::prelude::v1::test]
            fn t() -> ::std::process::ExitCode {
                fn __testenv_body(db: Postgres, mut cache: Redis,) -> Result<(), E> { body() }
                let __testenv_scope = ::testenv::__private::Scope::new(
                    ::core::concat!(::core::module_path!(), \"::\", ::core::stringify!(t)),
                    ::core::option::Option::Some(::testenv::Isolation::Namespace),
                );
                __testenv_scope.run(|| {
                    let __testenv_asked_0 = __testenv_scope.ask::<Postgres>(
                        ::core::option::Option::None, ::core::option::Option::None, false)?;
                    let __testenv_asked_1 = __testenv_scope.ask::<Redis>(
                        ::core::option::Option::Some(\"cache\"), ::core::option::Option::None, true)?;
                    ::core::result::Result::<_, ::testenv::Error>::Ok(__testenv_body(
                        __testenv_scope.receive::<Postgres>(__testenv_asked_0)?,
                        __testenv_scope.receive::<Redis>(__testenv_asked_1)?,
                    ))
                })
            }",
        );
    }

    #[test]
    fn an_async_test_that_should_panic_on_two_workers() {
        check(
            "flavor = \"multi_thread\", worker_threads = 2",
            "#[should_panic] pub async fn t(tx: Transaction) { body() }",
            "#[should_panic] #[::core::prelude::v1::test]
            pub fn t() {
                async fn __testenv_body(tx: Transaction,) { body() }
                let __testenv_scope = ::testenv::__private::Scope::new(
                    ::core::concat!(::core::module_path!(), \"::\", ::core::stringify!(t)),
                    ::core::option::Option::None,
                );
                __testenv_scope.run_should_panic(|| {
                    ::testenv::__private::block_on_multi_thread(::core::option::Option::Some(2), async {
                        let __testenv_asked_0 = __testenv_scope.ask_async::<Transaction>(
                            ::core::option::Option::None, ::core::option::Option::None, false)?;
                        ::core::result::Result::<_, ::testenv::Error>::Ok(__testenv_body(
                            __testenv_scope.receive_async::<Transaction>(__testenv_asked_0).await?,
                        ).await)
                    })
                })
            }",
        );
    }

    #[test]
    fn an_executor_of_the_authors_choice() {
        let expanded =
            test("block_on = \"smol::block_on\"".parse().unwrap(), "async fn t() {}".parse().unwrap())
                .unwrap();
        let text = expanded.to_string().replace(' ', "");
        assert!(text.contains("__testenv_scope.run(||{smol::block_on(async{"), "{text}");
    }

    #[test]
    fn a_refusal_becomes_a_compile_error() {
        let refusal = test(TokenStream::new(), "fn t<T>() {}".parse().unwrap()).unwrap_err();
        let text = refusal.into_tokens().to_string();
        assert!(text.contains("compile_error") && text.contains("generic"), "{text}");
    }
}
