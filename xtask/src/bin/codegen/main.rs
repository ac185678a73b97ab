//! Writes the pages of `docs/` that are generated from code. Started by `cargo xtask codegen`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "this is a program for the terminal")]

mod configuration;
mod images;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let check = std::env::args().skip(1).any(|argument| argument == "--check");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let pages: [(PathBuf, String); 3] = [
        (docs.join("configuration.md"), configuration::page()?),
        (docs.join("images.md"), images::page()?),
        (docs.join("openapi.json"), with_last_newline(testenv_broker::openapi())),
    ];
    let mut stale = Vec::new();
    for (path, text) in pages {
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if check {
            stale.push(name);
            continue;
        }
        fs::create_dir_all(&docs)?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        println!("wrote docs/{name}");
    }
    if !stale.is_empty() {
        bail!(
            "{} in docs/ is not what the code says; run `cargo xtask codegen` and commit",
            stale.join(", ")
        );
    }
    Ok(())
}

fn with_last_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
