//! Parameters of a request's URI, with our own kind of error.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{KnownFormat, OneOfBuilder, SchemaFormat};
use utoipa::openapi::{ObjectBuilder, RefOr, Response, Schema, Type};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::refusal::{Refusal, described};
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

/// What is refused of parameters, for the description.
pub(super) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described([(StatusCode::BAD_REQUEST, "A parameter is not known or can't be understood")])
    }
}

/// How many rows a listing may have: 1 to 10,000, and 1,000 if nobody says.
pub(super) struct Limit(usize);

impl Limit {
    pub(super) fn of(asked: Option<Self>) -> usize {
        asked.map_or(USUAL_LIMIT, |Self(limit)| limit)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer)? {
            limit @ 1..=MAX_LIMIT => Ok(Self(limit)),
            other => Err(D::Error::custom(format!("{other} is not from 1 to {MAX_LIMIT}; ask for fewer rows, or use SQL"))),
        }
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_LIMIT));
        number.default(Some(USUAL_LIMIT.into())).description(Some("Most rows")).into()
    }
}

impl ToSchema for Limit {}

/// A time: RFC 3339 with a zone, or a whole number since 1970 by its magnitude.
#[derive(Clone, Copy)]
pub(super) struct Moment(pub(super) Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.parse().or_else(|_| text.parse::<i64>().map(Timestamp::from_unix));
        let hint = "write it like 2026-11-20T10:00:00Z (a + in a URI is %2B), or as a whole number since 1970";
        parsed.map(Self).map_err(|_| D::Error::custom(format!("{text} is not a time; {hint}")))
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        let number = ObjectBuilder::new().schema_type(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let either = OneOfBuilder::new().item(text).item(number);
        either.description(Some("RFC 3339 with a zone, or seconds, milliseconds, microseconds or nanoseconds since 1970")).into()
    }
}

impl ToSchema for Moment {}
