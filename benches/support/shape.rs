//! Readings like those that sensors send: the kinds of series of public data sets (machine and office temperatures, weather,
//! a room's climate, a water main), each with its number of decimals, its usual step and how often a value is repeated.

use std::sync::Arc;

use forebay::model::{Reading, TimeSource, Timestamp};

/// 2026-08-01T00:00:00Z, when the first reading is taken.
pub const BEGIN: i64 = 1_785_542_400_000_000;

/// Between two readings of a series.
pub const INTERVAL: i64 = 10_000_000;

pub const SENSORS: usize = 50;

/// A kind of series.
struct Kind {
    metric: &'static str,
    unit: &'static str,
    /// What it swings around.
    usual: f64,
    /// The median difference of two readings that differ.
    step: f64,
    decimals: i32,
    /// How many readings of a hundred say what the one before said.
    repeats: f64,
}

const fn kind(metric: &'static str, unit: &'static str, usual: f64, step: f64, decimals: i32, repeats: f64) -> Kind {
    Kind { metric, unit, usual, step, decimals, repeats }
}

const KINDS: [Kind; 8] = [
    kind("machine_temperature", "°F", 85.0, 0.736, 8, 0.0),
    kind("ambient_temperature", "°F", 71.0, 0.627, 8, 0.0),
    kind("outdoor_temperature", "°F", 57.0, 0.7, 1, 1.0),
    kind("room_temperature", "°C", 21.0, 0.07, 2, 33.0),
    kind("humidity", "%", 27.0, 0.12, 2, 14.0),
    kind("light", "lx", 150.0, 20.0, 1, 65.0),
    kind("co2", "ppm", 700.0, 5.0, 1, 2.0),
    kind("water_flow", "l/s", 80.0, 0.17, 2, 2.0),
];

/// Series in all.
pub const SERIES: usize = SENSORS * KINDS.len();

/// The name of a sensor and the metric, of the series `place`.
pub fn series(place: usize) -> (String, &'static str) {
    (format!("hall-{}/sensor-{:02}", place / KINDS.len() % 4, place / KINDS.len()), KINDS[place % KINDS.len()].metric)
}

/// All readings in the order of their times, without an end, the same at every run.
pub struct Readings {
    noise: u64,
    /// Of each series.
    values: Vec<f64>,
    names: Vec<[Arc<str>; 3]>,
    taken: usize,
}

impl Readings {
    pub fn new() -> Self {
        let words = |place: usize| {
            let (sensor, metric) = series(place);
            [Arc::from(sensor), Arc::from(metric), Arc::from(KINDS[place % KINDS.len()].unit)]
        };
        let values = (0..SERIES).map(|place| KINDS[place % KINDS.len()].usual).collect();
        Self { noise: 0x9e37_79b9_7f4a_7c15, values, names: (0..SERIES).map(words).collect(), taken: 0 }
    }

    /// xorshift, in 0..1.
    fn noise(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A walk that comes back to what is usual.
    fn next_value(&mut self, place: usize) -> f64 {
        let Kind { usual, step, decimals, repeats, .. } = KINDS[place % KINDS.len()];
        if self.noise() * 100.0 >= repeats {
            let moved = (self.noise() - 0.5) * 4.0 * step;
            let scale = 10_f64.powi(decimals);
            self.values[place] = ((self.values[place] + moved + (usual - self.values[place]) * 0.01) * scale).round() / scale;
        }
        self.values[place]
    }
}

impl Iterator for Readings {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        let (round, place) = (self.taken / SERIES, self.taken % SERIES);
        self.taken += 1;
        let value = self.next_value(place);
        // Each sensor has its own second, and all its metrics are in one message.
        let time = BEGIN + round as i64 * INTERVAL + (place / KINDS.len()) as i64 * INTERVAL / SENSORS as i64;
        let message_noise = (round * 31 + place / KINDS.len()) as u64 % 997;
        let [sensor, metric, unit] = self.names[place].clone();
        Some(Reading {
            time: Timestamp(time),
            sensor,
            metric,
            value: Some(value),
            text: None,
            unit: Some(unit),
            quality: None,
            arrived: Timestamp(time + 20_000 + message_noise as i64 * 41),
            time_source: TimeSource::Sensor,
        })
    }
}
