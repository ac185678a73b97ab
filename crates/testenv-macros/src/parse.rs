//! Takes the signature of a function item apart.

use crate::options::ParamOptions;
use crate::refusal::Refusal;
use crate::tokens::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// A function item, as far as a test needs to know it.
pub(crate) struct TestFn {
    /// Attributes and documentation, as written.
    pub(crate) attributes: TokenStream,
    /// Whether `#[should_panic]` is among them.
    pub(crate) should_panic: bool,
    pub(crate) visibility: TokenStream,
    pub(crate) is_async: bool,
    pub(crate) name: Ident,
    pub(crate) params: Vec<Param>,
    /// Everything after the parameters: the return type and the body.
    pub(crate) rest: TokenStream,
}

/// One parameter.
pub(crate) struct Param {
    /// The parameter without the attribute `#[testenv(…)]`.
    pub(crate) declaration: TokenStream,
    /// The last word before its type: its name, unless it is a pattern.
    pub(crate) name: Option<Ident>,
    pub(crate) ty: TokenStream,
    pub(crate) options: ParamOptions,
}

impl TestFn {
    pub(crate) fn parse(item: TokenStream) -> Result<Self, Refusal> {
        let mut trees = item.into_iter();
        let mut attributes = TokenStream::new();
        let mut should_panic = false;
        let mut visibility = TokenStream::new();
        let mut is_async = false;

        // Attributes first, then qualifiers, then `fn`.
        loop {
            match trees.next() {
                Some(TokenTree::Punct(hash)) if hash.as_char() == '#' => {
                    let body = attribute(&hash, trees.next())?;
                    match first_ident(&body).as_deref() {
                        Some("should_panic") => should_panic = true,
                        Some("test") => {
                            return Err(Refusal::new(
                                body.span(),
                                "#[testenv::test] makes this a test already; remove #[test]",
                            ));
                        }
                        _ => {}
                    }
                    attributes.extend([TokenTree::Punct(hash), TokenTree::Group(body)]);
                }
                Some(TokenTree::Ident(word)) => match word.to_string().as_str() {
                    "fn" => break,
                    "async" => is_async = true,
                    "const" | "unsafe" | "extern" | "safe" => {
                        return Err(Refusal::new(word.span(), format!("a test cannot be `{word}`")));
                    }
                    "pub" => visibility.extend([TokenTree::Ident(word)]),
                    _ => return Err(not_a_function(word.span())),
                },
                // The `(crate)` of `pub(crate)`, or a visibility that another macro passed on.
                Some(TokenTree::Group(group))
                    if matches!(group.delimiter(), Delimiter::Parenthesis | Delimiter::None) =>
                {
                    visibility.extend([TokenTree::Group(group)]);
                }
                Some(other) => return Err(not_a_function(other.span())),
                None => return Err(not_a_function(Span::call_site())),
            }
        }

        let Some(TokenTree::Ident(name)) = trees.next() else {
            return Err(not_a_function(Span::call_site()));
        };
        let params = match trees.next() {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => {
                params(group.stream())?
            }
            Some(TokenTree::Punct(open)) if open.as_char() == '<' => {
                return Err(Refusal::new(
                    open.span(),
                    "a test cannot be generic: nobody could say what to fill in for its parameters",
                ));
            }
            _ => return Err(not_a_function(name.span())),
        };
        Ok(Self { attributes, should_panic, visibility, is_async, name, params, rest: trees.collect() })
    }
}

fn not_a_function(span: Span) -> Refusal {
    Refusal::new(
        span,
        "#[testenv::test] goes on a function, such as `fn creates_an_order(db: Postgres) { … }`",
    )
}

/// The brackets after a `#`.
fn attribute(hash: &Punct, next: Option<TokenTree>) -> Result<Group, Refusal> {
    match next {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => Ok(group),
        _ => Err(not_a_function(hash.span())),
    }
}

/// The path of an attribute, if it is a single identifier.
fn first_ident(attribute: &Group) -> Option<String> {
    let mut trees = attribute.stream().into_iter();
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Ident(_)), Some(TokenTree::Punct(colon))) if colon.as_char() == ':' => None,
        (Some(TokenTree::Ident(name)), _) => Some(name.to_string()),
        _ => None,
    }
}

/// Splits at the commas that are not between angle brackets.
pub(crate) fn params(tokens: TokenStream) -> Result<Vec<Param>, Refusal> {
    let mut params = Vec::new();
    let mut current = Vec::new();
    let mut depth = 0_usize;
    let mut after_dash = false;
    for tree in tokens {
        let is_arrow_head = std::mem::take(&mut after_dash);
        if let TokenTree::Punct(punct) = &tree {
            match punct.as_char() {
                ',' if depth == 0 => {
                    params.push(param(std::mem::take(&mut current), punct.span())?);
                    continue;
                }
                '<' => depth += 1,
                '>' if !is_arrow_head => depth = depth.saturating_sub(1),
                '-' => after_dash = punct.spacing() == Spacing::Joint,
                _ => {}
            }
        }
        current.push(tree);
    }
    if !current.is_empty() {
        params.push(param(current, Span::call_site())?);
    }
    Ok(params)
}

fn param(trees: Vec<TokenTree>, end: Span) -> Result<Param, Refusal> {
    let span = trees.first().map_or(end, TokenTree::span);
    let mut declaration = TokenStream::new();
    let mut options = None;
    let mut trees = trees.into_iter().peekable();

    while let Some(TokenTree::Punct(hash)) = trees.next_if(|it| is_punct(it, '#')) {
        let body = attribute(&hash, trees.next())?;
        if first_ident(&body).as_deref() == Some("testenv") {
            let inside = body.stream().into_iter().nth(1);
            let Some(TokenTree::Group(inside)) = inside else {
                return Err(Refusal::new(body.span(), "expected `#[testenv(role = \"…\")]`"));
            };
            if options.replace(ParamOptions::parse(inside.stream())?).is_some() {
                return Err(Refusal::new(body.span(), "#[testenv(…)] is given twice for one argument"));
            }
        } else {
            declaration.extend([TokenTree::Punct(hash), TokenTree::Group(body)]);
        }
    }

    // The type begins after the first colon that is not half of a `::`.
    let (mut name, mut ty) = (None, TokenStream::new());
    let mut in_type = false;
    let mut after_colon = false;
    for tree in trees {
        declaration.extend([tree.clone()]);
        if in_type {
            ty.extend([tree]);
        } else if let TokenTree::Punct(punct) = &tree
            && punct.as_char() == ':'
        {
            let is_pair = punct.spacing() == Spacing::Joint;
            in_type = !is_pair && !after_colon;
            after_colon = is_pair;
        } else {
            after_colon = false;
            name = if let TokenTree::Ident(word) = tree { Some(word) } else { None };
        }
    }
    if ty.is_empty() {
        return Err(Refusal::new(span, "expected an argument with a type, such as `db: Postgres`"));
    }
    Ok(Param { declaration, name, ty, options: options.unwrap_or_default() })
}

fn is_punct(tree: &TokenTree, char: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == char)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(item: &str) -> Result<TestFn, Refusal> {
        TestFn::parse(item.parse().unwrap())
    }

    /// Normalises spacing through the tokenizer.
    fn tokens(text: &str) -> String {
        text.parse::<TokenStream>().unwrap().to_string()
    }

    #[test]
    fn a_whole_signature() {
        let it = parse(
            "/// Says what it shows.\n#[ignore = \"slow\"] #[should_panic(expected = \"x\")] \
             pub(crate) async fn orders(mut db: Postgres, #[testenv(role = \"cache\")] cache: testenv::Redis,) \
             -> anyhow::Result<()> { Ok(()) }",
        )
        .unwrap();
        assert!(it.is_async && it.should_panic);
        assert_eq!(it.name.to_string(), "orders");
        assert_eq!(it.visibility.to_string(), tokens("pub(crate)"));
        assert!(it.attributes.to_string().contains("Says what it shows"));
        assert_eq!(it.params.len(), 2);
        assert_eq!(it.params[0].declaration.to_string(), tokens("mut db: Postgres"));
        assert_eq!(it.params[0].ty.to_string(), "Postgres");
        assert_eq!(it.params[1].declaration.to_string(), tokens("cache: testenv::Redis"));
        assert_eq!(it.params[1].ty.to_string(), tokens("testenv::Redis"));
        assert_eq!(it.params[1].options.role.as_ref().unwrap().to_string(), "\"cache\"");
        assert_eq!(it.rest.to_string(), tokens("-> anyhow::Result<()> { Ok(()) }"));
    }

    #[test]
    fn patterns_and_types_of_every_shape() {
        for (param, ty) in [
            ("_: Postgres", "Postgres"),
            ("App { db, .. }: App", "App"),
            ("my::App { db: it, .. }: my::App", "my::App"),
            ("(a, b): Pair<A, B>", "Pair<A, B>"),
            ("f: Made<fn(A) -> B, C>", "Made<fn(A) -> B, C>"),
            ("x: <A as B<C, D>>::E", "<A as B<C, D>>::E"),
            ("x: ::a::B", "::a::B"),
            ("x: [A; 2]", "[A; 2]"),
        ] {
            let it = parse(&format!("fn t({param}, last: Last) {{}}")).unwrap();
            assert_eq!(it.params.len(), 2, "{param}");
            assert_eq!(it.params[0].ty.to_string(), tokens(ty), "{param}");
            assert_eq!(it.params[1].ty.to_string(), "Last", "{param}");
        }
    }

    #[test]
    fn no_arguments_and_other_attributes_of_arguments() {
        assert!(parse("fn t() {}").unwrap().params.is_empty());
        let it = parse("fn t(#[allow(unused)] db: Postgres) {}").unwrap();
        assert_eq!(it.params[0].declaration.to_string(), tokens("#[allow(unused)] db: Postgres"));
    }

    #[test]
    fn a_path_that_ends_in_test_is_another_attribute() {
        assert!(parse("#[other::test] fn t() {}").is_ok());
        assert!(parse("#[test_log] fn t() {}").is_ok());
    }

    #[test]
    fn what_is_no_test_is_refused() {
        for (item, said) in [
            ("struct S;", "goes on a function"),
            ("", "goes on a function"),
            ("fn", "goes on a function"),
            ("fn t", "goes on a function"),
            ("fn t<T>(x: T) {}", "cannot be generic"),
            ("fn t<'a>() {}", "cannot be generic"),
            ("unsafe fn t() {}", "cannot be `unsafe`"),
            ("const fn t() {}", "cannot be `const`"),
            ("extern \"C\" fn t() {}", "cannot be `extern`"),
            ("#[test] fn t() {}", "remove #[test]"),
            ("fn t(self) {}", "with a type"),
            ("fn t(&mut self) {}", "with a type"),
            ("fn t(, a: A) {}", "with a type"),
            ("fn t(#[testenv] db: Postgres) {}", "#[testenv(role"),
            ("fn t(#[testenv(rol = \"x\")] db: Postgres) {}", "`role`, `isolation` and `faults`"),
            ("fn t(#[testenv()] #[testenv()] db: Postgres) {}", "twice"),
        ] {
            match parse(item) {
                Ok(_) => panic!("accepted: {item}"),
                Err(refusal) => assert!(refusal.message().contains(said), "{item}: {}", refusal.message()),
            }
        }
    }
}
