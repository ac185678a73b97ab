//! Combinations of service, runtime and isolation, and workspaces that have them.

use testenv_api::client::Held;
use testenv_api::{Isolation, LeaseRequest};
use testkit::TestWorkspace;
use testkit::subject::Subject;

use crate::TESTENV;

/// Name of the one role.
const ROLE: &str = "it";
/// One ahead is enough to see that what comes out of the pool is as good as what does not.
const POOL: &str = "[pool]\nwarm = 1\nwait = \"3m\"\n";

/// A combination under test.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) subject: &'static dyn Subject,
    pub(crate) runtime: Runtime,
    pub(crate) isolation: Isolation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    Native,
    External,
}

impl Runtime {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::External => "external",
        }
    }
}

impl Place {
    /// All combinations that a service has.
    pub(crate) fn all(subject: &'static dyn Subject) -> Vec<Self> {
        let mut all = vec![(Runtime::Native, Isolation::Server), (Runtime::Native, Isolation::Shared)];
        if subject.has_namespaces() {
            all.push((Runtime::Native, Isolation::Namespace));
        }
        if subject.has_namespaces() && subject.can_be_external() {
            all.push((Runtime::External, Isolation::Namespace));
        }
        all.into_iter().map(|(runtime, isolation)| Self { subject, runtime, isolation }).collect()
    }

    pub(crate) fn name(self) -> String {
        format!("{}::{}::{}", self.subject.service(), self.runtime.as_str(), self.isolation)
    }

    /// A workspace with the role, prepared as the subject says.
    pub(crate) fn site(self) -> Result<Site, String> {
        let (runtime, isolation) = (self.runtime.as_str(), self.isolation);
        let isolation = if isolation == Isolation::Namespace { "namespace" } else { "server" };
        let isolation = match self.runtime {
            Runtime::External => String::new(),
            Runtime::Native => format!("isolation = \"{isolation}\"\n"),
        };
        let mut workspace = TestWorkspace::new(TESTENV).config(&format!(
            "{}runtime = \"{runtime}\"\n{isolation}{}{POOL}",
            role(self.subject),
            self.subject.config()
        ));
        for (path, content) in self.subject.files() {
            workspace.write(path, content);
        }
        let provider = match self.runtime {
            Runtime::Native => None,
            Runtime::External => Some(Provider::new(self.subject)?),
        };
        if let Some(provider) = &provider {
            for (name, value) in &provider.held.lease().env {
                workspace = workspace.env(name, value);
            }
        }
        Ok(Site { place: self, workspace, provider })
    }
}

/// A workspace, and where its external server is from.
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) workspace: TestWorkspace,
    provider: Option<Provider>,
}

/// A server that is declared: a lease of another workspace.
struct Provider {
    held: Held,
    workspace: TestWorkspace,
}

impl Provider {
    fn new(subject: &dyn Subject) -> Result<Self, String> {
        let config = role(subject) + subject.provider() + "[pool]\nwarm = 0\nwait = \"3m\"\n";
        let workspace = TestWorkspace::new(TESTENV).config(&config);
        for (path, content) in subject.files() {
            workspace.write(path, content);
        }
        let held = workspace.try_lease(&request(Isolation::Server))?;
        Ok(Self { held, workspace })
    }
}

impl Site {
    pub(crate) fn lease(&self) -> Result<Held, String> {
        self.workspace.try_lease(&request(self.place.isolation))
    }

    /// Ends the broker, and checks that nothing of it is left.
    pub(crate) fn end(self) {
        self.workspace.end();
        if let Some(Provider { held, workspace }) = self.provider {
            drop(held);
            workspace.end();
        }
    }
}

/// The role's first lines in `testenv.toml`.
fn role(subject: &dyn Subject) -> String {
    let bin_dir = subject.bin_dir().map_or_else(String::new, |dir| format!("bin_dir = {dir:?}\n"));
    format!("[services.{ROLE}]\nservice = \"{}\"\n{bin_dir}", subject.service())
}

fn request(isolation: Isolation) -> LeaseRequest {
    LeaseRequest { role: Some(ROLE.into()), isolation: Some(isolation), ..LeaseRequest::default() }
}
