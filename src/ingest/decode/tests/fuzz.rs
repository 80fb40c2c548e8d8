//! No bytes make the decoder panic, and what it makes of them keeps the limits.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::Value;

use super::{Decoded, Decoder, decoder, message, routes};
use crate::ingest::decode::MAX_READINGS;
use crate::model::TimeSource;

const CASES: usize = 20_000;

/// Reads many messages by rules too.
const ROUTES: &str = r#"
[[route]]
topic = "yard/{sensor}/{metric}"
[[route]]
topic = "hall/#"
each = "values[*]"
sensor = "id"
metric = "name"
value = "value"
time = "t"
[[route]]
topic = "{site}/#"
keep = ["*e*"]
scale = { temperature = 1e300 }
once = "time"
"#;

fn seeds() -> Vec<(String, Vec<u8>)> {
    let rows = include_str!("../../../../tests/fixtures/payloads.jsonl").lines();
    rows.map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["topic"].as_str().unwrap().to_owned(), row["payload"].as_str().unwrap().as_bytes().to_vec())
    })
    .collect()
}

fn mutate(random: &mut StdRng, payload: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=payload.len());
        match random.random_range(0..6) {
            0 => payload.truncate(at),
            1 if at < payload.len() => payload[at] ^= 1 << random.random_range(0..8),
            2 if at < payload.len() => payload[at] = b"{}[]\",:0eE-.\\\0n"[random.random_range(0..15)],
            3 => {
                let from = random.random_range(0..=other.len());
                payload.splice(at..at, other[from..].iter().copied());
            }
            4 => {
                let again = payload[at..].to_vec();
                payload.extend(again);
            }
            _ => payload.insert(at.min(payload.len()), random.next_u32() as u8),
        }
    }
}

fn assert_sound(decoded: &Decoded) {
    assert!(decoded.readings.len() <= MAX_READINGS);
    let nothing = decoded.readings.is_empty() && decoded.records.is_empty();
    assert!(decoded.rejected.is_none() || nothing, "a rejected message leaves nothing: {decoded:?}");
    let accounted = !nothing || decoded.rejected.is_some() || decoded.ignored || decoded.skipped_members > 0;
    assert!(accounted, "every message is accounted for: {decoded:?}");
    for reading in &decoded.readings {
        assert!(reading.value.is_none_or(f64::is_finite));
        assert!(reading.value.is_some() || reading.text.is_some());
        assert!((1..=256).contains(&reading.sensor.len()) && (1..=256).contains(&reading.metric.len()));
        assert!(reading.unit.as_ref().is_none_or(|unit| unit.len() <= 64) && reading.text.as_ref().is_none_or(|text| text.len() <= 1024));
    }
}

fn decode_and_check(decoders: &[Decoder], topic: &str, payload: &[u8]) {
    for decoder in decoders {
        let mut message = message(topic, payload);
        message.retained = payload.len().is_multiple_of(7);
        assert_sound(&decoder.decode(&message, TimeSource::Unsynchronised));
    }
}

#[test]
fn mutated_messages_neither_panic_nor_break_a_limit() {
    let seeds = seeds();
    let decoders = [decoder(&[]), decoder(&routes(ROUTES))];
    let mut random = StdRng::seed_from_u64(20_261_120);
    for _ in 0..CASES {
        let (topic, payload) = &seeds[random.random_range(0..seeds.len())];
        let (other_topic, other) = &seeds[random.random_range(0..seeds.len())];
        let mut payload = payload.clone();
        mutate(&mut random, &mut payload, other);
        let topic = if random.random_ratio(1, 5) { other_topic } else { topic };
        decode_and_check(&decoders, topic, &payload);
    }
}

#[test]
fn random_bytes_and_topics_neither_panic_nor_break_a_limit() {
    let decoders = [decoder(&[]), decoder(&routes(ROUTES))];
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..2_000 {
        let mut bytes = vec![0; random.random_range(0..64)];
        random.fill_bytes(&mut bytes);
        let levels = ["", "yard", "hall", "set", "$state", "SENSOR", "tele", "ü", "zigbee2mqtt", "homie", "N", " "];
        let topic: Vec<&str> = (0..random.random_range(1..6)).map(|_| levels[random.random_range(0..levels.len())]).collect();
        decode_and_check(&decoders, &topic.join("/"), &bytes);
    }
}
