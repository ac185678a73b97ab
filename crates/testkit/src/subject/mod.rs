//! Services as the tests of all services use them: each with a seed, and with a real client that looks whether
//! the seed is there, writes, and reads.

mod clickhouse;
mod custom;
mod kafka;
mod mysql;
mod nats;
mod postgres;
mod rabbitmq;
mod redis;
mod s3;

use std::path::PathBuf;

use testenv_api::Lease;

/// A kind of service under test.
pub trait Subject: Sync {
    /// Value of `service` in `testenv.toml`.
    fn service(&self) -> &'static str;

    /// Why it cannot be tested on this machine, if it cannot.
    fn lacking(&self) -> Option<&'static str> {
        None
    }

    /// Where its programs are, if in no usual place.
    fn bin_dir(&self) -> Option<PathBuf> {
        None
    }

    /// The role's further lines in `testenv.toml`.
    fn config(&self) -> &'static str;

    /// The files of its migrations and seed.
    fn files(&self) -> &'static [(&'static str, &'static str)];

    /// One of these files with something wrong in it, and what the message about it says.
    fn broken(&self) -> (&'static str, &'static str, &'static str);

    /// Further lines of a role that others declare, where a plain server of the service is not enough.
    fn provider(&self) -> &'static str {
        ""
    }

    /// Whether the machine has its server; without, its tests are ignored.
    fn is_here(&self) -> bool {
        true
    }

    /// Whether the service has namespaces.
    fn has_namespaces(&self) -> bool {
        true
    }

    /// Whether its namespaces can be in a server that others run.
    fn can_be_external(&self) -> bool {
        true
    }

    /// Checks that what the files bring is there, and nothing else.
    ///
    /// # Errors
    /// What is there instead, or what the client says.
    fn check_new(&self, lease: &Lease) -> Result<(), String>;

    /// Writes a value that was not there.
    ///
    /// # Errors
    /// What the client says.
    fn write(&self, lease: &Lease, value: &str) -> Result<(), String>;

    /// All that was written.
    ///
    /// # Errors
    /// What the client says.
    fn read(&self, lease: &Lease) -> Result<Vec<String>, String>;
}

/// All of them.
pub const SUBJECTS: &[&dyn Subject] = &[
    &postgres::Postgres,
    &mysql::Mysql,
    &clickhouse::Clickhouse,
    &redis::Redis,
    &nats::Nats,
    &kafka::Kafka,
    &rabbitmq::RabbitMq,
    &s3::S3("minio"),
    &s3::S3("versitygw"),
    &custom::Custom,
];

/// An error unless both are the same.
fn same<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
