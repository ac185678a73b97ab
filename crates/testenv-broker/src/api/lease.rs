//! `POST /v1/leases`: an answer that stays open for as long as the lease is held.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body as ResponseBody;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use rustix::process::{Pid, PidfdFlags};
use serde::Serialize;
use testenv_api::{Event, Lease, LeaseRequest, Problem, ProblemKind};
use testenv_services::service::Endpoint;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::Peer;
use super::problem::{Body, Refusal};
use crate::core::{Core, micros};
use crate::faults::{self, PROXY_HOST, Proxy};
use crate::handover::Offer;
use crate::loan::Loan;
use crate::metrics::RefusalLabel;

/// Asks for a lease. The answer's first line is the lease, and its connection is the hold on it: closing it,
/// or the end of the process that opened it, is the release. Later lines are events.
#[utoipa::path(post, path = "/v1/leases", request_body = LeaseRequest,
    responses(
        (status = 200, body = Lease, content_type = "application/x-ndjson",
         description = "First line: the lease. Later lines: events. Ends with the lease."),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 424, body = Problem), (status = 426, body = Problem), (status = 503, body = Problem),
        (status = 507, body = Problem)))]
pub(super) async fn acquire(
    State(core): State<Arc<Core>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<LeaseRequest>,
) -> Result<Response, Refusal> {
    let _arrived = core.arrive();
    let leased = lease(&core, peer, &request).await;
    if let Err(problem) = &leased {
        let kind = serde_json::to_value(problem.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
        core.metrics.refusals.get_or_create(&RefusalLabel { kind: kind.unwrap_or_default() }).inc();
    }
    Ok(leased?)
}

async fn lease(core: &Arc<Core>, peer: Peer, request: &LeaseRequest) -> Result<Response, Problem> {
    let arrived = Instant::now();
    // Opened before anything is waited for: the process that asks is alive now, so this cannot be another
    // that got its number later.
    let process = peer.pid.and_then(watch);
    let (role, isolation) = core.roles.find(request).await?;
    let wants_faults = request.faults || role.spec.config.faults;
    if wants_faults {
        faults::check_service(role.spec.kind)?;
    }
    let limit = core.roles.config().pool.wait.as_duration();
    let limit = request.wait_ms.map_or(limit, |wait| limit.min(Duration::from_millis(wait)));
    let acquired = tokio::time::timeout(limit, core.acquire(&role, isolation, arrived)).await;
    let (mut loan, mut timings) =
        acquired.unwrap_or_else(|_| Err(timed_out(core, &role.spec.role, limit, &role.doing())))?;
    let id = core.next_id();
    let item = loan.item();
    let spec = Arc::clone(&item.spec);
    let own = item.endpoint().clone();
    // What the test is told: where its server is, or the proxy in front of it.
    let (endpoint, proxy) = match wants_faults {
        true => front(&own, request.seed.unwrap_or(0)).map(|(seen, proxy)| (seen, Some(proxy)))?,
        false => (own.clone(), None),
    };
    // A session that is not wanted is closed now: it would be in the way of a test that drops its database. One that
    // is handed over knows no faults.
    let session = item.take_session().filter(|_| request.handover && proxy.is_none());
    let offer = session.and_then(|session| Offer::make(session, &own.socket_dir, &id).ok());
    let connect_command = spec.connect_command(&own);
    timings.total_us = micros(arrived);
    let lease = Lease {
        id: id.clone(),
        role: spec.role.clone(),
        service: spec.kind,
        isolation,
        runtime: spec.runtime.as_str().into(),
        engine: spec.build.engine.clone(),
        snapshot: item.snapshot.clone(),
        url: spec.url(&endpoint),
        direct_url: proxy.as_ref().map(|_| spec.url(&own)),
        direct_port: proxy.as_ref().map(|_| own.port),
        env: spec.env(&endpoint)?,
        socket: spec.socket(&endpoint),
        connect_command: connect_command.clone(),
        keep: core.keep_policy(request),
        handover: offer.as_ref().map(Offer::path),
        timings,
        host: endpoint.host,
        port: endpoint.port,
        ports: endpoint.ports,
        user: endpoint.user,
        password: endpoint.password,
        database: endpoint.database,
    };
    let (events, received) = mpsc::channel(4);
    let pid = peer.pid.and_then(|pid| u32::try_from(pid).ok());
    core.hold(&id, request, &mut loan, pid, arrived, timings, &connect_command, events, proxy);
    let (lines, stream) = mpsc::channel(4);
    let _ = lines.try_send(line(&lease));
    tokio::spawn(until_released(Arc::clone(core), id, loan, offer, process, lines, received));
    let body = ResponseBody::from_stream(ReceiverStream::new(stream).map(Ok::<_, std::convert::Infallible>));
    // Nothing comes after a lease on its connection.
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson"), (header::CONNECTION, "close")], body)
        .into_response())
}

/// A proxy with a port for each of the server's, and the endpoint as it is seen through it.
fn front(own: &Endpoint, seed: u64) -> Result<(Endpoint, Arc<Proxy>), Problem> {
    let ports = std::iter::once(own.port).chain(own.ports.values().copied());
    let proxy = Proxy::start(ports.map(|port| (own.host.clone(), port)).collect(), seed)?;
    let (port, others) = proxy.ports().split_first().expect("a port for each target");
    let ports = own.ports.keys().cloned().zip(others.iter().copied()).collect();
    Ok((Endpoint { host: PROXY_HOST.into(), port: *port, ports, ..own.clone() }, proxy))
}

/// Holds the lease until its connection or its process ends.
async fn until_released(
    core: Arc<Core>,
    id: String,
    loan: Loan,
    offer: Option<Offer>,
    process: Option<AsyncFd<OwnedFd>>,
    lines: mpsc::Sender<Bytes>,
    mut events: mpsc::Receiver<Event>,
) {
    let process_ended = async {
        match &process {
            Some(process) => drop(process.readable().await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(process_ended);
    loop {
        tokio::select! {
            () = lines.closed() => break,
            () = &mut process_ended => break,
            event = events.recv() => match event {
                Some(event) => {
                    let _ = lines.try_send(line(&event));
                    if event == Event::BrokerStopping {
                        break;
                    }
                }
                None => break,
            },
        }
    }
    drop(offer);
    core.resume_if_paused(&id);
    core.end(&id, loan);
}

/// A descriptor that becomes readable when the process ends.
#[expect(deprecated, reason = "its unsafe successor asks for what OwnedFd already promises: it stays open")]
fn watch(pid: i32) -> Option<AsyncFd<OwnedFd>> {
    let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE).ok()
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("wire types are plain data");
    line.push(b'\n');
    line.into()
}

fn timed_out(core: &Core, role: &str, limit: Duration, doing: &str) -> Problem {
    let pools: Vec<_> = core
        .pools()
        .iter()
        .filter(|pool| pool.role == role)
        .map(|pool| {
            let counts = format!(
                "{} {}: {} leased, {} starting, {} waiting, {} warm",
                pool.role, pool.isolation, pool.leased, pool.starting, pool.waiting, pool.warm
            );
            if pool.waits_for.is_empty() { counts } else { format!("{}\n{counts}", pool.waits_for) }
        })
        .collect();
    let mut saw = pools.join("\n");
    if !doing.is_empty() {
        saw = format!("last seen {doing}\n{saw}");
    }
    let title = format!("no {role} within {} ms", limit.as_millis());
    Problem::new(ProblemKind::TimedOut, title).detail(saw.trim_end().to_owned()).hint(
        "run fewer tests at once, raise `pool.max_servers` or `pool.max_memory`, or wait longer with `pool.wait`",
    )
}
