//! Runs single tests of the calling binary in processes of their own, against a broker of their own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testenv_api::client::Client;
use testenv_api::discovery::env;

/// How long a child may take. It may have to prepare a snapshot on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells a test that is ignored otherwise that it runs as a child.
pub(crate) const CHILD: &str = "TESTENV_TEST_CHILD";

/// A runtime directory of its own, and so a broker of its own, which ends with this value.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// How a child ended, and what it printed on both outputs.
pub(crate) struct Ended {
    pub(crate) passed: bool,
    pub(crate) output: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        // Socket paths are short, and servers that run as another user have to reach theirs.
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("te").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The broker that the children started, if they did.
    pub(crate) fn client(&self) -> Option<Client> {
        let dirs = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        dirs.map(|dir| dir.join("broker.sock")).find(|socket| socket.exists()).map(Client::at)
    }

    /// Runs the test `name` of this binary, with these environment variables besides.
    pub(crate) fn run(&self, name: &str, variables: &[(&str, &str)]) -> Ended {
        let output = tempfile::NamedTempFile::new().unwrap();
        // One open file, and so one position to write at, for both.
        let both = output.reopen().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env_remove(env::KEEP)
            .env_remove(env::WAIT_MS)
            .env(env::RUNTIME_DIR, self.path())
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "0")
            .envs(variables.iter().copied())
            .stdout(both.try_clone().unwrap())
            .stderr(both)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill().unwrap();
                    break child.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let output = std::fs::read_to_string(output.path()).unwrap();
        assert!(output.contains("running 1 test"), "{name} is no test of this binary: {output}");
        Ended { passed: status.success(), output }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(client) = self.client() {
            let _ = client.post_only("/v1/shutdown", &std::collections::BTreeMap::from([("when", "now")]));
        }
    }
}

impl Ended {
    /// Checks that the test failed and that its output has all of these.
    pub(crate) fn assert_failed_with(&self, expected: &[&str]) {
        assert!(!self.passed, "it passed: {}", self.output);
        for text in expected {
            assert!(self.output.contains(text), "{text:?} is missing in:\n{}", self.output);
        }
    }
}
