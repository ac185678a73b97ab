//! What holds for every `images.toml`, whatever it says.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use testenv_pins::{Pins, Reference};

/// A file as people write it: images with tags, each with a digest, names that tell nothing.
fn file() -> impl Strategy<Value = String> {
    let image = "(|localhost:5000/|ghcr\\.io/a/)[a-c]{1,2}(|:[12])";
    let images = prop::collection::hash_map("n[0-9]{1,2}", (image, "[0-9a-f]{64}"), 0..12);
    images.prop_map(|images| {
        let mut taken = BTreeSet::new();
        let mut text = "version = 1\n".to_owned();
        for (name, (image, digits)) in images {
            if taken.insert(image.clone()) {
                text += &format!("[images.{name}]\nimage = \"{image}\"\ndigest = \"sha256:{digits}\"\n");
            }
        }
        text
    })
}

fn parse(text: &str) -> Pins {
    Pins::parse(text, Path::new("images.toml")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pin_is_found_by_each_of_its_names(text in file()) {
        let pins = parse(&text);
        for pin in pins.iter() {
            for asked in [pin.name(), &pin.image().to_string(), &pin.to_string()] {
                prop_assert_eq!(pins.resolve(asked), Ok(pin));
            }
            // Without the tag, other tags of that digest are as good: it is the same image.
            let found = pins.resolve(&pin.pull_reference());
            prop_assert_eq!(found.map(|it| it.pull_reference()), Ok(pin.pull_reference()));
        }
    }

    #[test]
    fn what_is_found_was_asked_for_and_is_in_the_file(
        text in file(),
        asked in "(|localhost:5000/|docker\\.io/library/|ghcr\\.io/a/)[a-c]{1,2}(|:[12])(|@sha256:[0-9a-f]{64})",
    ) {
        let pins = parse(&text);
        match pins.resolve(&asked) {
            Ok(pin) => {
                let (image, digest) = asked.parse::<Reference>().unwrap().split_digest();
                prop_assert_eq!(&image, pin.image());
                prop_assert!(digest.is_none_or(|digest| digest == *pin.digest()));
                prop_assert!(text.contains(pin.digest().as_str()));
            }
            Err(error) => prop_assert!(!error.hint().is_empty(), "{}", error),
        }
    }

    #[test]
    fn a_spoiled_file_is_read_or_its_fault_lies_within(
        text in file(),
        at in any::<prop::sample::Index>(),
        other in "[ -~]|ä|\n|\r\n|\"\"\"|\0",
    ) {
        let at = at.index(text.len() + 1);
        let spoiled = format!("{}{other}{}", &text[..at], text.get(at + 1..).unwrap_or_default());
        if let Err(error) = Pins::parse(&spoiled, Path::new("images.toml")) {
            for fault in error.faults() {
                let line = spoiled.split('\n').nth(fault.line - 1);
                prop_assert!(line.is_some_and(|line| fault.column <= line.chars().count() + 1), "{}", error);
            }
        }
    }

    #[test]
    fn any_text_is_an_answer_and_not_a_panic(text in "(version = 1\n)?\\PC{0,80}", asked in "\\PC{0,40}") {
        let pins = Pins::parse(&text, Path::new("images.toml"));
        let pins = pins.unwrap_or_else(|_| Pins::none(Path::new("images.toml")));
        prop_assert!(pins.resolve(&asked).is_err());
    }
}
