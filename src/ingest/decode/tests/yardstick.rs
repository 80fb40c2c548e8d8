//! Real messages with what a sensible decoder makes of them, scored by family of publishers.
//!
//! The file of this repository always runs. `FOREBAY_PAYLOADS` names another one of the same format.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use super::{Decoded, TimeSource, decoder, message, shown};
use crate::ingest::decode::Decoder;
use crate::model::{Reading, Timestamp};

/// Our own messages.
const OWN: &str = include_str!("../../../../tests/fixtures/payloads.jsonl");

/// How far a value may be off where a row does not say: none but the last bit.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Row {
    class: String,
    topic: String,
    payload: String,
    encoding: Option<String>,
    expect: Expect,
    expect_by: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Readings(Vec<Expected>),
    /// `metadata`, `discard` or `reject`.
    Nothing(String),
}

#[derive(Deserialize)]
struct Expected {
    sensor: String,
    metric: String,
    value: Value,
    ts: Option<String>,
    tol: Option<f64>,
    unit: Option<String>,
    quality: Option<Value>,
}

impl Row {
    fn bytes(&self) -> Vec<u8> {
        match self.encoding.as_deref() {
            Some("base64") => base64::engine::general_purpose::STANDARD.decode(&self.payload).unwrap(),
            _ => self.payload.clone().into_bytes(),
        }
    }

    /// Whether it must come out without any configuration.
    fn is_required(&self) -> bool {
        matches!(self.expect, Expect::Nothing(_)) || self.expect_by.starts_with("default-")
    }
}

impl Expected {
    fn is(&self, reading: &Reading) -> bool {
        *self.sensor == *reading.sensor
            && *self.metric == *reading.metric
            && self.has_value(reading)
            && self.has_time(reading)
            && self.has_quality(reading)
    }

    fn has_value(&self, reading: &Reading) -> bool {
        let near = |number: f64| {
            let tolerance = self.tol.unwrap_or(TOLERANCE) * number.abs().max(1.0);
            reading.value.is_some_and(|value| (value - number).abs() <= tolerance)
        };
        match &self.value {
            Value::Bool(state) => reading.value == Some(f64::from(u8::from(*state))),
            Value::Number(number) => near(number.as_f64().unwrap()),
            Value::String(word) => reading.text.as_deref() == Some(word),
            _ => false,
        }
    }

    fn has_time(&self, reading: &Reading) -> bool {
        let Some(expected) = &self.ts else { return true };
        let expected: Timestamp = expected.parse().unwrap();
        reading.time.0.abs_diff(expected.0) <= 1 && reading.time_source == TimeSource::Sensor
    }

    fn has_quality(&self, reading: &Reading) -> bool {
        match &self.quality {
            None => true,
            Some(Value::Bool(good)) => reading.quality == Some(i16::from(*good)),
            Some(code) => code.as_i64() == reading.quality.map(i64::from),
        }
    }

    fn lacks_unit(&self, readings: &[Reading]) -> bool {
        let unit_of = |reading: &Reading| reading.unit.as_deref().map(str::to_owned);
        self.unit.is_some() && readings.iter().any(|reading| self.is(reading) && unit_of(reading) != self.unit)
    }
}

#[derive(Default)]
struct Score {
    rows: usize,
    passed: usize,
    required: usize,
    required_passed: usize,
    readings: usize,
    readings_found: usize,
    units_missed: usize,
}

/// Decodes every row, prints the score and what was missed, and returns the rows that `must` come out and did not.
#[expect(clippy::print_stdout, reason = "what was missed is what a person runs this test for")]
fn score(name: &str, text: &str, must: fn(&Row) -> bool) -> Vec<String> {
    let decoder = decoder(&[]);
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut failed = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let row: Row = serde_json::from_str(line).unwrap();
        let decoded = decode_row(&decoder, &row);
        let score = scores.entry(row.class.clone()).or_default();
        let missed = missed(&row, &decoded, score);
        score.rows += 1;
        score.required += usize::from(row.is_required());
        if missed.is_empty() {
            score.passed += 1;
            score.required_passed += usize::from(row.is_required());
            continue;
        }
        let report = format!(
            "{} {} ({}): missed {}; rule {}, made {}",
            row.class,
            row.topic,
            row.expect_by,
            missed.join(", "),
            decoded.rule,
            made(&decoded)
        );
        println!("missed: {report}");
        if must(&row) {
            failed.push(report);
        }
    }
    print(name, &scores);
    failed
}

fn decode_row(decoder: &Decoder, row: &Row) -> Decoded {
    decoder.decode(&message(&row.topic, &row.bytes()), TimeSource::Gateway)
}

fn missed(row: &Row, decoded: &Decoded, score: &mut Score) -> Vec<String> {
    match &row.expect {
        Expect::Nothing(kind) if kind == "reject" && decoded.rejected.is_none() => vec!["a rejection".to_owned()],
        Expect::Nothing(kind) => decoded.readings.iter().map(|reading| format!("{kind}, not {}", shown(reading))).collect(),
        Expect::Readings(expected) => {
            score.readings += expected.len();
            score.units_missed += expected.iter().filter(|expected| expected.lacks_unit(&decoded.readings)).count();
            let missing = expected.iter().filter(|expected| !decoded.readings.iter().any(|reading| expected.is(reading)));
            let missing: Vec<String> =
                missing.map(|expected| format!("{} | {} = {}", expected.sensor, expected.metric, expected.value)).collect();
            score.readings_found += expected.len() - missing.len();
            missing
        }
    }
}

fn made(decoded: &Decoded) -> String {
    match &decoded.rejected {
        Some(reason) => format!("a rejection ({reason})"),
        None => format!("{:?} and {} records", decoded.readings.iter().map(shown).collect::<Vec<_>>(), decoded.records.len()),
    }
}

#[expect(clippy::print_stdout, reason = "the score is what a person runs this test for")]
fn print(name: &str, scores: &BTreeMap<String, Score>) {
    println!("{name}\n{:<18} {:>9} {:>9} {:>11} {:>12}", "family", "rows", "required", "readings", "units missed");
    for (family, score) in scores {
        let rows = format!("{}/{}", score.passed, score.rows);
        let required = format!("{}/{}", score.required_passed, score.required);
        let readings = format!("{}/{}", score.readings_found, score.readings);
        println!("{family:<18} {rows:>9} {required:>9} {readings:>11} {:>12}", score.units_missed);
    }
}

#[test]
fn every_message_of_our_own_becomes_what_it_should() {
    assert_eq!(score("own messages", OWN, |_| true), Vec::<String>::new());
}

#[test]
fn every_required_message_of_another_file_becomes_what_it_should() {
    let Ok(path) = std::env::var("FOREBAY_PAYLOADS") else { return };
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(score(&path, &text, Row::is_required), Vec::<String>::new());
}
