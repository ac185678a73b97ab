//! The handle of a leased Redis.

use std::path::Path;

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A Redis of the test's own, empty but for its seeds.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    Redis, ServiceKind::Redis
}

impl Redis {
    /// Number of the database, as text.
    pub fn database(&self) -> &str {
        &self.lease().database
    }

    /// The server's unix socket. The password is needed there too. No fault has an effect on it.
    pub fn socket(&self) -> &Path {
        Path::new(&self.lease().socket)
    }
}

#[cfg(feature = "redis")]
mod driver {
    use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};

    use super::Redis;
    use crate::Error;

    impl Redis {
        /// A client of the crate `redis`, over the unix socket, or through the proxy where faults were asked for.
        ///
        /// # Errors
        /// When the driver refuses the address.
        pub fn client(&self) -> Result<redis::Client, Error> {
            let mut settings = RedisConnectionInfo::default().set_db(self.database().parse().unwrap_or(0));
            if !self.user().is_empty() {
                settings = settings.set_username(self.user());
            }
            if !self.password().is_empty() {
                settings = settings.set_password(self.password());
            }
            let address = match self.held.is_over_tcp() {
                true => ConnectionAddr::Tcp(self.host().to_owned(), self.port()),
                false => ConnectionAddr::Unix(self.socket().to_path_buf()),
            };
            address
                .into_connection_info()
                .and_then(|info| redis::Client::open(info.set_redis_settings(settings)))
                .map_err(failed)
        }

        /// A connection for async code.
        ///
        /// # Errors
        /// When the server cannot be reached.
        pub async fn connect(&self) -> Result<redis::aio::MultiplexedConnection, Error> {
            self.client()?.get_multiplexed_async_connection().await.map_err(failed)
        }

        /// A connection for sync code.
        ///
        /// # Errors
        /// When the server cannot be reached.
        pub fn connection(&self) -> Result<redis::Connection, Error> {
            self.client()?.get_connection().map_err(failed)
        }
    }

    fn failed(source: redis::RedisError) -> Error {
        Error::Driver { doing: "connecting to Redis".to_owned(), source: source.into() }
    }
}
