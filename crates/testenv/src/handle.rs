//! What all handles have alike.

/// Defines the handle of one service: its type, how it is asked for, and what it tells.
macro_rules! handle {
    ($(#[$docs:meta])* $name:ident, $kind:expr) => {
        $(#[$docs])*
        #[derive(Clone)]
        pub struct $name {
            held: std::sync::Arc<crate::lease::Held>,
        }

        impl $name {
            /// A request for a lease, for tests that need more than the defaults.
            pub fn builder() -> crate::Builder<Self> {
                crate::Builder::new()
            }

            /// Connection URL over TCP, understood by every client.
            pub fn url(&self) -> &str {
                &self.lease().url
            }

            /// The server's own URL, past any proxy: for what a test wants to see or do whatever faults hold.
            pub fn direct_url(&self) -> &str {
                self.lease().direct_url.as_deref().unwrap_or(self.url())
            }

            /// TCP host.
            pub fn host(&self) -> &str {
                &self.lease().host
            }

            /// TCP port; that of the proxy, where faults were asked for.
            pub fn port(&self) -> u16 {
                self.lease().port
            }

            /// User to connect as; empty where the service has none.
            pub fn user(&self) -> &str {
                &self.lease().user
            }

            /// Password; empty where none is needed.
            pub fn password(&self) -> &str {
                &self.lease().password
            }

            /// Environment variables of the role, as `testenv.toml` words them: hand them to a program that
            /// the test starts.
            pub fn env(&self) -> &std::collections::BTreeMap<String, String> {
                &self.lease().env
            }

            /// Shell command that connects a client, past any proxy.
            pub fn connect_command(&self) -> &str {
                &self.lease().connect_command
            }

            /// The server's log, as far as it belongs to this lease: the last thousand lines.
            ///
            /// # Errors
            /// When the broker does not answer.
            pub fn logs(&self) -> Result<String, crate::Error> {
                self.held.logs(1000)
            }

            /// Keeps the data when the lease ends, whatever becomes of the test; returns how to get at it.
            ///
            /// # Errors
            /// When the broker does not answer.
            pub fn keep(&self, reason: &str) -> Result<crate::Kept, crate::Error> {
                self.held.keep(reason)
            }

            /// What can go wrong on the way to the server, and with it: latency, cuts, resets, a pause. The lease has
            /// to be asked for with `#[testenv(faults)]` or `.faults()` on its builder; url, port, environment and
            /// connections made by this handle then lead through a proxy, the unix socket past it.
            pub fn faults(&self) -> crate::Faults<'_> {
                crate::Faults::new(&self.held)
            }

            /// Everything that the broker said about the lease, the password included.
            pub fn lease(&self) -> &crate::Lease {
                &self.held.lease
            }
        }

        /// Tells the place, not the password.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lease = self.lease();
                f.debug_struct(stringify!($name))
                    .field("lease", &lease.id)
                    .field("role", &lease.role)
                    .field("isolation", &lease.isolation)
                    .field("host", &lease.host)
                    .field("port", &lease.port)
                    .field("user", &lease.user)
                    .field("database", &lease.database)
                    .finish_non_exhaustive()
            }
        }

        impl crate::builder::Service for $name {
            const KIND: crate::ServiceKind = $kind;
        }

        impl crate::builder::FromHeld for $name {
            fn from_held(handle: crate::builder::Handle) -> Self {
                Self { held: handle.0 }
            }
        }

        impl crate::Fixture for $name {
            type Needs = Self;

            fn set_up(needs: Self) -> Result<Self, crate::BoxError> {
                Ok(needs)
            }
        }

        impl crate::Needs for $name {}

        impl crate::Context for $name {
            fn env(&self) -> std::collections::BTreeMap<String, String> {
                self.lease().env.clone()
            }
        }

        impl crate::needs::Ask for $name {
            type Asked = crate::needs::Asked;

            fn ask(wish: &crate::needs::Wish<'_>) -> Result<Self::Asked, crate::Error> {
                crate::needs::ask_one::<Self>(wish)
            }

            fn receive(asked: Self::Asked, scope: &crate::scope::Scope) -> Result<Self, crate::Error> {
                Ok(Self { held: scope.hold(asked.0.receive()?) })
            }
        }
    };
}

pub(crate) use handle;
