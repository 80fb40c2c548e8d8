//! The one shape of every error answer: `{"error": {"code", "message", "hint"}}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, Response as Described, ResponseBuilder, Type};

use crate::error::ErrorKind;
use crate::ingest::http::DeskError;
use crate::ledger::LedgerError;
use crate::status::StatusError;

/// Seconds after which a sender that was refused for want of space may try again: space comes back with a link or a person.
const SPACE_RETRY_S: u64 = 10;

/// Why a request is not answered as it wished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    fault: Fault,
    retry_after_s: Option<u64>,
}

/// What the body says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// For programs.
    pub code: String,
    /// For people: what is wrong, with its place.
    pub message: String,
    /// For people: what to do.
    pub hint: String,
}

/// The body of an error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultBody {
    /// The fault.
    pub error: Fault,
}

impl Refusal {
    /// An answer of its own.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>, hint: &str) -> Self {
        let fault = Fault { code: code.to_owned(), message: message.into(), hint: hint.to_owned() };
        Self { status, fault, retry_after_s: None }
    }

    /// The request can't be understood.
    pub fn invalid(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message, hint)
    }

    /// Not now; the same request may do later.
    pub fn unavailable(code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message, hint) }
    }

    /// Too many at a time.
    pub fn busy(message: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message, "try again in a second");
        Self { retry_after_s: Some(1), ..refusal }
    }

    /// Our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "see the daemon's log")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(FaultBody { error: self.fault })).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Refusals with these statuses and the reasons for them, for the description.
pub(super) fn described<const N: usize>(told: [(StatusCode, &str); N]) -> BTreeMap<String, RefOr<Described>> {
    told.into_iter().map(|(status, why)| (status.as_str().to_owned(), one(status, why).into())).collect()
}

fn one(status: StatusCode, why: &str) -> Described {
    let body = Content::new(Some(Ref::from_schema_name(FaultBody::name())));
    let answer = ResponseBuilder::new().description(why).content("application/json", body);
    let header =
        |kind, what: &str| HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(kind))).description(Some(what)).build();
    match status {
        StatusCode::UNAUTHORIZED => answer.header("WWW-Authenticate", header(Type::String, "Bearer")).build(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            answer.header("Retry-After", header(Type::Integer, "Seconds after which the same request may do")).build()
        }
        _ => answer.build(),
    }
}

impl From<LedgerError> for Refusal {
    fn from(error: LedgerError) -> Self {
        tracing::warn!(%error, "a request could not read the ledger");
        match error.kind() {
            ErrorKind::Transient | ErrorKind::Full => Self::unavailable("ledger", error.to_string(), "try again in a moment"),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<StatusError> for Refusal {
    fn from(error: StatusError) -> Self {
        match error {
            StatusError::Ledger(error) => error.into(),
        }
    }
}

impl From<DeskError> for Refusal {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::Stopping => Self::unavailable(
                "stopping",
                error.to_string(),
                "send the same request again, with an Idempotency-Key, to the restarted daemon",
            ),
            DeskError::NoSpace(_) => {
                let hint = "nothing of the request was stored; send it again when space is back";
                Self { retry_after_s: Some(SPACE_RETRY_S), ..Self::unavailable("no_space", error.to_string(), hint) }
            }
            DeskError::Refused(_) => Self::unavailable("refused", error.to_string(), "nothing of the request was stored; try again later"),
        }
    }
}
