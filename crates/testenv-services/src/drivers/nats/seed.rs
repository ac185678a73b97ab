//! What a `.json` file puts into JetStream: streams, consumers, key-value buckets, messages.

use serde_json::{Map, Value, json};
use testenv_api::{Problem, ProblemKind};

use super::client::{Client, Refusal};
use crate::Result;

/// JetStream's code for a stream that is there with another configuration.
const STREAM_IS_OTHER: u64 = 10058;

/// Applies a file: one entry, or a list of them, in its order. An empty one brings nothing.
pub(super) fn apply(client: &mut Client, name: &str, content: &[u8]) -> Result<()> {
    let invalid = |detail: String| {
        Problem::new(ProblemKind::PrepareFailed, format!("{name} cannot be applied")).detail(detail).hint(
            "an entry is a stream or a consumer as JetStream's API takes them, \
                 { \"bucket\": …, \"values\": { … } }, or { \"subject\": …, \"data\": … }",
        )
    };
    if content.trim_ascii().is_empty() {
        return Ok(());
    }
    let content: Value = serde_json::from_slice(content).map_err(|error| invalid(error.to_string()))?;
    let entries = match content {
        Value::Array(entries) => entries,
        entry => vec![entry],
    };
    for (number, entry) in entries.iter().enumerate() {
        let entry = Entry::read(entry).map_err(|saw| invalid(format!("entry {}: {saw}", number + 1)))?;
        let refused = |refusal: Refusal| {
            Problem::new(ProblemKind::PrepareFailed, format!("{name}: NATS refused {entry}"))
                .detail(refusal.to_string())
        };
        entry.apply(client)?.map_err(refused)?;
    }
    Ok(())
}

/// One thing to be made.
#[derive(Debug, PartialEq)]
enum Entry<'a> {
    /// A stream's configuration.
    Stream { name: &'a str, config: Value },
    /// A consumer of a stream.
    Consumer { stream: &'a str, name: &'a str, config: &'a Value },
    /// A key-value bucket with what is in it.
    Bucket { name: &'a str, config: Value, values: Option<&'a Map<String, Value>> },
    /// A message for the stream that takes its subject.
    Message { subject: &'a str, data: &'a Value },
}

impl std::fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream { name, .. } => write!(f, "the stream {name}"),
            Self::Consumer { stream, name, .. } => write!(f, "the consumer {name} of {stream}"),
            Self::Bucket { name, .. } => write!(f, "the key-value bucket {name}"),
            Self::Message { subject, .. } => write!(f, "the message for {subject}"),
        }
    }
}

impl<'a> Entry<'a> {
    /// Tells what an entry is, by its keys.
    fn read(entry: &'a Value) -> Result<Self, String> {
        let text = |value: &'a Value, key: &str| value.get(key).and_then(Value::as_str);
        // What `nats stream info --json` prints has the configuration inside.
        let config = entry.get("config").filter(|config| config.is_object());
        if let Some(stream) = text(entry, "stream_name").or_else(|| text(entry, "stream")) {
            let config = config.ok_or("a consumer without `config`")?;
            let name = text(config, "durable_name").or_else(|| text(config, "name"));
            let name = name.ok_or("a consumer without `durable_name`")?;
            return Ok(Self::Consumer { stream: word(stream)?, name: word(name)?, config });
        }
        if let Some(name) = text(entry, "bucket") {
            let values = match entry.get("values") {
                Some(values) => Some(values.as_object().ok_or("`values` is no object")?),
                None => None,
            };
            return Ok(Self::Bucket { name: word(name)?, config: bucket(name, entry), values });
        }
        if let Some(subject) = text(entry, "subject") {
            let data = entry.get("data").ok_or("a message without `data`")?;
            return Ok(Self::Message { subject, data });
        }
        let config = config.unwrap_or(entry);
        match text(config, "name") {
            Some(name) => Ok(Self::Stream { name: word(name)?, config: config.clone() }),
            None => {
                Err(format!("it has none of `name`, `stream_name`, `bucket`, `subject`: {}", shown(entry)))
            }
        }
    }

    fn apply(&self, client: &mut Client) -> Result<Result<(), Refusal>> {
        match self {
            Self::Stream { name, config } => make_stream(client, name, config),
            Self::Consumer { stream, name, config } => {
                let body = json!({ "stream_name": stream, "config": config });
                let made = client.ask(&format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &body)?;
                Ok(made.map(drop))
            }
            Self::Bucket { name, config, values } => {
                if let Err(refusal) = make_stream(client, &format!("KV_{name}"), config)? {
                    return Ok(Err(refusal));
                }
                for (key, value) in values.iter().flat_map(|values| values.iter()) {
                    if let Err(refusal) = client.publish(&format!("$KV.{name}.{key}"), &payload(value))? {
                        return Ok(Err(refusal));
                    }
                }
                Ok(Ok(()))
            }
            Self::Message { subject, data } => Ok(client.publish(subject, &payload(data))?.map(drop)),
        }
    }
}

/// Creates a stream, or gives one that an earlier file made this configuration.
fn make_stream(client: &mut Client, name: &str, config: &Value) -> Result<Result<(), Refusal>> {
    match client.ask(&format!("STREAM.CREATE.{name}"), config)? {
        Err(Refusal::JetStream { code: STREAM_IS_OTHER, .. }) => {
            Ok(client.ask(&format!("STREAM.UPDATE.{name}"), config)?.map(drop))
        }
        made => Ok(made.map(drop)),
    }
}

/// The stream that is a key-value bucket, configured as NATS' own clients do.
fn bucket(name: &str, entry: &Value) -> Value {
    let or = |key: &str, default: Value| entry.get(key).cloned().unwrap_or(default);
    json!({
        "name": format!("KV_{name}"),
        "description": or("description", "".into()),
        "subjects": [format!("$KV.{name}.>")],
        "max_msgs_per_subject": or("history", 1.into()),
        "max_age": or("ttl", 0.into()),
        "max_bytes": or("max_bytes", (-1).into()),
        "max_msg_size": or("max_value_size", (-1).into()),
        "storage": or("storage", "file".into()),
        "num_replicas": 1,
        "discard": "new",
        "allow_rollup_hdrs": true,
        "deny_delete": true,
        "allow_direct": true,
    })
}

/// A text as it is, anything else as JSON.
fn payload(value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes()
}

/// A name that is one word of a subject.
fn word(name: &str) -> Result<&str, String> {
    let breaks = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.is_empty() || name.contains(breaks) {
        return Err(format!("{name:?} is no name: without spaces and without any of . * > / \\"));
    }
    Ok(name)
}

fn shown(entry: &Value) -> String {
    const SHOWN: usize = 100;
    entry.to_string().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_apart_by_their_keys() {
        let read = |entry: Value| Entry::read(&entry).map(|entry| entry.to_string());
        assert_eq!(read(json!({ "name": "ORDERS", "subjects": ["o.>"] })).unwrap(), "the stream ORDERS");
        assert_eq!(
            read(json!({ "config": { "name": "ORDERS" }, "state": {} })).unwrap(),
            "the stream ORDERS"
        );
        let consumer = json!({ "stream_name": "ORDERS", "config": { "durable_name": "new" } });
        assert_eq!(read(consumer).unwrap(), "the consumer new of ORDERS");
        assert_eq!(read(json!({ "bucket": "config" })).unwrap(), "the key-value bucket config");
        assert_eq!(read(json!({ "subject": "o.new", "data": {} })).unwrap(), "the message for o.new");
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for (entry, part) in [
            (json!({}), "none of `name`"),
            (json!("x"), "none of `name`"),
            (json!({ "name": "a b" }), "\"a b\" is no name"),
            (json!({ "bucket": "a.b" }), "\"a.b\" is no name"),
            (json!({ "bucket": "a", "values": [] }), "`values` is no object"),
            (json!({ "stream_name": "S" }), "without `config`"),
            (json!({ "stream_name": "S", "config": {} }), "without `durable_name`"),
            (json!({ "subject": "s" }), "without `data`"),
        ] {
            let said = Entry::read(&entry).unwrap_err();
            assert!(said.contains(part), "{entry}: {said}");
        }
    }

    #[test]
    fn buckets_are_as_the_clients_of_nats_make_them() {
        let config = bucket("config", &json!({ "bucket": "config", "history": 5 }));
        assert_eq!(config["name"], "KV_config");
        assert_eq!(config["subjects"], json!(["$KV.config.>"]));
        assert_eq!(config["max_msgs_per_subject"], 5);
        assert_eq!(payload(&json!("text")), b"text");
        assert_eq!(payload(&json!({ "a": 1 })), br#"{"a":1}"#);
    }
}
