//! As much of a client of S3 as preparing a server takes: signed requests, with limits on the answers.

use std::time::{Duration, Instant, SystemTime};

use testenv_api::{Problem, ProblemKind};

use super::sign::{Request, encode};
use crate::Result;
use crate::drivers::http::{Answer, Http};
use crate::service::Endpoint;

/// How long what testenv asks of its own accord may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server that has just started may say that a part of it has not.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Bytes of an error's body looked at.
const MAX_ERROR: usize = 4 << 10;

/// A connection that signs what it sends.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    host: String,
    access_key: String,
    secret_key: String,
}

/// What is asked for. Paths and queries are not encoded yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Client {
    /// Connects; everything has to be done by `deadline`.
    pub(super) fn open(endpoint: &Endpoint, deadline: Instant) -> Result<Self> {
        let Endpoint { host, port, user, password, .. } = endpoint;
        let http = Http::connect(host, *port, deadline).map_err(|error| {
            let title = format!("S3 at {host}:{port} cannot be reached");
            Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string())
        })?;
        Ok(Self {
            http,
            host: format!("{host}:{port}"),
            access_key: user.clone(),
            secret_key: password.clone(),
        })
    }

    /// Sends a request; the answer may be a refusal.
    pub(super) fn send(&mut self, ask: Ask<'_>) -> Result<Answer> {
        let mut query: Vec<_> = ask
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, None), encode(value, None)))
            .collect();
        query.sort();
        let (path, query) = (encode(ask.path, Some('/')), query.join("&"));
        let request =
            Request { method: ask.method, path: &path, query: &query, headers: ask.headers, body: ask.body };
        let headers = request.sign(&self.host, &self.access_key, &self.secret_key, SystemTime::now());
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        let body = Some(ask.body).filter(|body| !body.is_empty() || !matches!(ask.method, "GET" | "HEAD"));
        self.http.send(ask.method, &target, &headers, body).map_err(|error| {
            let title = format!("S3 at {} did not answer {} {}", self.host, ask.method, ask.path);
            Problem::new(ProblemKind::PrepareFailed, title).detail(error.to_string())
        })
    }

    /// The same, where a refusal is an error. A server that says that a part of it has not started yet is asked
    /// again for a while.
    pub(super) fn expect(&mut self, ask: Ask<'_>) -> Result<Answer> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let answer = self.send(ask)?;
            if answer.is_success() {
                return Ok(answer);
            }
            if answer.status != 503 || Instant::now() > patience {
                return Err(refused(ask, &answer));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

/// What a server refused, and why.
pub(super) fn refused(ask: Ask<'_>, answer: &Answer) -> Problem {
    let body = answer.text(MAX_ERROR);
    let mut why = ["Code", "Message"].map(|name| text(&body, name)).into_iter().flatten().collect::<Vec<_>>();
    if why.is_empty() {
        why.push(body.chars().take(200).collect());
    }
    Problem::new(ProblemKind::PrepareFailed, format!("S3 refused {} {}", ask.method, ask.path)).detail(
        format!("status {}: {}", answer.status, why.join(": ")).trim_end_matches([':', ' ']).to_owned(),
    )
}

/// The text of the first element with this name.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).next().map(unescaped)
}

/// What is inside each element with this name, as it is written. Elements of one name are not in each other in
/// what S3 answers, and those looked for have no attributes.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let inside = &rest[rest.find(&begin)? + begin.len()..];
        let length = inside.find(&end)?;
        rest = &inside[length + end.len()..];
        Some(&inside[..length])
    })
}

/// Text of XML with its entities replaced.
pub(super) fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(';') else { break };
        let entity = &rest[1..end];
        let number = entity.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        });
        let known = match entity {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => number.and_then(char::from_u32),
        };
        match known {
            Some(c) => plain.push(c),
            None => plain.push_str(&rest[..=end]),
        }
        rest = &rest[end + 1..];
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_their_text_is_plain() {
        let xml = "<a><Key>x &amp; y</Key><Key>&#34;&#x4e;&lt;</Key><Key>&odd; & so</Key><Key>no end";
        let keys: Vec<_> = elements(xml, "Key").map(unescaped).collect();
        assert_eq!(keys, ["x & y", "\"N<", "&odd; & so"]);
        assert_eq!(text(xml, "Name"), None);
        assert_eq!(unescaped("&#1114112;&#x;&;"), "&#1114112;&#x;&;");
    }

    #[test]
    fn a_refusal_tells_what_the_server_says() {
        let answer = |body: &str| Answer { status: 403, body: body.into(), ..Answer::default() };
        let ask = Ask { method: "PUT", path: "/app/x", ..Ask::default() };
        let problem = refused(ask, &answer("<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"));
        assert_eq!(problem.title, "S3 refused PUT /app/x");
        assert_eq!(problem.detail, "status 403: AccessDenied: No.");
        assert_eq!(refused(ask, &answer("")).detail, "status 403");
        assert_eq!(refused(ask, &answer("<html>")).detail, "status 403: <html>");
    }
}
