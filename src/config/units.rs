//! Sizes like `"64MiB"` and times like `"15m"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// A number of bytes; written with `B`, `KiB`, `MiB`, `GiB`, `kB`, `MB`, `GB`, or as a bare number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time; written with `ms`, `s`, `m`, `h`, `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// Longest unit first within each base, so that what is shown is the shortest exact form.
const SIZES: [(&str, u64); 7] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000), ("B", 1)];

const PERIODS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Splits `12.5MiB` into the number and the factor of its unit.
fn split(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" => bare.or_else(|| (number.parse() == Ok(0_u64)).then_some(1))?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let product = number.parse::<f64>().ok()? * factor as f64;
            (product.is_finite() && product < u64::MAX as f64).then_some(product as u64)
        }
    }
}

fn show(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => write!(f, "{}{unit}", amount / factor),
        None => f.write_str(zero),
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        split(text, &SIZES, Some(1)).map(Self).ok_or_else(|| format!("\"{text}\" is not a size; write it like \"64MiB\""))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZES, "0")
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = split(text, &PERIODS, None).ok_or_else(|| format!("\"{text}\" is not a time; write it like \"15m\""))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &PERIODS, "0s")
    }
}

/// Text, or a bare whole number where a unit is not needed.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = match Written::deserialize(deserializer)? {
                    Written::Number(number) => number.to_string(),
                    Written::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(ByteSize);
as_text!(Period);

impl PartialSchema for Period {
    fn schema() -> RefOr<Schema> {
        let either = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer]));
        let written = either.pattern(Some(r"^([0-9]{1,7}(\.[0-9]{1,3})?(ms|s|m|h|d)|0)$")).minimum(Some(0)).maximum(Some(0));
        written.description(Some("A span of time; 0 needs no unit.")).examples(["15m", "1.5s"]).into()
    }
}

impl ToSchema for Period {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_come_back_as_written() {
        for text in ["64MiB", "1GiB", "10kB", "1500B", "0"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["15m", "90d", "1s", "250ms", "0s"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("0.5s".parse::<Period>().unwrap(), Period(Duration::from_millis(500)));
    }

    #[test]
    fn what_has_no_unit_or_a_foreign_one_is_refused() {
        for text in ["", "x", "12 parsecs", "-1MiB", "1e3", "99999999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert!("5".parse::<Period>().is_err());
    }
}
