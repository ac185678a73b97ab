//! What stands between the parentheses of `#[testenv::test(…)]` and of `#[testenv(…)]` on an argument.

use std::collections::BTreeSet;

use crate::refusal::Refusal;
use crate::tokens::{Ident, Literal, TokenStream, TokenTree};

/// Options of a test.
#[derive(Debug, Default)]
pub(crate) struct TestOptions {
    /// Isolation of every argument that has none of its own: the name of a variant.
    pub(crate) isolation: Option<&'static str>,
    /// Worker threads of a multi-threaded tokio runtime, as the expression `Option<usize>`.
    pub(crate) multi_thread: Option<TokenStream>,
    /// Function that runs the test's future.
    pub(crate) block_on: Option<TokenStream>,
}

/// Options of one argument.
#[derive(Debug, Default)]
pub(crate) struct ParamOptions {
    /// Role in `testenv.toml`.
    pub(crate) role: Option<Literal>,
    /// Isolation: the name of a variant.
    pub(crate) isolation: Option<&'static str>,
    /// Whether there is a proxy for faults.
    pub(crate) faults: bool,
}

impl TestOptions {
    pub(crate) fn parse(tokens: TokenStream, is_async: bool) -> Result<Self, Refusal> {
        let mut options = Self::default();
        let mut flavor = None;
        let mut worker_threads = None;
        for (name, value) in given(tokens, &[])?.pairs {
            let word = name.to_string();
            match word.as_str() {
                "isolation" => options.isolation = Some(isolation(&value)?),
                "flavor" => flavor = Some(value),
                "worker_threads" => worker_threads = Some(value),
                "block_on" => options.block_on = Some(path(&value)?),
                other => {
                    return Err(Refusal::new(
                        name.span(),
                        format!(
                            "`{other}` is not an option of #[testenv::test]; there are `isolation`, `flavor`, \
                             `worker_threads` and `block_on`"
                        ),
                    ));
                }
            }
            if !is_async && word != "isolation" {
                return Err(Refusal::new(name.span(), format!("`{name}` is for tests that are `async fn`")));
            }
        }
        options.multi_thread = multi_thread(flavor, worker_threads)?;
        match (&options.block_on, &options.multi_thread) {
            (Some(path), Some(_)) => {
                let span = path
                    .clone()
                    .into_iter()
                    .next()
                    .map_or_else(crate::tokens::Span::call_site, |it| it.span());
                Err(Refusal::new(
                    span,
                    "`block_on` replaces the tokio runtime, so there is no `flavor` beside it",
                ))
            }
            _ => Ok(options),
        }
    }
}

impl ParamOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self, Refusal> {
        let given = given(tokens, &["faults"])?;
        let mut options = Self { faults: !given.flags.is_empty(), ..Self::default() };
        for (name, value) in given.pairs {
            match name.to_string().as_str() {
                "role" => {
                    text(&value)?;
                    options.role = Some(value);
                }
                "isolation" => options.isolation = Some(isolation(&value)?),
                other => {
                    return Err(Refusal::new(
                        name.span(),
                        format!(
                            "`{other}` is not an option of an argument; there are `role`, `isolation` and `faults`"
                        ),
                    ));
                }
            }
        }
        Ok(options)
    }
}

fn multi_thread(flavor: Option<Literal>, workers: Option<Literal>) -> Result<Option<TokenStream>, Refusal> {
    let is_multi = match &flavor {
        None => false,
        Some(flavor) => match text(flavor)?.as_str() {
            "multi_thread" => true,
            "current_thread" => false,
            _ => {
                return Err(Refusal::new(
                    flavor.span(),
                    "the flavor is \"current_thread\" or \"multi_thread\"",
                ));
            }
        },
    };
    match workers {
        Some(workers) if !is_multi => {
            Err(Refusal::new(workers.span(), "`worker_threads` needs `flavor = \"multi_thread\"`"))
        }
        Some(workers) => match workers.to_string().parse::<usize>() {
            Ok(1..) => {
                let count = TokenStream::from(TokenTree::Literal(workers));
                Ok(Some(crate::template::fill("::core::option::Option::Some(COUNT)", &[("COUNT", &count)])))
            }
            _ => Err(Refusal::new(workers.span(), "`worker_threads` is a number from 1, such as `2`")),
        },
        None if is_multi => Ok(Some(crate::template::fill("::core::option::Option::None", &[]))),
        None => Ok(None),
    }
}

/// What was found between the parentheses.
#[derive(Debug, Default)]
struct Given {
    /// Options with a value.
    pairs: Vec<(Ident, Literal)>,
    /// Options that are their name alone.
    flags: Vec<Ident>,
}

/// `name = literal`, or one of the names in `flags` alone, with commas between and perhaps one at the end.
fn given(tokens: TokenStream, flags: &[&str]) -> Result<Given, Refusal> {
    let mut given = Given::default();
    let mut seen = BTreeSet::new();
    let mut trees = tokens.into_iter();
    while let Some(tree) = trees.next() {
        let TokenTree::Ident(name) = tree else {
            return Err(Refusal::new(tree.span(), "expected an option, such as `isolation = \"namespace\"`"));
        };
        let word = name.to_string();
        if !seen.insert(word.clone()) {
            return Err(Refusal::new(name.span(), format!("`{name}` is given twice")));
        }
        if flags.contains(&word.as_str()) {
            given.flags.push(name);
        } else {
            let value = value(&mut trees, &name)?;
            given.pairs.push((name, value));
        }
        match trees.next() {
            None => break,
            Some(TokenTree::Punct(comma)) if comma.as_char() == ',' => {}
            Some(other) => return Err(Refusal::new(other.span(), "expected a comma between options")),
        }
    }
    Ok(given)
}

/// The `= literal` after a name.
fn value(trees: &mut impl Iterator<Item = TokenTree>, name: &Ident) -> Result<Literal, Refusal> {
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Punct(equals)), Some(TokenTree::Literal(value))) if equals.as_char() == '=' => {
            Ok(value)
        }
        _ => Err(Refusal::new(name.span(), format!("expected `{name} = …` with a literal"))),
    }
}

fn isolation(value: &Literal) -> Result<&'static str, Refusal> {
    match text(value)?.as_str() {
        "server" => Ok("Server"),
        "namespace" => Ok("Namespace"),
        "shared" => Ok("Shared"),
        _ => Err(Refusal::new(value.span(), "the isolation is \"server\", \"namespace\" or \"shared\"")),
    }
}

/// The path in a string, as tokens that point at the string.
fn path(value: &Literal) -> Result<TokenStream, Refusal> {
    let refuse = || Refusal::new(value.span(), "expected the path of a function, such as \"smol::block_on\"");
    let text = text(value)?;
    let is_path = |it: char| it.is_alphanumeric() || "_:<>".contains(it);
    if text.is_empty() || !text.chars().all(is_path) {
        return Err(refuse());
    }
    let tokens: TokenStream = text.parse().map_err(|_| refuse())?;
    Ok(tokens
        .into_iter()
        .map(|mut tree| {
            tree.set_span(value.span());
            tree
        })
        .collect())
}

/// The text of a plain string literal.
fn text(value: &Literal) -> Result<String, Refusal> {
    let written = value.to_string();
    match written.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => Ok(text.to_owned()),
        _ => Err(Refusal::new(value.span(), "expected a plain string in double quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &str, is_async: bool) -> String {
        match TestOptions::parse(options.parse().unwrap(), is_async) {
            Ok(options) => panic!("accepted: {options:?}"),
            Err(refusal) => refusal.message().to_owned(),
        }
    }

    #[test]
    fn every_option_is_understood() {
        let all = TestOptions::parse(
            "isolation = \"namespace\", flavor = \"multi_thread\", worker_threads = 2,".parse().unwrap(),
            true,
        )
        .unwrap();
        assert_eq!(all.isolation, Some("Namespace"));
        assert_eq!(all.multi_thread.unwrap().to_string().replace(' ', ""), "::core::option::Option::Some(2)");

        let other = TestOptions::parse("block_on = \"smol::block_on\"".parse().unwrap(), true).unwrap();
        assert_eq!(other.block_on.unwrap().to_string().replace(' ', ""), "smol::block_on");

        let param = ParamOptions::parse("role = \"cache\", isolation = \"shared\"".parse().unwrap()).unwrap();
        assert_eq!(param.role.unwrap().to_string(), "\"cache\"");
        assert_eq!(param.isolation, Some("Shared"));
        assert!(!param.faults);
        assert!(ParamOptions::parse("role = \"cache\", faults".parse().unwrap()).unwrap().faults);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_could() {
        for (options, said) in [
            ("isolaton = \"server\"", "there are `isolation`"),
            ("isolation = \"own\"", "\"server\", \"namespace\" or \"shared\""),
            ("isolation = server", "expected `isolation = …` with a literal"),
            ("isolation", "expected `isolation = …` with a literal"),
            ("\"server\"", "expected an option"),
            ("isolation = \"server\" flavor", "comma"),
            ("isolation = \"server\", isolation = \"server\"", "twice"),
            ("isolation = r\"server\"", "plain string"),
            ("worker_threads = 2", "needs `flavor"),
            ("flavor = \"multi_thread\", worker_threads = 0", "a number from 1"),
            ("flavor = \"many\"", "\"current_thread\" or \"multi_thread\""),
            ("block_on = \"a b\"", "path of a function"),
            ("block_on = \"\"", "path of a function"),
            ("block_on = \"smol::block_on\", flavor = \"multi_thread\"", "no `flavor` beside it"),
        ] {
            let message = refused(options, true);
            assert!(message.contains(said), "{options}: {message}");
        }
        assert!(refused("flavor = \"multi_thread\"", false).contains("async fn"));
        assert!(refused("block_on = \"smol::block_on\"", false).contains("async fn"));
        let param = ParamOptions::parse("name = \"x\"".parse().unwrap()).unwrap_err();
        assert!(param.message().contains("`role`, `isolation` and `faults`"));
        let valued = ParamOptions::parse("faults = true".parse().unwrap()).unwrap_err();
        assert!(valued.message().contains("comma"), "{}", valued.message());
    }
}
