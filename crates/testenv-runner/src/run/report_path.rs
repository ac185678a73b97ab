//! Where nextest writes its JUnit XML.
//!
//! testenv turns the report on with a tool configuration, which ranks below the project's own: a project
//! that has a path of its own keeps it, and the report is read from there.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::args::NextestArgs;

/// The tool configuration that has the report written to `path`.
pub(super) fn tool_config(path: &Path) -> String {
    let mut junit = toml::Table::new();
    junit.insert("path".into(), path.to_string_lossy().into_owned().into());
    let nested = ["junit", "default", "profile"]
        .into_iter()
        .fold(junit, |inner, name| toml::Table::from_iter([(name.to_owned(), toml::Value::Table(inner))]));
    nested.to_string()
}

/// Where the project has the report of this profile written, if it says.
pub(super) fn of_project(cargo: &OsString, args: &NextestArgs, profile: &str) -> io::Result<Option<PathBuf>> {
    let mut locate = Command::new(cargo);
    locate.args(["locate-project", "--workspace", "--message-format", "plain"]).stderr(Stdio::inherit());
    if let Some(manifest) = args.value_of(&["--manifest-path"]) {
        locate.args(["--manifest-path", manifest]);
    }
    let located = String::from_utf8_lossy(&locate.output()?.stdout).trim().to_owned();
    let Some(root) = Path::new(&located).parent().map(Path::to_path_buf) else { return Ok(None) };
    let file = match args.value_of(&["--config-file"]) {
        Some(file) => PathBuf::from(file),
        None => root.join(".config/nextest.toml"),
    };
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(in_config(&text, profile).map(|relative| root.join(relative))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path that a `nextest.toml` gives to the report of a profile, relative to the project's root.
fn in_config(text: &str, profile: &str) -> Option<PathBuf> {
    let config: toml::Table = text.parse().ok()?;
    let profiles = config.get("profile")?;
    let mut name = profile;
    // A chain of `inherits` ends at `default`, or after this many steps.
    for _ in 0..32 {
        let table = profiles.get(name);
        if let Some(path) = table.and_then(|it| it.get("junit")?.get("path")?.as_str()) {
            let store = config.get("store").and_then(|store| store.get("dir")?.as_str());
            return Some(Path::new(store.unwrap_or("target/nextest")).join(profile).join(path));
        }
        if name == "default" {
            break;
        }
        name = table.and_then(|it| it.get("inherits")?.as_str()).unwrap_or("default");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_inherit_the_path_but_not_the_directory() {
        let text = r#"
            [store]
            dir = "out"
            [profile.a]
            inherits = "b"
            [profile.b.junit]
            path = "b.xml"
            [profile.loop]
            inherits = "loop"
            [profile.plain]
        "#;
        assert_eq!(in_config(text, "a"), Some(PathBuf::from("out/a/b.xml")));
        assert_eq!(in_config(text, "loop"), None);
        assert_eq!(in_config(text, "plain"), None);
        let default = "[profile.default.junit]\npath = 'j.xml'";
        assert_eq!(in_config(default, "ci"), Some(PathBuf::from("target/nextest/ci/j.xml")));
        assert_eq!(in_config("no toml [", "ci"), None);
    }

    #[test]
    fn the_tool_configuration_is_toml() {
        let path = Path::new("/a b/\"x\".xml");
        let config: toml::Table = tool_config(path).parse().unwrap();
        assert_eq!(config["profile"]["default"]["junit"]["path"].as_str(), path.to_str());
    }
}
