//! Answers as they come, byte by byte and all at once, and answers as they must not.

use super::*;

/// Gives one byte at a time, as a slow connection does.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buffer.len()).min(1);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Reads an answer at once and dribbled, which must come to the same.
fn read(answer: &str) -> Result<(u16, String), String> {
    fn whole<R: Read>(reader: R) -> Result<(u16, String), String> {
        let mut response = Response::read(reader).map_err(|error| error.to_string())?;
        let body = response.body.all().map_err(|error| error.to_string())?;
        Ok((response.status, String::from_utf8(body).unwrap()))
    }
    let at_once = whole(answer.as_bytes());
    assert_eq!(at_once, whole(Dribble(answer.as_bytes())), "{answer:?}");
    at_once
}

#[test]
fn both_framings() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhellomore";
    assert_eq!(read(length), Ok((200, "hello".to_owned())));
    let chunked =
        "HTTP/1.1 404 \r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nt: x\r\n\r\n";
    assert_eq!(read(chunked), Ok((404, "hello".to_owned())));
    assert_eq!(read("HTTP/1.1 204\r\n\r\n"), Ok((204, String::new())));
    assert_eq!(read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Ok((200, String::new())));
}

#[test]
fn lines_come_one_by_one_over_chunk_borders_while_the_body_is_open() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                  4\r\none\n\r\n2\r\ntw\r\n6\r\no\nrest\r\n";
    let mut response = Response::read(answer.as_bytes()).unwrap();
    assert_eq!(response.body.line().unwrap().unwrap(), b"one");
    assert_eq!(response.body.line().unwrap().unwrap(), b"two");
    // The third line is open, and so is the body: the connection ended within the answer.
    let error = response.body.line().unwrap_err();
    assert!(matches!(error, HttpError::Closed { before_answer: false }), "{error}");
}

#[test]
fn the_last_line_needs_no_end() {
    let mut response =
        Response::read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na\nbcd".as_bytes()).unwrap();
    assert_eq!(response.body.line().unwrap().unwrap(), b"a");
    assert_eq!(response.body.line().unwrap().unwrap(), b"bcd");
    assert_eq!(response.body.line().unwrap(), None);
}

#[test]
fn what_is_not_the_protocol_is_refused() {
    for (answer, said) in [
        ("", "without an answer"),
        ("H", "within the answer"),
        ("HTTP/1.1 200 OK\r\n", "within the answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "status line"),
        ("HTTP/1.0 200 OK\r\n\r\n", "status line"),
        ("HTTP/1.1 20 OK\r\n\r\n", "status line"),
        ("HTTP/1.1 2000\r\n\r\n", "status line"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "status line"),
        ("HTTP/1.1 +20 OK\r\n\r\n", "status line"),
        ("HTTP/1.1 2\u{e9} OK\r\n\r\n", "status line"),
        ("HTTP/1.1 200 OK\n\n", "without CR"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\n\r\n", "without CR"),
        ("HTTP/1.1 200 OK\r\nx\0: y\r\n\r\n", "control characters"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header"),
        ("HTTP/1.1 200 OK\r\n: empty\r\n\r\n", "header"),
        ("HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", "header"),
        ("HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\n", "header"),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", "length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n", "length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", "length"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "two different lengths"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "both"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "transfer encoding"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", "encoding"),
        ("HTTP/1.1 200 OK\r\n\r\n", "neither"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "within the answer"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", "chunk size"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", "chunk size"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1ffffffff\r\n", "chunk size"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", "longer than it said"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "within the answer"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "within the answer"),
    ] {
        match read(answer) {
            Ok(it) => panic!("accepted {answer:?} as {it:?}"),
            Err(error) => assert!(error.contains(said), "{answer:?}: {error}"),
        }
    }
}

#[test]
fn nothing_is_read_without_end() {
    let endless =
        |start: &str| io::Read::chain(io::Cursor::new(start.to_owned().into_bytes()), io::repeat(b'a'));
    let head = Response::read(endless("HTTP/1.1 200 OK\r\nx: ")).unwrap_err();
    assert!(matches!(head, HttpError::TooLong("status line and headers")), "{head}");

    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;";
    let error = Response::read(endless(chunk)).unwrap().body.all().unwrap_err();
    assert!(matches!(error, HttpError::TooLong("the line before a chunk")), "{error}");

    let body = "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n";
    let error = Response::read(endless(body)).unwrap().body.all().unwrap_err();
    assert!(matches!(error, HttpError::TooLong("the body has more than 1 MiB")), "{error}");
    let error = Response::read(endless(body)).unwrap().body.line().unwrap_err();
    assert!(matches!(error, HttpError::TooLong("a line has more than 1 MiB")), "{error}");

    let many = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(HEAD_LIMIT));
    let error = Response::read(many.as_bytes()).unwrap_err();
    assert!(matches!(error, HttpError::TooLong("status line and headers")), "{error}");
}

#[test]
fn random_bytes_and_cut_answers_never_panic() {
    let whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\nb\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    // A small generator with a fixed start: the same bytes on every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..20_000 {
        let mut answer = whole[..random() % (whole.len() + 1)].to_vec();
        for _ in 0..random() % 4 {
            if !answer.is_empty() {
                let at = random() % answer.len();
                answer[at] = random() as u8;
            }
        }
        if let Ok(mut response) = Response::read(answer.as_slice()) {
            while let Ok(Some(_)) = response.body.line() {}
        }
    }
}

#[test]
fn a_request_carries_the_protocol_and_its_length() {
    let mut request = Vec::new();
    write_request(&mut request, "POST", "/v1/leases", b"{}").unwrap();
    assert_eq!(
        String::from_utf8(request).unwrap(),
        "POST /v1/leases HTTP/1.1\r\nhost: testenv\r\ntestenv-protocol: 1\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    );
}
