//! Taking over a session that a broker offers, as any client would.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// Connects to the socket named by a lease; the greeting and the session.
///
/// # Errors
/// When nothing, or not one descriptor, comes.
pub fn take_session(offered: &str) -> io::Result<(Vec<u8>, UnixStream)> {
    let socket = UnixStream::connect(offered)?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let mut greeting = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut greeting)];
    let received = rustix::net::recvmsg(&socket, &mut data, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let sent = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    greeting.truncate(received.bytes);
    let descriptor = sent.ok_or_else(|| io::Error::other("no descriptor came with the greeting"))?;
    Ok((greeting, descriptor.into()))
}
