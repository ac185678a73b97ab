//! Templates of environment variables: `"{url}"`, `"jdbc:postgresql://{host}:{port}/{database}"`.

use std::fmt::Write as _;

/// Why a template cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The name between braces is not one of those that can be filled.
    #[error("unknown placeholder {{{name}}}; known are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All that would have been right.
        known: String,
    },
    /// A `{` without its `}`, or a lone `}`.
    #[error("unbalanced braces in {template:?}; write {{{{ for a brace that is meant as such")]
    Unbalanced {
        /// The whole template.
        template: String,
    },
}

/// Fills every `{name}` of `template` with what `value_of` knows; `{{` and `}}` stand for braces.
///
/// ```
/// let values = [("host", "127.0.0.1"), ("port", "5432")];
/// assert_eq!(testenv_config::expand("{host}:{port}", &values)?, "127.0.0.1:5432");
/// # Ok::<(), testenv_config::TemplateError>(())
/// ```
///
/// # Errors
/// [`TemplateError`] for an unknown name or unbalanced braces.
pub fn expand(template: &str, values: &[(&str, &str)]) -> Result<String, TemplateError> {
    let unbalanced = || TemplateError::Unbalanced { template: template.to_owned() };
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        filled.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(doubled) = after.strip_prefix(brace) {
            filled.push_str(brace);
            rest = doubled;
            continue;
        }
        if brace == "}" {
            return Err(unbalanced());
        }
        let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
        let value = values.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown(name, values))?;
        filled.push_str(value.1);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Fills the placeholders of a text that may have braces of its own, as commands and configuration files do: only
/// `{name}` with a name of a-z, digits, `_`, `-` and `.` is one, and not if a `$` is before it. `{{name}}` stands for
/// `{name}`. Each value goes through `quote` first.
///
/// ```
/// let values = [("port", "8080")];
/// let filled = testenv_config::fill("{\"port\": {port}, \"home\": \"${home}\"}", &values, str::to_owned);
/// assert_eq!(filled.unwrap(), "{\"port\": 8080, \"home\": \"${home}\"}");
/// ```
///
/// # Errors
/// [`TemplateError::Unknown`] for a name that has no value.
pub fn fill(
    text: &str,
    values: &[(&str, &str)],
    quote: impl Fn(&str) -> String,
) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let doubled = after.strip_prefix('{').and_then(|inner| placeholder(inner)?.1.strip_prefix('}'));
        filled.push_str(before);
        rest = match (placeholder(after), doubled) {
            (_, Some(beyond)) => {
                filled.push_str(&after[..after.len() - beyond.len() - 1]);
                beyond
            }
            (Some((name, beyond)), _) if !before.ends_with('$') => {
                let value = values.iter().find(|(known, _)| *known == name);
                filled.push_str(&quote(value.ok_or_else(|| unknown(name, values))?.1));
                beyond
            }
            _ => {
                filled.push('{');
                after
            }
        };
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The name and what follows, if the text goes on with `name}`.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let (name, beyond) = text.split_once('}')?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(word);
    is_name.then_some((name, beyond))
}

fn unknown(name: &str, values: &[(&str, &str)]) -> TemplateError {
    let known = values.iter().fold(String::new(), |mut list, (known, _)| {
        let separator = if list.is_empty() { "" } else { ", " };
        let _ = write!(list, "{separator}{{{known}}}");
        list
    });
    TemplateError::Unknown { name: name.to_owned(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &[(&str, &str)] = &[("host", "h"), ("port", "1")];

    #[test]
    fn fills_names_and_keeps_doubled_braces() {
        assert_eq!(expand("{{{host}}}:{port}", VALUES).unwrap(), "{h}:1");
        assert_eq!(expand("plain", VALUES).unwrap(), "plain");
    }

    #[test]
    fn names_what_it_does_not_know() {
        let error = expand("{hots}", VALUES).unwrap_err().to_string();
        assert_eq!(error, "unknown placeholder {hots}; known are {host}, {port}");
    }

    #[test]
    fn braces_of_commands_and_files_are_left_alone() {
        let fill = |text| fill(text, VALUES, |value| format!("<{value}>"));
        assert_eq!(fill("a {host}:{port}{").unwrap(), "a <h>:<1>{");
        for text in
            ["awk '{print $1}'", "-d '{\"a\": {}}'", "${host} ${X:-y}", "{a,b}", "{ port }", "{}", "}{"]
        {
            assert_eq!(fill(text).unwrap(), text);
        }
        assert_eq!(fill("{{port}} {{{port}}}").unwrap(), "{port} {{port}}");
        assert_eq!(
            fill("{hots}").unwrap_err().to_string(),
            "unknown placeholder {hots}; known are {host}, {port}"
        );
    }

    #[test]
    fn refuses_unbalanced_braces() {
        assert!(matches!(expand("{host", VALUES), Err(TemplateError::Unbalanced { .. })));
        assert!(matches!(expand("host}", VALUES), Err(TemplateError::Unbalanced { .. })));
    }
}
