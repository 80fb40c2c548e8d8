//! A time as senders write it: RFC 3339 with a zone, or a number since 1970 by its magnitude.

use std::fmt;

use serde::Deserialize;
use serde::de::Visitor;
use utoipa::openapi::schema::{KnownFormat, OneOfBuilder, SchemaFormat};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use crate::model::{TimeUnit, Timestamp};

/// RFC 3339 with a zone, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds by its magnitude.
pub(super) struct Moment(pub(super) Timestamp);

/// For the description; without it the arrival counts.
pub(super) fn schema() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let either = OneOfBuilder::new().item(text).item(ObjectBuilder::new().schema_type(Type::Number));
    let what = "When it was measured: RFC 3339 with a zone, or a number since 1970 by its magnitude. Without it: its arrival.";
    either.item(ObjectBuilder::new().schema_type(Type::Null)).description(Some(what)).into()
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MomentVisitor)
    }
}

struct MomentVisitor;

impl Visitor<'_> for MomentVisitor {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time: RFC 3339 with a zone, or a number since 1970")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Moment, E> {
        let wrong = |_| E::custom(format!("the time \"{text}\" is not RFC 3339 with a zone, as 2026-11-20T10:00:00Z"));
        text.parse().map(Moment).map_err(wrong)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Moment, E> {
        Ok(Moment(Timestamp::from_unix(number)))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Moment, E> {
        i64::try_from(number).map_or_else(|_| Err(E::custom(format!("the time {number} is beyond 2^63"))), |number| self.visit_i64(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Moment, E> {
        let moment = TimeUnit::by_magnitude(number).fraction(number);
        moment.map(Moment).ok_or_else(|| E::custom(format!("the time {number} is beyond the calendar")))
    }
}
