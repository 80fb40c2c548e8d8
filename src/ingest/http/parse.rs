//! From a body to readings: a JSON array or JSON lines of `{"sensor","metric","value","time"?,"unit"?,"quality"?,"text"?}`.
//!
//! Strict, since a sender can be told: an unknown member, a value that is not a number, a time that is not plausible
//! are refused with their place. Nothing is replaced or skipped.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::moment::{self, Moment};
use crate::model::{MICROS_PER_DAY, Reading, TimeSource, Timestamp};

/// Most readings in one request: they are committed together, and a batch should stay small beside the memory.
pub const MAX_READINGS: usize = 100_000;

/// Longest name of a sensor, metric or unit, in bytes.
const MAX_NAME: usize = 1024;

/// Longest text of one reading, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// What is wrong with a body, and where: which reading, counted from 1, and which line and column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading {reading}, line {line}, column {column}: {message}")]
pub struct BadReading {
    /// Which reading, counted from 1.
    pub reading: usize,
    /// Line of the body, counted from 1.
    pub line: usize,
    /// Column of the line, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

/// A reading as it is written, with a value, a text or both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReading)]
pub struct Written<'a> {
    /// Who measured.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 1024, example = "tank-1")]
    sensor: Cow<'a, str>,
    /// What was measured.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 1024, example = "level")]
    metric: Cow<'a, str>,
    #[serde(default)]
    #[schema(schema_with = value, example = 1.25)]
    value: Option<Value>,
    #[serde(default)]
    #[schema(schema_with = moment::schema)]
    time: Option<Moment>,
    /// Its unit.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1024, example = "m")]
    unit: Option<Cow<'a, str>>,
    /// Its quality code.
    #[serde(default)]
    quality: Option<i16>,
    /// Its state or text.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, max_length = 65536)]
    text: Option<Cow<'a, str>>,
}

fn value() -> RefOr<Schema> {
    let number = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Number, Type::Boolean, Type::Null]));
    number.description(Some("A number, or a boolean as 0 or 1.")).into()
}

/// What all readings of a request share.
struct Request {
    arrived: Timestamp,
    arrival_source: TimeSource,
    /// Names come again and again: each is kept once.
    names: RefCell<HashSet<Arc<str>>>,
    /// The reading under way, counted from 1.
    place: Cell<usize>,
}

/// Reads the whole of `body`. `arrived` is the time of readings without one, marked by `arrival_source`; where that says
/// that the clock is not synchronised, times are not held against it.
///
/// # Errors
/// The first fault and its place; no reading is taken then.
pub fn parse(body: &[u8], arrived: Timestamp, arrival_source: TimeSource) -> Result<Vec<Reading>, BadReading> {
    let request = Request { arrived, arrival_source, names: RefCell::default(), place: Cell::new(1) };
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => request.array(body).map_err(|error| request.fault(&error)),
        Some(_) => request.lines(body),
        None => Err(request.fault_at(0, body, "the body is empty; send a JSON array or JSON lines of readings".to_owned())),
    }
}

impl Request {
    fn fault(&self, error: &serde_json::Error) -> BadReading {
        let text = error.to_string();
        // serde_json ends its text with the place, which is told apart here.
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
        BadReading { reading: self.place.get(), line: error.line().max(1), column: error.column().max(1), message }
    }

    /// What is wrong with the reading that ends `offset` bytes into `body`.
    fn fault_at(&self, offset: usize, body: &[u8], message: String) -> BadReading {
        let before = body.get(..offset).unwrap_or(body);
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        BadReading { reading: self.place.get(), line, column: (before.len() - line_start).max(1), message }
    }

    fn array(&self, body: &[u8]) -> Result<Vec<Reading>, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let readings = Array(self).deserialize(&mut json)?;
        json.end().map(|()| readings)
    }

    /// One object after another, whatever whitespace is between them.
    fn lines(&self, body: &[u8]) -> Result<Vec<Reading>, BadReading> {
        let mut readings = Vec::new();
        let mut objects = serde_json::Deserializer::from_slice(body).into_iter::<Object<'_>>();
        while let Some(object) = objects.next() {
            let Object(written) = object.map_err(|error| self.fault(&error))?;
            let taken = self.reading(written).and_then(|reading| {
                readings.push(reading);
                self.next(readings.len())
            });
            taken.map_err(|message| self.fault_at(objects.byte_offset(), body, message))?;
        }
        Ok(readings)
    }

    fn next(&self, taken: usize) -> Result<(), String> {
        if taken > MAX_READINGS {
            return Err(format!("more than {MAX_READINGS} readings in one request; send them in several"));
        }
        self.place.set(taken + 1);
        Ok(())
    }

    fn name(&self, what: &str, name: &str) -> Result<Arc<str>, String> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(format!("the {what} is empty, longer than {MAX_NAME} bytes or has control characters"));
        }
        let mut names = self.names.borrow_mut();
        if let Some(known) = names.get(name) {
            return Ok(Arc::clone(known));
        }
        let name: Arc<str> = Arc::from(name);
        names.insert(Arc::clone(&name));
        Ok(name)
    }

    fn reading(&self, written: Written<'_>) -> Result<Reading, String> {
        if written.value.is_none() && written.text.is_none() {
            return Err("it has neither a value nor a text".to_owned());
        }
        if written.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(format!("the text is longer than {MAX_TEXT} bytes"));
        }
        let (time, time_source) = match written.time {
            Some(Moment(time)) => (self.plausible(time)?, TimeSource::Sensor),
            None => (self.arrived, self.arrival_source),
        };
        Ok(Reading {
            time,
            sensor: self.name("sensor", &written.sensor)?,
            metric: self.name("metric", &written.metric)?,
            value: written.value.map(|Value(value)| value),
            text: written.text.map(|text| Arc::from(&*text)),
            unit: written.unit.map(|unit| self.name("unit", &unit)).transpose()?,
            quality: written.quality,
            arrived: self.arrived,
            time_source,
        })
    }

    fn plausible(&self, time: Timestamp) -> Result<Timestamp, String> {
        let trusted = self.arrival_source != TimeSource::Unsynchronised;
        if time < Timestamp::EARLIEST {
            Err(format!("the time {time} is before {}", Timestamp::EARLIEST))
        } else if trusted && time > self.arrived.plus_micros(MICROS_PER_DAY) {
            Err(format!("the time {time} is more than a day ahead of this gateway's {}", self.arrived))
        } else {
            Ok(time)
        }
    }
}

/// [`Written`] as an object alone: a derived struct would also be read from an array.
struct Object<'a>(Written<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(Object)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Written<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reading: an object with sensor, metric and value")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Written<'de>, A::Error> {
        Written::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Reads an array of objects as readings.
struct Array<'r>(&'r Request);

impl<'de> DeserializeSeed<'de> for Array<'_> {
    type Value = Vec<Reading>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Reading>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_> {
    type Value = Vec<Reading>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of readings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Reading>, A::Error> {
        let mut readings = Vec::new();
        while let Some(Object(written)) = elements.next_element()? {
            readings.push(self.0.reading(written).map_err(A::Error::custom)?);
            self.0.next(readings.len()).map_err(A::Error::custom)?;
        }
        Ok(readings)
    }
}

/// A finite number, or a boolean as 0 or 1.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a boolean (put words into \"text\")")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value(f64::from(u8::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() { Ok(Value(value)) } else { Err(E::custom("the value is not finite")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_168_800_000_000);

    fn read(body: &str) -> Result<Vec<Reading>, BadReading> {
        parse(body.as_bytes(), NOW, TimeSource::Gateway)
    }

    fn fault(body: &str) -> String {
        read(body).unwrap_err().to_string()
    }

    #[test]
    fn arrays_and_lines_give_the_same_readings() {
        let one = r#"{"sensor":"a","metric":"t","value":1.5,"time":"2026-11-20T10:00:00+01:00","unit":"°C","quality":192}"#;
        let two = r#"{"sensor":"a","metric":"door","value":true,"text":"OPEN"}"#;
        let array = read(&format!("[{one},{two}]")).unwrap();
        assert_eq!(array, read(&format!("{one}\n{two}\n\n")).unwrap());
        assert_eq!(array, read(&format!(" {one} {two}")).unwrap());
        let [first, second] = &array[..] else { panic!("{array:?}") };
        assert_eq!((first.time.to_string().as_str(), first.value), ("2026-11-20T09:00:00.000000Z", Some(1.5)));
        assert_eq!((first.time_source, first.unit.as_deref(), first.quality), (TimeSource::Sensor, Some("°C"), Some(192)));
        assert_eq!(
            (second.time, second.time_source, second.value, second.text.as_deref()),
            (NOW, TimeSource::Gateway, Some(1.0), Some("OPEN"))
        );
        assert!(Arc::ptr_eq(&first.sensor, &second.sensor), "a name is kept once");
        assert_eq!(read("[]").unwrap(), []);
    }

    #[test]
    fn times_are_read_by_their_magnitude() {
        for time in ["1795168800", "1795168800000", "1795168800000000", "1795168800000000000", "1795168800.0", "1795168800000.0"] {
            let readings = read(&format!(r#"{{"sensor":"a","metric":"t","value":1,"time":{time}}}"#)).unwrap();
            assert_eq!(readings[0].time, NOW, "{time}");
        }
    }

    #[test]
    fn a_fault_names_reading_line_and_column() {
        let good = r#"{"sensor":"a","metric":"t","value":1}"#;
        let bad = |member: &str| format!("[{good},\n{{\"sensor\":\"a\",\"metric\":\"t\",{member}}}]");
        assert!(fault(&bad(r#""value":"12""#)).starts_with("reading 2, line 2, column "), "{}", fault(&bad(r#""value":"12""#)));
        assert!(fault(&bad(r#""value":"12""#)).contains("expected a number or a boolean"));
        assert!(fault(&bad(r#""valeu":1"#)).contains("unknown field `valeu`"));
        assert!(fault(&bad(r#""value":1,"value":2"#)).contains("duplicate field `value`"));
        assert!(fault(&bad(r#""unit":"V""#)).contains("neither a value nor a text"));
        assert!(fault(&bad(r#""value":1,"time":"2026-11-20 10:00""#)).contains("is not RFC 3339 with a zone"));
        assert!(fault(&bad(r#""value":1,"time":7"#)).contains("is before 2000-01-01"));
        assert!(fault(&bad(r#""value":1,"time":4102444800"#)).contains("more than a day ahead"));
        assert!(fault(&bad(r#""value":1,"quality":70000"#)).contains("70000"));
        assert!(fault(&bad(r#""value":1e400"#)).contains("out of range"));
        assert!(fault(r#"[{"sensor":"","metric":"t","value":1}]"#).contains("the sensor is empty"));
        assert!(fault(r#"[{"sensor":"a","metric":"a\u0000b","value":1}]"#).contains("control characters"));
    }

    #[test]
    fn what_is_cut_off_or_no_json_is_refused_whole() {
        let body = r#"[{"sensor":"a","metric":"t","value":1},{"sensor":"b","metric":"t","value":2}]"#;
        for end in 0..body.len() {
            assert!(read(&body[..end]).is_err(), "{}", &body[..end]);
        }
        for body in ["", " \n", "null", "7", "\u{feff}[]", "[1]", "[[]]", "[] []", "{\"sensor\":\"a\",\"metric\":\"t\",\"value\":1} x"] {
            assert!(read(body).is_err(), "{body}");
        }
        assert!(parse(b"[{\"sensor\":\"\xff\",\"metric\":\"t\",\"value\":1}]", NOW, TimeSource::Gateway).is_err());
    }

    #[test]
    fn deep_nesting_is_refused_without_harm() {
        assert!(read(&"[".repeat(100_000)).is_err());
        let deep = format!("{{\"sensor\":\"a\",\"metric\":\"t\",\"value\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).is_err());
    }

    #[test]
    fn times_are_not_held_against_a_clock_that_nobody_sets() {
        let body = r#"{"sensor":"a","metric":"t","value":1,"time":"2026-11-20T10:00:00Z"}"#;
        let boot = Timestamp(1_600_000_000_000_000);
        assert!(parse(body.as_bytes(), boot, TimeSource::Gateway).is_err());
        assert!(parse(body.as_bytes(), boot, TimeSource::Unsynchronised).is_ok());
    }

    #[test]
    fn more_readings_than_a_request_may_have_are_refused() {
        let line = "{\"sensor\":\"a\",\"metric\":\"t\",\"value\":1}\n";
        assert_eq!(read(&line.repeat(MAX_READINGS)).unwrap().len(), MAX_READINGS);
        assert!(fault(&line.repeat(MAX_READINGS + 1)).contains("more than 100000 readings"));
    }
}
