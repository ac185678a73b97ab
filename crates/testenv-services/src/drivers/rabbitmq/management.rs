//! The interface for administrators, which is a plugin's: HTTP and JSON.

use std::time::Instant;

use serde_json::Value;
use testenv_api::{Problem, ProblemKind};

use crate::Result;
use crate::drivers::http::{Answer, Http};
use crate::service::Endpoint;

/// What its port is called.
pub(super) const PORT: &str = "management";
/// Bytes of an answer shown with an error.
const SHOWN: usize = 2000;

/// A connection to it.
#[derive(Debug)]
pub(super) struct Management {
    http: Http,
    place: String,
}

impl Management {
    /// Connects with the endpoint's login. All that is asked has to be answered by `deadline`.
    pub(super) fn connect(endpoint: &Endpoint, deadline: Instant) -> Result<Self> {
        let Endpoint { host, user, password, .. } = endpoint;
        let port = endpoint.ports.get(PORT).copied().unwrap_or_default();
        let place = format!("{host}:{port}");
        let connected = Http::connect(host, port, deadline).map_err(|error| silent(&place, &error))?;
        Ok(Self { http: connected.login(user, password), place })
    }

    /// Has something made.
    ///
    /// # Errors
    /// What the server says against it.
    pub(super) fn tell(&mut self, method: &str, path: &str, body: &Value) -> Result<()> {
        let answer = self.exchange(method, path, Some(body))?;
        if answer.is_success() { Ok(()) } else { Err(refused(method, path, &answer)) }
    }

    /// Has something removed, if it is there.
    ///
    /// # Errors
    /// What the server says against it.
    pub(super) fn delete(&mut self, path: &str) -> Result<()> {
        let answer = self.exchange("DELETE", path, None)?;
        if answer.is_success() || answer.status == 404 {
            return Ok(());
        }
        Err(refused("DELETE", path, &answer))
    }

    /// Asks for what is at `path`.
    ///
    /// # Errors
    /// What the server says instead.
    pub(super) fn get(&mut self, path: &str) -> Result<Value> {
        let answer = self.exchange("GET", path, None)?;
        if !answer.is_success() {
            return Err(refused("GET", path, &answer));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| silent(&self.place, &std::io::Error::other(format!("it sent no JSON: {error}"))))
    }

    fn exchange(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = body.map(Value::to_string);
        let exchanged = self.http.request(method, path, body.as_deref().map(str::as_bytes));
        exchanged.map_err(|error| silent(&self.place, &error))
    }
}

/// What the server says about a refusal: `{"error": …, "reason": …}`.
fn reason(answer: &Answer) -> String {
    let said: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let reason = said.as_ref().and_then(|said| said.get("reason"));
    match reason {
        Some(Value::String(text)) => text.chars().take(SHOWN).collect(),
        Some(other) => other.to_string().chars().take(SHOWN).collect(),
        None => answer.text(SHOWN),
    }
}

fn refused(method: &str, path: &str, answer: &Answer) -> Problem {
    let problem = Problem::new(ProblemKind::PrepareFailed, format!("RabbitMQ refused {method} {path}"))
        .detail(format!("{}: {}", answer.status, reason(answer)));
    match (answer.status, problem.detail.contains("function_clause")) {
        (401, _) => problem.hint("the user has to have the tag `administrator`"),
        (_, true) => problem.hint("something in it lacks a key that RabbitMQ exports, such as `auto_delete`"),
        _ => problem,
    }
}

fn silent(place: &str, error: &std::io::Error) -> Problem {
    Problem::new(ProblemKind::PrepareFailed, "RabbitMQ's management interface does not answer")
        .detail(format!("{place}: {error}"))
        .hint(
            "the server needs the plugin rabbitmq_management; images with it have `-management` in their tag",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_the_servers_words() {
        let told = |body: &str| reason(&Answer { status: 400, body: body.into(), ..Answer::default() });
        assert_eq!(told(r#"{"error":"bad_request","reason":"no such"}"#), "no such");
        assert_eq!(told(r#"{"reason":["no_such_vhost","x"]}"#), r#"["no_such_vhost","x"]"#);
        assert_eq!(told("<html>\n"), "<html>");
        assert_eq!(told(&"ü".repeat(SHOWN * 2)).chars().count(), SHOWN / 2);
    }
}
