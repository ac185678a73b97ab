//! A transaction per test, over `tokio-postgres`.

use std::ops::Deref;

use tokio_postgres::Client;

use super::Postgres;
use crate::error::BoxError;
use crate::fixture::{AsyncFixture, Shared};

/// A session in a transaction of the one migrated database that all such tests of a role share.
///
/// The cheapest isolation there is: `BEGIN` has been sent, and whatever the test does is rolled back when
/// this is dropped, however the test ends, because the session ends with it. It is a
/// [`tokio_postgres::Client`] in all else.
///
/// Not for tests that need several connections, that commit, or that change what is outside of
/// transactions, such as sequences and roles: these take a [`Postgres`].
///
/// ```no_run,test_harness
/// #[testenv::test]
/// async fn orders_have_a_total(tx: testenv::Transaction) -> Result<(), testenv::Error> {
///     tx.execute("INSERT INTO orders (total) VALUES (12)", &[]).await?;
///     let row = tx.query_one("SELECT sum(total)::int FROM orders", &[]).await?;
///     assert_eq!(row.get::<_, i32>(0), 12);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    db: Postgres,
}

impl Transaction {
    /// The lease on the shared database.
    pub fn postgres(&self) -> &Postgres {
        &self.db
    }
}

impl Deref for Transaction {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl AsyncFixture for Transaction {
    type Needs = Shared<Postgres>;

    async fn set_up(Shared(db): Shared<Postgres>) -> Result<Self, BoxError> {
        let client = db.connect().await?;
        client.batch_execute("BEGIN").await?;
        Ok(Self { client, db })
    }
}
