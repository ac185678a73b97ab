//! Sizes and times as people write them: `2GiB`, `90s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A number of bytes, written `512MiB`, `2GiB` or as a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many gibibytes.
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// The number of bytes.
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            bytes if bytes >= 1 << 30 => (bytes as f64 / f64::from(1 << 30), "GiB"),
            bytes if bytes >= 1 << 20 => (bytes as f64 / f64::from(1 << 20), "MiB"),
            bytes if bytes >= 1 << 10 => (bytes as f64 / f64::from(1 << 10), "KiB"),
            bytes => return write!(f, "{bytes} B"),
        };
        write!(f, "{value:.1} {unit}")
    }
}

/// A length of time, written `500ms`, `90s`, `10m` or `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// The standard library's form of it.
    pub const fn as_duration(self) -> Duration {
        self.0
    }
}

/// Splits `2 GiB` into the number and the trimmed unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

fn parse_size(text: &str) -> Option<ByteSize> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift).map(ByteSize)
}

fn parse_span(text: &str) -> Option<Span> {
    let (number, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(|millis| Span(Duration::from_millis(millis)))
}

const A_SIZE: &str = "a size such as \"512MiB\" or \"2GiB\"";
const A_TIME: &str = "a time such as \"500ms\", \"90s\", \"10m\" or \"2h\"";

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).ok_or_else(|| format!("expected {A_SIZE}"))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_span(text).ok_or_else(|| format!("expected {A_TIME}"))
    }
}

struct ByVisiting<T> {
    expecting: &'static str,
    parse: fn(&str) -> Option<T>,
    number: Option<fn(u64) -> T>,
}

impl<T> de::Visitor<'_> for ByVisiting<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match (self.number, u64::try_from(number)) {
            (Some(from), Ok(number)) => Ok(from(number)),
            _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByVisiting {
            expecting: A_SIZE,
            parse: parse_size,
            number: Some(ByteSize),
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByVisiting { expecting: A_TIME, parse: parse_span, number: None })
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use serde::{Serialize, Serializer};

    use super::{ByteSize, Span};

    /// The number in the largest unit that divides it: how defaults are shown in the reference.
    fn in_largest_unit(number: u128, units: &[(u128, &str)]) -> String {
        let fits = units.iter().find(|(size, _)| number >= *size && number.is_multiple_of(*size));
        let (size, name) = fits.copied().unwrap_or((1, units.last().map_or("", |unit| unit.1)));
        format!("{}{name}", number / size)
    }

    impl Serialize for ByteSize {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
            serializer.serialize_str(&in_largest_unit(self.0.into(), &units))
        }
    }

    impl Serialize for Span {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
            serializer.serialize_str(&in_largest_unit(self.0.as_millis(), &units))
        }
    }

    impl JsonSchema for ByteSize {
        fn schema_name() -> Cow<'static, str> {
            "ByteSize".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "description": "size", "examples": ["512MiB", "2GiB"] })
        }
    }

    impl JsonSchema for Span {
        fn schema_name() -> Cow<'static, str> {
            "Span".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({ "type": "string", "description": "time", "examples": ["500ms", "90s", "10m"] })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_bounded() {
        assert_eq!(parse_size("2GiB"), Some(ByteSize::gib(2)));
        assert_eq!(parse_size("17"), Some(ByteSize::bytes(17)));
        assert_eq!(parse_size("5 MB"), None);
        assert_eq!(parse_size("99999999999999999999GiB"), None);
        assert_eq!(parse_size("18014398509481984TiB"), None);
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_span("90s"), Some(Span::from_secs(90)));
        assert_eq!(parse_span("2 h"), Some(Span::from_secs(7200)));
        assert_eq!(parse_span("90"), None);
        assert_eq!(parse_span("-1s"), None);
        assert_eq!("90".parse::<Span>().unwrap_err(), format!("expected {A_TIME}"));
    }

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        assert_eq!(ByteSize::bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize::gib(4).to_string(), "4.0 GiB");
    }
}
