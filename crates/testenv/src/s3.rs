//! The handle of a leased store of objects.

use testenv_api::ServiceKind;

crate::handle::handle! {
    /// A store of objects of the test's own, with the protocol of Amazon S3; empty but for its seeds.
    ///
    /// [`user`](Self::user) is the access key, [`password`](Self::password) the secret key. The region is
    /// `us-east-1`.
    ///
    /// Cheap to clone; the lease ends when the last clone is gone, and not before the end of a test that has
    /// it as an argument.
    S3, ServiceKind::S3
}

impl S3 {
    /// Name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.lease().database
    }
}
