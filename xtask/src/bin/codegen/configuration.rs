//! `docs/configuration.md`: every table and key of `testenv.toml`, from the types that read it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use testenv_config::Config;

const EXAMPLE: &str = include_str!("example.toml");

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from crates/testenv-config by `cargo xtask codegen`; edit the comments there. -->

`testenv.toml` says what a workspace's tests need. It lies in the workspace's root, and everything in it has a
default: a file without any `[services.…]` is as good as none. Paths are relative to the file's directory. Sizes are
written `512MiB` or `2GiB`, times `500ms`, `90s`, `10m` or `2h`. An unknown key is an error that names its line.
";

/// The page.
pub(crate) fn page() -> Result<String> {
    Config::parse(EXAMPLE, Path::new("example.toml")).context("the example at the top of the page")?;
    let schema = schemars::schema_for!(Config).to_value();
    let mut page = format!("{INTRODUCTION}\n```toml\n{EXAMPLE}```\n");
    for (name, table) in properties(&schema) {
        let is_role = table.get("additionalProperties").is_some();
        let (heading, of_keys) = match is_role {
            true => (format!("[{name}.<role>]"), resolved(&schema, &table["additionalProperties"])),
            false => (format!("[{name}]"), resolved(&schema, table)),
        };
        write!(page, "\n## `{heading}`\n\n{}\n", described(table, of_keys))?;
        keys(&mut page, &schema, of_keys)?;
    }
    write!(page, "\n## A command that prepares a service\n\n")?;
    let command = &schema["$defs"]["PrepareTable"];
    writeln!(page, "The table that `migrations` and `seed` take in place of a path.")?;
    keys(&mut page, &schema, command)?;
    Ok(page)
}

/// A heading and a paragraph for each key of a table.
pub(crate) fn keys(page: &mut String, schema: &Value, table: &Value) -> Result<()> {
    let required = table["required"].as_array().map_or(&[][..], Vec::as_slice);
    for (key, property) in properties(table) {
        let kind = resolved(schema, property);
        let needed = match (property.get("default"), required.iter().any(|it| it == key)) {
            (_, true) => ", required".to_owned(),
            (Some(Value::Null) | None, _) => String::new(),
            (Some(default), _) => format!(", default `{default}`"),
        };
        write!(page, "\n### `{key}`\n\n*{}{needed}.* {}\n", type_of(schema, property), text(property))?;
        let choices: Vec<_> = choices(kind).filter(|(_, meaning)| !meaning.is_empty()).collect();
        if !choices.is_empty() {
            page.push('\n');
        }
        for (value, meaning) in choices {
            writeln!(page, "- `{value}`: {meaning}")?;
        }
    }
    Ok(())
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flat_map(Map::iter)
}

/// What a `$ref` means, also where it stands beside `null`.
pub(crate) fn resolved<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let in_any = value["anyOf"].as_array().into_iter().flatten().find(|one| one.get("$ref").is_some());
    let reference = in_any.unwrap_or(value)["$ref"].as_str();
    match reference.and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => &schema["$defs"][name],
        None => value,
    }
}

/// Values that an enumeration has, each with its meaning.
fn choices(kind: &Value) -> impl Iterator<Item = (&str, String)> {
    let one_of = kind["oneOf"].as_array().into_iter().flatten();
    one_of.filter_map(|one| Some((one["const"].as_str()?, text(one))))
}

fn type_of(schema: &Value, property: &Value) -> String {
    let kind = resolved(schema, property);
    if choices(kind).next().is_some() {
        return "one of these".into();
    }
    if let Some(any) = kind["anyOf"].as_array() {
        let names: Vec<_> = any.iter().map(|one| type_of(schema, one)).collect();
        return names.join(", or ");
    }
    let named = kind["type"].as_str().or_else(|| kind["type"].as_array()?.first()?.as_str());
    match named.unwrap_or_default() {
        "string" if kind.get("examples").is_some() => text(kind),
        "integer" => "number".into(),
        "array" if kind.get("prefixItems").is_some() => "two numbers".into(),
        "array" => format!("list of {}s", type_of(schema, &kind["items"])),
        "object" if kind.get("additionalProperties").is_some_and(Value::is_object) => {
            "table of values by name".into()
        }
        "object" => "table".into(),
        other => other.into(),
    }
}

/// What the key says, and what the type says where that is more than the same again.
fn described(outer: &Value, inner: &Value) -> String {
    let (outer, inner) = (text(outer), text(inner));
    match inner.starts_with(outer.trim_end_matches('.')) {
        true => inner,
        false => format!("{outer}\n\n{inner}").trim_end().to_owned(),
    }
}

/// The documentation comment, its lines joined within a paragraph.
pub(crate) fn text(value: &Value) -> String {
    let text = value["description"].as_str().unwrap_or_default();
    text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}
