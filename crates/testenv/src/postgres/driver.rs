//! Connections of `tokio-postgres`.

use tokio_postgres::{Client, Config, NoTls};

use super::{Postgres, handover};
use crate::error::{Error, Story};

impl Postgres {
    /// A client of `tokio-postgres`, its connection driven by a task of the runtime.
    ///
    /// The first call takes over a session that is authenticated already, where the broker has one: that
    /// saves the 1.5 ms in which the server starts a process for it. Later calls, and the first where there
    /// is none, connect over the unix socket, or through the proxy where faults were asked for.
    ///
    /// # Errors
    /// When the server cannot be reached, or the calling code does not run on tokio.
    pub async fn connect(&self) -> Result<Client, Error> {
        let runtime = runtime()?;
        if let Some(session) = self.held.take_handover().and_then(|path| handover::take_over(&path)) {
            // A session that turns out unusable is no failure: an ordinary connection does as well.
            if let Ok((client, connection)) = self.config().connect_raw(session, NoTls).await {
                runtime.spawn(connection);
                return Ok(client);
            }
        }
        let (client, connection) = self.config().connect(NoTls).await.map_err(failed)?;
        runtime.spawn(connection);
        Ok(client)
    }

    /// The settings with which `tokio-postgres` connects over the unix socket, or through the proxy where faults were
    /// asked for, to make connections of your own.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        match self.held.is_over_tcp() {
            true => config.host(self.host()),
            false => config.host_path(self.socket()),
        };
        config.port(self.port()).user(self.user()).dbname(self.database());
        if !self.password().is_empty() {
            config.password(self.password());
        }
        config
    }
}

/// The runtime that the caller runs on, which drives the connections.
fn runtime() -> Result<tokio::runtime::Handle, Error> {
    tokio::runtime::Handle::try_current().map_err(|error| {
        Error::Misused(
            Story::new("tokio-postgres needs a tokio runtime, and this code does not run on one")
                .detail(error.to_string())
                .hint("make the test an `async fn` under #[testenv::test] without `block_on`"),
        )
    })
}

pub(super) fn failed(source: tokio_postgres::Error) -> Error {
    Error::Driver { doing: "connecting to PostgreSQL".to_owned(), source: source.into() }
}
