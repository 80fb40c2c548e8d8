//! `POST /api/v1/query`: SQL, answered by the engine as it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, StreamExt as _};
use serde::{Deserialize, Serialize};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::{Content, ObjectBuilder, RefOr, Response as Described, ResponseBuilder, Type};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::refusal::{Refusal, described};
use super::{Hall, body};
use crate::engine::{Answer, Binding, EngineHandle, Format, QueryError};

/// Longest body; SQL is written by people.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One statement that reads.
    #[schema(example = "select sensor, metric, avg(value) from readings group by all")]
    pub sql: String,
    /// Without it the Accept header decides, and without that it is `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Most rows; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
}

/// The header of an answer given before all segments were attached to the engine.
pub const INCOMPLETE: &str = "forebay-incomplete";

/// An answer as it comes.
pub struct Rows {
    /// Whether segments were missing.
    pub incomplete: bool,
    /// The bytes; dropped if nobody waits any more.
    pub body: BoxStream<'static, Result<Bytes, QueryError>>,
}

/// Who answers SQL: the engine, or a test's own.
pub trait AnswerSql: Send + Sync {
    /// Begins to answer `sql` with at most `max_rows` rows.
    fn answer(&self, sql: String, binding: Binding, format: Format, max_rows: Option<u64>) -> BoxFuture<'_, Result<Rows, QueryError>>;

    /// The columns of the answer to `sql`, as an Arrow stream without rows, and how many parameters it has.
    fn describe(&self, sql: String, binding: Binding) -> BoxFuture<'_, Result<(Vec<u8>, usize), QueryError>>;
}

impl AnswerSql for EngineHandle {
    fn answer(&self, sql: String, binding: Binding, format: Format, max_rows: Option<u64>) -> BoxFuture<'_, Result<Rows, QueryError>> {
        let answer = async move {
            let Answer { incomplete, body, .. } = self.query_bound(sql, binding, format, max_rows).await?;
            Ok(Rows { incomplete, body: body.boxed() })
        };
        answer.boxed()
    }

    fn describe(&self, sql: String, binding: Binding) -> BoxFuture<'_, Result<(Vec<u8>, usize), QueryError>> {
        Self::describe(self, sql, binding).boxed()
    }
}

/// SQL over everything kept here.
///
/// The format is named by the body or by Accept. An answer that fails after it has begun ends before its end.
#[utoipa::path(post, path = "/api/v1/query", request_body = QueryRequest, responses(Formats, Refused))]
pub(super) async fn query(State(hall): State<Arc<Hall>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let request: QueryRequest = body::json(body, MAX_BODY_BYTES, "send {\"sql\": \"select ...\", \"format\": \"json\"}").await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = choose_format(request.format, accept)?;
    let rows = hall.rooms.engine.answer(request.sql, Binding::default(), format, request.max_rows).await?;
    // A failure halfway ends the body before its end, which a client sees as an error: the status is sent by then.
    let mut response = ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(rows.body)).into_response();
    if rows.incomplete {
        response.headers_mut().insert(INCOMPLETE, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn choose_format(asked: Option<Format>, accept: &str) -> Result<Format, Refusal> {
    match asked {
        Some(format) => Ok(format),
        None if accept.trim().is_empty() => Ok(Format::Json),
        None => accept.split(',').find_map(accepted).ok_or_else(|| {
            let message = format!("none of the types in \"Accept: {accept}\" is known");
            let hint = format!("the types are {}", Format::ALL.map(Format::content_type).join(", "));
            Refusal::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message, &hint)
        }),
    }
}

fn accepted(part: &str) -> Option<Format> {
    let bare = part.split(';').next().unwrap_or_default().trim();
    if ["*/*", "application/*"].contains(&bare) { Some(Format::Json) } else { Format::from_content_type(bare) }
}

/// The answer in each format, for the description.
struct Formats;

impl IntoResponses for Formats {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let whether = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true"]));
        let header = HeaderBuilder::new().schema(Some(whether)).description(Some("There, if segments were not attached to the engine yet"));
        let begun = ResponseBuilder::new().description("The rows").header(INCOMPLETE, header.build());
        let answer = Format::ALL.into_iter().fold(begun, |answer, format| {
            let schema = match format {
                Format::Json => ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::Object)).into(),
                Format::JsonLines | Format::Csv => String::schema(),
                Format::Arrow | Format::Parquet => body::Binary::schema(),
            };
            answer.content(format.content_type(), Content::new(Some(schema)))
        });
        BTreeMap::from([(StatusCode::OK.as_str().to_owned(), answer.build().into())])
    }
}

/// Why there are no rows, for the description.
struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        described([
            (StatusCode::BAD_REQUEST, "The body or the SQL is wrong"),
            (StatusCode::FORBIDDEN, "The SQL asks for what a query may not do"),
            (StatusCode::NOT_ACCEPTABLE, "None of the types in Accept is known"),
            (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time"),
            (StatusCode::PAYLOAD_TOO_LARGE, "The body or the answer is too long"),
            (StatusCode::TOO_MANY_REQUESTS, "As many queries are running as may"),
            (StatusCode::INTERNAL_SERVER_ERROR, "A fault of the daemon"),
            (StatusCode::SERVICE_UNAVAILABLE, "There is no engine, it is not ready, or the query took too long or too much memory"),
        ])
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::Sql(_) => {
                Self::new(StatusCode::BAD_REQUEST, "sql", message, "the tables are readings, series, records, losses and books")
            }
            QueryError::Denied(_) => {
                Self::new(StatusCode::FORBIDDEN, "denied", message, "a query reads the tables of forebay and nothing else")
            }
            QueryError::Busy { .. } => Self::busy(message),
            QueryError::TimedOut { .. } => Self::unavailable("query_timeout", message, "ask for less, or raise engine.query_timeout"),
            QueryError::Memory(_) => Self::unavailable("query_memory", message, "ask for less, or raise engine.memory"),
            QueryError::TooLong(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "answer_too_long", message, "ask for fewer rows or columns"),
            QueryError::Segment(_) => Self::unavailable("segment", message, "try again: a damaged segment is set aside"),
            QueryError::EngineGone | QueryError::NotReady => Self::unavailable("engine_restarting", message, "try again in a moment"),
            QueryError::Behind { .. } => Self::unavailable("engine_behind", message, "try again in a moment, or raise engine.memory"),
            QueryError::Absent(_) => Self::unavailable("engine_absent", message, "range, latest and series answer without the engine"),
            QueryError::Off(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_off", message, "range, latest and series answer without the engine")
            }
            QueryError::Internal(_) => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_named_by_the_body_or_else_by_accept() {
        assert_eq!(choose_format(Some(Format::Csv), "application/json").unwrap(), Format::Csv);
        assert_eq!(choose_format(None, "").unwrap(), Format::Json);
        assert_eq!(choose_format(None, "*/*").unwrap(), Format::Json);
        assert_eq!(choose_format(None, "text/html, text/csv;q=0.5").unwrap(), Format::Csv);
        assert_eq!(choose_format(None, "application/vnd.apache.arrow.stream").unwrap(), Format::Arrow);
        assert!(choose_format(None, "text/html").is_err());
    }
}
