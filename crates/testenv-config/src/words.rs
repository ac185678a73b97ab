//! Splitting a command line into words, as a shell does it, but for all that needs a shell.

/// What makes sense to a shell only.
const OF_SHELLS: &[char] = &['$', '`', '|', '&', ';', '<', '>', '*', '?'];

/// Splits a line at spaces. Single and double quotes keep spaces, a backslash the character after it.
///
/// # Errors
/// For a quote that is not closed, and for what only a shell would understand.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut in_word) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, in_word) = (Some(c), true),
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
                in_word = true;
            }
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut in_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, c) if OF_SHELLS.contains(&c) => {
                return Err(format!(
                    "no shell runs it, so {c:?} has no meaning; quote it, or give the words \
                     [\"sh\", \"-c\", \"exec …\"]"
                ));
            }
            (_, c) => {
                word.push(c);
                in_word = true;
            }
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed: {line}"));
    }
    if in_word {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_shells_split_them() {
        assert_eq!(
            split(r#"java -jar "a b.jar" --x='{"a": 1}' c\ d"#).unwrap(),
            ["java", "-jar", "a b.jar", "--x={\"a\": 1}", "c d"]
        );
        assert_eq!(split(r#"x "" "a\"b\n""#).unwrap(), ["x", "", "a\"b\\n"]);
        assert_eq!(split("  ").unwrap(), [""; 0]);
        assert_eq!(split("a --port={port} '$HOME'").unwrap(), ["a", "--port={port}", "$HOME"]);
    }

    #[test]
    fn what_only_a_shell_understands_is_refused() {
        for line in ["a $HOME", "a | b", "a > log", "a; b", "`a`", "a && b", "a *.jar"] {
            assert!(split(line).unwrap_err().contains("no shell runs it"), "{line}");
        }
        assert!(split("a 'b").unwrap_err().contains("not closed"));
        assert!(split("a \\").unwrap_err().contains("backslash"));
    }
}
