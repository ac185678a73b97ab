//! `images.toml`: its shape, and the checks that turn it into pins.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::digest::Digest;
use crate::fault::{Fault, PinsError, Source};
use crate::pins::Pin;
use crate::reference::{Reference, is_component};

/// Bytes of the file at the most.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Images in the file at the most.
pub const MAX_IMAGES: usize = 1_000;
/// Characters of a name at the most.
const MAX_NAME: usize = 63;
/// Platforms of an image at the most.
const MAX_PLATFORMS: usize = 16;
/// Characters of a source or a note at the most.
const MAX_TEXT: usize = 1_000;
/// The version of the format.
const VERSION: i64 = 1;

/// The whole of `images.toml`.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct File {
    /// Version of this format: `1`.
    #[expect(dead_code, reason = "checked before the rest of the file is read")]
    version: i64,
    /// One table per image. `testenv.toml` uses its name: 1 to 63 of a-z and 0-9, and between them `-` or `_`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, Table>"))]
    images: BTreeMap<Spanned<String>, Spanned<Table>>,
}

/// One image and the digest it is pinned to.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, expecting = "a table with `image` and `digest`")]
struct Table {
    /// The image, with the tag it was published under: `postgres:16.4`, `ghcr.io/team/orders:2`,
    /// `localhost:5000/x:dev`. Without a registry it is Docker Hub's. No two tables have the same.
    #[cfg_attr(feature = "schema", schemars(with = "String", required))]
    image: Option<Spanned<String>>,
    /// What that tag stands for: `sha256:` and 64 digits. For an image of several platforms, the digest of the index
    /// and not of one platform's image: `docker buildx imagetools inspect IMAGE` prints it as `Digest`.
    #[cfg_attr(feature = "schema", schemars(with = "String", required))]
    digest: Option<Spanned<String>>,
    /// Platforms that the image is for, such as `["linux/amd64", "linux/arm64"]`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    platforms: Vec<Spanned<String>>,
    /// Address of what the image is made from, where its release notes are: `https://github.com/…`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    source: Option<Spanned<String>>,
    /// A word to reviewers, such as why it stays at this version.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    note: Option<Spanned<String>>,
}

/// What is looked at first, so that a file of a later version is called that.
#[derive(Deserialize)]
struct Header {
    version: Option<Spanned<toml::Value>>,
}

/// JSON schema of the file, with the documentation of every key.
#[cfg(feature = "schema")]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

/// Reads the text of a file into its pins, by name.
pub(crate) fn read(text: &str, path: &Path) -> Result<BTreeMap<String, Pin>, PinsError> {
    let source = Source { path, text };
    check_size(source)?;
    check_version(source)?;
    let file: File = toml::from_str(text).map_err(|error| source.toml(&error))?;
    let mut images: Vec<_> = file.images.into_iter().collect();
    images.sort_by_key(|(name, _)| name.span().start);
    if let Some((name, _)) = images.get(MAX_IMAGES) {
        let what = format!("there are {} images, and {MAX_IMAGES} are the most", images.len());
        return Err(source.fault(name.span(), what, "").into());
    }
    let mut reader = Reader::new(source);
    for (name, table) in images {
        reader.take(name, table.into_inner());
    }
    reader.finish()
}

fn check_size(source: Source<'_>) -> Result<(), Fault> {
    if source.text.len() <= MAX_FILE_BYTES {
        return Ok(());
    }
    let what = format!("the file has {} bytes, and {MAX_FILE_BYTES} are the most", source.text.len());
    Err(source.fault(0..0, what, ""))
}

fn check_version(source: Source<'_>) -> Result<(), Fault> {
    let header: Header = toml::from_str(source.text).map_err(|error| source.toml(&error))?;
    let begin = format!("begin the file with `version = {VERSION}`");
    let Some(version) = header.version else {
        return Err(source.fault(0..0, "the file does not say its version", begin));
    };
    match version.get_ref().as_integer() {
        Some(VERSION) => Ok(()),
        Some(later) if later > VERSION => {
            let what = format!("the file is of version {later}, and this testenv reads version {VERSION}");
            Err(source.fault(version.span(), what, "update testenv"))
        }
        _ => Err(source.fault(version.span(), "there is no such version", begin)),
    }
}

/// What has been read so far.
struct Reader<'a> {
    source: Source<'a>,
    pins: BTreeMap<String, Pin>,
    /// Each image's name and where its table begins.
    images: BTreeMap<Reference, Spanned<String>>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn new(source: Source<'a>) -> Self {
        Self { source, pins: BTreeMap::new(), images: BTreeMap::new(), faults: Vec::new() }
    }

    fn take(&mut self, name: Spanned<String>, table: Table) {
        let image_span = table.image.as_ref().map_or(name.span(), Spanned::span);
        match pin(self.source, &name, table) {
            Err(fault) => self.faults.push(fault),
            Ok(pin) => match self.images.get(&pin.image) {
                Some(first) => {
                    let what = self.twice(&pin, first);
                    let hint = "keep one of the two; any number of services may use its name";
                    self.faults.push(self.source.fault(image_span, what, hint));
                }
                None => {
                    self.images.insert(pin.image.clone(), name);
                    self.pins.insert(pin.name.clone(), pin);
                }
            },
        }
    }

    fn twice(&self, pin: &Pin, first: &Spanned<String>) -> String {
        let line = self.source.line(first.span().start);
        let first = first.get_ref();
        let to = match self.pins.get(first) {
            Some(other) if other.digest != pin.digest => ", to another digest",
            _ => "",
        };
        format!("{} is already pinned by [images.{first}] on line {line}{to}", pin.image)
    }

    fn finish(mut self) -> Result<BTreeMap<String, Pin>, PinsError> {
        self.check_names();
        match self.faults.is_empty() {
            true => Ok(self.pins),
            false => Err(PinsError::new(self.faults)),
        }
    }

    /// `image = "x"` in `testenv.toml` must not mean the table `x` to one reader and the image `x` to another.
    fn check_names(&mut self) {
        for name in self.images.values() {
            let Ok(read_as_image) = name.get_ref().parse::<Reference>() else { continue };
            let Some(other) = self.images.get(&read_as_image).filter(|other| *other != name) else {
                continue;
            };
            let (name_text, other) = (name.get_ref(), other.get_ref());
            let what =
                format!("{name_text:?} is the name of this image and the reference of [images.{other}]");
            let hint = format!("give the image of [images.{other}] its tag, or this one another name");
            self.faults.push(self.source.fault(name.span(), what, hint));
        }
    }
}

/// Whether a table may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && is_component(name) && !name.contains('.')
}

/// The end of a sentence that says what prints a digest.
pub(crate) fn how_to_find_a_digest(image: &Reference) -> String {
    format!("`docker buildx imagetools inspect {image}` prints")
}

/// The pin of one table, or the first thing that is wrong with it.
fn pin(source: Source<'_>, name: &Spanned<String>, table: Table) -> Result<Pin, Fault> {
    check_name(source, name)?;
    let image = image(source, name, table.image)?;
    Ok(Pin {
        digest: digest(source, &image, table.digest)?,
        platforms: platforms(source, table.platforms)?,
        source: table.source.map(|address| checked_address(source, address)).transpose()?,
        note: table.note.map(|note| checked_text(source, note)).transpose()?,
        name: name.get_ref().clone(),
        image: image.into_inner(),
    })
}

fn check_name(source: Source<'_>, name: &Spanned<String>) -> Result<(), Fault> {
    if is_name(name.get_ref()) {
        return Ok(());
    }
    let what = format!("{:?} cannot be the name of an image", name.get_ref());
    let hint = format!("1 to {MAX_NAME} of a-z and 0-9, and between them `-` or `_`");
    Err(source.fault(name.span(), what, hint))
}

fn image(
    source: Source<'_>,
    name: &Spanned<String>,
    image: Option<Spanned<String>>,
) -> Result<Spanned<Reference>, Fault> {
    let Some(image) = image else {
        let what = format!("[images.{}] does not say which image it is", name.get_ref());
        return Err(source.fault(name.span(), what, "add `image = \"…\"`, with its tag"));
    };
    let reference: Reference =
        image.get_ref().parse().map_err(|error| source.fault(image.span(), format!("{error}"), ""))?;
    match reference.split_digest() {
        (reference, None) => Ok(Spanned::new(image.span(), reference)),
        (_, Some(digest)) => {
            let tagged = image.get_ref().split('@').next().unwrap_or_default();
            let hint = format!("write `image = \"{tagged}\"` and `digest = \"{digest}\"`");
            Err(source.fault(image.span(), "the digest has a key of its own", hint))
        }
    }
}

fn digest(
    source: Source<'_>,
    image: &Spanned<Reference>,
    digest: Option<Spanned<String>>,
) -> Result<Digest, Fault> {
    let prints = how_to_find_a_digest(image.get_ref());
    let Some(digest) = digest else {
        let what = format!("{} is not pinned: there is no digest", image.get_ref());
        return Err(source.fault(image.span(), what, format!("add `digest = \"sha256:…\"`, which {prints}")));
    };
    let parsed = digest.get_ref().parse::<Digest>();
    parsed.map_err(|error| {
        source.fault(digest.span(), error.to_string(), format!("write the one that {prints}"))
    })
}

fn platforms(source: Source<'_>, platforms: Vec<Spanned<String>>) -> Result<Vec<String>, Fault> {
    if let Some(excess) = platforms.get(MAX_PLATFORMS) {
        let what = format!("there are {} platforms, and {MAX_PLATFORMS} are the most", platforms.len());
        return Err(source.fault(excess.span(), what, ""));
    }
    if let Some(other) = platforms.iter().find(|platform| !is_platform(platform.get_ref())) {
        let what = format!("{:?} is not a platform", other.get_ref());
        return Err(source.fault(other.span(), what, "write it as `linux/amd64` or `linux/arm/v7`"));
    }
    Ok(platforms.into_iter().map(Spanned::into_inner).collect())
}

/// System, architecture and perhaps variant.
fn is_platform(platform: &str) -> bool {
    let is_word = |part: &str| part.len() <= MAX_NAME && is_component(part);
    matches!(platform.split('/').count(), 2 | 3) && platform.split('/').all(is_word)
}

fn checked_address(source: Source<'_>, address: Spanned<String>) -> Result<String, Fault> {
    let rest = ["https://", "http://"].iter().find_map(|scheme| address.get_ref().strip_prefix(scheme));
    let is_outside = |c: char| c.is_whitespace() || c.is_control();
    if rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(is_outside)) {
        return checked_text(source, address);
    }
    let what = format!("{:?} is not an address", address.get_ref());
    Err(source.fault(address.span(), what, "write it as `https://…`"))
}

fn checked_text(source: Source<'_>, text: Spanned<String>) -> Result<String, Fault> {
    match text.get_ref().chars().count() {
        0..=MAX_TEXT => Ok(text.into_inner()),
        length => {
            let what = format!("this has {length} characters, and {MAX_TEXT} are the most");
            Err(source.fault(text.span(), what, ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const OTHER: &str = "sha256:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// The text of the file's faults, with a version before it and `{digest}` and `{other}` filled in.
    fn faults(images: &str) -> String {
        let filled = images.replace("{digest}", DIGEST).replace("{other}", OTHER);
        raw(&format!("version = 1\n{filled}"))
    }

    fn raw(text: &str) -> String {
        read(text, Path::new("images.toml")).unwrap_err().to_string()
    }

    #[track_caller]
    fn check(images: &str, expected: &str) {
        assert_eq!(faults(images), expected.trim());
    }

    #[test]
    fn everything_a_table_may_hold() {
        let text = format!(
            r#"
            version = 1
            [images.orders-db]
            image = "localhost:5000/team/orders:1.2"
            digest = "{DIGEST}"
            platforms = ["linux/amd64", "linux/arm/v7"]
            source = "https://example.com/orders"
            note = "stays at 1.2 until orders can do 2"
            "#
        );
        let pins = read(&text, Path::new("images.toml")).unwrap();
        let pin = &pins["orders-db"];
        assert_eq!(pin.to_string(), format!("localhost:5000/team/orders:1.2@{DIGEST}"));
        assert_eq!(pin.pull_reference(), format!("localhost:5000/team/orders@{DIGEST}"));
        assert_eq!((pin.name(), pin.digest().as_str(), pin.platforms().len()), ("orders-db", DIGEST, 2));
        assert!(pin.source().is_some() && pin.note().is_some());
    }

    #[test]
    fn an_image_without_a_digest_is_not_pinned() {
        check(
            "[images.db]\nimage = \"postgres:16.4\"\n",
            r#"
images.toml:3:9: docker.io/library/postgres:16.4 is not pinned: there is no digest
  3 | image = "postgres:16.4"
    |         ^^^^^^^^^^^^^^^
  hint: add `digest = "sha256:…"`, which `docker buildx imagetools inspect docker.io/library/postgres:16.4` prints"#,
        );
    }

    #[test]
    fn a_digest_that_is_none() {
        check(
            "[images.db]\nimage = \"ghcr.io/a/b:1\"\ndigest = \"sha256:4f2\"\n",
            r#"
images.toml:4:10: a digest has 64 digits after `sha256:`, this one 3
  4 | digest = "sha256:4f2"
    |          ^^^^^^^^^^^^
  hint: write the one that `docker buildx imagetools inspect ghcr.io/a/b:1` prints"#,
        );
        let upper =
            faults(&format!("[images.db]\nimage = \"a/b\"\ndigest = \"{}\"", DIGEST.replace('b', "B")));
        assert!(upper.contains("lower case, this one has 'B'"), "{upper}");
        let md5 = faults("[images.db]\nimage = \"a/b\"\ndigest = \"md5:00\"");
        assert!(md5.contains("begins with `sha256:`, this one with \"md5:\""), "{md5}");
    }

    #[test]
    fn the_digest_has_one_place() {
        let text = faults("[images.db]\nimage = \"postgres:16.4@{digest}\"\n");
        let hint = format!("  hint: write `image = \"postgres:16.4\"` and `digest = \"{DIGEST}\"`");
        assert!(text.starts_with("images.toml:3:9: the digest has a key of its own\n"), "{text}");
        assert!(text.ends_with(&hint), "{text}");
    }

    #[test]
    fn an_image_that_is_none_or_not_there() {
        let text = faults("[images.db]\nimage = \"ghcr.io/Team/x\"\ndigest = \"{digest}\"");
        assert!(text.contains("\"ghcr.io/Team/x\" is not a reference to an image: \"Team/x\" has"), "{text}");
        check(
            "[images.db]\ndigest = \"{digest}\"\n",
            r#"
images.toml:2:9: [images.db] does not say which image it is
  2 | [images.db]
    |         ^^
  hint: add `image = "…"`, with its tag"#,
        );
    }

    #[test]
    fn an_image_has_one_table_however_it_is_written() {
        let two = |second: &str| {
            faults(&format!(
                "[images.db]\nimage = \"postgres:16\"\ndigest = \"{{digest}}\"\n\
                 [images.a]\nimage = \"docker.io/library/postgres:16\"\ndigest = \"{second}\""
            ))
        };
        let other = two("{other}");
        let what =
            "images.toml:6:9: docker.io/library/postgres:16 is already pinned by [images.db] on line 2";
        assert!(other.starts_with(&format!("{what}, to another digest\n")), "{other}");
        let same = two("{digest}");
        assert!(same.starts_with(&format!("{what}\n")), "{same}");
    }

    #[test]
    fn two_tags_may_stand_for_one_digest() {
        let text = format!(
            "version = 1\nimages.a = {{ image = \"x:1\", digest = \"{DIGEST}\" }}\n\
             images.b = {{ image = \"x:1.2\", digest = \"{DIGEST}\" }}"
        );
        assert_eq!(read(&text, Path::new("images.toml")).unwrap().len(), 2);
    }

    #[test]
    fn a_name_is_no_other_images_reference() {
        let text = faults(
            "[images.postgres]\nimage = \"ghcr.io/team/postgres:16\"\ndigest = \"{digest}\"\n\
             [images.plain]\nimage = \"postgres\"\ndigest = \"{other}\"",
        );
        let what = "\"postgres\" is the name of this image and the reference of [images.plain]";
        assert!(text.starts_with(&format!("images.toml:2:9: {what}\n")), "{text}");
    }

    #[test]
    fn unknown_keys_and_other_shapes() {
        let text = faults("[images.db]\nimage = \"a\"\ndigset = \"{digest}\"");
        assert!(
            text.starts_with("images.toml:4:1: unknown field `digset`, expected one of `image`"),
            "{text}"
        );
        let text = faults("[image.db]\n");
        assert!(text.starts_with("images.toml:2:2: unknown field `image`, expected `version` or"), "{text}");
        let text = faults("[images]\ndb = \"postgres:16\"");
        assert!(
            text.contains("3:6: invalid type: string \"postgres:16\", expected a table with `image`"),
            "{text}"
        );
        let text = faults("[images.db]\n[images.db]\n");
        assert!(text.starts_with("images.toml:3:9: duplicate key\n"), "{text}");
        let text = faults("[images.db\n");
        assert!(text.starts_with("images.toml:2:11: "), "{text}");
    }

    #[test]
    fn names_are_words() {
        for name in ["Db", "\"a.b\"", "\"a/b\"", "-a", "a_", "\"\"", &"a".repeat(64)] {
            let text = faults(&format!("[images.{name}]\nimage = \"a\"\ndigest = \"{{digest}}\""));
            assert!(text.contains("cannot be the name of an image"), "{text}");
        }
    }

    #[test]
    fn platforms_sources_and_notes() {
        let with =
            |line: &str| faults(&format!("[images.db]\nimage = \"a:1\"\ndigest = \"{{digest}}\"\n{line}"));
        for platform in ["linux", "linux/", "linux/amd64/v1/x", "Linux/amd64"] {
            let text = with(&format!("platforms = [\"linux/arm64\", \"{platform}\"]"));
            assert!(text.starts_with("images.toml:5:29: "), "{text}");
            assert!(text.contains("is not a platform"), "{text}");
        }
        assert!(with(&format!("platforms = {:?}", ["linux/amd64"; 17])).contains("there are 17 platforms"));
        assert!(with("source = \"github.com/x\"").contains("is not an address"));
        assert!(with(&format!("note = \"{}\"", "x".repeat(1001))).contains("this has 1001 characters"));
    }

    #[test]
    fn every_image_that_is_wrong_is_named_in_the_order_of_the_file() {
        let text = faults("[images.z]\nimage = \"z:1\"\n[images.a]\nimage = \"a:1\"\n");
        let places: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("images.toml:")).collect();
        assert!(places[0].starts_with("3:9: docker.io/library/z:1 is not pinned"), "{text}");
        assert!(places[1].starts_with("5:9: docker.io/library/a:1 is not pinned"), "{text}");
        // That a name means two images is only seen in the end.
        let text = faults(
            "[images.a]\nimage = \"x:1\"\ndigest = \"{digest}\"\n\
             [images.b]\nimage = \"a\"\ndigest = \"{other}\"\n[images.c]\nimage = \"c:1\"\n",
        );
        assert!(text.starts_with("images.toml:2:9: \"a\" is the name of this image and"), "{text}");
    }

    #[test]
    fn the_version_comes_first() {
        assert!(raw("").starts_with("images.toml:1:1: the file does not say its version\n"));
        let later = raw("version = 2\n[pictures]\n");
        assert!(later.starts_with("images.toml:1:11: the file is of version 2"), "{later}");
        for none in ["version = 0", "version = \"1\""] {
            assert!(raw(none).ends_with("hint: begin the file with `version = 1`"), "{none}");
        }
        assert!(read("version = 1", Path::new("images.toml")).unwrap().is_empty());
    }

    #[test]
    fn size_and_number_are_limited() {
        let long = format!("version = 1\n#{}", "x".repeat(MAX_FILE_BYTES));
        assert!(raw(&long).contains("1048576 are the most"));
        let many: String = (0..=MAX_IMAGES).map(|n| format!("[images.i{n}]\nimage = \"i{n}:1\"\n")).collect();
        assert!(faults(&many).contains("there are 1001 images, and 1000 are the most"));
    }
}
