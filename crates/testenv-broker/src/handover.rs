//! Handing an authenticated session to the test that holds the lease.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use testenv_services::server::Session;
use tokio::net::UnixListener;

/// A socket on which one session waits to be taken over. Dropping it withdraws the offer.
#[derive(Debug)]
pub(crate) struct Offer {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Offer {
    /// Offers `session` on a socket of its own in `dir`, which only the tests' user can enter.
    pub(crate) fn make(session: Session, dir: &Path, lease: &str) -> std::io::Result<Self> {
        let path = dir.join(format!("session-{lease}"));
        let listener = UnixListener::bind(&path)?;
        let task = tokio::spawn(async move {
            let Ok((taker, _)) = listener.accept().await else { return };
            if let Err(error) = send(&taker, &session) {
                tracing::debug!(%error, "a session could not be handed over");
            }
        });
        Ok(Self { path, task })
    }

    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One message: the greeting as data, the session's descriptor beside it. It fits the socket's buffer at once.
fn send(taker: &tokio::net::UnixStream, session: &Session) -> rustix::io::Result<usize> {
    let descriptors = [session.stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(taker, &[IoSlice::new(&session.greeting)], &mut ancillary, SendFlags::NOSIGNAL)
}
