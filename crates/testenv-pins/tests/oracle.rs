//! References against an independent parser of the same grammar, which its authors test against Docker's own.

use std::net::Ipv6Addr;

use container_image_dist_ref::ImgRef;
use proptest::prelude::*;
use testenv_pins::{Digest, Reference};

/// Name, tag and digest.
type Parts = (String, Option<String>, Option<String>);

/// What the oracle says, less what we refuse on purpose.
fn expected(text: &str) -> Option<Parts> {
    let parsed = ImgRef::new(text).ok()?;
    let is_id = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let first = text.split_once('/').map_or("", |(first, _)| first);
    let host_is_path = parsed.domain().is_none() && first.contains('.');
    let port_exists = parsed.port().is_none_or(|port| port.parse().is_ok_and(|port: u16| port > 0));
    let address = first.strip_prefix('[').and_then(|first| first.split(']').next());
    let address_exists = address.is_none_or(|address| address.parse::<Ipv6Addr>().is_ok());
    if is_id || host_is_path || !port_exists || !address_exists {
        return None;
    }
    let digest = parsed.digest().map(|digest| digest.to_str().to_owned());
    if digest.as_ref().is_some_and(|digest| digest.parse::<Digest>().is_err()) {
        return None;
    }
    Some((parsed.name().to_str().to_owned(), parsed.tag().map(str::to_owned), digest))
}

fn ours(text: &str) -> Option<Parts> {
    let parsed: Reference = text.parse().ok()?;
    Some((parsed.name(), parsed.tag().map(str::to_owned), parsed.digest().map(ToString::to_string)))
}

/// Whether a name in full may stand for one as written, of which the oracle knows nothing.
fn is_in_full(full: &str, written: &str) -> bool {
    let after_hub = ["docker.io/", "index.docker.io/"].iter().find_map(|hub| written.strip_prefix(hub));
    let on_hub = after_hub.unwrap_or(written);
    let names = [written.to_owned(), format!("docker.io/{on_hub}"), format!("docker.io/library/{on_hub}")];
    names.iter().any(|name| name == full)
}

#[track_caller]
fn check(text: &str) {
    let (ours, expected) = (ours(text), expected(text));
    match (&ours, &expected) {
        (Some((full, tag, digest)), Some((written, expected_tag, expected_digest))) => {
            assert!(is_in_full(full, written), "{text:?}: {full} for {written}");
            assert_eq!((tag, digest), (expected_tag, expected_digest), "{text:?}");
        }
        _ => assert_eq!(ours, expected, "{text:?}"),
    }
    let Ok(parsed) = text.parse::<Reference>() else { return };
    // In full, the two also agree on where the registry ends.
    let full = parsed.to_string();
    assert_eq!(full.parse::<Reference>().as_ref(), Ok(&parsed), "{text:?} written in full");
    let oracle = ImgRef::new(&full).unwrap_or_else(|_| panic!("{full:?} is refused"));
    assert_eq!(oracle.domain().map(|it| it.to_str().to_owned()).as_deref(), Some(parsed.registry()));
    assert_eq!(oracle.path().to_str(), parsed.repository());
}

/// Names that parsers get wrong; each is tried with every tag and digest below.
const NAMES: &str = "
    a 0 postgres library/postgres docker.io/library/postgres docker.io/postgres index.docker.io/postgres docker/docker
    index.docker.io/a/b a/b/c/d test_com test.com foo_bar.com foo/foo_bar.com 192.168.1.1 192.168.1.1/repo
    192.168.1.1:5000/repo localhost localhost/x localhost:5000/x LOCALHOST/x localhostx/y test:5000/repo test:5000
    registry/x REGISTRY/x Registry/X Uppercase a/Uppercase test:5000/Uppercase/lowercase
    sub-dom1.foo.com/bar/baz/quux b.gcr.io/test.example.com/my-app xn--n3h.com/myimage
    a.b a..b a__b a___b a_b a-b a--b a----b a.-b a_-b a-_b a._b a_.b dock-.er/docker -a a- _a a_ .a a. __a a__
    a/-b a/b- a.b-/c -a.b/c a.-b/c a.b./c .a.b/c a..b/c a_b.c/d a_b:80/d a_b/d a__b/d A_b/d
    a//b a/ /a / // a/b/ a///b docker/ aa/asdf$$^/aa https://a.com/b docker://a
    a:/b a:b/c a:80:80/c a:080/c a:65535/c a:65536/c a:0/c a:99999999999999999999/c
    [::1] [::1]:5000 [::1]/a [::1]:5000/a [2001:db8::1]:5000/a [2001:db8::]/a [2001:db8:1:2:3:4:5:6]/a
    [2001:DB8::A]/a [fe80::1%eth0]/a [fe80::1%25eth0]:80/a [::ffff:1.2.3.4]/a [::1/a ::1/a ::1]/a []/a [:]/a
    [::1]a/b [::1]5000/a [::1]:/a [g::]/a fc00::1:5000/a a[::1]/b
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde
    a/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    docker.io/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev
";

/// More of them, with characters that have no place in any.
const STRANGE: &[&str] =
    &["", " ", "a b", " a", "a ", "a\n", "\na", "a\0", "ä", "a/ä", "ä.com/a", "a\u{202e}/b"];

const TAGS: &[&str] = &[
    "",
    ":",
    ":latest",
    ":16.4",
    ":16-alpine",
    ":_",
    ":_.-",
    ":.a",
    ":-a",
    ":a.",
    ":a-",
    ":Upper",
    ":5000",
    ":a:b",
    ":a/b",
    ":a b",
    ":ä",
    ":a\n",
];

fn digests() -> Vec<String> {
    let hex = "0123456789abcdef".repeat(4);
    let wrong = ["", "@", "@sha256", "@sha256:", "@:", "@sha256:0f", "@latest"].map(str::to_owned);
    let others = [
        format!("@sha256:{hex}"),
        format!("@sha256:{}", hex.to_uppercase()),
        format!("@sha256:{}", &hex[1..]),
        format!("@sha256:{hex}0"),
        format!("@sha256:{}g", &hex[1..]),
        format!("@SHA256:{hex}"),
        format!("@sha512:{hex}{hex}"),
        format!("@sha256:{hex}@sha256:{hex}"),
        format!("@sha256:{hex}:tag"),
        format!("@sha256:{hex}\n"),
        format!("@{hex}"),
    ];
    wrong.into_iter().chain(others).collect()
}

#[test]
fn tricky_names_with_every_tag_and_digest() {
    for name in NAMES.split_whitespace().chain(STRANGE.iter().copied()) {
        for tag in TAGS {
            for digest in digests() {
                check(&format!("{name}{tag}{digest}"));
            }
        }
    }
}

/// Texts that are references, or nearly. Addresses are short, because the oracle wrongly refuses `::` beside seven
/// groups.
fn nearly_a_reference() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        "[a-zA-Z0-9-]{1,5}(\\.[a-z0-9_-]{1,4}){0,2}(:[0-9]{0,6})?/",
        "\\[[0-9a-f]{0,4}(:{1,2}[0-9a-f]{1,4}){0,4}:{0,2}\\](:[0-9]{1,5})?/",
        Just("localhost/".to_owned()),
        Just(String::new()),
    ];
    let path = "[a-z0-9]{1,4}(([._/-]|__|--)[a-z0-9]{1,3}){0,4}|[a-zA-Z0-9._/-]{0,8}";
    let tag = "|:[A-Za-z0-9_.-]{0,6}";
    let digest = prop_oneof![
        4 => Just(String::new()),
        2 => "@sha256:[0-9a-f]{64}",
        1 => "@[a-z0-9+.-]{0,8}:[0-9a-fA-F]{60,68}",
    ];
    (host, path, tag, digest).prop_map(|(host, path, tag, digest)| format!("{host}{path}{tag}{digest}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_agree_on_what_is_nearly_a_reference(text in nearly_a_reference()) {
        check(&text);
    }

    #[test]
    fn both_agree_after_one_character_is_changed(
        text in nearly_a_reference(),
        at in any::<prop::sample::Index>(),
        other in "[ -~]|ä|\n",
    ) {
        let at = at.index(text.len() + 1);
        check(&format!("{}{other}{}", &text[..at], &text[at..]));
        check(&format!("{}{other}{}", &text[..at], text.get(at + 1..).unwrap_or_default()));
    }

    #[test]
    fn both_agree_on_any_text(text in "\\PC{0,40}") {
        check(&text);
    }
}
