//! Sensors whose values walk as real ones do, written as JSON.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::Settings;

/// What the first numbers of a message are: name, unit of its last digit, lowest, start and highest in that unit, step.
const METRICS: [Metric; 6] = [
    Metric { name: "temperature", decimals: 2, lowest: -1500, start: 2150, highest: 4500, step: 6 },
    Metric { name: "humidity", decimals: 1, lowest: 50, start: 480, highest: 980, step: 3 },
    Metric { name: "pressure", decimals: 1, lowest: 9600, start: 10_130, highest: 10_500, step: 2 },
    Metric { name: "battery", decimals: 3, lowest: 2700, start: 3000, highest: 3300, step: 1 },
    Metric { name: "co2", decimals: 0, lowest: 380, start: 600, highest: 3000, step: 8 },
    Metric { name: "illuminance", decimals: 0, lowest: 0, start: 320, highest: 20_000, step: 40 },
];

/// The rest are the channels of a logger.
const CHANNEL: Metric = Metric { name: "channel", decimals: 2, lowest: -1000, start: 0, highest: 1000, step: 25 };

#[derive(Debug, Clone, Copy)]
struct Metric {
    name: &'static str,
    decimals: u32,
    lowest: i32,
    start: i32,
    highest: i32,
    step: i32,
}

#[derive(Debug)]
struct Sensor {
    topic: String,
    values: Vec<i32>,
    seq: u64,
}

/// The sensors of one connection, which take turns.
#[derive(Debug)]
pub struct Sensors {
    sensors: Vec<Sensor>,
    metrics: Vec<(String, Metric)>,
    next: usize,
    random: SmallRng,
}

impl Sensors {
    /// Every `connections`-th sensor from number `connection` on. The same settings give the same messages.
    pub fn new(settings: &Settings, connection: usize, connections: usize) -> Self {
        let named = METRICS.iter().map(|metric| (format!("\"{}\":", metric.name), *metric));
        let channels = (METRICS.len()..).map(|number| (format!("\"{}{number}\":", CHANNEL.name), CHANNEL));
        let metrics: Vec<_> = named.chain(channels).take(settings.readings_per_message.saturating_sub(1)).collect();
        let mut random = SmallRng::seed_from_u64(connection as u64);
        let prefix = &settings.client_prefix;
        let sensors = (connection..settings.sensors)
            .step_by(connections.max(1))
            .map(|number| Sensor {
                topic: format!("sensors/{prefix}-{number:04}"),
                values: metrics.iter().map(|(_, metric)| metric.start + random.random_range(-metric.step..=metric.step) * 20).collect(),
                seq: 0,
            })
            .collect();
        Self { sensors, metrics, next: 0, random }
    }

    /// Writes the next message's payload and returns its topic.
    pub fn measure(&mut self, payload: &mut BytesMut) -> &str {
        let turn = self.next;
        self.next = (self.next + 1) % self.sensors.len().max(1);
        let Some(sensor) = self.sensors.get_mut(turn) else { return "" };
        sensor.seq += 1;
        payload.put_u8(b'{');
        for ((member, metric), value) in self.metrics.iter().zip(&mut sensor.values) {
            *value = (*value + self.random.random_range(-metric.step..=metric.step)).clamp(metric.lowest, metric.highest);
            payload.put_slice(member.as_bytes());
            write_decimal(payload, *value, metric.decimals);
            payload.put_u8(b',');
        }
        // Writing to memory can't fail.
        let _ = write!(payload, "\"seq\":{}}}", sensor.seq);
        &sensor.topic
    }
}

/// Writes `value` with the point before its last `decimals` digits.
fn write_decimal(out: &mut BytesMut, value: i32, decimals: u32) {
    let unit = 10_u32.pow(decimals);
    let (sign, digits) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    let _ = match decimals {
        0 => write!(out, "{value}"),
        _ => write!(out, "{sign}{}.{:0width$}", digits / unit, digits % unit, width = decimals as usize),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(settings: &Settings, connection: usize, connections: usize, count: usize) -> Vec<(String, String)> {
        let mut sensors = Sensors::new(settings, connection, connections);
        (0..count)
            .map(|_| {
                let mut payload = BytesMut::new();
                let topic = sensors.measure(&mut payload).to_owned();
                (topic, String::from_utf8(payload.to_vec()).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_message_holds_exactly_the_readings_asked_for() {
        for readings in [1, 2, 3, 7, 100] {
            let settings = Settings { readings_per_message: readings, ..Settings::default() };
            for (_, payload) in payloads(&settings, 0, 1, 20) {
                let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&payload).unwrap();
                assert_eq!(object.len(), readings, "{payload}");
                assert!(object.values().all(serde_json::Value::is_number));
            }
        }
    }

    #[test]
    fn no_two_messages_share_sensor_and_number() {
        let settings = Settings { sensors: 7, ..Settings::default() };
        let mut seen = std::collections::HashSet::new();
        for connection in 0..3 {
            for (topic, payload) in payloads(&settings, connection, 3, 50) {
                let object: serde_json::Value = serde_json::from_str(&payload).unwrap();
                assert!(seen.insert((topic, object["seq"].as_u64().unwrap())));
            }
        }
        assert_eq!(seen.iter().map(|(topic, _)| topic).collect::<std::collections::HashSet<_>>().len(), 7);
    }

    #[test]
    fn values_walk_in_small_steps_within_their_bounds() {
        let settings = Settings { sensors: 1, readings_per_message: 7, ..Settings::default() };
        let mut before: Option<f64> = None;
        for (_, payload) in payloads(&settings, 0, 1, 2000) {
            let object: serde_json::Value = serde_json::from_str(&payload).unwrap();
            let temperature = object["temperature"].as_f64().unwrap();
            assert!((-15.0..=45.0).contains(&temperature));
            assert!(before.is_none_or(|before| (before - temperature).abs() <= 0.0601));
            before = Some(temperature);
        }
    }

    #[test]
    fn decimals_are_written_as_numbers_are() {
        for (value, decimals, text) in [(2153, 2, "21.53"), (-5, 2, "-0.05"), (-1500, 2, "-15.00"), (480, 1, "48.0"), (7, 0, "7")] {
            let mut out = BytesMut::new();
            write_decimal(&mut out, value, decimals);
            assert_eq!(out, text);
        }
    }
}
