//! Target runners: what cargo puts before a test binary.
//!
//! testenv puts its wrapper there. A runner that the project has already (`qemu-…`, `valgrind`) comes after it
//! and goes on running the binary.

use std::path::{Path, PathBuf};

/// The setting for cargo's `--config` that has the wrapper run all binaries for `triple`.
pub(super) fn setting(triple: &str, wrapper: &Path, inner: Vec<String>) -> String {
    let words = std::iter::once(wrapper.to_string_lossy().into_owned()).chain(inner);
    let list = toml::Value::Array(words.map(toml::Value::String).collect());
    format!("target.{triple}.runner={list}")
}

/// The runner that `.cargo/config.toml` of `start` or a directory above it sets for exactly this triple.
/// Runners for `cfg(…)` are not looked for.
pub(super) fn of_cargo_config(start: &Path, triple: &str) -> Vec<String> {
    let files =
        start.ancestors().flat_map(|dir| ["config.toml", "config"].map(|name| dir.join(".cargo").join(name)));
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let Ok(config) = text.parse::<toml::Table>() else { continue };
        let Some(runner) = config.get("target").and_then(|targets| targets.get(triple)?.get("runner")) else {
            continue;
        };
        let mut words: Vec<String> = match runner {
            toml::Value::String(line) => line.split_whitespace().map(str::to_owned).collect(),
            toml::Value::Array(words) => {
                words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
            }
            _ => continue,
        };
        // As cargo has it: a program with a slash is meant from where the `.cargo` directory is.
        if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
            let base = file.ancestors().nth(2).map(PathBuf::from).unwrap_or_default();
            *program = base.join(&*program).to_string_lossy().into_owned();
        }
        return words;
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_runner_of_the_triple_is_found() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(inner.join(".cargo")).unwrap();
        std::fs::create_dir_all(root.path().join(".cargo")).unwrap();
        std::fs::write(inner.join(".cargo/config.toml"), "[target.t2]\nrunner = 'near x'").unwrap();
        let outer = "[target.t1]\nrunner = ['tools/run', '-v']\n[target.t2]\nrunner = 'far'";
        std::fs::write(root.path().join(".cargo/config.toml"), outer).unwrap();
        assert_eq!(of_cargo_config(&inner, "t2"), ["near", "x"]);
        let tool = root.path().join("tools/run").to_string_lossy().into_owned();
        assert_eq!(of_cargo_config(&inner, "t1"), [tool, "-v".to_owned()]);
        assert_eq!(of_cargo_config(&inner, "t3"), [""; 0]);
    }

    #[test]
    fn paths_with_spaces_and_quotes_stay_one_word() {
        let text = setting("x86_64-unknown-linux-gnu", Path::new("/a b/w'\"rap"), vec!["inner".into()]);
        let config: toml::Table = text.parse().unwrap();
        let runner = config["target"]["x86_64-unknown-linux-gnu"]["runner"].as_array().unwrap();
        assert_eq!(runner[0].as_str(), Some("/a b/w'\"rap"));
        assert_eq!(runner[1].as_str(), Some("inner"));
    }
}
