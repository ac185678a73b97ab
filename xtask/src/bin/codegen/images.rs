//! `docs/images.md`: every key of `images.toml`, from the types that read it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use testenv_pins::Pins;

use crate::configuration::{keys, resolved, text};

const EXAMPLE: &str = include_str!("images.toml");

const INTRODUCTION: &str = "\
# Images

<!-- Generated from crates/testenv-pins by `cargo xtask codegen`; edit the comments there. -->

`images.toml` lies beside `testenv.toml` and says which container images testenv may start. A tag can be moved to
another image at any time, a digest cannot: each image has one table with both, so that a change of either is a change
of this file, seen in review. What is not in it is not started.
";

const LOOKING_UP: &str = "
`testenv.toml` asks for an image by the name of its table, `image = \"postgres\"`, or by its reference,
`image = \"postgres:16.4\"`. A reference is found however it is written (`docker.io/library/postgres:16.4` is the same),
but only with the tag that the file has: testenv takes no other tag for it, nor `latest` where there is none. With a digest,
it has to be the one in the file. All digests are sha256.
";

/// The page.
pub(crate) fn page() -> Result<String> {
    Pins::parse(EXAMPLE, Path::new("images.toml")).context("the example at the top of the page")?;
    let schema = testenv_pins::schema().to_value();
    let images = &schema["properties"]["images"];
    let table = resolved(&schema, &images["additionalProperties"]);
    let mut page = format!("{INTRODUCTION}\n```toml\n{EXAMPLE}```\n{LOOKING_UP}");
    write!(page, "\n## `version`\n\n*number, required.* {}\n", text(&schema["properties"]["version"]))?;
    write!(page, "\n## `[images.<name>]`\n\n{}\n", text(images))?;
    keys(&mut page, &schema, table)?;
    Ok(page)
}
