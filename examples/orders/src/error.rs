//! Errors as clients see them: a status, a code for programs and a sentence for people.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is at fault, or the state of things does not allow it.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Name of the error, for programs.
        code: &'static str,
        /// What is wrong, for people.
        message: String,
    },
    /// The customer has placed too many orders in too short a time.
    #[error("too many orders; try again in {retry_after_s} s")]
    RateLimited {
        /// Seconds until the next one is let through.
        retry_after_s: u64,
    },
    /// The database failed in a way that is nobody's fault outside.
    #[error("internal error")]
    Database(#[source] sqlx::Error),
}

impl ApiError {
    pub(crate) fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { status, code, message: message.into() }
    }

    pub(crate) fn not_found(what: &str, id: i64) -> Self {
        Self::refused(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} {id}"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }

    /// Whether it comes from this database constraint.
    pub(crate) fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused { code: own, .. } if *own == code)
    }
}

/// The database's constraints are the rules; here is what each means to a client.
fn meaning(constraint: &str) -> Option<(StatusCode, &'static str, &'static str)> {
    use StatusCode as S;
    Some(match constraint {
        "customers_email_unique" => (S::CONFLICT, "email_taken", "a customer has this email address already"),
        "customers_email_shape" => (S::UNPROCESSABLE_ENTITY, "invalid", "that is not an email address"),
        "customers_name_not_blank" | "products_name_not_blank" => {
            (S::UNPROCESSABLE_ENTITY, "invalid", "the name is blank")
        }
        "products_sku_unique" => (S::CONFLICT, "sku_taken", "a product has this sku already"),
        "products_sku_shape" => (S::UNPROCESSABLE_ENTITY, "invalid", "a sku looks like TEA-GREEN or TIN-1"),
        "products_price_positive" => (S::UNPROCESSABLE_ENTITY, "invalid", "a price is at least one cent"),
        "products_stock_not_negative" => (S::CONFLICT, "out_of_stock", "there are not enough of them"),
        "orders_customer_id_fkey" => (S::NOT_FOUND, "not_found", "there is no such customer"),
        "orders_idempotency_length" => {
            (S::UNPROCESSABLE_ENTITY, "invalid", "an idempotency key has 1 to 64 characters")
        }
        "orders_status_change" => (S::CONFLICT, "wrong_status", "the order's status does not allow this"),
        "payments_order_unique" => (S::CONFLICT, "already_paid", "the order has been paid already"),
        "payments_in_full" => {
            (S::UNPROCESSABLE_ENTITY, "wrong_amount", "an order is paid in full, to the cent")
        }
        "payments_method" => (S::UNPROCESSABLE_ENTITY, "invalid", "pay by card, transfer or voucher"),
        _ => return None,
    })
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        let constraint = error.as_database_error().and_then(|error| error.constraint());
        match constraint.and_then(meaning) {
            Some((status, code, message)) => Self::refused(status, code, message),
            None => Self::Database(error),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::refused(rejection.status(), "invalid", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::refused(rejection.status(), "invalid", rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Refused { status, code, .. } => (*status, *code),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::Database(error) => {
                tracing::error!(%error, "request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
        };
        let body = json!({ "error": code, "message": self.to_string() });
        let mut response = (status, Json(body)).into_response();
        if let Self::RateLimited { retry_after_s } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        response
    }
}
