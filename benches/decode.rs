//! Messages decoded a second on one thread, beside parsing the same bytes into `serde_json::Value` in the same run.
//!
//! `cargo bench --no-default-features --bench decode`

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints, and stops at the first surprise")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use forebay::config::Ingest;
use forebay::ingest::Message;
use forebay::ingest::decode::Decoder;
use forebay::model::{TimeSource, Timestamp};

const ROUNDS: u32 = 300_000;

const MESSAGES: [(&str, &str); 3] = [
    ("zigbee2mqtt/attic", r#"{"temperature":17.25,"humidity":61.4,"battery":97,"linkquality":84,"last_seen":1795219200123}"#),
    ("office/sensor1", r#"{"temperature": 23.20,"humidity": 43.70}"#),
    ("office/temperature", "23.2"),
];

fn per_second(mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    f64::from(ROUNDS) / begun.elapsed().as_secs_f64()
}

fn main() {
    let decoder = Decoder::new(&[], &Ingest::default()).expect("no routes, no fault");
    println!("{:24}{:>14}{:>14}{:>9}", "topic", "decoded/s", "parsed/s", "ratio");
    for (topic, payload) in MESSAGES {
        let payload = Bytes::from_static(payload.as_bytes());
        let arrived = Timestamp(1_795_219_201_000_000);
        let message = Message { topic: topic.into(), payload: payload.clone(), qos: 1, retained: false, arrived };
        let decoded = per_second(|| drop(black_box(decoder.decode(&message, TimeSource::Gateway))));
        let parsed = per_second(|| drop(black_box(serde_json::from_slice::<serde_json::Value>(&payload))));
        println!("{topic:24}{decoded:>14.0}{parsed:>14.0}{:>9.2}", decoded / parsed);
    }
}
