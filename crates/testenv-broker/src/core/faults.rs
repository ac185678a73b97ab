//! Faults of a lease that is held: its proxy, and what is done to its server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use testenv_api::{Isolation, Problem, ProblemKind, ServerAction, ServerState};

use super::Core;
use super::leases::{Active, no_lease};
use crate::faults::Proxy;
use crate::faults::processes::Processes;

/// How long it may take until the end of a killed server is noticed.
const EXIT_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Core {
    /// The proxy of a lease.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] when nobody holds the lease, [`ProblemKind::BadRequest`] when it has no proxy.
    pub(crate) fn proxy(&self, id: &str) -> Result<Arc<Proxy>, Problem> {
        let state = self.lock();
        let active = state.leases.get(id).ok_or_else(|| no_lease(id))?;
        active.proxy.clone().ok_or_else(|| {
            Problem::new(ProblemKind::BadRequest, format!("lease {id} has no proxy on which faults could be set"))
                .detail("its port is the server's own, because faults were not asked for")
                .hint(format!(
                    "ask for them with the lease: #[testenv(faults)] on the argument, `.faults()` on the builder, \
                     `testenv exec --faults`, \"faults\": true in the request, or `faults = true` in \
                     [services.{}] of testenv.toml",
                    active.key.role
                ))
        })
    }

    /// Does something to the server of a lease. Returns when it is done.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] when nobody holds the lease, [`ProblemKind::BadRequest`] when others use the server
    /// too or it has ended, [`ProblemKind::Unsupported`].
    pub(crate) async fn act_on_server(&self, id: &str, action: ServerAction) -> Result<ServerState, Problem> {
        let Some(processes) = self.processes(id)? else {
            return match action {
                // It is as it was to be, or nothing is left to go on.
                ServerAction::Kill | ServerAction::Resume => Ok(ServerState::Ended),
                ServerAction::Pause => Err(Problem::new(
                    ProblemKind::BadRequest,
                    format!("the server of lease {id} has ended, so it cannot be paused"),
                )),
                ServerAction::Restart => Err(no_restart()),
            };
        };
        let done = match action {
            ServerAction::Pause => {
                // Noted first: whatever comes of it, a server that is kept is to go on.
                self.note(id, |active| active.is_paused = true);
                let pause = move || processes.pause().inspect_err(|_| drop(processes.resume()));
                in_thread(pause).await.map(|()| ServerState::Paused)
            }
            ServerAction::Resume => {
                let done = in_thread(move || processes.resume()).await.map(|()| ServerState::Running);
                self.note(id, |active| active.is_paused = false);
                done
            }
            ServerAction::Kill => {
                self.note(id, |active| active.is_killed = true);
                let done = in_thread(move || processes.kill()).await.map(|()| ServerState::Ended);
                self.until_exit_is_known(id).await;
                done
            }
            ServerAction::Restart => return Err(no_restart()),
        };
        done.map_err(|error| {
            Problem::new(ProblemKind::Resources, format!("the server of lease {id} cannot be changed"))
                .detail(error.to_string())
        })
    }

    /// The processes of a lease's server, if that is the lease's own; `None` when it has ended.
    fn processes(&self, id: &str) -> Result<Option<Processes>, Problem> {
        let state = self.lock();
        let active = state.leases.get(id).ok_or_else(|| no_lease(id))?;
        if active.key.isolation != Isolation::Server {
            let title = format!("the server of lease {id} serves other leases too");
            return Err(Problem::new(ProblemKind::BadRequest, title)
                .detail(format!("its isolation is `{}`", active.key.isolation))
                .hint("ask for isolation `server`, which gives the lease a server of its own"));
        }
        let pid = active.server_pid.ok_or_else(|| {
            Problem::new(ProblemKind::BadRequest, format!("the server of lease {id} is not run by testenv"))
                .hint("faults on the way to it can be set, if the lease asked for them")
        })?;
        // While the lease is held its server is not waited for, so the number is that of no other process.
        let processes = Processes::of(pid).ok();
        Ok(processes.filter(|_| !active.exited.load(Ordering::Acquire)))
    }

    /// Waits until a server that was killed is known to have ended, and its proxy refuses connections as it would.
    async fn until_exit_is_known(&self, id: &str) {
        let deadline = Instant::now() + EXIT_LIMIT;
        let is_known = || self.note(id, |active| active.exited.load(Ordering::Acquire)).unwrap_or(true);
        while !is_known() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let proxy = self.note(id, |active| active.proxy.clone()).flatten();
        if let Some(proxy) = proxy {
            let _ = proxy.server_ended().await;
        }
    }

    fn note<T>(&self, id: &str, note: impl FnOnce(&mut Active) -> T) -> Option<T> {
        self.lock().leases.get_mut(id).map(note)
    }

    /// Lets the server of a lease that ends go on, so that whoever debugs it meets one that answers.
    pub(crate) fn resume_if_paused(&self, id: &str) {
        let paused = self.note(id, |active| active.server_pid.filter(|_| active.is_paused)).flatten();
        if let Some(Ok(processes)) = paused.map(Processes::of) {
            let _ = processes.resume();
        }
    }
}

/// A restart needs the server's data and port to outlive its process, which `testenv_services::server::Server` does
/// not offer yet. Once it does, this is the place to call it: kill, start again on the same data and port, then tell
/// the proxy that the server is back.
fn no_restart() -> Problem {
    Problem::new(ProblemKind::Unsupported, "this version of testenv cannot restart a server")
        .detail("a server's data goes with its process")
        .hint("`kill` shows how the code under test bears a server that goes away, `pause` and `resume` one that comes back")
}

/// Does what takes a while where it holds up nobody else.
async fn in_thread(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let ended = |_| Err(io::Error::other("the thread ended without a result"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(ended)
}
