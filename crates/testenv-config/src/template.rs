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
        let value = values.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let known = values.iter().fold(String::new(), |mut list, (known, _)| {
                let separator = if list.is_empty() { "" } else { ", " };
                let _ = write!(list, "{separator}{{{known}}}");
                list
            });
            TemplateError::Unknown { name: name.to_owned(), known }
        })?;
        filled.push_str(value.1);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
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
    fn refuses_unbalanced_braces() {
        assert!(matches!(expand("{host", VALUES), Err(TemplateError::Unbalanced { .. })));
        assert!(matches!(expand("host}", VALUES), Err(TemplateError::Unbalanced { .. })));
    }
}
