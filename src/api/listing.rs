//! Lists: series, latest values, records, segments, losses.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Hall;
use super::params::{Params, limit};
use super::refusal::Refusal;
use crate::model::{CutState, LossStatus, Segment, SeriesSummary, StoredRecord, Timestamp};

/// Which series.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    sensor: Option<String>,
    metric: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Serialize)]
pub(super) struct Series {
    series: Vec<SeriesSummary>,
}

/// All series.
pub(super) async fn series(State(hall): State<Arc<Hall>>, _: Params<Nothing>) -> Json<Series> {
    Json(Series { series: hall.rooms.latest.series() })
}

#[derive(Serialize)]
pub(super) struct Latest {
    latest: Vec<Newest>,
}

/// The newest reading of a series.
#[derive(Serialize)]
struct Newest {
    sensor: Arc<str>,
    metric: Arc<str>,
    unit: Option<Arc<str>>,
    time: Option<Timestamp>,
    value: Option<f64>,
    text: Option<Arc<str>>,
}

/// The newest reading of each series that matches.
pub(super) async fn latest(State(hall): State<Arc<Hall>>, Params(which): Params<Which>) -> Json<Latest> {
    let found = hall.rooms.latest.latest(which.sensor.as_deref(), which.metric.as_deref());
    let newest = |series: SeriesSummary| Newest {
        sensor: series.key.sensor,
        metric: series.key.metric,
        unit: series.unit,
        time: series.last_time,
        value: series.last_value,
        text: series.last_text,
    };
    Json(Latest { latest: found.into_iter().map(newest).collect() })
}

/// Which records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichRecords {
    source: Option<String>,
    kind: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Records {
    records: Vec<StoredRecord>,
}

/// Records, newest first.
pub(super) async fn records(State(hall): State<Arc<Hall>>, Params(which): Params<WhichRecords>) -> Result<Json<Records>, Refusal> {
    let limit = limit(which.limit)?;
    let read = move |reader: &mut crate::ledger::Reader| reader.records(which.source.as_deref(), which.kind.as_deref(), limit);
    Ok(Json(Records { records: hall.reads.read(read).await? }))
}

/// How many rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HowMany {
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct Segments {
    /// All that are here; the list may be shorter.
    total: usize,
    segments: Vec<SegmentRow>,
}

/// A segment and how far its cut has come.
#[derive(Serialize)]
struct SegmentRow {
    #[serde(flatten)]
    segment: Segment,
    state: Option<CutState>,
}

/// Segments on this machine, newest event time first.
pub(super) async fn segments(State(hall): State<Arc<Hall>>, Params(how): Params<HowMany>) -> Result<Json<Segments>, Refusal> {
    let limit = limit(how.limit)?;
    let read = |reader: &mut crate::ledger::Reader| reader.snapshot(|reader| Ok((reader.segments()?, reader.cuts()?)));
    let (segments, cuts) = hall.reads.read(read).await?;
    let states: HashMap<_, _> = cuts.iter().map(|cut| ((&cut.instance, cut.number), cut.state)).collect();
    let total = segments.len();
    let rows = segments.into_iter().take(limit).map(|segment| {
        let state = states.get(&(&segment.name.instance, segment.name.cut)).copied();
        SegmentRow { segment, state }
    });
    Ok(Json(Segments { total, segments: rows.collect() }))
}

#[derive(Serialize)]
pub(super) struct Losses {
    losses: Vec<LossStatus>,
}

/// Losses, newest first.
pub(super) async fn losses(State(hall): State<Arc<Hall>>, Params(how): Params<HowMany>) -> Result<Json<Losses>, Refusal> {
    let limit = limit(how.limit)?;
    Ok(Json(Losses { losses: hall.reads.read(move |reader| reader.losses(limit)).await? }))
}
