//! `POST /api/v1/flush`: seal and upload now, and wait until it is delivered or the time is over.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::refusal::Refusal;
use super::{Hall, body, reads};
use crate::config::Period;
use crate::error::ErrorKind;
use crate::ledger::Reader;
use crate::model::{Cut, CutNumber, CutState, InstanceId};
use crate::segment::{Demand, SegmentError};
use crate::status::LinkState;

const MAX_BODY_BYTES: usize = 4 << 10;

/// If nobody says how long to wait.
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// A request does not stay longer; ask again.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// How often to look, and to wake the uploader so that it does not wait for its own next attempt. Where upstream asked for
/// patience or refuses, it was overridden once, and that has to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long to wait.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    /// At most 10 minutes; without it 30 seconds.
    pub wait: Option<Period>,
}

/// What became of everything that was accepted when the request came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlushAnswer {
    /// Whether all of it is delivered.
    pub delivered: bool,
    /// Readings that are not.
    pub undelivered_readings: u64,
    /// The cuts they are in.
    pub undelivered_cuts: u64,
    /// How the link is.
    pub link: LinkState,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
}

/// Seals and uploads now, and waits until all is delivered or the time is over.
#[utoipa::path(post, path = "/api/v1/flush", request_body = FlushRequest, responses(
    (status = OK, body = FlushAnswer, description = "What became of everything accepted before"),
    body::Refused,
    reads::Refused,
))]
pub(super) async fn flush(State(hall): State<Arc<Hall>>, body: Body) -> Result<Json<FlushAnswer>, Refusal> {
    let request: FlushRequest = body::json(body, MAX_BODY_BYTES, "send {\"wait\": \"30s\"}").await?;
    let wait = request.wait.map_or(USUAL_WAIT, |Period(wait)| wait).min(MAX_WAIT);
    let end = Instant::now() + wait;
    hall.rooms.sealer.seal_now(Demand::Flush).await.map_err(not_sealed)?;
    if let Some(uploader) = &hall.rooms.uploader {
        uploader.flush().await.map_err(|error| Refusal::internal(error.to_string()))?;
    }
    let target = hall.rooms.ledger.progress().borrow().last_cut;
    if hall.rooms.sources.now().link.state != LinkState::Off {
        wait_for_delivery(&hall, target, end).await?;
    }
    Ok(Json(answer(&hall, target).await?))
}

fn not_sealed(error: SegmentError) -> Refusal {
    match error.kind() {
        ErrorKind::Full | ErrorKind::Transient => Refusal::unavailable("not_sealed", error.to_string(), "try again in a moment"),
        _ => Refusal::internal(error.to_string()),
    }
}

/// Returns when the oldest undelivered cut is younger than `target`, or at `end`.
async fn wait_for_delivery(hall: &Hall, target: CutNumber, end: Instant) -> Result<(), Refusal> {
    let mut progress = hall.rooms.ledger.progress();
    loop {
        progress.mark_unchanged();
        let instance = hall.rooms.ledger.identity().instance;
        let oldest = hall.reads.read(|reader: &mut Reader| reader.next_cut(false)).await?;
        if !oldest.is_some_and(|cut| is_asked_for(&cut, &instance, target)) || Instant::now() >= end {
            return Ok(());
        }
        if let Some(uploader) = &hall.rooms.uploader {
            uploader.kick();
        }
        let next_look = (Instant::now() + LOOK_INTERVAL).min(end);
        // A hint or the tick: either way the ledger is asked.
        let _ = tokio::time::timeout_at(next_look, progress.changed()).await;
    }
}

/// Whether `cut` was there when the flush was asked for: sealed by then, or left from another instance.
fn is_asked_for(cut: &Cut, instance: &InstanceId, target: CutNumber) -> bool {
    cut.state == CutState::Sealed && (cut.instance != *instance || cut.number <= target)
}

async fn answer(hall: &Hall, target: CutNumber) -> Result<FlushAnswer, Refusal> {
    let instance = hall.rooms.ledger.identity().instance;
    let cuts = hall.reads.read(|reader: &mut Reader| reader.cuts()).await?;
    let left: Vec<_> = cuts.iter().filter(|cut| is_asked_for(cut, &instance, target)).collect();
    let link = hall.rooms.sources.now().link;
    Ok(FlushAnswer {
        delivered: left.is_empty(),
        undelivered_readings: left.iter().map(|cut| cut.readings).sum(),
        undelivered_cuts: left.len() as u64,
        link: link.state,
        last_error: link.last_error,
    })
}
