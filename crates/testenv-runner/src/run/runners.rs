//! Target runners: what cargo puts before a test binary.
//!
//! testenv puts its wrapper there. A runner that the project has already (`qemu-…`, `valgrind`) comes after it
//! and goes on running the binary.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Has the wrapper run all binaries for `triple`, and after it what ran them so far.
pub(super) fn set(command: &mut Command, triple: &str, wrapper: &Path, inner: Vec<String>) {
    let words: Vec<String> = std::iter::once(wrapper.to_string_lossy().into_owned()).chain(inner).collect();
    if words.iter().any(|word| word.contains(char::is_whitespace)) {
        // The variable is split at spaces, whatever the quotes. This setting is not, but cargo refuses it where
        // a file has the same one as a string.
        let list = toml::Value::Array(words.into_iter().map(toml::Value::String).collect());
        command.arg("--config").arg(format!("target.{triple}.runner={list}"));
    } else {
        command.env(variable(triple), words.join(" "));
    }
}

/// The environment variable that names the runner for `triple`.
pub(super) fn variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", triple.to_ascii_uppercase().replace('-', "_"))
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
        let mut command = Command::new("cargo");
        set(&mut command, "x86_64-unknown-linux-gnu", Path::new("/a b/w'\"rap"), vec!["inner".into()]);
        let setting = command.get_args().nth(1).unwrap().to_str().unwrap();
        let config: toml::Table = setting.parse().unwrap();
        let runner = config["target"]["x86_64-unknown-linux-gnu"]["runner"].as_array().unwrap();
        assert_eq!(runner[0].as_str(), Some("/a b/w'\"rap"));
        assert_eq!(runner[1].as_str(), Some("inner"));
    }

    #[test]
    fn others_go_through_the_variable() {
        let mut command = Command::new("cargo");
        set(&mut command, "x86_64-unknown-linux-gnu", Path::new("/wrap"), vec!["inner".into(), "-v".into()]);
        let (name, value) = command.get_envs().next().unwrap();
        assert_eq!(name, "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER");
        assert_eq!(value.unwrap(), "/wrap inner -v");
    }
}
