//! Parameters of a request's URI, with our own kind of error.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::refusal::Refusal;
use crate::model::Timestamp;

/// Rows of a listing if nobody says how many.
const USUAL_LIMIT: usize = 1_000;

/// Most rows of a listing; more are SQL's business.
const MAX_LIMIT: usize = 10_000;

/// The parameters as a `T`; an unknown one is an error that names it.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let wrong = |error: axum::extract::rejection::QueryRejection| Refusal::invalid(error.body_text(), "GET /docs lists the parameters");
        Query::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(wrong)
    }
}

/// How many rows a listing may have.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Refusal> {
    match asked.unwrap_or(USUAL_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(Refusal::invalid(format!("limit={other} is not from 1 to {MAX_LIMIT}"), "ask for fewer rows, or use SQL")),
    }
}

/// A time: RFC 3339 with a zone, or a whole number since 1970 by its magnitude.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let parsed = text.parse().or_else(|_| text.parse::<i64>().map(Timestamp::from_unix));
    parsed.map(Some).map_err(|_| {
        let message = format!("{name}={text} is not a time");
        Refusal::invalid(message, "write it like 2026-11-20T10:00:00Z (a + in a URI is %2B), or as seconds since 1970")
    })
}
