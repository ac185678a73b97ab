//! The conversation from memory, with a peer that stands where the server would.

use std::io::IoSlice;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x0ba\0text\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";

fn startup() -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 3, 0, 0];
    message.extend_from_slice(b"user\0postgres\0\0");
    message[3] = message.len() as u8;
    message
}

fn session() -> (Session, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let opening = Opening::Startup { seen: Vec::new(), reader: None };
    (Session { stream: ours, opening, greeting: GREETING.to_vec() }, theirs)
}

#[test]
fn only_a_whole_idle_greeting_is_taken() {
    assert!(is_greeting(GREETING));
    let cut = |from: usize, to: usize| &GREETING[from..to];
    for (bytes, why) in [
        (&b""[..], "empty"),
        (cut(0, GREETING.len() - 1), "cut off"),
        (cut(0, 9), "AuthenticationOk alone"),
        (cut(9, GREETING.len()), "no AuthenticationOk"),
        (b"R\0\0\0\x08\0\0\0\x03Z\0\0\0\x05I", "asks for a password"),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05T", "within a transaction"),
        (b"R\0\0\0\x08\0\0\0\0E\0\0\0\x05x", "an error"),
        (b"R\0\0\0\x03\0\0\0\0", "a length below itself"),
        (b"R\xff\xff\xff\xff\0\0\0\0", "an endless message"),
    ] {
        assert!(!is_greeting(bytes), "{why}");
    }
    assert!(!is_greeting(&[GREETING, b"x"].concat()), "bytes behind the end");
}

#[tokio::test]
async fn the_start_is_played_from_memory_and_the_rest_is_the_socket() {
    let (mut session, mut server) = session();
    let message = startup();
    // In pieces that cut the length and the body, the last one with a query behind it.
    session.write_all(&message[..2]).await.unwrap();
    session.write_all(&message[2..10]).await.unwrap();
    session.write_all(&[&message[10..], b"query"].concat()).await.unwrap();

    let mut greeting = vec![0; GREETING.len()];
    session.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, GREETING);

    let mut query = [0; 5];
    server.read_exact(&mut query).await.unwrap();
    assert_eq!(&query, b"query", "the server sees nothing of the start-up message");
    server.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    session.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"answer");
}

#[tokio::test]
async fn a_reader_that_came_first_is_woken() {
    let (session, _server) = session();
    let (mut reader, mut writer) = tokio::io::split(session);
    let reading = tokio::spawn(async move { reader.read_u8().await });
    tokio::task::yield_now().await;
    writer.write_all(&startup()).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(5), reading).await.expect("the reader is woken");
    assert_eq!(first.unwrap().unwrap(), b'R');
}

#[tokio::test]
async fn what_is_no_startup_message_is_refused() {
    let (mut session, _server) = session();
    let error = session.write_all(b"GET / HTTP/1.1").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn greeting_and_socket_come_in_one_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (given, mut server) = UnixStream::pair().unwrap();
    let giver = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let sockets = [given.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
        sendmsg(&stream, &[IoSlice::new(GREETING)], &mut control, SendFlags::empty()).unwrap();
    });
    let mut session = take_over(path.to_str().unwrap()).expect("a session");
    giver.join().unwrap();
    session.write_all(&startup()).await.unwrap();
    session.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn no_session_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    assert!(take_over(path.to_str().unwrap()).is_none(), "nobody there");
    let listener = UnixListener::bind(&path).unwrap();
    let closer = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert!(take_over(path.to_str().unwrap()).is_none(), "closed without a message");
    closer.join().unwrap();
}
