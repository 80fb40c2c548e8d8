//! The decoder against messages as publishers send them.

mod fuzz;
mod limits;
mod routes;
mod yardstick;

use super::{Decoded, Decoder};
use crate::config::{Ingest, Route};
use crate::ingest::delivery::Message;
use crate::model::{Reading, TimeSource};

/// When every message of these tests arrives.
const ARRIVED: &str = "2026-11-20T10:00:00Z";

fn message(topic: &str, payload: &[u8]) -> Message {
    let payload = bytes::Bytes::copy_from_slice(payload);
    Message { topic: topic.into(), payload, qos: 0, retained: false, arrived: ARRIVED.parse().unwrap() }
}

fn decoder(routes: &[Route]) -> Decoder {
    let ingest = Ingest { timezone: "Europe/Berlin".to_owned(), ..Ingest::default() };
    Decoder::new(routes, &ingest).unwrap()
}

/// The routes of a configuration in TOML.
fn routes(toml: &str) -> Vec<Route> {
    toml::from_str::<crate::config::Config>(toml).unwrap().route
}

fn decode(toml: &str, topic: &str, payload: &str) -> Decoded {
    decoder(&routes(toml)).decode(&message(topic, payload.as_bytes()), TimeSource::Gateway)
}

/// A reading as `sensor | metric = value "text" unit`, short enough for a table.
fn shown(reading: &Reading) -> String {
    let value = reading.value.map(|value| format!(" {value}")).unwrap_or_default();
    let text = reading.text.as_ref().map(|text| format!(" {text:?}")).unwrap_or_default();
    let unit = reading.unit.as_ref().map(|unit| format!(" {unit}")).unwrap_or_default();
    format!("{} | {} ={value}{text}{unit}", reading.sensor, reading.metric)
}
