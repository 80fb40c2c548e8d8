//! The series in memory: which exist, and the newest reading of each.
//!
//! Owns: the table of series and its limits. It is rebuilt at start from the ledger's series (true as of the mark) and the
//! hot readings, so a commit need not write statistics to flash.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config;
use crate::model::{Reading, SeriesKey, SeriesSummary};

/// The window of `max_new_series_per_hour`.
const HOUR: Duration = Duration::from_secs(3600);

/// A reading is refused because it would begin one series too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooManySeries {
    /// `max_series` are there.
    #[error("there are {0} series already, ingest.max_series allows no more")]
    InAll(usize),
    /// `max_new_series_per_hour` began within the hour.
    #[error("{0} series began within the hour, ingest.max_new_series_per_hour allows no more")]
    PerHour(usize),
}

/// The series of this gateway, shared by the pump, which changes it, and the doors, which read it.
#[derive(Debug)]
pub struct Latest {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    series: HashMap<SeriesKey, SeriesSummary>,
    max_series: usize,
    max_new_per_hour: usize,
    hour_began: Instant,
    new_this_hour: usize,
}

impl Latest {
    /// A table of the series known to the ledger.
    pub fn new(limits: &config::Ingest, known: Vec<SeriesSummary>) -> Self {
        let table = Table {
            series: known.into_iter().map(|summary| (summary.key.clone(), summary)).collect(),
            max_series: limits.max_series,
            max_new_per_hour: limits.max_new_series_per_hour,
            hour_began: Instant::now(),
            new_this_hour: 0,
        };
        Self { table: Mutex::new(table) }
    }

    /// New limits; series that are there stay.
    pub fn limit(&self, limits: &config::Ingest) {
        let mut table = self.table();
        (table.max_series, table.max_new_per_hour) = (limits.max_series, limits.max_new_series_per_hour);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a reading: shares the names of its series, and says whether the series is new.
    ///
    /// # Errors
    /// The series would be one too many; nothing was changed.
    pub fn admit(&self, reading: &mut Reading) -> Result<Option<SeriesKey>, TooManySeries> {
        self.table().admit(reading, Instant::now())
    }

    /// Admits all of `series`, and says which of them are new. They count towards `max_series`; those of an hour are not
    /// counted, since no sensor gone wild sends them.
    ///
    /// # Errors
    /// One of them would be one too many; nothing was changed.
    pub fn admit_all<'a>(&self, series: impl IntoIterator<Item = &'a SeriesKey>) -> Result<Vec<SeriesKey>, TooManySeries> {
        self.table().admit_all(series)
    }

    /// Takes committed readings into account, gathered by series.
    pub fn merge(&self, later: &[SeriesSummary]) {
        let mut table = self.table();
        for later in later {
            table.series.entry(later.key.clone()).or_insert_with_key(|key| SeriesSummary::empty(key.clone())).merge(later);
        }
    }

    /// Takes committed readings into account.
    pub fn add<'a>(&self, readings: impl IntoIterator<Item = &'a Reading>) {
        let mut table = self.table();
        for reading in readings {
            let key = SeriesKey { sensor: reading.sensor.clone(), metric: reading.metric.clone() };
            table.series.entry(key).or_insert_with_key(|key| SeriesSummary::empty(key.clone())).add(reading);
        }
    }

    /// Every series with readings, by name.
    pub fn series(&self) -> Vec<SeriesSummary> {
        self.latest(None, None)
    }

    /// The series of `sensor`, of `metric`, of both or all, by name.
    pub fn latest(&self, sensor: Option<&str>, metric: Option<&str>) -> Vec<SeriesSummary> {
        let fits =
            |key: &SeriesKey| sensor.is_none_or(|sensor| *key.sensor == *sensor) && metric.is_none_or(|metric| *key.metric == *metric);
        let table = self.table();
        let mut found: Vec<_> = table.series.values().filter(|summary| summary.readings > 0 && fits(&summary.key)).cloned().collect();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }

    /// How many series there are, also those whose first reading is on its way to the journal.
    pub fn count(&self) -> usize {
        self.table().series.len()
    }
}

impl Table {
    fn admit(&mut self, reading: &mut Reading, now: Instant) -> Result<Option<SeriesKey>, TooManySeries> {
        let count = self.series.len();
        let key = SeriesKey { sensor: reading.sensor.clone(), metric: reading.metric.clone() };
        match self.series.entry(key) {
            Entry::Occupied(known) => {
                reading.sensor = known.key().sensor.clone();
                reading.metric = known.key().metric.clone();
                Ok(None)
            }
            Entry::Vacant(_) if count >= self.max_series => Err(TooManySeries::InAll(count)),
            Entry::Vacant(place) => {
                if now.duration_since(self.hour_began) >= HOUR {
                    self.hour_began = now;
                    self.new_this_hour = 0;
                }
                if self.new_this_hour >= self.max_new_per_hour {
                    return Err(TooManySeries::PerHour(self.new_this_hour));
                }
                self.new_this_hour += 1;
                let key = place.key().clone();
                place.insert(SeriesSummary::empty(key.clone()));
                Ok(Some(key))
            }
        }
    }

    fn admit_all<'a>(&mut self, keys: impl IntoIterator<Item = &'a SeriesKey>) -> Result<Vec<SeriesKey>, TooManySeries> {
        let new: Vec<SeriesKey> = keys.into_iter().filter(|key| !self.series.contains_key(key)).cloned().collect();
        if self.series.len() + new.len() > self.max_series {
            return Err(TooManySeries::InAll(self.series.len()));
        }
        self.series.extend(new.iter().map(|key| (key.clone(), SeriesSummary::empty(key.clone()))));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{TimeSource, Timestamp};

    fn reading(sensor: &str, time: i64, value: f64) -> Reading {
        let (sensor, metric) = (sensor.into(), "t".into());
        let (time, arrived, time_source) = (Timestamp(time), Timestamp(time), TimeSource::Sensor);
        Reading { time, sensor, metric, value: Some(value), text: None, unit: None, quality: None, arrived, time_source }
    }

    fn table(max_series: usize, max_new_series_per_hour: usize) -> Latest {
        Latest::new(&config::Ingest { max_series, max_new_series_per_hour, ..config::Ingest::default() }, Vec::new())
    }

    #[test]
    fn a_late_reading_is_counted_but_not_the_latest() {
        let latest = table(10, 10);
        latest.add(&[reading("a", 20, 2.0), reading("a", 10, 1.0)]);
        let found = latest.latest(Some("a"), None);
        assert_eq!((found[0].readings, found[0].last_value, found[0].first_time), (2, Some(2.0), Some(Timestamp(10))));
    }

    #[test]
    fn a_series_too_many_is_refused_and_the_known_ones_go_on() {
        let latest = table(2, 10);
        assert!(latest.admit(&mut reading("a", 1, 0.0)).unwrap().is_some());
        assert!(latest.admit(&mut reading("a", 2, 0.0)).unwrap().is_none());
        assert!(latest.admit(&mut reading("b", 1, 0.0)).unwrap().is_some());
        assert_eq!(latest.admit(&mut reading("c", 1, 0.0)), Err(TooManySeries::InAll(2)));
        assert!(latest.admit(&mut reading("b", 2, 0.0)).unwrap().is_none());
    }

    #[test]
    fn many_series_are_admitted_together_or_none_of_them() {
        let latest = table(3, 1);
        let keys = |names: &[&str]| -> Vec<SeriesKey> {
            names.iter().map(|name| SeriesKey { sensor: Arc::from(*name), metric: Arc::from("t") }).collect()
        };
        assert_eq!(latest.admit_all(&keys(&["a", "b"])), Ok(keys(&["a", "b"])));
        assert_eq!(latest.admit_all(&keys(&["a", "c", "d"])), Err(TooManySeries::InAll(2)));
        assert_eq!(latest.admit_all(&keys(&["b", "c"])), Ok(keys(&["c"])));
    }

    #[test]
    fn new_series_are_allowed_again_after_an_hour() {
        let latest = table(10, 1);
        let start = Instant::now();
        let mut table = latest.table();
        assert!(table.admit(&mut reading("a", 1, 0.0), start).is_ok());
        assert_eq!(table.admit(&mut reading("b", 1, 0.0), start), Err(TooManySeries::PerHour(1)));
        assert!(table.admit(&mut reading("b", 1, 0.0), start + HOUR).is_ok());
    }
}
