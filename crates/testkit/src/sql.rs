//! Small blocking clients, each operation with a bound.

use std::time::Duration;

use testenv_api::Lease;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, NoTls};

/// How long an operation may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A session with PostgreSQL.
#[derive(Debug)]
pub struct Sql {
    // Dropped before the runtime that drives it.
    client: Client,
    runtime: Runtime,
}

impl Sql {
    /// Connects over the server's unix socket, past any proxy.
    ///
    /// # Errors
    /// What the driver says.
    pub fn connect(lease: &Lease) -> Result<Self, String> {
        Self::connect_to(lease, &lease.database)
    }

    /// Connects to another database of the same server.
    ///
    /// # Errors
    /// What the driver says.
    pub fn connect_to(lease: &Lease, database: &str) -> Result<Self, String> {
        let mut config = tokio_postgres::Config::new();
        let port = lease.direct_port.unwrap_or(lease.port);
        config.host_path(&lease.socket).port(port).user(&lease.user).dbname(database);
        Self::open(&config)
    }

    /// Connects over TCP, with the password.
    ///
    /// # Errors
    /// What the driver says.
    pub fn connect_url(url: &str) -> Result<Self, String> {
        Self::open(&url.parse().map_err(|error| format!("{url}: {error}"))?)
    }

    fn open(config: &tokio_postgres::Config) -> Result<Self, String> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let client = runtime.block_on(async {
            let (client, connection) = bounded(config.connect(NoTls)).await?;
            tokio::spawn(async move {
                let _ = connection.await; // whoever uses the client is told
            });
            Ok::<_, String>(client)
        })?;
        Ok(Self { client, runtime })
    }

    /// Runs statements.
    ///
    /// # Errors
    /// What the server says.
    pub fn run(&self, sql: &str) -> Result<(), String> {
        self.runtime.block_on(bounded(self.client.batch_execute(sql)))
    }

    /// The first column of the rows of a query.
    ///
    /// # Errors
    /// What the server says.
    pub fn column<T: FromSqlOwned>(&self, sql: &str) -> Result<Vec<T>, String> {
        let rows = self.runtime.block_on(bounded(self.client.query(sql, &[])))?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| error.to_string())).collect()
    }

    /// The only value of a query.
    ///
    /// # Errors
    /// What the server says, or that there is none.
    pub fn one<T: FromSqlOwned>(&self, sql: &str) -> Result<T, String> {
        self.column(sql)?.into_iter().next().ok_or_else(|| format!("no row: {sql}"))
    }
}

async fn bounded<T>(doing: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, doing).await {
        Ok(done) => done.map_err(|error| match error.as_db_error() {
            Some(said) => format!("{}: {}", said.code().code(), said.message()),
            None => error.to_string(),
        }),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Connects to a leased Redis over TCP.
///
/// # Errors
/// What the driver says.
pub fn redis(lease: &Lease) -> Result<redis::Connection, redis::RedisError> {
    let connection = redis::Client::open(lease.url.as_str())?.get_connection_with_timeout(LIMIT)?;
    connection.set_read_timeout(Some(LIMIT))?;
    connection.set_write_timeout(Some(LIMIT))?;
    Ok(connection)
}
