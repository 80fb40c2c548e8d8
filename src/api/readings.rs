//! `POST /api/v1/readings`: answered with 200 only when the readings are durable.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Hall;
use super::body;
use super::refusal::Refusal;
use crate::ingest::http::{self, DeskError};

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

#[derive(Serialize)]
pub(super) struct Stored {
    readings: usize,
}

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
