//! References: how people name an image, `localhost:5000/team/orders:1.2@sha256:…`.
//!
//! The grammar is that of Docker's and containerd's own parser (`distribution/reference`), with its rules for short
//! names: `postgres` means `docker.io/library/postgres`. Where that parser lets through what no registry can
//! have (port 99999, a host `a_b.c`, `[:::]`), this one refuses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// What a short name's registry is.
const DOCKER_HUB: &str = "docker.io";
/// What Docker Hub was called once; still understood.
const OLD_DOCKER_HUB: &str = "index.docker.io";
/// Where Docker Hub keeps the images that have no owner in their name.
const OFFICIAL: &str = "library/";

/// Bytes of a reference at the most.
const MAX_REFERENCE: usize = 1024;
/// Bytes of a registry's name at the most, its port included.
const MAX_REGISTRY: usize = 255;
/// Bytes of a repository's name at the most, `library/` included.
const MAX_REPOSITORY: usize = 255;
/// Bytes of a tag at the most.
const MAX_TAG: usize = 128;
/// Characters of a refused text that a message shows.
const SHOWN: usize = 200;

/// A reference to an image, in full: two ways to write the same are equal.
///
/// ```
/// use testenv_pins::Reference;
///
/// let short: Reference = "postgres:16.4".parse()?;
/// assert_eq!(short.to_string(), "docker.io/library/postgres:16.4");
/// assert_eq!(short, "index.docker.io/library/postgres:16.4".parse()?);
///
/// let own: Reference = "localhost:5000/team/orders".parse()?;
/// assert_eq!((own.registry(), own.repository(), own.tag()), ("localhost:5000", "team/orders", None));
/// # Ok::<(), testenv_pins::ReferenceError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host of the registry and its port, if it has one: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path within the registry: `library/postgres`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository: `docker.io/library/postgres`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag, if one is written; Docker takes `latest` for a reference with neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is written. An engine that is given both pulls by the digest and ignores the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same without its digest, and the digest.
    pub fn split_digest(mut self) -> (Self, Option<Digest>) {
        let digest = self.digest.take();
        (self, digest)
    }

    /// Whether both are of the same repository, whatever their tags.
    pub fn is_same_repository(&self, other: &Self) -> bool {
        (&self.registry, &self.repository) == (&other.registry, &other.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Why a text is not a reference to an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a reference to an image: {reason}")]
pub struct ReferenceError {
    /// The text, or the beginning of it where it is very long.
    pub text: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Longer than any reference can be.
    #[error("it has {0} bytes, and {MAX_REFERENCE} are the most")]
    TooLong(usize),
    /// It is an address, such as `https://…`.
    #[error("it begins with {0:?}; a reference begins with the registry's name")]
    Scheme(String),
    /// 64 hexadecimal digits: an image's id.
    #[error("64 hexadecimal digits are an image's id on one machine, which no registry knows")]
    Id,
    /// What stands for the registry cannot be a host.
    #[error("{0:?} stands where the registry does, but is not the name or address of a host")]
    Registry(String),
    /// What follows the registry's name is not a port.
    #[error("{0:?} is not a port")]
    Port(String),
    /// The repository's name has upper-case letters.
    #[error("{0:?} has upper-case letters, which only registries and tags may have")]
    UpperCase(String),
    /// A part of the repository's name is not as it should be.
    #[error(
        "{0:?} is not a part of a name: lower-case letters and digits, \
         and between them a `.`, `_`, `__` or any number of `-`"
    )]
    Component(String),
    /// The repository's name is too long.
    #[error("the repository's name has {0} characters, and {MAX_REPOSITORY} are the most")]
    Repository(usize),
    /// What follows the colon is not a tag.
    #[error(
        "{0:?} is not a tag: 1 to {MAX_TAG} letters, digits, `_`, `.` and `-`, \
         the first neither `.` nor `-`"
    )]
    Tag(String),
    /// What follows the `@` is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError { text: beginning(text), reason })
    }
}

/// The text, or as much of it as a message can bear.
fn beginning(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn parse(text: &str) -> Result<Reference, Reason> {
    check_whole(text)?;
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest.parse()?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(named);
    check_registry(registry)?;
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(checked_tag(tag)?)),
        None => (rest, None),
    };
    Ok(Reference { registry: registry.to_owned(), repository: repository(registry, path)?, tag, digest })
}

fn check_whole(text: &str) -> Result<(), Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() > MAX_REFERENCE {
        return Err(Reason::TooLong(text.len()));
    }
    if let Some(end) = text.find("://") {
        return Err(Reason::Scheme(text[..end + 3].to_owned()));
    }
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(is_hex) {
        return Err(Reason::Id);
    }
    Ok(())
}

/// Splits the registry off, as Docker does: what stands before the first slash is one only if it cannot be taken
/// for an owner on Docker Hub.
fn split_registry(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((OLD_DOCKER_HUB, rest)) => (DOCKER_HUB, rest),
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DOCKER_HUB, named),
    }
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), Reason> {
    let refused = || Reason::Registry(registry.to_owned());
    // The colons of an IPv6 address are within brackets.
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(is_ipv6),
        None => host.split('.').all(is_host_label),
    };
    if !is_host || registry.len() > MAX_REGISTRY {
        return Err(refused());
    }
    match port {
        Some(port) if !is_port(port) => Err(Reason::Port(port.to_owned())),
        _ => Ok(()),
    }
}

/// Docker takes no addresses with a zone (`%eth0`) or with an IPv4 address inside.
fn is_ipv6(address: &str) -> bool {
    !address.contains('.') && address.parse::<Ipv6Addr>().is_ok()
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn repository(registry: &str, path: &str) -> Result<String, Reason> {
    if path.contains(|c: char| c.is_ascii_uppercase()) {
        return Err(Reason::UpperCase(path.to_owned()));
    }
    if let Some(component) = path.split('/').find(|component| !is_component(component)) {
        return Err(Reason::Component(component.to_owned()));
    }
    let owner = if registry == DOCKER_HUB && !path.contains('/') { OFFICIAL } else { "" };
    let length = owner.len() + path.len();
    if length > MAX_REPOSITORY {
        return Err(Reason::Repository(length));
    }
    Ok(format!("{owner}{path}"))
}

/// Letters and digits, and separators between them: `a`, `a.b`, `a_b`, `a__b`, `a---b`.
pub(crate) fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inside = component.starts_with(is_word) && component.ends_with(is_word);
    let mut separators = component.split(is_word).filter(|separator| !separator.is_empty());
    inside && separators.all(|it| matches!(it, "." | "_" | "__") || it.bytes().all(|byte| byte == b'-'))
}

fn checked_tag(tag: &str) -> Result<String, Reason> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| is_word(c) || c == '.' || c == '-';
    if tag.starts_with(is_word) && tag.len() <= MAX_TAG && tag.chars().all(inner) {
        return Ok(tag.to_owned());
    }
    Err(Reason::Tag(tag.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    fn reason(text: &str) -> Reason {
        text.parse::<Reference>().unwrap_err().reason
    }

    #[test]
    fn short_names_are_docker_hubs() {
        for (short, expected) in [
            ("postgres", "docker.io/library/postgres"),
            ("docker.io/postgres", "docker.io/library/postgres"),
            ("index.docker.io/postgres", "docker.io/library/postgres"),
            ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f"),
            ("bitnami/kafka:3.7", "docker.io/bitnami/kafka:3.7"),
            ("index.docker.io/bitnami/kafka", "docker.io/bitnami/kafka"),
            // Without a slash, what looks like a host is a name, and what looks like a port a tag.
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("test.com:5000", "docker.io/library/test.com:5000"),
        ] {
            assert_eq!(full(short), expected);
        }
    }

    #[test]
    fn a_registry_has_a_dot_a_port_or_an_upper_case_letter_or_is_localhost() {
        for (text, registry) in [
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/b", "localhost"),
            ("localhost:5000/b", "localhost:5000"),
            ("registry:5000/b", "registry:5000"),
            ("REGISTRY/b", "REGISTRY"),
            ("registry/b", "docker.io"),
            ("10.0.0.1/b", "10.0.0.1"),
            ("[::1]/b", "[::1]"),
            ("[2001:db8::1]:5000/b:1", "[2001:db8::1]:5000"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().registry(), registry, "{text}");
        }
    }

    #[test]
    fn tag_and_digest_go_together() {
        let both: Reference = format!("localhost:5000/x:1.2-rc_1@{DIGEST}").parse().unwrap();
        assert_eq!((both.tag(), both.digest().unwrap().as_str()), (Some("1.2-rc_1"), DIGEST));
        let (tagged, digest) = both.split_digest();
        assert_eq!((tagged.to_string().as_str(), digest.is_some()), ("localhost:5000/x:1.2-rc_1", true));
    }

    #[test]
    fn each_mistake_is_named() {
        let id = "a".repeat(64);
        for (text, expected) in [
            ("", Reason::Empty),
            ("docker://postgres", Reason::Scheme("docker://".into())),
            (&id, Reason::Id),
            ("a_b.c/x", Reason::Registry("a_b.c".into())),
            ("a..b/x", Reason::Registry("a..b".into())),
            ("-a.b/x", Reason::Registry("-a.b".into())),
            ("host./x", Reason::Registry("host.".into())),
            ("[::1/x", Reason::Registry("[::1".into())),
            ("[:::]/x", Reason::Registry("[:::]".into())),
            ("[fe80::1%eth0]/x", Reason::Registry("[fe80::1%eth0]".into())),
            ("[::ffff:10.0.0.1]/x", Reason::Registry("[::ffff:10.0.0.1]".into())),
            ("host:99999/x", Reason::Port("99999".into())),
            ("host:/x", Reason::Port(String::new())),
            ("host:+1/x", Reason::Port("+1".into())),
            ("Postgres", Reason::UpperCase("Postgres".into())),
            ("ghcr.io/Team/x", Reason::UpperCase("Team/x".into())),
            ("a//b", Reason::Component(String::new())),
            ("a/", Reason::Component(String::new())),
            ("a___b", Reason::Component("a___b".into())),
            ("a/b-_c", Reason::Component("b-_c".into())),
            ("-a/b", Reason::Component("-a".into())),
            ("pöstgres", Reason::Component("pöstgres".into())),
            ("postgres\n", Reason::Component("postgres\n".into())),
            ("[::1]", Reason::Tag(":1]".into())),
            ("postgres:", Reason::Tag(String::new())),
            ("postgres:.1", Reason::Tag(".1".into())),
            ("postgres:1:2", Reason::Tag("1:2".into())),
            ("postgres@", Reason::Digest(DigestError::Algorithm(String::new()))),
            ("postgres@sha256:00", Reason::Digest(DigestError::Length(2))),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }

    #[test]
    fn lengths_end_where_dockers_do() {
        let repository = format!("ghcr.io/{}", "a".repeat(MAX_REPOSITORY));
        full(&repository);
        assert_eq!(reason(&format!("{repository}a")), Reason::Repository(256));
        // `library/` counts.
        full(&"a".repeat(MAX_REPOSITORY - OFFICIAL.len()));
        assert_eq!(reason(&"a".repeat(MAX_REPOSITORY)), Reason::Repository(263));
        full(&format!("a:{}", "1".repeat(MAX_TAG)));
        assert!(matches!(reason(&format!("a:{}", "1".repeat(MAX_TAG + 1))), Reason::Tag(_)));
        assert_eq!(reason(&"ä".repeat(600)), Reason::TooLong(1200));
    }

    #[test]
    fn a_message_says_what_was_read() {
        let error = "ghcr.io/Team/x".parse::<Reference>().unwrap_err().to_string();
        assert_eq!(
            error,
            "\"ghcr.io/Team/x\" is not a reference to an image: \
             \"Team/x\" has upper-case letters, which only registries and tags may have"
        );
    }
}
