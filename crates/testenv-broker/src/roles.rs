//! Roles: which service a request means, and the snapshot that is right for it now.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use testenv_api::{Isolation, LeaseRequest, Problem, ProblemKind, RoleInfo, ServiceKind};
use testenv_config::{Config, IsolationConfig, ServiceConfig};
use testenv_services::inputs::{Fingerprint, Watch};
use testenv_services::machine::Machine;
use testenv_services::service::{self, Runtime, Spec, Surroundings, kind};
use testenv_services::snapshot::{self, Prepared, Variant};

use crate::BrokerOptions;

/// The workspace's roles, as `testenv.toml` has them now.
#[derive(Debug)]
pub(crate) struct Roles {
    options: BrokerOptions,
    machine: Arc<Machine>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    seen: Option<Fingerprint>,
    config: Arc<Config>,
    problem: Option<Problem>,
    roles: HashMap<String, Arc<Role>>,
}

/// One role.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) spec: Arc<Spec>,
    watched: Vec<PathBuf>,
    server: Slot,
    template: Slot,
    /// Held while one of its snapshots is made: the template is made from the other.
    making: tokio::sync::Mutex<()>,
    /// What is being done for that, for messages.
    doing: Mutex<String>,
}

/// A snapshot and what its sources looked like when it was taken from the cache or made.
type Slot = Arc<tokio::sync::Mutex<Option<Made>>>;

#[derive(Debug)]
struct Made {
    sources: Watch,
    at: Instant,
    prepared: Result<Prepared, Problem>,
}

impl Roles {
    pub(crate) fn new(options: BrokerOptions, machine: Arc<Machine>) -> Self {
        Self { options, machine, loaded: Mutex::default() }
    }

    /// The configuration as the file has it now; the last good one while the file is wrong.
    pub(crate) fn config(&self) -> Arc<Config> {
        let mut loaded = self.loaded.lock().expect("no panic while locked");
        self.reload(&mut loaded);
        Arc::clone(&loaded.config)
    }

    /// The role that a request means, and the isolation of its lease.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] naming the roles there are, or what is wrong with the configuration or engine.
    pub(crate) async fn find(&self, request: &LeaseRequest) -> Result<(Arc<Role>, Isolation), Problem> {
        let (name, config, seen) = {
            let mut loaded = self.loaded.lock().expect("no panic while locked");
            self.reload(&mut loaded);
            if let Some(problem) = &loaded.problem {
                return Err(problem.clone());
            }
            let (name, config) = choose(&loaded.config, request)?;
            if let Some(role) = loaded.roles.get(&name) {
                return Ok((Arc::clone(role), isolation(&role.spec, request)?));
            }
            (name, config, loaded.seen.clone())
        };
        let found = self.resolve(name.clone(), config).await?;
        let isolation = isolation(&found.spec, request)?;
        let mut loaded = self.loaded.lock().expect("no panic while locked");
        if loaded.seen != seen {
            return Ok((found, isolation));
        }
        Ok((Arc::clone(loaded.roles.entry(name).or_insert(found)), isolation))
    }

    /// Resolves a role. Engines are run for it, which may take a while: nobody else waits meanwhile.
    async fn resolve(&self, name: String, config: ServiceConfig) -> Result<Arc<Role>, Problem> {
        let (options, machine) = (self.options.clone(), Arc::clone(&self.machine));
        let runtimes = self.config().runtime.clone();
        let resolving = tokio::task::spawn_blocking(move || {
            let around = Surroundings {
                root: options.workspace.root(),
                path: &options.path,
                environment: &options.environment,
                runtimes: &runtimes,
                machine: &machine,
            };
            let spec = Spec::resolve(&name, &config, around)?;
            let watched = snapshot::watched_paths(&spec);
            Ok(Arc::new(Role {
                spec: Arc::new(spec),
                watched,
                server: Slot::default(),
                template: Slot::default(),
                making: tokio::sync::Mutex::default(),
                doing: Mutex::default(),
            }))
        });
        let gone = |_| Err(Problem::new(ProblemKind::Internal, "the role could not be resolved"));
        resolving.await.unwrap_or_else(gone)
    }

    /// All roles, for `GET /v1/services`.
    pub(crate) fn list(&self) -> Result<Vec<RoleInfo>, Problem> {
        let mut loaded = self.loaded.lock().expect("no panic while locked");
        self.reload(&mut loaded);
        if let Some(problem) = &loaded.problem {
            return Err(problem.clone());
        }
        let info = |(role, config): (&String, &ServiceConfig)| RoleInfo {
            role: role.clone(),
            service: kind(config.service),
            isolation: config.isolation.map_or(Isolation::Server, from_config),
            env: config.env_templates().into_keys().collect(),
        };
        Ok(loaded.config.services.iter().map(info).collect())
    }

    fn reload(&self, loaded: &mut Loaded) {
        let file = self.options.workspace.config_file();
        let seen = Fingerprint::take([file.as_path()]);
        if loaded.seen.as_ref() == Some(&seen) {
            return;
        }
        loaded.seen = Some(seen);
        match Config::load(&file) {
            Ok(config) => {
                *loaded = Loaded { seen: loaded.seen.take(), config: Arc::new(config), ..Loaded::default() };
            }
            Err(error) => {
                let problem = Problem::new(ProblemKind::InvalidConfig, "testenv.toml cannot be used")
                    .detail(error.to_string())
                    .hint("docs/configuration.md lists every key; the next request reads the file again");
                loaded.problem = Some(problem);
            }
        }
    }
}

impl Role {
    /// What is right for the files as they are now, made if it has to be.
    ///
    /// Requests that come while it is made share what comes of it, failure too.
    ///
    /// # Errors
    /// What went wrong in preparing.
    pub(crate) async fn prepared(
        self: &Arc<Self>,
        machine: &Arc<Machine>,
        variant: Variant,
        arrived: Instant,
    ) -> Result<Prepared, Problem> {
        let slot = match variant {
            Variant::Server => &self.server,
            Variant::Template => &self.template,
        };
        let mut slot = Arc::clone(slot).lock_owned().await;
        if let Some(made) = slot.as_mut()
            && made.sources.is_unchanged()
            && made.prepared.as_ref().map_or(made.at >= arrived, Prepared::is_there)
        {
            return made.prepared.clone();
        }
        // A task of its own: when whoever asked gives up, it goes on for those who come later, and keeps the slot.
        let (role, machine) = (Arc::clone(self), Arc::clone(machine));
        let making = tokio::spawn(async move {
            let _making = role.making.lock().await;
            let sources = Watch::new(role.watched.clone());
            let prepared = role.make(machine, variant).await;
            role.note("");
            *slot = Some(Made { sources, at: Instant::now(), prepared: prepared.clone() });
            prepared
        });
        making.await.unwrap_or_else(|_| Err(no_result()))
    }

    async fn make(self: &Arc<Self>, machine: Arc<Machine>, variant: Variant) -> Result<Prepared, Problem> {
        let role = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own, which outlives the server it starts: servers die with their thread.
        std::thread::Builder::new()
            .name("prepare".into())
            .spawn(move || {
                let _ = sender.send(snapshot::ensure(&machine, &role.spec, variant, &|what| role.note(what)));
            })
            .map_err(|error| crate::startup::failed("start a thread", &error))?;
        receiver.await.unwrap_or_else(|_| Err(no_result()))
    }

    fn note(&self, what: &str) {
        tracing::debug!(role = self.spec.role, what, "preparing");
        what.clone_into(&mut self.doing.lock().expect("no panic while locked"));
    }

    /// What is being done to prepare it; empty when nothing is.
    pub(crate) fn doing(&self) -> String {
        self.doing.lock().expect("no panic while locked").clone()
    }
}

fn no_result() -> Problem {
    Problem::new(ProblemKind::Internal, "the preparing thread ended without a result")
}

fn from_config(isolation: IsolationConfig) -> Isolation {
    match isolation {
        IsolationConfig::Namespace => Isolation::Namespace,
        IsolationConfig::Server => Isolation::Server,
    }
}

fn isolation(spec: &Spec, request: &LeaseRequest) -> Result<Isolation, Problem> {
    let refused = |title: String, hint: &str| Err(Problem::new(ProblemKind::BadRequest, title).hint(hint));
    let wanted = request.isolation.or_else(|| spec.config.isolation.map(from_config));
    match (&spec.runtime, wanted) {
        (Runtime::External(_), None) => Ok(Isolation::Namespace),
        (Runtime::External(declared), Some(Isolation::Server)) => refused(
            format!(
                "services.{} is in the server that {} names, which nobody can have alone",
                spec.role, declared.variable
            ),
            "ask for isolation `namespace`, or set `runtime = \"native\"`",
        ),
        (_, Some(Isolation::Namespace)) if !spec.has_namespaces() => refused(
            format!("{} has no namespaces", spec.kind),
            "ask for isolation `server`: every lease then has a server of its own",
        ),
        (_, wanted) => Ok(wanted.unwrap_or(Isolation::Server)),
    }
}

/// The role of that name, or the only one of that kind, or a plain service of that kind where none is configured.
fn choose(config: &Config, request: &LeaseRequest) -> Result<(String, ServiceConfig), Problem> {
    let known = || {
        let roles: Vec<_> = config.services.keys().map(String::as_str).collect();
        if roles.is_empty() {
            "testenv.toml has no roles".into()
        } else {
            format!("there are {}", roles.join(", "))
        }
    };
    match (&request.role, request.service) {
        (Some(role), service) => {
            let found = config.services.get(role).ok_or_else(|| {
                Problem::new(ProblemKind::NotFound, format!("no role {role:?}"))
                    .detail(known())
                    .hint(format!("add [services.{role}] to testenv.toml, or ask for one of these"))
            })?;
            if service.is_some_and(|wanted| wanted != kind(found.service)) {
                let title = format!(
                    "role {role:?} is {}, not {}",
                    kind(found.service),
                    service.map_or("", ServiceKind::as_str)
                );
                return Err(Problem::new(ProblemKind::BadRequest, title));
            }
            Ok((role.clone(), found.clone()))
        }
        (None, Some(service)) => {
            let mut found = config.services.iter().filter(|(_, config)| kind(config.service) == service);
            match (found.next(), found.next()) {
                (Some((role, config)), None) => Ok((role.clone(), config.clone())),
                (Some(_), Some(_)) => Err(Problem::new(
                    ProblemKind::BadRequest,
                    format!("several roles are {service}, and the request names none"),
                )
                .detail(known())
                .hint("name the role, as in #[testenv(role = \"…\")] or --role")),
                (None, _) => {
                    let plain = service::plain(service).ok_or_else(|| {
                        Problem::new(ProblemKind::NotFound, format!("no role is a {service} service"))
                            .detail(known())
                            .hint("describe it in testenv.toml; docs/configuration.md says how")
                    })?;
                    Ok((service.to_string(), plain))
                }
            }
        }
        (None, None) => {
            Err(Problem::new(ProblemKind::BadRequest, "a lease needs a role or a service").detail(known()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TWO: &str = "[services.a]\nservice = \"postgres\"\n[services.b]\nservice = \"postgres\"\n";

    fn chosen(config: &str, role: Option<&str>, service: Option<ServiceKind>) -> Result<String, String> {
        let config = Config::parse(config, Path::new("testenv.toml")).unwrap();
        let request = LeaseRequest { role: role.map(Into::into), service, ..LeaseRequest::default() };
        choose(&config, &request).map(|(role, _)| role).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_service_alone_is_enough_when_only_one_role_has_it() {
        let one = "[services.db]\nservice = \"postgres\"\n[services.cache]\nservice = \"redis\"\n";
        assert_eq!(chosen(one, None, Some(ServiceKind::Postgres)), Ok("db".into()));
        assert_eq!(chosen("", None, Some(ServiceKind::Redis)), Ok("redis".into()));
    }

    #[test]
    fn what_cannot_be_chosen_is_told_with_what_there_is() {
        assert!(chosen(TWO, None, Some(ServiceKind::Postgres)).unwrap_err().contains("there are a, b"));
        assert!(chosen(TWO, Some("c"), None).unwrap_err().contains("no role \"c\""));
        assert!(chosen(TWO, Some("a"), Some(ServiceKind::Redis)).unwrap_err().contains("not redis"));
        assert!(chosen(TWO, None, None).unwrap_err().contains("a role or a service"));
    }
}
