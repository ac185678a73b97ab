//! Answers and refusals.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use testenv_api::{Problem, ProblemKind};

/// What most handlers answer.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// A problem on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            serde_json::to_vec(&self.0).unwrap_or_default(),
        )
            .into_response()
    }
}

/// A JSON body. An empty one is `{}`, so that `curl -X POST` works; a wrong one is a problem document.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let refuse = |detail: String| {
            Refusal(
                Problem::new(ProblemKind::BadRequest, "the request's body is not what this path takes")
                    .detail(detail)
                    .hint("docs/openapi.json describes it"),
            )
        };
        let bytes = Bytes::from_request(request, state).await.map_err(|error| refuse(error.to_string()))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| refuse(error.to_string()))
    }
}
