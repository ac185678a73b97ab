//! `…/leases/{id}/faults` and `…/leases/{id}/server`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use testenv_api::{Fault, FaultsRequest, FaultsStatus, Problem, ServerRequest, ServerStatus};

use super::problem::{Answer, Body};
use crate::core::Core;

/// The faults of a lease.
#[utoipa::path(get, path = "/v1/leases/{id}/faults", params(("id" = String, Path, description = "Lease")),
    responses((status = 200, body = FaultsStatus), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<FaultsStatus> {
    Ok(Json(core.proxy(&id)?.list().await?))
}

/// Adds faults to a lease that asked for them. Answers with those that were added, once every open connection of
/// the lease goes by them.
#[utoipa::path(post, path = "/v1/leases/{id}/faults", params(("id" = String, Path, description = "Lease")),
    request_body = FaultsRequest,
    responses((status = 200, body = Vec<Fault>), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn add(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Body(request): Body<FaultsRequest>,
) -> Answer<Vec<Fault>> {
    let added = core.proxy(&id)?.add(request.add).await?;
    tracing::debug!(lease = id, faults = ?added, "added");
    Ok(Json(added))
}

/// Takes a fault away. Answers with what is left.
#[utoipa::path(delete, path = "/v1/leases/{id}/faults/{name}",
    params(("id" = String, Path, description = "Lease"), ("name" = String, Path, description = "Fault")),
    responses((status = 200, body = FaultsStatus), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(core): State<Arc<Core>>,
    Path((id, name)): Path<(String, String)>,
) -> Answer<FaultsStatus> {
    Ok(Json(core.proxy(&id)?.remove(Some(name)).await?))
}

/// Takes all faults of a lease away.
#[utoipa::path(delete, path = "/v1/leases/{id}/faults", params(("id" = String, Path, description = "Lease")),
    responses((status = 200, body = FaultsStatus), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn clear(State(core): State<Arc<Core>>, Path(id): Path<String>) -> Answer<FaultsStatus> {
    Ok(Json(core.proxy(&id)?.remove(None).await?))
}

/// Pauses, resumes, kills or restarts the server of a lease that has one of its own. Answers when that is done.
#[utoipa::path(post, path = "/v1/leases/{id}/server", params(("id" = String, Path, description = "Lease")),
    request_body = ServerRequest,
    responses((status = 200, body = ServerStatus), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 501, body = Problem), (status = 507, body = Problem)))]
pub(super) async fn server(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Body(request): Body<ServerRequest>,
) -> Answer<ServerStatus> {
    let state = core.act_on_server(&id, request.action).await?;
    tracing::debug!(lease = id, action = ?request.action, "server");
    Ok(Json(ServerStatus { state }))
}
