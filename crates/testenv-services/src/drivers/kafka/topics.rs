//! Files of topics: a line each, `orders partitions=3 cleanup.policy=compact`.

use std::collections::BTreeMap;

/// Longest name that Kafka takes.
const MAX_NAME: usize = 249;
/// Partitions of a topic at the most: each costs the server files and memory.
const MAX_PARTITIONS: i32 = 1000;

/// A topic to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topic {
    /// Line in the file, from 1.
    pub(super) line: usize,
    pub(super) name: String,
    /// As many as the server gives topics that do not say when absent, and so with the replicas.
    pub(super) partitions: Option<i32>,
    pub(super) replicas: Option<i16>,
    /// Settings of the topic, such as `retention.ms`.
    pub(super) settings: Vec<(String, String)>,
}

/// Reads a file of topics, whose names get `prefix`.
///
/// # Errors
/// The line that is wrong, and what is wrong with it.
pub(super) fn parse(content: &[u8], prefix: &str) -> Result<Vec<Topic>, (usize, String)> {
    let mut topics = Vec::new();
    let mut lines = BTreeMap::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate().map(|(at, line)| (at + 1, line)) {
        let line = std::str::from_utf8(line).map_err(|_| (number, "it is not UTF-8".to_owned()))?;
        let line = line.split_once('#').map_or(line, |(before, _comment)| before);
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let topic = topic(number, name, words, prefix).map_err(|what| (number, what))?;
        if let Some(before) = lines.insert(topic.name.clone(), number) {
            return Err((number, format!("the topic {name} is in line {before} already")));
        }
        topics.push(topic);
    }
    Ok(topics)
}

fn topic<'a>(
    line: usize,
    name: &str,
    words: impl Iterator<Item = &'a str>,
    prefix: &str,
) -> Result<Topic, String> {
    check_name(name, prefix.len())?;
    let mut topic = Topic { line, name: format!("{prefix}{name}"), ..Topic::default() };
    for word in words {
        let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!("{word:?} is no setting; settings are written as partitions=3"));
        };
        let known = match key {
            "partitions" => topic.partitions.is_some(),
            "replication-factor" => topic.replicas.is_some(),
            _ => topic.settings.iter().any(|(name, _)| name == key),
        };
        if known {
            return Err(format!("{key} is given twice"));
        }
        match key {
            "partitions" => topic.partitions = Some(number(key, value, MAX_PARTITIONS)?),
            "replication-factor" => topic.replicas = Some(number(key, value, i32::from(i16::MAX))? as i16),
            _ => topic.settings.push((key.to_owned(), value.to_owned())),
        }
    }
    Ok(topic)
}

fn check_name(name: &str, prefix_length: usize) -> Result<(), String> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.chars().all(word) || matches!(name, "." | "..") {
        return Err(format!("{name:?} is no name of a topic: letters, digits, `.`, `_` and `-` only"));
    }
    let room = MAX_NAME.saturating_sub(prefix_length);
    if name.len() > room {
        return Err(format!("the name of the topic has {} characters; there is room for {room}", name.len()));
    }
    Ok(())
}

fn number(key: &str, value: &str, largest: i32) -> Result<i32, String> {
    let number = value.parse().ok().filter(|number| (1..=largest).contains(number));
    number.ok_or_else(|| format!("{key}={value} is not a number from 1 to {largest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let (line, what) = parse(text.as_bytes(), "").unwrap_err();
        format!("{line}: {what}")
    }

    #[test]
    fn a_line_is_a_topic_with_its_settings() {
        let text = "# what the shop needs\n\norders partitions=3 cleanup.policy=compact,delete  # the orders\r\n\
                    audit retention.ms=-1 replication-factor=1";
        let topics = parse(text.as_bytes(), "t_ab-").unwrap();
        let orders = Topic {
            line: 3,
            name: "t_ab-orders".into(),
            partitions: Some(3),
            replicas: None,
            settings: vec![("cleanup.policy".into(), "compact,delete".into())],
        };
        assert_eq!(topics[0], orders);
        assert_eq!(topics[1].replicas, Some(1));
        assert_eq!(topics[1].settings, [("retention.ms".into(), "-1".into())]);
        assert!(parse(b"", "").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert_eq!(refused("a\nb partitions=0"), "2: partitions=0 is not a number from 1 to 1000");
        assert_eq!(
            refused("a partitions=99999999999"),
            "1: partitions=99999999999 is not a number from 1 to 1000"
        );
        assert_eq!(
            refused("a compact"),
            "1: \"compact\" is no setting; settings are written as partitions=3"
        );
        assert_eq!(refused("a =b"), "1: \"=b\" is no setting; settings are written as partitions=3");
        assert_eq!(refused("a x=1 x=2"), "1: x is given twice");
        assert_eq!(refused("a\n\na"), "3: the topic a is in line 1 already");
        assert!(refused("a/b").starts_with("1: \"a/b\" is no name of a topic"));
        assert!(refused("..").contains("no name"));
        assert!(refused(&"x".repeat(250)).contains("250 characters; there is room for 249"));
        assert_eq!(parse(b"ok\n\xff", "").unwrap_err(), (2, "it is not UTF-8".to_owned()));
    }

    #[test]
    fn a_prefix_takes_its_room() {
        let name = "x".repeat(245);
        assert!(parse(name.as_bytes(), "t_a-").is_ok());
        assert!(parse(name.as_bytes(), "t_ab-").is_err());
    }
}
