//! `POST /api/v1/readings`: answered with 200 only when the readings are durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder};
use utoipa::openapi::{Ref, RefOr, Response, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use super::refusal::{Refusal, described};
use super::{Hall, body, reads};
use crate::ingest::http::{self, DeskError, Written};

/// Longest body: some 50,000 readings, which take about 10 MiB until they are committed.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Bytes of bodies that are held at a time.
const MAX_HELD_BYTES: u32 = 16 << 20;

/// For a place on the scale, before a sender is told to come again.
const PLACE_TIME: Duration = Duration::from_secs(10);

/// For the commit: a card may stall for long, and a full disk for longer.
const COMMIT_TIME: Duration = Duration::from_secs(60);

/// Longest idempotency key.
const MAX_KEY_BYTES: usize = 255;

/// Weighs the bodies that are held, so that many senders can't fill the memory.
#[derive(Clone)]
pub(super) struct Scale(Arc<Semaphore>);

impl Scale {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HELD_BYTES as usize)))
    }

    /// A place for the body that `headers` announce; one of unknown length counts as the longest.
    async fn place(&self, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Refusal> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let bytes = announced.unwrap_or(MAX_BODY_BYTES).clamp(1, MAX_BODY_BYTES);
        let wanted = Arc::clone(&self.0).acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX));
        match tokio::time::timeout(PLACE_TIME, wanted).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Refusal::busy("too many readings are on their way")),
        }
    }
}

/// What was stored.
#[derive(Serialize, ToSchema)]
pub(super) struct Stored {
    /// How many readings.
    readings: usize,
}

/// What a body may be, for the description: many readings, or one.
struct Readings;

impl PartialSchema for Readings {
    fn schema() -> RefOr<Schema> {
        let one = Ref::from_schema_name(Written::name());
        OneOfBuilder::new().item(ArrayBuilder::new().items(one.clone())).item(one).into()
    }
}

impl ToSchema for Readings {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Written::name().into_owned(), Written::schema()));
    }
}

/// The headers, for the description.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "they are read one by one")]
struct Headers {
    /// A repeat with the same key and body is stored once.
    #[param(rename = "Idempotency-Key", pattern = "^[!-~]([ -~]{0,253}[!-~])?$")]
    key: Option<String>,
}

/// Why nothing is stored, for the description.
struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described([(StatusCode::TOO_MANY_REQUESTS, "Too many readings are on their way")])
    }
}

/// Stores readings: a JSON array of them, or JSON lines.
///
/// Answered with 200 only when they are durable. One that can't be understood keeps all from being stored.
#[utoipa::path(post, path = "/api/v1/readings", params(Headers), responses(
    (status = OK, body = Stored, description = "They are on disk"),
    body::Refused,
    reads::Refused,
    Refused,
), request_body(content((Readings = "application/json"), (String = "application/x-ndjson"))))]
pub(super) async fn readings(State(hall): State<Arc<Hall>>, headers: HeaderMap, body: Body) -> Result<Json<Stored>, Refusal> {
    let key = idempotency_key(&headers)?;
    let _place = hall.scale.place(&headers).await?;
    let body = body::read(body, MAX_BODY_BYTES).await?;
    let key = key.map(|key| http::request_digest(key.as_bytes(), &body));
    let (arrived, source) = (hall.rooms.clock.now(), hall.rooms.clock.arrival_source());
    let parse = move || http::parse(&body, arrived, source);
    let parsed = tokio::task::spawn_blocking(parse).await.map_err(|error| Refusal::internal(error.to_string()))?;
    let readings =
        parsed.map_err(|bad| Refusal::invalid(bad.to_string(), "nothing of the request was stored; GET /docs shows the format"))?;
    let stored = Stored { readings: readings.len() };
    let settled = async {
        match key {
            None => hall.rooms.desk.hand_in(readings).await,
            Some(key) => {
                let reads = hall.reads.clone();
                let known = async move {
                    let asked = reads.read(move |reader| reader.has_idempotency_key(&key)).await;
                    asked.map_err(|_| "the ledger can't be read".to_owned())
                };
                hall.rooms.desk.hand_in_once(readings, key, known).await
            }
        }
    };
    let settled: Result<(), DeskError> = tokio::time::timeout(COMMIT_TIME, settled).await.map_err(|_| unknown_outcome())?;
    settled?;
    Ok(Json(stored))
}

fn unknown_outcome() -> Refusal {
    let message = "the readings were handed in, but their commit did not come in time: it is not known whether they are stored";
    Refusal::unavailable("not_settled", message, "send the same request again with the same Idempotency-Key")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Refusal::invalid("the Idempotency-Key is empty, too long or not ASCII", "use a UUID")),
    }
}
