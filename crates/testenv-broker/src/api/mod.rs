//! The HTTP face of the broker.

mod faults;
mod lease;
mod openapi;
mod problem;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::connect_info::Connected;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use testenv_api::{
    BrokerStatus, EndedLease, Health, HeldLease, KeepRequest, Kept, LeaseRequest, OutcomeRequest, PROTOCOL,
    PROTOCOL_HEADER, Problem, ProblemKind, RoleInfo, VERSION,
};
use testenv_services::fork;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::core::Core;
use crate::startup::Started;
use crate::{startup, workers};

use problem::{Answer, Body, Refusal};

pub use openapi::openapi;

/// How long the broker waits for its servers to go when it stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often memory is measured.
const MEASURE_EVERY: u64 = 3;
/// How many servers of a role are measured then: enough for a mean that limits can go by.
const MEASURE_SAMPLE: usize = 8;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Its process, if that is in a process namespace that the broker sees.
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { pid: stream.io().peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0) }
    }
}

/// Serves until the broker is told to stop or has been idle long enough, then ends everything.
pub(crate) async fn serve(started: Started, on_ready: impl FnOnce(&Path)) -> Result<(), Problem> {
    let Started { options, machine, listener, socket, _lock } = started;
    let machine = Arc::new(machine);
    let core = Core::new(options, Arc::clone(&machine));
    workers::spawn(&core).map_err(|error| startup::failed("start the workers", &error))?;
    listener.set_nonblocking(true).map_err(|error| startup::failed("listen", &error))?;
    let listener = UnixListener::from_std(listener).map_err(|error| startup::failed("listen", &error))?;
    on_ready(&socket);
    tracing::info!(socket = %socket.display(), forks = machine.strategy, storage = machine.storage, "ready");
    let service = router(Arc::clone(&core)).into_make_service_with_connect_info::<Peer>();
    let server = tokio::spawn(axum::serve(listener, service).into_future());
    until_stopped(&core).await;
    // The socket goes first, so that whoever comes now starts a new broker instead of asking this one.
    let _ = std::fs::remove_file(&socket);
    core.shut_down();
    let deadline = Instant::now() + STOP_PATIENCE;
    loop {
        // Tests that hold a lease are told, their connections end, and their servers come back one by one.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if core.jobs.is_idle() || Instant::now() > deadline {
            break;
        }
    }
    server.abort();
    machine.clear();
    Ok(())
}

async fn until_stopped(core: &Arc<Core>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for tick in 0_u64.. {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            () = core.stop.notified() => return,
            _ = ticks.tick() => {}
        }
        if core.tick() {
            tracing::info!("idle long enough");
            return;
        }
        if tick % MEASURE_EVERY == 0 {
            let core = Arc::clone(core);
            tokio::task::spawn_blocking(move || core.measure_memory(MEASURE_SAMPLE));
        }
    }
}

fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/leases", post(lease::acquire).get(leases))
        .route("/v1/leases/ended", get(ended))
        .route("/v1/leases/{id}/outcome", post(outcome))
        .route("/v1/leases/{id}/keep", post(keep))
        .route("/v1/leases/{id}/logs", get(logs))
        .route("/v1/leases/{id}/faults", get(faults::list).post(faults::add).delete(faults::clear))
        .route("/v1/leases/{id}/faults/{name}", delete(faults::remove))
        .route("/v1/leases/{id}/server", post(faults::server))
        .route("/v1/services", get(services))
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/clean", post(clean))
        .route("/v1/shutdown", post(shutdown))
        .route("/metrics", get(metrics))
        .fallback(async || {
            Refusal(Problem::new(ProblemKind::NotFound, "no such path").hint("docs/openapi.json lists all"))
        })
        .layer(middleware::from_fn(check_protocol))
        .with_state(core)
}

/// Refuses a client of another protocol version, and says which version answers.
async fn check_protocol(request: Request, next: Next) -> Response {
    let theirs = request.headers().get(PROTOCOL_HEADER).map(|value| value.to_str().unwrap_or("?").to_owned());
    let mut response = match theirs {
        Some(theirs) if theirs != PROTOCOL.to_string() => Refusal(
            Problem::new(
                ProblemKind::ProtocolMismatch,
                format!("the broker speaks version {PROTOCOL} of the protocol, the client version {theirs}"),
            )
            .detail(format!("the broker is testenv {VERSION}, process {}", std::process::id()))
            .hint("run `testenv down`, and use a `testenv` program and client library of the same version"),
        )
        .into_response(),
        _ => next.run(request).await,
    };
    response.headers_mut().insert(PROTOCOL_HEADER, PROTOCOL.into());
    response
}

/// Leases held now.
#[utoipa::path(get, path = "/v1/leases", responses((status = 200, body = Vec<HeldLease>)))]
async fn leases(State(core): State<Arc<Core>>) -> Json<Vec<HeldLease>> {
    Json(core.held())
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct EndedQuery {
    /// Beginning of the attempts wanted, such as the runner's id of the run.
    #[serde(default)]
    attempt_prefix: String,
}

/// Leases that have ended, the last 50,000 at the most.
#[utoipa::path(get, path = "/v1/leases/ended", params(EndedQuery), responses((status = 200, body = Vec<EndedLease>)))]
async fn ended(State(core): State<Arc<Core>>, Query(query): Query<EndedQuery>) -> Json<Vec<EndedLease>> {
    Json(core.ended(&query.attempt_prefix))
}

/// Says how a test ended, which decides whether its data is kept.
#[utoipa::path(post, path = "/v1/leases/{id}/outcome", params(("id" = String, Path, description = "Lease")),
    request_body = OutcomeRequest, responses((status = 200, body = Kept), (status = 404, body = Problem)))]
async fn outcome(
    State(core): State<Arc<Core>>,
    UrlPath(id): UrlPath<String>,
    Body(request): Body<OutcomeRequest>,
) -> Answer<Kept> {
    Ok(Json(core.set_outcome(&id, Some(request.outcome))?))
}

/// Asks for a lease's data to be kept, however the test ends.
#[utoipa::path(post, path = "/v1/leases/{id}/keep", params(("id" = String, Path, description = "Lease")),
    request_body = KeepRequest, responses((status = 200, body = Kept), (status = 404, body = Problem)))]
async fn keep(
    State(core): State<Arc<Core>>,
    UrlPath(id): UrlPath<String>,
    Body(request): Body<KeepRequest>,
) -> Answer<Kept> {
    let kept = core.set_outcome(&id, None)?;
    tracing::info!(lease = id, reason = request.reason, "kept on request");
    Ok(Json(kept))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
struct LogsQuery {
    /// Lines at the most, 100 when absent.
    tail: Option<usize>,
}

/// The last lines of the log of a lease's server.
#[utoipa::path(get, path = "/v1/leases/{id}/logs", params(("id" = String, Path, description = "Lease"), LogsQuery),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = Problem)))]
async fn logs(
    State(core): State<Arc<Core>>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<LogsQuery>,
) -> Result<String, Refusal> {
    Ok(core.logs(&id, query.tail.unwrap_or(100))?)
}

/// The roles of `testenv.toml`.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = Vec<RoleInfo>), (status = 422, body = Problem)))]
async fn services(State(core): State<Arc<Core>>) -> Answer<Vec<RoleInfo>> {
    Ok(Json(core.roles.list()?))
}

fn health_of(core: &Core) -> Health {
    Health {
        version: VERSION.to_owned(),
        protocol: PROTOCOL,
        pid: std::process::id(),
        workspace: core.options.workspace.root().display().to_string(),
        leases: core.lease_count(),
    }
}

/// Which broker this is.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, body = Health)))]
async fn health(State(core): State<Arc<Core>>) -> Json<Health> {
    Json(health_of(&core))
}

/// Everything that `testenv status` shows.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = BrokerStatus)))]
async fn status(State(core): State<Arc<Core>>) -> Answer<BrokerStatus> {
    let status = tokio::task::spawn_blocking(move || BrokerStatus {
        health: health_of(&core),
        uptime_seconds: core.started.elapsed().as_secs(),
        fork_strategy: core.machine.strategy.clone(),
        fork_storage: core.machine.storage.clone(),
        server_memory_bytes: core.measure_memory(usize::MAX),
        fork_bytes: fork::changed_bytes(core.machine.forks.dir()),
        pools: core.pools(),
        leases: core.held(),
        kept: core.kept(),
        snapshots: core.machine.store.list(),
    });
    let gone = |_| Problem::new(ProblemKind::Internal, "the status could not be put together");
    Ok(Json(status.await.map_err(gone)?))
}

/// What to remove beside snapshots.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
struct CleanQuery {
    /// Role whose external server is cleaned instead: of every namespace that begins with `t_`, whoever made it.
    external: Option<String>,
}

/// What `POST /v1/clean` did.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
struct Cleaned {
    /// Bytes freed in the cache. Snapshots in use stay.
    freed_bytes: u64,
    /// Namespaces removed from an external server.
    namespaces: usize,
}

/// Removes every snapshot that is not in use, or what is left behind in an external server.
#[utoipa::path(
    post,
    path = "/v1/clean",
    params(CleanQuery),
    responses((status = 200, body = Cleaned), (status = "default", body = Problem))
)]
async fn clean(State(core): State<Arc<Core>>, Query(query): Query<CleanQuery>) -> Answer<Cleaned> {
    let gone = |_| Problem::new(ProblemKind::Internal, "what cleans did not come to an end");
    let cleaned = match query.external {
        Some(role) => {
            let request = LeaseRequest { role: Some(role), ..LeaseRequest::default() };
            let (role, _) = core.roles.find(&request).await?;
            let cleaning = tokio::task::spawn_blocking(move || role.spec.clean_external());
            Cleaned { namespaces: cleaning.await.map_err(gone)??, ..Cleaned::default() }
        }
        None => {
            let freed = tokio::task::spawn_blocking(move || core.machine.store.evict(0));
            Cleaned { freed_bytes: freed.await.map_err(gone)?, ..Cleaned::default() }
        }
    };
    Ok(Json(cleaned))
}

/// When to stop.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum When {
    /// At once: leases end.
    #[default]
    Now,
    /// Only if nobody holds a lease.
    Idle,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ShutdownRequest {
    #[serde(default)]
    when: When,
}

/// Ends the broker with everything it started.
#[utoipa::path(post, path = "/v1/shutdown", request_body = ShutdownRequest,
    responses((status = 202, description = "It ends now"), (status = 400, body = Problem)))]
async fn shutdown(
    State(core): State<Arc<Core>>,
    Body(request): Body<ShutdownRequest>,
) -> Result<axum::http::StatusCode, Refusal> {
    let held = core.lease_count();
    if matches!(request.when, When::Idle) && held > 0 {
        let title = format!("{held} leases are held");
        return Err(Problem::new(ProblemKind::BadRequest, title)
            .hint("wait for the tests to end, or stop it now")
            .into());
    }
    core.stop.notify_one();
    Ok(axum::http::StatusCode::ACCEPTED)
}

/// Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, content_type)], core.metrics.render()).into_response()
}
