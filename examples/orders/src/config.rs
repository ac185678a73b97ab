//! Configuration, from the environment alone.

use std::str::FromStr;

/// What the service needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: where PostgreSQL is.
    pub database_url: String,
    /// `REDIS_URL`: where Redis is.
    pub redis_url: String,
    /// `PORT`: where to listen on 127.0.0.1; 8080 when absent, 0 for any free one.
    pub port: u16,
    /// `ORDERS_PER_MINUTE`: how many orders a customer may place in a minute; 60 when absent.
    pub orders_per_minute: u32,
}

/// A variable that is missing or makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// The variable does not hold what it should.
    #[error("the environment variable {name} is {value:?}, which is not a number in its range")]
    Invalid {
        /// Name of the variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
}

impl Config {
    /// Reads the configuration by asking `var` for each variable.
    ///
    /// # Errors
    /// [`ConfigError`] for the first variable that is missing or invalid.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let required = |name| var(name).ok_or(ConfigError::Missing(name));
        Ok(Self {
            database_url: required("DATABASE_URL")?,
            redis_url: required("REDIS_URL")?,
            port: number(&var, "PORT", 8080)?,
            orders_per_minute: number(&var, "ORDERS_PER_MINUTE", 60)?,
        })
    }
}

fn number<T: FromStr>(
    var: impl Fn(&str) -> Option<String>,
    name: &'static str,
    default: T,
) -> Result<T, ConfigError> {
    match var(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| ConfigError::Invalid { name, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_env(|name| {
            vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn urls_are_required_and_numbers_have_defaults() {
        let config = read(&[("DATABASE_URL", "postgres://x"), ("REDIS_URL", "redis://x")]).unwrap();
        assert_eq!((config.port, config.orders_per_minute), (8080, 60));
        assert_eq!(read(&[]).unwrap_err(), ConfigError::Missing("DATABASE_URL"));
    }

    #[test]
    fn a_port_out_of_range_is_named() {
        let error = read(&[("DATABASE_URL", ""), ("REDIS_URL", ""), ("PORT", "70000")]).unwrap_err();
        assert!(error.to_string().contains("PORT is \"70000\""), "{error}");
    }
}
