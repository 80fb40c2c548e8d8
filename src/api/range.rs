//! `GET /api/v1/range`: readings of one series or buckets of them, without the engine.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Hall;
use super::params::{Params, limit, time};
use super::refusal::Refusal;
use crate::config::Period;
use crate::model::Timestamp;
use crate::range::{Aggregate, Points, Question, RangeError, Ranges, Series};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    sensor: Arc<str>,
    metric: Arc<str>,
    from: Option<String>,
    to: Option<String>,
    step: Option<Period>,
    agg: Option<Aggregate>,
    limit: Option<usize>,
}

/// What was asked for, then what was found.
#[derive(Serialize)]
struct Answer<T> {
    sensor: Arc<str>,
    metric: Arc<str>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(flatten)]
    found: T,
}

#[derive(Serialize)]
struct Buckets {
    step: Period,
    agg: Aggregate,
    #[serde(flatten)]
    series: Series,
}

pub(super) async fn range(State(hall): State<Arc<Hall>>, Params(asked): Params<Asked>) -> Result<Response, Refusal> {
    let (from, to) = (time("from", asked.from.as_deref())?, time("to", asked.to.as_deref())?);
    let question = Question {
        sensor: Arc::clone(&asked.sensor),
        metric: Arc::clone(&asked.metric),
        from: from.unwrap_or(Timestamp(i64::MIN)),
        to: to.unwrap_or(Timestamp(i64::MAX)),
    };
    if question.from >= question.to {
        return Err(Refusal::invalid("the range is empty: from is not before to", "from is inclusive, to is exclusive"));
    }
    let ranges = Ranges::new(hall.rooms.ledger.clone(), hall.rooms.dir.clone());
    let (sensor, metric) = (asked.sensor, asked.metric);
    match (asked.step, asked.agg) {
        (Some(step), agg) => {
            let agg = agg.unwrap_or_default();
            let micros = i64::try_from(step.0.as_micros()).ok().filter(|micros| *micros > 0);
            let micros = micros.ok_or_else(|| Refusal::invalid(format!("step={step} is not a step"), "write it like 15m"))?;
            let series = hall.reads.block(move || Ok(ranges.buckets(&question, micros, agg)?)).await?;
            Ok(Json(Answer { sensor, metric, from, to, found: Buckets { step, agg, series } }).into_response())
        }
        (None, Some(_)) => Err(Refusal::invalid("agg without a step", "add a step, as step=15m")),
        (None, None) => {
            let limit = limit(asked.limit)?;
            let found: Points = hall.reads.block(move || Ok(ranges.readings(&question, limit)?)).await?;
            Ok(Json(Answer { sensor, metric, from, to, found }).into_response())
        }
    }
}

impl From<RangeError> for Refusal {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Ledger(error) => error.into(),
            RangeError::TooManyBuckets => Self::invalid(error.to_string(), "ask for a larger step or a shorter range"),
            RangeError::TooMuchHot => {
                Self::unavailable("too_much_hot", error.to_string(), "seal it with POST /api/v1/flush, or try again in a moment")
            }
            RangeError::TooLong => Self::unavailable("range_timeout", error.to_string(), "ask for a shorter range"),
        }
    }
}
