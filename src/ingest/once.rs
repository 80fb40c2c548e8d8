//! `once = "time"`: the same series, time and value is stored once.
//!
//! The memory reaches back over the newest readings of each series that such a route feeds; after a restart it begins with
//! those still hot. That is what a sender repeats after a lost session; an archive sent again a week later is not found.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::model::{Reading, SeriesKey};

/// Readings remembered for each series: a sender's window is smaller.
const REMEMBERED: usize = 256;

/// Series remembered; beyond it all is forgotten and begins anew, which costs a repeat, never a reading.
const MAX_SERIES: usize = 10_000;

/// Time, and what was read then.
type Moment = (i64, Option<u64>, Option<std::sync::Arc<str>>);

/// The newest readings of the series fed by routes with `once`.
#[derive(Debug, Default)]
pub struct Once {
    series: HashMap<SeriesKey, (HashSet<Moment>, VecDeque<Moment>)>,
}

impl Once {
    /// Whether the reading is new; it is remembered then.
    pub fn is_new(&mut self, reading: &Reading) -> bool {
        let moment: Moment = (reading.time.0, reading.value.map(f64::to_bits), reading.text.clone());
        if self.series.len() >= MAX_SERIES {
            self.series.clear();
        }
        let key = SeriesKey { sensor: reading.sensor.clone(), metric: reading.metric.clone() };
        let (known, order) = self.series.entry(key).or_default();
        if !known.insert(moment.clone()) {
            return false;
        }
        order.push_back(moment);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TimeSource, Timestamp};

    #[test]
    fn a_repeat_is_known_and_another_value_or_time_is_not() {
        let reading = |time, value| Reading {
            time: Timestamp(time),
            sensor: "s".into(),
            metric: "m".into(),
            value: Some(value),
            text: None,
            unit: None,
            quality: None,
            arrived: Timestamp(0),
            time_source: TimeSource::Sensor,
        };
        let mut once = Once::default();
        assert!(once.is_new(&reading(1, 1.0)));
        assert!(!once.is_new(&reading(1, 1.0)));
        assert!(once.is_new(&reading(1, 2.0)) && once.is_new(&reading(2, 1.0)));
        for time in 0..10_000 {
            once.is_new(&reading(time, 5.0));
        }
        assert_eq!(once.series.values().next().unwrap().1.len(), REMEMBERED);
    }
}
