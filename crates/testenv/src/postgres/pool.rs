//! Pools, connections and transactions of `sqlx`.

use std::ops::{Deref, DerefMut};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, Executor as _};

use super::Postgres;
use crate::error::{BoxError, Error};
use crate::fixture::{AsyncFixture, Shared};

impl Postgres {
    /// A pool of `sqlx`, with one connection open.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn pool(&self) -> Result<PgPool, Error> {
        PgPoolOptions::new().connect_with(self.connect_options()).await.map_err(failed)
    }

    /// The settings with which `sqlx` connects over the unix socket, or through the proxy where faults were asked
    /// for, to make pools of your own.
    pub fn connect_options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass();
        let options = match self.held.is_over_tcp() {
            true => options.host(self.host()),
            false => options.socket(self.socket()),
        };
        let options = options
            .port(self.port())
            .username(self.user())
            .database(self.database())
            .ssl_mode(PgSslMode::Disable);
        if self.password().is_empty() { options } else { options.password(self.password()) }
    }
}

/// A connection of `sqlx` in a transaction of the one migrated database that all such tests of a role share.
///
/// `BEGIN` has been sent, and whatever the test does is rolled back when this is dropped, however the test
/// ends, because the session ends with it. It is a [`sqlx::PgConnection`] in all else: pass `&mut *tx`.
///
/// ```no_run,test_harness
/// #[testenv::test]
/// async fn orders_have_a_total(mut tx: testenv::SqlxTransaction) -> Result<(), sqlx::Error> {
///     sqlx::query("INSERT INTO orders (total) VALUES (12)").execute(&mut *tx).await?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct SqlxTransaction {
    connection: PgConnection,
    db: Postgres,
}

impl SqlxTransaction {
    /// The lease on the shared database.
    pub fn postgres(&self) -> &Postgres {
        &self.db
    }
}

impl Deref for SqlxTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for SqlxTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl AsyncFixture for SqlxTransaction {
    type Needs = Shared<Postgres>;

    async fn set_up(Shared(db): Shared<Postgres>) -> Result<Self, BoxError> {
        let mut connection = PgConnection::connect_with(&db.connect_options()).await.map_err(failed)?;
        connection.execute("BEGIN").await?;
        Ok(Self { connection, db })
    }
}

fn failed(source: sqlx::Error) -> Error {
    Error::Driver { doing: "connecting to PostgreSQL".to_owned(), source: source.into() }
}
