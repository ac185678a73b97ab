//! The handle of a leased MySQL or MariaDB.

use std::path::Path;

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A migrated MySQL or MariaDB of the test's own: a whole server, or a database, as the isolation says.
    ///
    /// Its URL, `mysql://user:password@host:port/database`, is what sqlx, diesel, mysql and most clients of
    /// other languages take. Cheap to clone; the lease ends when the last clone is gone, and not before the end
    /// of a test that has it as an argument.
    Mysql, ServiceKind::Mysql
}

impl Mysql {
    /// Name of the database.
    pub fn database(&self) -> &str {
        &self.lease().database
    }

    /// The server's unix socket; empty where the server is elsewhere. The password is needed there too.
    pub fn socket(&self) -> &Path {
        Path::new(&self.lease().socket)
    }
}
