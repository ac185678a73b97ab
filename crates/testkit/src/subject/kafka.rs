//! Kafka.

use std::path::PathBuf;

use testenv_api::Lease;

use super::{Subject, same};
use crate::{Kafka as Client, kafka_dir};

pub(super) struct Kafka;

impl Subject for Kafka {
    fn service(&self) -> &'static str {
        "kafka"
    }

    fn lacking(&self) -> Option<&'static str> {
        kafka_dir().is_none().then_some("there is no Kafka with a Java")
    }

    fn bin_dir(&self) -> Option<PathBuf> {
        kafka_dir()
    }

    fn config(&self) -> &'static str {
        "seed = \"shop.topics\"\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[("shop.topics", "# What the shop needs.\nseeded partitions=3 cleanup.policy=compact\nwritten\n")]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("shop.topics", "seeded\nwritten cleanup.policy=sometimes\n", "shop.topics:2")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let client = Client::connect(lease)?;
        same(&client.topics()?, &[("seeded".to_owned(), 3), ("written".to_owned(), 1)].into())?;
        same(&client.read("written")?, &Vec::new())
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        Client::connect(lease)?.write("written", value)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        let mut values = Client::connect(lease)?.read("written")?;
        values.sort();
        Ok(values)
    }
}
