//! What placeholders stand for.

use std::fs;
use std::path::PathBuf;

use crate::drivers::{Driver as _, shell_word};
use crate::service::{Endpoint, Spec};

use super::Custom;

/// Values by their names.
#[derive(Clone, Debug)]
pub(super) struct Values(Vec<(String, String)>);

impl Values {
    /// For the server itself.
    pub(super) fn of_server(spec: &Spec, endpoint: &Endpoint) -> Self {
        let data = fs::read_link(Self::data_link(endpoint)).unwrap_or_default();
        Self::common(spec, endpoint).with("data", &data.display().to_string())
    }

    /// For commands that testenv runs.
    pub(super) fn of_commands(spec: &Spec, endpoint: &Endpoint) -> Self {
        Self::of_server(spec, endpoint).with("url", &Custom.url_of(spec, endpoint))
    }

    /// For whoever uses it.
    pub(super) fn of_clients(spec: &Spec, endpoint: &Endpoint, url: &str) -> Self {
        Self::common(spec, endpoint).with("url", url)
    }

    /// For what a namespace called `name` has of its own.
    pub(super) fn of_name(server: &Endpoint, name: &str, random: &str) -> Self {
        Self(Vec::new())
            .with("name", name)
            .with("random", random)
            .with("server.user", &server.user)
            .with("server.password", &server.password)
            .with("server.database", &server.database)
    }

    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        other.0.iter().fold(self, |all, (name, value)| all.with(name, value))
    }

    /// Where the data directory of a server is noted.
    pub(super) fn data_link(endpoint: &Endpoint) -> PathBuf {
        endpoint.socket_dir.join("data")
    }

    fn common(spec: &Spec, endpoint: &Endpoint) -> Self {
        let socket_dir = endpoint.socket_dir.display().to_string();
        let all = [
            ("host", endpoint.host.clone()),
            ("port", endpoint.port.to_string()),
            ("user", endpoint.user.clone()),
            ("password", endpoint.password.clone()),
            ("database", endpoint.database.clone()),
            ("role", spec.role.clone()),
            ("root", spec.root.display().to_string()),
            ("socket", socket_dir.clone()),
            ("socket_dir", socket_dir),
        ];
        let ports = endpoint.ports.iter().map(|(name, port)| (format!("port.{name}"), port.to_string()));
        Self(all.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(ports).collect())
    }

    /// The same with one more, or another in its place.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text with its placeholders filled. Those that are unknown were refused when `testenv.toml` was read.
    pub(super) fn fill(&self, text: &str) -> String {
        self.try_fill(text).unwrap_or_else(|_| text.to_owned())
    }

    /// The same for a text that nobody has looked at.
    pub(super) fn try_fill(&self, text: &str) -> Result<String, String> {
        testenv_config::fill(text, &self.pairs(), str::to_owned).map_err(|error| error.to_string())
    }

    /// A command for a shell; each value is one word of it.
    pub(super) fn fill_command(&self, command: &str) -> String {
        testenv_config::fill(command, &self.pairs(), shell_word).unwrap_or_else(|_| command.to_owned())
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_break_out_of_a_command() {
        let values = Values(Vec::new()).with("password", "a'; rm -rf ~").with("port", "1");
        assert_eq!(values.fill_command("x {password} {port}"), r"x 'a'\''; rm -rf ~' 1");
        assert_eq!(values.fill("x {password}"), "x a'; rm -rf ~");
    }
}
