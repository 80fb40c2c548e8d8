//! `GET /api/v1/range`: readings of one series or buckets of them, without the engine.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::params::{self, Limit, Moment, Params};
use super::refusal::Refusal;
use super::{Hall, reads};
use crate::config::Period;
use crate::model::Timestamp;
use crate::range::{Aggregate, Points, Question, RangeError, Ranges, Series};

/// Which readings, and what of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Who measured.
    #[param(value_type = String)]
    sensor: Arc<str>,
    /// What was measured.
    #[param(value_type = String)]
    metric: Arc<str>,
    /// The first moment that counts.
    #[param(inline)]
    from: Option<Moment>,
    /// The first moment that does not; after `from`.
    #[param(inline)]
    to: Option<Moment>,
    /// The length of the buckets; without it the readings are listed. They are counted from 1970 on.
    #[param(inline)]
    step: Option<Period>,
    /// What of each bucket; only with a step.
    #[param(inline)]
    agg: Option<Aggregate>,
    #[param(inline)]
    limit: Option<Limit>,
}

/// What was asked for, then what was found.
#[derive(Serialize, ToSchema)]
pub(super) struct Answer {
    /// Who measured.
    #[schema(value_type = String)]
    sensor: Arc<str>,
    /// What was measured.
    #[schema(value_type = String)]
    metric: Arc<str>,
    /// The first moment that counts.
    from: Option<Timestamp>,
    /// The first moment that does not.
    to: Option<Timestamp>,
    #[serde(flatten)]
    found: Found,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Found {
    Readings(Points),
    Buckets(Buckets),
}

/// The buckets of a step.
#[derive(Serialize, ToSchema)]
struct Buckets {
    /// Their length.
    step: Period,
    /// What of each.
    agg: Aggregate,
    #[serde(flatten)]
    series: Series,
}

/// The readings of one series, or buckets of them; without the engine.
#[utoipa::path(get, path = "/api/v1/range", params(Asked), responses(
    (status = OK, body = Answer, description = "Oldest first"),
    params::Refused,
    reads::Refused,
))]
pub(super) async fn range(State(hall): State<Arc<Hall>>, Params(asked): Params<Asked>) -> Result<Json<Answer>, Refusal> {
    let Asked { sensor, metric, from, to, step, agg, limit } = asked;
    let (from, to) = (from.map(|Moment(time)| time), to.map(|Moment(time)| time));
    let question = Question {
        sensor: Arc::clone(&sensor),
        metric: Arc::clone(&metric),
        from: from.unwrap_or(Timestamp(i64::MIN)),
        to: to.unwrap_or(Timestamp(i64::MAX)),
    };
    if question.from >= question.to {
        return Err(Refusal::invalid("the range is empty: from is not before to", "from is inclusive, to is exclusive"));
    }
    let ranges = Ranges::new(hall.rooms.ledger.clone(), hall.rooms.dir.clone());
    let found = match (step, agg) {
        (Some(step), agg) => {
            let agg = agg.unwrap_or_default();
            let micros = i64::try_from(step.0.as_micros()).ok().filter(|micros| *micros > 0);
            let micros = micros.ok_or_else(|| Refusal::invalid(format!("step={step} is not a step"), "write it like 15m"))?;
            let series = hall.reads.block(move || Ok(ranges.buckets(&question, micros, agg)?)).await?;
            Found::Buckets(Buckets { step, agg, series })
        }
        (None, Some(_)) => return Err(Refusal::invalid("agg without a step", "add a step, as step=15m")),
        (None, None) => {
            let limit = Limit::of(limit);
            Found::Readings(hall.reads.block(move || Ok(ranges.readings(&question, limit)?)).await?)
        }
    };
    Ok(Json(Answer { sensor, metric, from, to, found }))
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
