//! Takes over a PostgreSQL session that the broker has authenticated.
//!
//! No driver can be given such a session, but every driver can be given a stream. So the stream plays the
//! start of the conversation from memory: it swallows the driver's start-up message, answers with what the
//! server said when the broker connected, and from then on is the session's socket and nothing else.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// How long the broker may take to hand a session over. It has it in its hand.
const HANDOVER_LIMIT: Duration = Duration::from_secs(2);
/// Bytes from `AuthenticationOk` to `ReadyForQuery` at the most; they are about 500.
const GREETING_LIMIT: usize = 16 * 1024;
/// Length of a start-up message at the most, as PostgreSQL itself has it.
const STARTUP_LIMIT: usize = 10_000;

/// Takes the session that waits at `path`, or nothing if it cannot be had.
pub(super) fn take_over(path: &str) -> Option<Session> {
    let (greeting, session) = receive(path).ok()?;
    if !is_greeting(&greeting) {
        return None;
    }
    let stream = BlockingStream::from(session);
    stream.set_nonblocking(true).ok()?;
    let stream = UnixStream::from_std(stream).ok()?;
    Some(Session { stream, opening: Opening::Startup { seen: Vec::new(), reader: None }, greeting })
}

/// Receives the message with the server's greeting and the session's socket.
fn receive(path: &str) -> io::Result<(Vec<u8>, OwnedFd)> {
    let stream = BlockingStream::connect(path)?;
    stream.set_read_timeout(Some(HANDOVER_LIMIT))?;
    let mut greeting = vec![0; GREETING_LIMIT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&stream, &mut [IoSliceMut::new(&mut greeting)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    greeting.truncate(received.bytes);
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.next().and_then(|mut sockets| sockets.next());
    socket.map(|socket| (greeting, socket)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Whether the bytes are whole messages from `AuthenticationOk` to an idle `ReadyForQuery`.
fn is_greeting(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut is_first = true;
    while let Some((head, after)) = rest.split_first_chunk::<5>() {
        let [kind, length @ ..] = *head;
        let Some(length) = (u32::from_be_bytes(length) as usize).checked_sub(4) else { return false };
        let Some((body, after)) = after.split_at_checked(length) else { return false };
        match (kind, body) {
            (b'R', [0, 0, 0, 0]) if is_first => {}
            (b'S' | b'K' | b'N', _) if !is_first => {}
            (b'Z', b"I") if !is_first => return after.is_empty(),
            _ => return false,
        }
        is_first = false;
        rest = after;
    }
    false
}

/// A session that begins with a conversation from memory.
pub(super) struct Session {
    stream: UnixStream,
    opening: Opening,
    /// What the server said when the broker connected.
    greeting: Vec<u8>,
}

/// How far the conversation from memory has come.
enum Opening {
    /// The driver has sent so much of its start-up message; a reader waits for the rest.
    Startup { seen: Vec<u8>, reader: Option<Waker> },
    /// The driver has read so much of the greeting.
    Greeting { read: usize },
    /// It is over.
    Done,
}

impl Session {
    /// Swallows what belongs to the start-up message; returns how many bytes that were.
    fn swallow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Opening::Startup { seen, reader } = &mut self.opening else { return Ok(0) };
        let mut swallowed = 0;
        loop {
            // The message begins with its own length, four bytes that count themselves.
            let wanted = match seen.first_chunk() {
                Some(length) => u32::from_be_bytes(*length) as usize,
                None => 4,
            };
            if !(4..=STARTUP_LIMIT).contains(&wanted) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the driver sent no start-up message",
                ));
            }
            if seen.len() >= 4 && seen.len() == wanted {
                break;
            }
            let part = &bytes[swallowed..];
            let part = &part[..part.len().min(wanted - seen.len())];
            if part.is_empty() {
                return Ok(swallowed);
            }
            seen.extend_from_slice(part);
            swallowed += part.len();
        }
        if let Some(reader) = reader.take() {
            reader.wake();
        }
        self.opening = Opening::Greeting { read: 0 };
        Ok(swallowed)
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match &mut this.opening {
            Opening::Startup { reader, .. } => {
                *reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Opening::Greeting { read } => {
                let rest = &this.greeting[*read..];
                let part = &rest[..rest.len().min(buffer.remaining())];
                buffer.put_slice(part);
                *read += part.len();
                if *read == this.greeting.len() {
                    this.opening = Opening::Done;
                }
                Poll::Ready(Ok(()))
            }
            Opening::Done => Pin::new(&mut this.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Session {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.swallow(bytes) {
            Ok(0) => Pin::new(&mut self.stream).poll_write(cx, bytes),
            swallowed => Poll::Ready(swallowed),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
