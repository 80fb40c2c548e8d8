//! `POST /api/v1/query`: SQL, answered by the engine as it comes.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use super::{Hall, body};
use crate::engine::{Answer, Binding, EngineHandle, Format, QueryError};

/// Longest body; SQL is written by people.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One statement that reads.
    pub sql: String,
    /// `json`, `jsonl`, `csv`, `arrow`, `parquet`; without it the Accept header decides, and without that it is `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
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

pub(super) async fn query(State(hall): State<Arc<Hall>>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let request: QueryRequest = body::json(body, MAX_BODY_BYTES, "send {\"sql\": \"select ...\", \"format\": \"json\"}").await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = choose_format(request.format.as_deref(), accept)?;
    let rows = hall.rooms.engine.answer(request.sql, Binding::default(), format, request.max_rows).await?;
    // A failure halfway ends the body before its end, which a client sees as an error: the status is sent by then.
    let mut response = ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(rows.body)).into_response();
    if rows.incomplete {
        response.headers_mut().insert(INCOMPLETE, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn choose_format(asked: Option<&str>, accept: &str) -> Result<Format, Refusal> {
    let known = || Format::ALL.map(Format::as_str).join(", ");
    match asked {
        Some(word) => Format::from_word(word)
            .ok_or_else(|| Refusal::invalid(format!("the format \"{word}\" is not known"), &format!("the formats are {}", known()))),
        None if accept.trim().is_empty() => Ok(Format::Json),
        None => accept.split(',').find_map(accepted).ok_or_else(|| {
            let message = format!("none of the types in \"Accept: {accept}\" is known");
            Refusal::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", message, &format!("the formats are {}", known()))
        }),
    }
}

fn accepted(part: &str) -> Option<Format> {
    let bare = part.split(';').next().unwrap_or_default().trim();
    if ["*/*", "application/*"].contains(&bare) { Some(Format::Json) } else { Format::from_content_type(bare) }
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
        assert_eq!(choose_format(Some("csv"), "application/json").unwrap(), Format::Csv);
        assert_eq!(choose_format(None, "").unwrap(), Format::Json);
        assert_eq!(choose_format(None, "*/*").unwrap(), Format::Json);
        assert_eq!(choose_format(None, "text/html, text/csv;q=0.5").unwrap(), Format::Csv);
        assert_eq!(choose_format(None, "application/vnd.apache.arrow.stream").unwrap(), Format::Arrow);
        assert!(choose_format(Some("xml"), "").is_err());
        assert!(choose_format(None, "text/html").is_err());
    }
}
