//! The handle of a leased PostgreSQL, and what its drivers make of it.

#[cfg(feature = "tokio-postgres")]
mod driver;
#[cfg(feature = "tokio-postgres")]
mod handover;
#[cfg(feature = "sqlx")]
mod pool;
#[cfg(feature = "tokio-postgres")]
mod transaction;

use std::path::Path;

use testenv_api::ServiceKind;

#[cfg(feature = "sqlx")]
pub use pool::SqlxTransaction;
#[cfg(feature = "tokio-postgres")]
pub use transaction::Transaction;

crate::handle::handle! {
    /// A migrated PostgreSQL of the test's own: a whole server, or a database, as the isolation says.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    Postgres, ServiceKind::Postgres
}

impl Postgres {
    /// Name of the database.
    pub fn database(&self) -> &str {
        &self.lease().database
    }

    /// The directory of the server's unix socket, where no password is needed. Clients take it as the host, with
    /// the server's own port. No fault has an effect on it.
    pub fn socket(&self) -> &Path {
        Path::new(&self.lease().socket)
    }
}
