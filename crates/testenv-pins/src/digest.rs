//! Digests: what an image is, whatever its tag says today.

use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "sha256:";
const DIGITS: usize = 64;
/// Characters of a refused text that a message shows.
const SHOWN: usize = 16;

/// The sha256 of an image's manifest or, for an image of several platforms, of its index.
///
/// Other algorithms are refused: no registry in use answers with one.
///
/// ```
/// let digest: testenv_pins::Digest = format!("sha256:{}", "0a".repeat(32)).parse()?;
/// assert_eq!(digest.hex().len(), 64);
/// # Ok::<(), testenv_pins::DigestError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// All of it: `sha256:` and 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }
}

/// Why something is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// It begins with something else than `sha256:`.
    #[error("a digest begins with `sha256:`, this one with {0:?}")]
    Algorithm(String),
    /// It is too short or too long.
    #[error("a digest has 64 digits after `sha256:`, this one {0}")]
    Length(usize),
    /// It holds something else than a lower-case hexadecimal digit.
    #[error("a digest is written with the digits 0-9 and a-f, lower case, this one has {0:?}")]
    Digit(char),
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some(digits) = text.strip_prefix(PREFIX) else {
            let found = text.find(':').map_or(text, |colon| &text[..=colon]);
            return Err(DigestError::Algorithm(found.chars().take(SHOWN).collect()));
        };
        if let Some(other) = digits.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(DigestError::Digit(other));
        }
        match digits.len() {
            DIGITS => Ok(Self(text.to_owned())),
            length => Err(DigestError::Length(length)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Digest>().unwrap_err().to_string()
    }

    #[test]
    fn sixty_four_digits_after_sha256() {
        let text = format!("sha256:{}", "0f".repeat(32));
        let digest: Digest = text.parse().unwrap();
        assert_eq!((digest.to_string(), digest.hex()), (text.clone(), &text[7..]));
    }

    #[test]
    fn each_mistake_is_named() {
        assert_eq!(error(""), "a digest begins with `sha256:`, this one with \"\"");
        assert_eq!(error("sha512:00"), "a digest begins with `sha256:`, this one with \"sha512:\"");
        assert_eq!(
            error(&"0f".repeat(32)),
            "a digest begins with `sha256:`, this one with \"0f0f0f0f0f0f0f0f\""
        );
        assert_eq!(error("sha256:0f"), "a digest has 64 digits after `sha256:`, this one 2");
        assert_eq!(
            error(&format!("sha256:{}", "0".repeat(65))),
            "a digest has 64 digits after `sha256:`, this one 65"
        );
        let upper = error(&format!("sha256:{}", "0F".repeat(32)));
        assert_eq!(upper, "a digest is written with the digits 0-9 and a-f, lower case, this one has 'F'");
        assert!(error(&format!("sha256:{}\n", "0".repeat(64))).ends_with("'\\n'"));
    }
}
