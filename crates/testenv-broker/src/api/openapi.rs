//! The OpenAPI document, generated from the handlers and the wire types.

use utoipa::OpenApi as _;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "testenv broker",
        description = "Leases of real dependencies for tests. HTTP/1.1 and JSON over a unix socket; \
                       requests carry the header `testenv-protocol: 1`.",
        version = "1",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        super::lease::acquire,
        super::leases,
        super::ended,
        super::outcome,
        super::keep,
        super::logs,
        super::faults::list,
        super::faults::add,
        super::faults::remove,
        super::faults::clear,
        super::faults::server,
        super::services,
        super::health,
        super::status,
        super::clean,
        super::shutdown,
        super::metrics
    ),
    components(schemas(testenv_api::Event))
)]
struct Document;

/// The OpenAPI document of the broker, as JSON.
///
/// ```
/// assert!(testenv_broker::openapi().contains("\"/v1/leases\""));
/// ```
pub fn openapi() -> String {
    Document::openapi().to_pretty_json().expect("the document is plain data")
}
