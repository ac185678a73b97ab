//! The handle of a leased Kafka.

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A Kafka of the test's own, empty but for its topics.
    ///
    /// Its `url()` is `host:port`, as clients take it for `bootstrap.servers`. Names of topics and groups go through
    /// [`topic`](Self::topic) and [`group`](Self::group), so that a test does not care whether the server is its
    /// own or one that it shares.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    Kafka, ServiceKind::Kafka
}

impl Kafka {
    /// What the names of all topics and groups of this lease begin with: empty in a server of its own.
    pub fn prefix(&self) -> &str {
        &self.lease().database
    }

    /// Full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }

    /// Full name of a consumer group.
    pub fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix())
    }
}
