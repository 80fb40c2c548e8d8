//! Lists: series, latest values, records, segments, losses.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::params::{self, Limit, Params};
use super::refusal::Refusal;
use super::{Hall, reads};
use crate::model::{CutState, LossStatus, Segment, SeriesSummary, StoredRecord, Timestamp};

/// Which series.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only this sensor's.
    sensor: Option<String>,
    /// Only this metric's.
    metric: Option<String>,
}

/// No parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Serialize, ToSchema)]
pub(super) struct AllSeries {
    /// In the order of sensor and metric.
    series: Vec<SeriesSummary>,
}

/// All series.
#[utoipa::path(get, path = "/api/v1/series", responses((status = OK, body = AllSeries, description = "Of all times"), params::Refused))]
pub(super) async fn series(State(hall): State<Arc<Hall>>, _: Params<Nothing>) -> Json<AllSeries> {
    Json(AllSeries { series: hall.rooms.latest.series() })
}

#[derive(Serialize, ToSchema)]
pub(super) struct Latest {
    /// In the order of sensor and metric.
    latest: Vec<Newest>,
}

/// The newest reading of a series.
#[derive(Serialize, ToSchema)]
struct Newest {
    /// Who measured.
    sensor: Arc<str>,
    /// What was measured.
    metric: Arc<str>,
    /// The latest unit seen.
    unit: Option<Arc<str>>,
    /// When it was measured.
    time: Option<Timestamp>,
    /// Its value.
    value: Option<f64>,
    /// Its state or text.
    text: Option<Arc<str>>,
}

/// The newest reading of each series that matches.
#[utoipa::path(get, path = "/api/v1/latest", params(Which), responses(
    (status = OK, body = Latest, description = "From memory"),
    params::Refused,
))]
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
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhichRecords {
    /// Only of this source.
    source: Option<String>,
    /// Only of this kind.
    kind: Option<String>,
    #[param(inline)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Records {
    /// Newest first.
    records: Vec<StoredRecord>,
}

/// Records, newest first.
#[utoipa::path(get, path = "/api/v1/records", params(WhichRecords), responses(
    (status = OK, body = Records, description = "What matches"),
    params::Refused,
    reads::Refused,
))]
pub(super) async fn records(State(hall): State<Arc<Hall>>, Params(which): Params<WhichRecords>) -> Result<Json<Records>, Refusal> {
    let limit = Limit::of(which.limit);
    let read = move |reader: &mut crate::ledger::Reader| reader.records(which.source.as_deref(), which.kind.as_deref(), limit);
    Ok(Json(Records { records: hall.reads.read(read).await? }))
}

/// How many rows.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HowMany {
    #[param(inline)]
    limit: Option<Limit>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Segments {
    /// All that are here; the list may be shorter.
    total: usize,
    /// Newest event time first.
    segments: Vec<SegmentRow>,
}

/// A segment and how far its cut has come.
#[derive(Serialize, ToSchema)]
struct SegmentRow {
    #[serde(flatten)]
    segment: Segment,
    /// How far its cut has come.
    state: Option<CutState>,
}

/// Segments on this machine, newest event time first.
#[utoipa::path(get, path = "/api/v1/segments", params(HowMany), responses(
    (status = OK, body = Segments, description = "The list"),
    params::Refused,
    reads::Refused,
))]
pub(super) async fn segments(State(hall): State<Arc<Hall>>, Params(how): Params<HowMany>) -> Result<Json<Segments>, Refusal> {
    let limit = Limit::of(how.limit);
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

#[derive(Serialize, ToSchema)]
pub(super) struct Losses {
    /// Newest first.
    losses: Vec<LossStatus>,
}

/// Losses, newest first.
#[utoipa::path(get, path = "/api/v1/losses", params(HowMany), responses(
    (status = OK, body = Losses, description = "The list"),
    params::Refused,
    reads::Refused,
))]
pub(super) async fn losses(State(hall): State<Arc<Hall>>, Params(how): Params<HowMany>) -> Result<Json<Losses>, Refusal> {
    let limit = Limit::of(how.limit);
    Ok(Json(Losses { losses: hall.reads.read(move |reader| reader.losses(limit)).await? }))
}
