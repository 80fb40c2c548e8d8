//! One moment, in microseconds since 1970 UTC: the resolution of every table, file and answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a UTC day.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A moment in microseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// 2000-01-01T00:00:00Z: no sensor measured before; what says so has lost its clock.
    pub const EARLIEST: Self = Self(946_684_800 * MICROS_PER_SECOND);

    /// The moment that a whole number since 1970 stands for, in the unit that its magnitude tells.
    pub fn from_unix(number: i64) -> Self {
        TimeUnit::by_magnitude(number as f64).whole(number).unwrap_or(Self(i64::MAX))
    }

    /// Days since 1970-01-01, as the UTC calendar counts them.
    pub fn utc_day(self) -> Day {
        Day(self.0.div_euclid(MICROS_PER_DAY))
    }

    /// The moment `micros` later; saturates at the ends of time.
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// What a number since 1970 counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Thousandths.
    Millis,
    /// Millionths.
    Micros,
    /// Billionths.
    Nanos,
}

impl TimeUnit {
    /// The unit in which `number` is a likely time: in each the years 1973 to 5138 have their own range of numbers.
    pub fn by_magnitude(number: f64) -> Self {
        match number.abs() {
            size if size < 1e11 => Self::Seconds,
            size if size < 1e14 => Self::Millis,
            size if size < 1e17 => Self::Micros,
            _ => Self::Nanos,
        }
    }

    /// The moment of a whole number; `None` beyond the ends of time.
    pub fn whole(self, number: i64) -> Option<Timestamp> {
        let micros = match self {
            Self::Seconds => number.checked_mul(MICROS_PER_SECOND),
            Self::Millis => number.checked_mul(1_000),
            Self::Micros => Some(number),
            Self::Nanos => Some(number.div_euclid(1_000)),
        };
        micros.map(Timestamp)
    }

    /// The moment of a number with a fraction, to the nearest microsecond; `None` beyond the ends of time.
    pub fn fraction(self, number: f64) -> Option<Timestamp> {
        let micros = match self {
            Self::Seconds => number * 1e6,
            Self::Millis => number * 1e3,
            Self::Micros => number,
            Self::Nanos => number / 1e3,
        };
        // Beyond this, 30,000 years from now, the cast would soon saturate.
        (micros.abs() < 1e18).then(|| Timestamp(micros.round() as i64))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with six digits; the bare number where the calendar does not reach.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads RFC 3339 with a zone.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A UTC day, counted from 1970-01-01; shown as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i64);

impl Day {
    /// The first moment of the day.
    pub fn start(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(MICROS_PER_DAY))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.start().0) {
            Ok(moment) => write!(f, "{}", moment.strftime("%Y-%m-%d")),
            Err(_) => write!(f, "day{}", self.0),
        }
    }
}

/// Where a reading's `time` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// The message carried it.
    Sensor,
    /// It is the arrival at a gateway whose clock was synchronised.
    Gateway,
    /// It arrived before the clock was synchronised and was corrected afterwards.
    Anchored,
    /// It is the arrival at a gateway whose clock was not synchronised.
    Unsynchronised,
}

impl TimeSource {
    /// The word used in tables and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Gateway => "gateway",
            Self::Anchored => "anchored",
            Self::Unsynchronised => "unsynchronised",
        }
    }

    /// The source named `word`, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Sensor, Self::Gateway, Self::Anchored, Self::Unsynchronised].into_iter().find(|source| source.as_str() == word)
    }
}
