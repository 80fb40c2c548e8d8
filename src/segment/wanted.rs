//! Which part of a segment can hold what is asked for, by the bounds that the file has of its row groups and pages.

use std::fs::File;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::TimestampMicrosecondType;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use crate::model::Timestamp;

/// A file whose footer is read, and nothing else yet.
type Footer = ParquetRecordBatchReaderBuilder<File>;

/// Which readings of a segment are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Of this sensor; `None`: of all.
    pub sensor: Option<&'a str>,
    /// Of this metric; `None`: of all.
    pub metric: Option<&'a str>,
    /// Of these times.
    pub times: Range<Timestamp>,
}

impl Wanted<'_> {
    /// Leaves out what can hold nothing of it. The other row groups and pages come whole.
    pub(super) fn narrow(&self, file: Footer) -> Footer {
        let groups = file.metadata().row_groups().iter().enumerate();
        let groups: Vec<_> = groups.filter(|(_, group)| self.may_be_in(group)).map(|(place, _)| place).collect();
        let rows = self.rows(&file, &groups);
        let file = file.with_row_groups(groups);
        match rows {
            Some(rows) => file.with_row_selection(rows),
            None => file,
        }
    }

    fn words(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let words = [("sensor", self.sensor), ("metric", self.metric)];
        words.into_iter().filter_map(|(column, word)| Some((column, word?)))
    }

    fn overlaps(&self, first: i64, last: i64) -> bool {
        first < self.times.end.0 && last >= self.times.start.0
    }

    /// Where a group has no bounds it may hold anything. Bounds that were cut short are still bounds.
    fn may_be_in(&self, group: &RowGroupMetaData) -> bool {
        let bounds = |name: &str| group.columns().iter().find(|column| column.column_path().string() == name)?.statistics();
        let in_time = match bounds("time") {
            Some(Statistics::Int64(times)) => times.min_opt().zip(times.max_opt()).is_none_or(|(min, max)| self.overlaps(*min, *max)),
            _ => true,
        };
        let is_between = |(column, word): (&'static str, &str)| {
            let words = bounds(column).and_then(|words| words.min_bytes_opt().zip(words.max_bytes_opt()));
            words.is_none_or(|(min, max)| (min..=max).contains(&word.as_bytes()))
        };
        in_time && self.words().all(is_between)
    }

    /// The rows of the pages of `groups` that may hold something of it; `None`, where the file has no bounds of pages: all.
    fn rows(&self, file: &Footer, groups: &[usize]) -> Option<RowSelection> {
        let pages = Pages::of(file, groups, "time")?;
        let times = |bounds: &ArrayRef| bounds.as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let (mins, maxes) = (times(&pages.mins)?, times(&pages.maxes)?);
        let mut rows = pages.select(|page| self.overlaps(mins.value(page), maxes.value(page)));
        for (column, word) in self.words() {
            let pages = Pages::of(file, groups, column)?;
            let (mins, maxes) = (pages.mins.as_string_opt::<i32>()?, pages.maxes.as_string_opt::<i32>()?);
            rows = rows.intersection(&pages.select(|page| (mins.value(page)..=maxes.value(page)).contains(&word)));
        }
        Some(rows)
    }
}

/// The pages of a column: the least and the greatest of each, null where it is not known, and how many rows it has.
struct Pages {
    mins: ArrayRef,
    maxes: ArrayRef,
    rows: UInt64Array,
}

impl Pages {
    fn of(file: &Footer, groups: &[usize], column: &str) -> Option<Self> {
        let index = file.metadata().page_index()?.as_ref();
        let bounds = StatisticsConverter::try_new(column, file.schema(), file.parquet_schema()).ok()?;
        Some(Self {
            mins: bounds.data_page_mins(index, groups).ok()?,
            maxes: bounds.data_page_maxes(index, groups).ok()?,
            rows: bounds.data_page_row_counts(index, file.metadata().row_groups(), groups).ok()??,
        })
    }

    /// The rows of the pages that `may_hold` something, or whose bounds are not known.
    fn select(&self, may_hold: impl Fn(usize) -> bool) -> RowSelection {
        let pages = self.rows.values().iter().enumerate().map(|(page, rows)| {
            let rows = usize::try_from(*rows).unwrap_or(usize::MAX);
            let is_unknown = self.mins.is_null(page) || self.maxes.is_null(page);
            if is_unknown || may_hold(page) { RowSelector::select(rows) } else { RowSelector::skip(rows) }
        });
        pages.collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InstanceId, Reading, TimeSource, columns};
    use crate::segment::{Origin, read_where, write_readings};

    const ROWS: i64 = 240_000;

    /// Three sensors with two metrics each, in two row groups of many pages.
    fn readings() -> Vec<Reading> {
        let reading = |place: i64| Reading {
            time: Timestamp(1_700_000_000_000_000 + place / 6 * 1_000_000),
            sensor: ["a", "b", "c"][place as usize % 3].into(),
            metric: ["t", "u"][place as usize % 2].into(),
            value: Some(place as f64),
            text: None,
            unit: None,
            quality: None,
            arrived: Timestamp(0),
            time_source: TimeSource::Sensor,
        };
        (0..ROWS).map(reading).collect()
    }

    #[test]
    fn all_that_is_asked_for_is_read_and_little_else() {
        let all = readings();
        let batch = columns::decode_journal(&columns::encode_journal(&all).unwrap(), 1).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let origin = Origin { instance: InstanceId::random(), cut: 1, first_cut: 1, first_seq: 1, last_seq: ROWS as u64, delivered: false };
        write_readings(file.as_file(), &batch, &origin).unwrap();
        let (first, last) = (all[0].time, all[all.len() - 1].time);
        let middle = Timestamp(first.0 + 20_000_000_000)..Timestamp(first.0 + 20_100_000_000);
        let everything = Timestamp(i64::MIN)..Timestamp(i64::MAX);
        for (sensor, metric, times, most) in [
            (None, None, everything.clone(), ROWS),
            (Some("b"), None, everything.clone(), 125_000),
            (Some("b"), Some("u"), everything.clone(), 85_000),
            (Some("c"), Some("t"), middle.clone(), 62_000),
            (None, None, last..Timestamp(i64::MAX), 140_000),
            (Some("d"), None, everything, 0),
            (Some("a"), None, Timestamp(0)..first, 0),
        ] {
            let wanted = Wanted { sensor, metric, times };
            let fits = |reading: &Reading| {
                sensor.is_none_or(|sensor| *reading.sensor == *sensor)
                    && metric.is_none_or(|metric| *reading.metric == *metric)
                    && wanted.times.contains(&reading.time)
            };
            let batches = read_where(file.path(), &wanted).unwrap();
            let read: Vec<Reading> =
                batches.flat_map(|batch| columns::to_readings(&batch.unwrap()).unwrap()).map(|(_, reading)| reading).collect();
            assert_eq!(
                read.iter().filter(|reading| fits(reading)).count(),
                all.iter().filter(|reading| fits(reading)).count(),
                "{wanted:?}"
            );
            assert!(read.len() as i64 <= most, "{} rows were read of {wanted:?}", read.len());
        }
    }
}
