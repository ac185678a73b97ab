//! The handle of a leased NATS.

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A NATS of the test's own, with JetStream, empty but for the streams of its seeds.
    ///
    /// In isolation `namespace` it is an account of the test's own in a shared server, which sees no subject and
    /// no stream of another.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    Nats, ServiceKind::Nats
}
