//! The handle of a leased ClickHouse.

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A migrated ClickHouse of the test's own: a whole server, or a database, as the isolation says.
    ///
    /// Its URL, `http://user:password@host:port/database`, is what most clients take; those that want the parts
    /// have them here. Cheap to clone; the lease ends when the last clone is gone, and not before the end of a
    /// test that has it as an argument.
    ClickHouse, ServiceKind::Clickhouse
}

impl ClickHouse {
    /// Name of the database.
    pub fn database(&self) -> &str {
        &self.lease().database
    }

    /// The HTTP interface, without login and database: for clients that take those apart, as the crate
    /// `clickhouse` does.
    pub fn http_url(&self) -> String {
        format!("http://{}:{}", self.host(), self.port())
    }

    /// Port of the native protocol; [`port`](Self::port) is that of HTTP.
    pub fn native_port(&self) -> u16 {
        self.lease().ports.get("native").copied().unwrap_or_default()
    }
}
