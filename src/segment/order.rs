//! The order of rows in the files of a cut, and which file each row goes to: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;

use super::layout::column;
use crate::model::columns::Words;
use crate::model::{Day, SeriesKey, SeriesSummary, Timestamp};

/// Days of a cut with a file of their own. Plausible times span few days; a sensor that sends its history may span years,
/// and must not make thousands of files.
pub(super) const MAX_DAYS: usize = 32;

/// The rows of one file, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The UTC day of them all; `None` in the file of stragglers.
    pub(super) day: Option<Day>,
    /// Places in the batch.
    pub(super) rows: Vec<u32>,
}

/// The rows of `readings` (of `hot_schema`, with sorted dictionaries) by sensor, metric, time and seq.
pub(super) fn by_series(readings: &RecordBatch) -> Result<Vec<u32>, ArrowError> {
    let (sensor, metric) = (column::<Words>(readings, "sensor")?.keys().values(), column::<Words>(readings, "metric")?.keys().values());
    let time = column::<TimestampMicrosecondArray>(readings, "time")?.values();
    // Sensor, metric and row in one number: quick to compare, and the row tells which it was.
    let number = |key: &i32| u128::from(key.cast_unsigned());
    let rows = sensor.iter().zip(metric).zip(0_u32..);
    let mut numbers: Vec<u128> =
        rows.map(|((sensor, metric), row)| number(sensor) << 64 | number(metric) << 32 | u128::from(row)).collect();
    numbers.sort_unstable();
    let mut order = Vec::with_capacity(numbers.len());
    for series in numbers.chunk_by(|a, b| a >> 32 == b >> 32) {
        let begin = order.len();
        order.extend(series.iter().map(|number| *number as u32));
        // Rows are in the order of their seqs, and so mostly of their times: to find that out takes one look at each. Of equal
        // times the order stays.
        if let Some(rows) = order.get_mut(begin..) {
            rows.sort_by_key(|row| time.get(*row as usize));
        }
    }
    Ok(order)
}

/// Divides `order` into files by the UTC day of `times`, keeping the order in each. Of more than [`MAX_DAYS`] days those
/// with the most rows (of equals the newer) have their own file, and all others share the last.
pub(super) fn by_day(times: &TimestampMicrosecondArray, order: &[u32]) -> Vec<Part> {
    let day = |row: u32| times.values().get(row as usize).map_or(Day(0), |time| Timestamp(*time).utc_day());
    let mut counts: BTreeMap<Day, usize> = BTreeMap::new();
    for row in order {
        *counts.entry(day(*row)).or_default() += 1;
    }
    let mut days: Vec<(usize, Day)> = counts.iter().map(|(day, count)| (*count, *day)).collect();
    days.sort_unstable_by(|a, b| b.cmp(a));
    days.truncate(MAX_DAYS);
    let own: BTreeSet<Day> = days.into_iter().map(|(_, day)| day).collect();
    let mut parts: BTreeMap<Option<Day>, Vec<u32>> = BTreeMap::new();
    for row in order {
        let day = Some(day(*row)).filter(|day| own.contains(day));
        let rows = parts.entry(day).or_insert_with(|| Vec::with_capacity(day.and_then(|day| counts.get(&day).copied()).unwrap_or(0)));
        rows.push(*row);
    }
    parts.into_iter().map(|(day, rows)| Part { day, rows }).collect()
}

/// What the rows add to each series; `order` is that of [`by_series`].
pub(super) fn summaries(readings: &RecordBatch, order: &[u32]) -> Result<Vec<SeriesSummary>, ArrowError> {
    let sensors = WordsIn::new(column(readings, "sensor")?)?;
    let metrics = WordsIn::new(column(readings, "metric")?)?;
    let units = WordsIn::new(column(readings, "unit")?)?;
    let times = column::<TimestampMicrosecondArray>(readings, "time")?;
    let (values, texts) = (column::<Float64Array>(readings, "value")?, column::<StringArray>(readings, "text")?);
    let same = |a: &u32, b: &u32| sensors.key(*a) == sensors.key(*b) && metrics.key(*a) == metrics.key(*b);
    let mut summaries = Vec::new();
    for rows in order.chunk_by(same) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
        let place = *last as usize;
        let name = |words: &WordsIn<'_>| words.word(*first).unwrap_or_else(|| Arc::from(""));
        summaries.push(SeriesSummary {
            key: SeriesKey { sensor: name(&sensors), metric: name(&metrics) },
            unit: rows.iter().rev().find_map(|row| units.word(*row)),
            first_time: Some(Timestamp(times.value(*first as usize))),
            last_time: Some(Timestamp(times.value(place))),
            readings: rows.len() as u64,
            last_value: values.is_valid(place).then(|| values.value(place)),
            last_text: texts.is_valid(place).then(|| Arc::from(texts.value(place))),
        });
    }
    Ok(summaries)
}

/// A column of words, by row.
struct WordsIn<'a> {
    words: &'a Words,
    values: &'a StringArray,
}

impl<'a> WordsIn<'a> {
    fn new(words: &'a Words) -> Result<Self, ArrowError> {
        let values: &ArrayRef = words.values();
        let values = values.as_any().downcast_ref::<StringArray>();
        Ok(Self { words, values: values.ok_or_else(|| ArrowError::SchemaError("words that are not UTF-8".into()))? })
    }

    fn key(&self, row: u32) -> Option<usize> {
        self.words.key(row as usize)
    }

    fn word(&self, row: u32) -> Option<Arc<str>> {
        self.key(row).map(|key| Arc::from(self.values.value(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MICROS_PER_DAY;

    /// One row at noon of each of `days`.
    fn parts_of(days: &[i64]) -> Vec<Part> {
        let times: TimestampMicrosecondArray = days.iter().map(|day| day * MICROS_PER_DAY + MICROS_PER_DAY / 2).collect::<Vec<_>>().into();
        by_day(&times, &(0..days.len() as u32).collect::<Vec<_>>())
    }

    #[test]
    fn rows_are_by_series_then_time_then_seq() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let keys = |count: u64, random: &mut dyn FnMut(u64) -> u64| (0..2000).map(|_| random(count) as i32).collect::<Vec<_>>();
        let (sensor, metric) = (keys(40, &mut random), keys(3, &mut random));
        let time: Vec<i64> = (0..2000).map(|row| row / 5 - random(20) as i64).collect();
        let words = |keys: &[i32], count: usize| -> ArrayRef {
            let values: StringArray = (0..count).map(|word| Some(format!("{word:02}"))).collect();
            Arc::new(Words::try_new(keys.to_vec().into(), Arc::new(values)).unwrap())
        };
        let readings = RecordBatch::try_from_iter([
            ("sensor", words(&sensor, 40)),
            ("metric", words(&metric, 3)),
            ("time", Arc::new(TimestampMicrosecondArray::from(time.clone())) as ArrayRef),
        ]);
        let mut expected: Vec<u32> = (0..2000).collect();
        expected.sort_by_key(|row| (sensor[*row as usize], metric[*row as usize], time[*row as usize], *row));
        assert_eq!(by_series(&readings.unwrap()).unwrap(), expected);
    }

    #[test]
    fn each_day_has_its_own_file_and_keeps_the_order() {
        let parts = parts_of(&[2, 1, 2, 1, -1]);
        let expected = [(Some(Day(-1)), vec![4]), (Some(Day(1)), vec![1, 3]), (Some(Day(2)), vec![0, 2])];
        assert_eq!(parts, expected.map(|(day, rows)| Part { day, rows }));
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let times: TimestampMicrosecondArray = vec![MICROS_PER_DAY - 1, MICROS_PER_DAY, -1].into();
        let days: Vec<_> = by_day(&times, &[0, 1, 2]).into_iter().map(|part| part.day.unwrap().0).collect();
        assert_eq!(days, [-1, 0, 1]);
    }

    #[test]
    fn thirty_two_days_are_thirty_two_files_and_one_more_makes_a_mixed_one() {
        let days: Vec<i64> = (0..32).collect();
        assert!(parts_of(&days).iter().all(|part| part.day.is_some()) && parts_of(&days).len() == 32);
        let parts = parts_of(&(0..33).collect::<Vec<_>>());
        assert_eq!(parts.len(), 33);
        // All have one row: the oldest day is the straggler.
        assert_eq!(parts.first(), Some(&Part { day: None, rows: vec![0] }));
    }

    #[test]
    fn the_days_with_the_most_rows_keep_their_files() {
        let mut days = vec![5; 100];
        days.extend(1000..1100);
        let parts = parts_of(&days);
        assert_eq!(parts.len(), MAX_DAYS + 1);
        assert_eq!(parts.iter().find(|part| part.day == Some(Day(5))).unwrap().rows.len(), 100);
        assert_eq!(parts.iter().find(|part| part.day.is_none()).unwrap().rows.len(), 100 - (MAX_DAYS - 1));
        assert_eq!(parts.iter().map(|part| part.rows.len()).sum::<usize>(), days.len());
    }

    #[test]
    fn no_rows_make_no_file() {
        assert!(parts_of(&[]).is_empty());
    }
}
