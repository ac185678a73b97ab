//! The handle of a leased RabbitMQ.

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A RabbitMQ of the test's own, empty but for the definitions of its seeds.
    ///
    /// In isolation `namespace` it is a virtual host of the test's own in a shared server, with a user that can do
    /// nothing outside of it.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    RabbitMq, ServiceKind::Rabbitmq
}

impl RabbitMq {
    /// Name of the virtual host.
    pub fn vhost(&self) -> &str {
        &self.lease().database
    }
}
