//! Databases of a server that others run, cloned from a template that is prepared once and left there for later
//! runs: preparing it can take long.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::wire::Connection;
use super::{Postgres, STATEMENT_TIMEOUT, admin, execute, quote_name, quote_text, statement_problem};
use crate::Result;
use crate::drivers::Namespaces as _;
use crate::external;
use crate::machine::Machine;
use crate::namespace::{Clones, Origin, Replay};
use crate::service::{Endpoint, Spec};

/// Number of the lock under which templates are made; any number that nobody else uses.
const LOCK: u64 = 0x7465_7374_656e_7600;

/// What PostgreSQL answers when a database is not there.
const NO_SUCH_DATABASE: &str = "3D000";

/// Databases cloned from a template.
#[derive(Debug)]
pub(super) struct Templates {
    spec: Arc<Spec>,
    server: Endpoint,
    replay: Replay,
    template: Mutex<String>,
}

impl Templates {
    /// Finds the template in the server, or makes it.
    ///
    /// # Errors
    /// When the server refuses, or a migration fails.
    pub(super) fn new(machine: &Arc<Machine>, spec: &Arc<Spec>, origin: Origin<'_>) -> Result<Self> {
        let replay = Replay::new(machine, spec, origin)?;
        let server = origin.endpoint().clone();
        let template = Mutex::new(prepare(spec, &server, &replay)?);
        Ok(Self { spec: Arc::clone(spec), server, replay, template })
    }
}

fn prepare(spec: &Spec, server: &Endpoint, replay: &Replay) -> Result<String> {
    let mut session = admin(server, "postgres")?;
    // Several runs may want the same template at once. The lock is gone with the session.
    let deadline = Instant::now() + spec.config.prepare_timeout();
    let locked = session.run(&format!("SELECT pg_advisory_lock({LOCK})"), deadline);
    locked.map_err(|error| statement_problem("failed to wait for others that prepare a template", &error))?;
    prepared(&mut session, spec, server, replay)
}

/// The name of the template; made, under the lock that `session` holds, if it is not there.
fn prepared(session: &mut Connection, spec: &Spec, server: &Endpoint, replay: &Replay) -> Result<String> {
    let names = Postgres.list(spec, server)?;
    if let Some(name) = external::find_template(&names, replay.key()) {
        let sql = format!("SELECT datistemplate FROM pg_database WHERE datname = {}", quote_text(name));
        let rows = execute(session, &sql, "look at a template")?;
        if rows.into_iter().flatten().flatten().next().as_deref() == Some("t") {
            return Ok(name.clone());
        }
        // Whoever made it did not come to the end.
        Postgres.remove(spec, server, name)?;
    }
    let name = external::template_name(replay.key());
    replay.create(&name)?;
    let sql = format!("ALTER DATABASE {} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false", quote_name(&name));
    execute(session, &sql, "finish a template")?;
    Ok(name)
}

impl Clones for Templates {
    fn create(&self, name: &str) -> Result<Endpoint> {
        let mut session = admin(&self.server, "postgres")?;
        let clone = |template: &str| {
            format!("CREATE DATABASE {} TEMPLATE {}", quote_name(name), quote_name(template))
        };
        let template = self.template.lock().expect("no panic while locked").clone();
        match session.run(&clone(&template), Instant::now() + STATEMENT_TIMEOUT) {
            Ok(_) => {}
            Err(error) if error.code() == Some(NO_SUCH_DATABASE) => {
                // Another run took it for too old.
                let mut template = self.template.lock().expect("no panic while locked");
                *template = prepare(&self.spec, &self.server, &self.replay)?;
                execute(&mut session, &clone(&template), "create a database")?;
            }
            Err(error) => return Err(statement_problem("failed to create a database", &error)),
        }
        Ok(Endpoint { database: name.to_owned(), ..self.server.clone() })
    }

    fn remove(&self, name: &str) -> Result<()> {
        Postgres.remove(&self.spec, &self.server, name)
    }
}
