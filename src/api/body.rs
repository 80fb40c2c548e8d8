//! Reading a request's body: within a size and a time, and always as our own kind of error.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Response, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::refusal::{Refusal, described};

/// For the whole body; 4 MiB in it is a slow modem's speed.
pub(super) const BODY_TIME: Duration = Duration::from_secs(60);

/// A body in a format of its own, for the description: bytes of which JSON's words say nothing.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::AnyValue).into()
    }
}

impl ToSchema for Binary {}

/// What is refused of a body, for the description.
pub(super) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described([
            (StatusCode::BAD_REQUEST, "The body can't be understood; the message has the place"),
            (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long"),
        ])
    }
}

/// Reads all of `body`, at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body is longer than {limit} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, "send it in several requests")
    };
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time", "send it again");
    let collected = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, limit)).await.map_err(late)?;
    collected.map_err(|error| {
        let over = std::error::Error::source(&error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if over { too_large() } else { Refusal::invalid(format!("the body ended early: {error}"), "send it again") }
    })
}

/// The body as JSON of a known shape; an empty body counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limit: usize, hint: &str) -> Result<T, Refusal> {
    let bytes = read(body, limit).await?;
    let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| Refusal::invalid(format!("the body is not as expected: {error}"), hint))
}
