//! What is wrong with `images.toml`, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Faults that a message lists; beyond these it only counts.
const LISTED: usize = 20;
/// Characters of a line that a message shows.
const SHOWN: usize = 160;

/// Why `images.toml` cannot be used: everything that is wrong with it, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinsError {
    faults: Vec<Fault>,
}

impl PinsError {
    /// One or more, in the order of the file.
    pub(crate) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| (fault.line, fault.column));
        Self { faults }
    }

    /// All of them; there is at least one.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl From<Fault> for PinsError {
    fn from(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }
}

impl fmt::Display for PinsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().take(LISTED).enumerate() {
            let between = if index == 0 { "" } else { "\n" };
            write!(f, "{between}{fault}")?;
        }
        match self.faults.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl std::error::Error for PinsError {}

/// One thing that is wrong with the file.
///
/// Displayed as people know it from compilers, several lines without a line break at the end:
///
/// ```text
/// images.toml:5:10: a digest has 64 digits after `sha256:`, this one 3
///   5 | digest = "sha256:4f2"
///     |          ^^^^^^^^^^^^
///   hint: …
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do about it. May be empty.
    pub hint: String,
    shown: String,
    width: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, what, hint, shown, width } = self;
        write!(f, "{}:{line}:{column}: {what}", path.display())?;
        if !shown.is_empty() {
            let number = line.to_string();
            let margin = number.len();
            write!(f, "\n  {number} | {shown}")?;
            if column + width <= SHOWN {
                write!(f, "\n  {:margin$} | {:indent$}{:^<width$}", "", "", "^", indent = column - 1)?;
            }
        }
        match hint.as_str() {
            "" => Ok(()),
            hint => write!(f, "\n  hint: {hint}"),
        }
    }
}

/// The text of the file, to say where in it something is wrong.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a Path,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    /// A fault at a range of bytes.
    pub(crate) fn fault(
        &self,
        span: Range<usize>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Fault {
        let begin = self.boundary(span.start);
        let line_begin = self.text[..begin].rfind('\n').map_or(0, |newline| newline + 1);
        let line_text = self.text[line_begin..].lines().next().unwrap_or_default();
        let end = self.boundary(span.end).min(line_begin + line_text.len()).max(begin);
        Fault {
            path: self.path.to_path_buf(),
            line: self.line(begin),
            column: self.text[line_begin..begin].chars().count() + 1,
            what: what.into(),
            hint: hint.into(),
            // One column each, so that the carets stand where they should, and nothing that moves a cursor.
            shown: line_text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect(),
            width: self.text[begin..end].chars().count().max(1),
        }
    }

    /// The beginning of the character that a byte is in, or the end of the text.
    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or_default()
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// What the TOML parser says.
    pub(crate) fn toml(&self, error: &toml::de::Error) -> Fault {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        self.fault(error.span().unwrap_or(0..0), message, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str, span: Range<usize>) -> String {
        Source { path: Path::new("images.toml"), text }.fault(span, "no", "yes").to_string()
    }

    #[test]
    fn columns_are_characters_and_carets_stand_below() {
        assert_eq!(
            fault("a = 1\r\nö\t= 22\r\n", 12..14),
            "images.toml:2:5: no\n  2 | ö = 22\n    |     ^^\n  hint: yes"
        );
    }

    #[test]
    fn a_place_at_or_after_the_end_and_within_a_character() {
        assert_eq!(fault("", 0..0), "images.toml:1:1: no\n  hint: yes");
        assert_eq!(fault("a\n", 2..2), "images.toml:2:1: no\n  hint: yes");
        assert_eq!(fault("a", 7..9), "images.toml:1:2: no\n  1 | a\n    |  ^\n  hint: yes");
        assert_eq!(fault("öö", 1..3), "images.toml:1:1: no\n  1 | öö\n    | ^\n  hint: yes");
    }

    #[test]
    fn of_several_lines_the_first_is_shown() {
        assert_eq!(fault("ab\ncd\nef", 1..7), "images.toml:1:2: no\n  1 | ab\n    |  ^\n  hint: yes");
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = fault(&"x".repeat(100_000), 90_000..90_001);
        assert!(text.len() < 300 && text.starts_with("images.toml:1:90001: no\n"), "{text}");
    }

    #[test]
    fn a_list_of_faults_ends() {
        let source = Source { path: Path::new("images.toml"), text: "" };
        let error = PinsError::new(vec![source.fault(0..0, "no", ""); LISTED + 3]);
        assert!(error.to_string().ends_with("images.toml:1:1: no\n… and 3 more"));
        assert_eq!(error.faults().len(), LISTED + 3);
    }
}
