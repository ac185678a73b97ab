//! The pins of a workspace, and which of them an image asked for is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::fault::PinsError;
use crate::file;
use crate::near::nearest;
use crate::reference::{Reference, ReferenceError};

/// Names that a message lists at the most.
const LISTED: usize = 10;

/// All of a workspace's pins: the content of `images.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    path: PathBuf,
    by_name: BTreeMap<String, Pin>,
}

/// One image and the digest it is pinned to. Displayed as the whole reference,
/// `docker.io/library/postgres:16.4@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub(crate) name: String,
    pub(crate) image: Reference,
    pub(crate) digest: Digest,
    pub(crate) platforms: Vec<String>,
    pub(crate) source: Option<String>,
    pub(crate) note: Option<String>,
}

impl Pins {
    /// Parses and checks the text of a file; `path` is only named in errors. A caller that reads the file should
    /// read no more than [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES) and one byte.
    ///
    /// ```
    /// # use std::path::Path;
    /// let text = r#"
    /// version = 1
    ///
    /// [images.postgres]
    /// image = "postgres:16.4"
    /// digest = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    /// "#;
    /// let pins = testenv_pins::Pins::parse(text, Path::new("images.toml"))?;
    /// let pin = pins.resolve("postgres")?;
    /// assert!(pin.pull_reference().starts_with("docker.io/library/postgres@sha256:0011"));
    /// assert_eq!(pin, pins.resolve("docker.io/library/postgres:16.4")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PinsError`], with everything that is wrong and where.
    pub fn parse(text: &str, path: &Path) -> Result<Self, PinsError> {
        Ok(Self { path: path.to_path_buf(), by_name: file::read(text, path)? })
    }

    /// What a workspace without the file has: nothing is pinned. `path` is where the file would be.
    pub fn none(path: &Path) -> Self {
        Self { path: path.to_path_buf(), by_name: BTreeMap::new() }
    }

    /// The file, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All pins, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Pin> {
        self.by_name.values()
    }

    /// The pin that is meant by what `testenv.toml` says: a name in `images.toml`, or a reference to an image, with
    /// or without its digest. A reference is found by its repository and tag, however it is written; one that
    /// holds a digest is only found where that is the pinned one.
    ///
    /// # Errors
    /// [`ResolveError`]; nothing may be started then.
    pub fn resolve(&self, asked: &str) -> Result<&Pin, ResolveError> {
        if let Some(pin) = self.by_name.get(asked) {
            return Ok(pin);
        }
        let reference: Reference = asked.parse().map_err(|source| self.not_a_reference(asked, source))?;
        if let Some(pin) = self.iter().find(|pin| pin.answers(&reference)) {
            return Ok(pin);
        }
        let (image, digest) = reference.clone().split_digest();
        match (self.iter().find(|pin| pin.image == image), digest) {
            (Some(pin), Some(digest)) => {
                Err(ResolveError::OtherDigest { digest, pin: Box::new(pin.clone()), path: self.path.clone() })
            }
            _ => Err(ResolveError::NotPinned {
                asked: asked.to_owned(),
                path: self.path.clone(),
                hint: self.how_to_pin(asked, &reference),
            }),
        }
    }

    fn not_a_reference(&self, asked: &str, source: ReferenceError) -> ResolveError {
        let hint = self.did_you_mean(asked, None);
        ResolveError::NotAReference { path: self.path.clone(), source, hint }
    }

    fn how_to_pin(&self, asked: &str, wanted: &Reference) -> String {
        let is_name = file::is_name(asked);
        match self.did_you_mean(asked, Some(wanted)) {
            hint if !hint.is_empty() => hint,
            _ if is_name => {
                format!("add [images.{asked}] with the `image` and its `digest`{}", self.all_names())
            }
            _ => format!(
                "add a table for it to {}, with `image = \"{wanted}\"` and the `digest` that {}",
                self.path.display(),
                file::how_to_find_a_digest(wanted),
            ),
        }
    }

    fn did_you_mean(&self, asked: &str, wanted: Option<&Reference>) -> String {
        let near = nearest(asked, wanted, self.iter());
        let offers: Vec<_> = near.iter().map(|pin| format!("\"{}\" ({})", pin.name, pin.image)).collect();
        match offers.as_slice() {
            [] => String::new(),
            offers => format!("{} pins {}; did you mean that?", self.path.display(), offers.join(" and ")),
        }
    }

    fn all_names(&self) -> String {
        let names: Vec<_> = self.by_name.keys().take(LISTED).map(String::as_str).collect();
        match (names.as_slice(), self.by_name.len().saturating_sub(LISTED)) {
            ([], _) => String::new(),
            (names, 0) => format!("; what is there: {}", names.join(", ")),
            (names, more) => format!("; what is there: {} and {more} more", names.join(", ")),
        }
    }
}

impl Pin {
    /// The name that `testenv.toml` uses for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image as the file has it, in full, without its digest: `docker.io/library/postgres:16.4`.
    pub fn image(&self) -> &Reference {
        &self.image
    }

    /// What it is pinned to.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What an engine is to pull, and what it lists among an image's digests afterwards:
    /// `docker.io/library/postgres@sha256:…`. The tag is left out, because engines ignore it beside a digest.
    pub fn pull_reference(&self) -> String {
        format!("{}@{}", self.image.name(), self.digest)
    }

    /// Platforms that the image is for, such as `linux/amd64`; empty where the file does not say.
    pub fn platforms(&self) -> &[String] {
        &self.platforms
    }

    /// Address of what the image is made from, where its release notes are.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }

    /// What the file says to its reviewers.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Whether a reference means this image.
    fn answers(&self, asked: &Reference) -> bool {
        if !asked.is_same_repository(&self.image) {
            return false;
        }
        match asked.digest() {
            Some(digest) => {
                *digest == self.digest && (asked.tag().is_none() || asked.tag() == self.image.tag())
            }
            None => asked.tag() == self.image.tag(),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.image, self.digest)
    }
}

/// Why there is no pin for an image that was asked for. Displayed in one line, with the [hint](Self::hint) apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It cannot be an image at all.
    #[error("{source}, nor a name in {}", path.display())]
    NotAReference {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ReferenceError,
        /// What to do. May be empty.
        hint: String,
    },
    /// It is not in the file.
    #[error("{asked:?} is not in {}, and no image is started that is not pinned there", path.display())]
    NotPinned {
        /// What was asked for.
        asked: String,
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: String,
    },
    /// It was asked for by another digest than the pinned one.
    #[error("{} is asked for as {digest}, but {} pins it to {}", pin.image, path.display(), pin.digest)]
    OtherDigest {
        /// The digest that was asked for.
        digest: Digest,
        /// What the file has.
        pin: Box<Pin>,
        /// The file.
        path: PathBuf,
    },
}

impl ResolveError {
    /// What to do. May be empty.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAReference { hint, .. } | Self::NotPinned { hint, .. } => hint.clone(),
            Self::OtherDigest { pin, .. } => {
                format!("ask for \"{}\", so that the digest is written in one place only", pin.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn pins() -> Pins {
        let text = format!(
            r#"
            version = 1
            [images]
            postgres = {{ image = "postgres:16.4", digest = "{DIGEST}" }}
            orders-db = {{ image = "localhost:5000/team/orders:1", digest = "{DIGEST}" }}
            kafka = {{ image = "apache/kafka", digest = "{DIGEST}" }}
            "#
        );
        Pins::parse(&text, Path::new("images.toml")).unwrap()
    }

    fn refused(asked: &str) -> String {
        let error = pins().resolve(asked).unwrap_err();
        format!("{error}\nhint: {}", error.hint())
    }

    #[test]
    fn by_name_and_by_reference_however_it_is_written() {
        let pins = pins();
        for (asked, name) in [
            ("postgres", "postgres"),
            ("postgres:16.4", "postgres"),
            ("docker.io/library/postgres:16.4", "postgres"),
            (&format!("docker.io/postgres:16.4@{DIGEST}"), "postgres"),
            (&format!("postgres@{DIGEST}"), "postgres"),
            ("orders-db", "orders-db"),
            ("localhost:5000/team/orders:1", "orders-db"),
            ("apache/kafka", "kafka"),
        ] {
            assert_eq!(pins.resolve(asked).unwrap().name(), name, "{asked}");
        }
    }

    #[test]
    fn another_tag_is_another_image() {
        assert_eq!(
            refused("postgres:15"),
            "\"postgres:15\" is not in images.toml, and no image is started that is not pinned there\n\
             hint: images.toml pins \"postgres\" (docker.io/library/postgres:16.4); did you mean that?"
        );
        for asked in ["localhost:5000/team/orders", "apache/kafka:latest", "team/orders:1"] {
            assert!(refused(asked).contains("did you mean that?"), "{asked}");
        }
        assert!(pins().resolve(&format!("postgres:15@{DIGEST}")).is_err());
    }

    #[test]
    fn another_digest_is_another_image() {
        let other = format!("postgres:16.4@{}", DIGEST.replace("00", "01"));
        let text = refused(&other);
        assert!(text.starts_with("docker.io/library/postgres:16.4 is asked for as sha256:01"), "{text}");
        assert!(text.contains("but images.toml pins it to sha256:00"), "{text}");
        assert!(
            text.ends_with("hint: ask for \"postgres\", so that the digest is written in one place only")
        );
    }

    #[test]
    fn names_that_are_near_are_offered() {
        for (asked, name) in [("postgrse", "postgres"), ("order-db", "orders-db"), ("Kafka", "kafka")] {
            assert!(refused(asked).contains(&format!("images.toml pins \"{name}\" (")), "{asked}");
        }
    }

    #[test]
    fn with_nothing_near_it_says_how_to_pin() {
        assert!(refused("redis").ends_with(
            "hint: add [images.redis] with the `image` and its `digest`; what is there: kafka, orders-db, postgres"
        ));
        assert!(refused("ghcr.io/x/y:1").ends_with(
            "hint: add a table for it to images.toml, with `image = \"ghcr.io/x/y:1\"` and the `digest` that \
             `docker buildx imagetools inspect ghcr.io/x/y:1` prints"
        ));
        let text = refused("My Image");
        assert!(text.starts_with("\"My Image\" is not a reference to an image: "), "{text}");
        assert!(text.contains(", nor a name in images.toml\n"), "{text}");
    }

    #[test]
    fn without_the_file_nothing_is_pinned() {
        let error = Pins::none(Path::new("images.toml")).resolve("postgres").unwrap_err();
        assert_eq!(error.hint(), "add [images.postgres] with the `image` and its `digest`");
    }
}
