//! A small blocking client of Kafka, each operation with a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rskafka::chrono::DateTime;
use rskafka::client::error::Error;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use testenv_api::Lease;
use tokio::runtime::{Builder, Runtime};

/// How long an operation may take.
const LIMIT: Duration = Duration::from_secs(20);
const LIMIT_MS: i32 = 15_000;
/// Bytes fetched at once.
const MAX_BYTES: i32 = 1 << 20;

/// A client that uses the names of its lease: topics are those that begin with its prefix, and told without it.
#[derive(Debug)]
pub struct Kafka {
    client: Client,
    prefix: String,
    runtime: Runtime,
}

impl Kafka {
    /// Connects as the lease says.
    ///
    /// # Errors
    /// What the driver says.
    pub fn connect(lease: &Lease) -> Result<Self, String> {
        Self::connect_as(lease, &lease.user, &lease.password)
    }

    /// Connects with another login; with none where the password is empty.
    ///
    /// # Errors
    /// What the driver says.
    pub fn connect_as(lease: &Lease, user: &str, password: &str) -> Result<Self, String> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let mut builder = ClientBuilder::new(vec![lease.url.clone()]);
        if !password.is_empty() {
            let login = Credentials::new(user.to_owned(), password.to_owned());
            builder = builder.sasl_config(SaslConfig::Plain(login));
        }
        let client = runtime.block_on(bounded(builder.build()))?;
        Ok(Self { client, prefix: lease.database.clone(), runtime })
    }

    /// The lease's topics, with the number of partitions of each.
    ///
    /// # Errors
    /// What the driver says.
    pub fn topics(&self) -> Result<BTreeMap<String, usize>, String> {
        let topics = self.runtime.block_on(bounded(self.client.list_topics()))?;
        let own = topics.into_iter().filter_map(|topic| {
            let name = topic.name.strip_prefix(&self.prefix)?.to_owned();
            Some((name, topic.partitions.len()))
        });
        Ok(own.collect())
    }

    /// Names of all topics of the server.
    ///
    /// # Errors
    /// What the driver says.
    pub fn all_topics(&self) -> Result<BTreeSet<String>, String> {
        let topics = self.runtime.block_on(bounded(self.client.list_topics()))?;
        Ok(topics.into_iter().map(|topic| topic.name).collect())
    }

    /// Creates a topic with one partition.
    ///
    /// # Errors
    /// What the server says.
    pub fn create(&self, topic: &str) -> Result<(), String> {
        let controller = self.client.controller_client().map_err(|error| error.to_string())?;
        self.runtime.block_on(bounded(controller.create_topic(self.name(topic), 1, 1, LIMIT_MS)))
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete(&self, topic: &str) -> Result<(), String> {
        let controller = self.client.controller_client().map_err(|error| error.to_string())?;
        self.runtime.block_on(bounded(controller.delete_topic(self.name(topic), LIMIT_MS)))
    }

    /// Writes a value to the first partition of a topic.
    ///
    /// # Errors
    /// What the server says.
    pub fn write(&self, topic: &str, value: &str) -> Result<(), String> {
        let record = Record {
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: BTreeMap::new(),
            timestamp: DateTime::UNIX_EPOCH,
        };
        self.runtime.block_on(async {
            let partition = self.partition(topic).await?;
            bounded(partition.produce(vec![record], Compression::NoCompression)).await
        })?;
        Ok(())
    }

    /// All values in the first partition of a topic.
    ///
    /// # Errors
    /// What the server says.
    pub fn read(&self, topic: &str) -> Result<Vec<String>, String> {
        self.runtime.block_on(async {
            let partition = self.partition(topic).await?;
            let end = bounded(partition.get_offset(OffsetAt::Latest)).await?;
            let mut values = Vec::new();
            let mut next = 0;
            while next < end {
                let (records, _) = bounded(partition.fetch_records(next, 1..MAX_BYTES, 1000)).await?;
                next = records.last().map_or(end, |record| record.offset + 1);
                let value =
                    |value: Option<Vec<u8>>| value.map(|it| String::from_utf8_lossy(&it).into_owned());
                values.extend(records.into_iter().filter_map(|it| value(it.record.value)));
            }
            Ok(values)
        })
    }

    async fn partition(&self, topic: &str) -> Result<PartitionClient, String> {
        // A topic that was created is known a little later.
        bounded(self.client.partition_client(self.name(topic), 0, UnknownTopicHandling::Retry)).await
    }

    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}

async fn bounded<T>(doing: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, doing).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
