//! Rows of a file that are readings, checked, in the columns of the journal.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::shape::{BadFile, shape};
use crate::model::columns::{self, Words};
use crate::model::{MICROS_PER_DAY, SeriesKey, SeriesSummary, TimeSource, Timestamp};

/// Longest name of a sensor, metric or unit, in bytes.
const MAX_NAME: usize = 1024;

/// Longest text of one reading, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// When rows arrive, by this gateway's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Of rows that do not say when they arrived.
    pub now: Timestamp,
    /// Whether the clock is right: then times far ahead of it are wrong.
    pub trusted: bool,
}

/// Rows of a file in the columns of `columns::journal_schema`; their dictionaries hold what is used and nothing else.
#[derive(Debug, Clone)]
pub struct Rows {
    columns: RecordBatch,
}

impl Rows {
    /// Checks `batch`, whose first row is the row `first_row` (from 0) of its file.
    ///
    /// # Errors
    /// The first thing wrong with its columns, or with a row.
    pub fn check(batch: &RecordBatch, first_row: u64, arrival: Arrival) -> Result<Self, BadFile> {
        let batch = shape(batch, first_row, arrival.now)?;
        let bad = |(row, message): (usize, String)| BadFile::row(first_row, row, message);
        check_times(batch.column(0).as_primitive(), arrival).map_err(bad)?;
        check_values(batch.column(3).as_primitive(), batch.column(4).as_string()).map_err(bad)?;
        let mut columns = batch.columns().to_vec();
        for (place, name) in [(1, "sensor"), (2, "metric"), (5, "unit"), (8, "time_source")] {
            if let Some(column) = columns.get_mut(place) {
                *column = tidy_words(column, name).map_err(bad)?;
            }
        }
        let columns = RecordBatch::try_new(batch.schema(), columns).map_err(|error| BadFile::Columns(error.to_string()))?;
        Ok(Self { columns })
    }

    /// The columns.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// For the journal.
    ///
    /// # Errors
    /// What the encoder says; the columns are right.
    pub fn encode(&self) -> Result<Vec<u8>, ArrowError> {
        columns::encode_columns(&self.columns)
    }

    /// What they add to each series.
    pub fn series(&self) -> Vec<SeriesSummary> {
        let [sensor, metric, unit] = [1, 2, 5].map(|place| InWords::of(self.columns.column(place)));
        let times = self.columns.column(0).as_primitive::<TimestampMicrosecondType>();
        let (values, texts) = (self.columns.column(3).as_primitive::<Float64Type>(), self.columns.column(4).as_string::<i32>());
        let mut places: HashMap<(i32, i32), usize> = HashMap::new();
        let mut found: Vec<SeriesSummary> = Vec::new();
        let mut last = ((-1, -1), 0);
        for row in 0..self.columns.num_rows() {
            let key = (sensor.key(row), metric.key(row));
            if key != last.0 {
                let place = *places.entry(key).or_insert_with(|| {
                    found.push(SeriesSummary::empty(SeriesKey { sensor: sensor.word(row), metric: metric.word(row) }));
                    found.len() - 1
                });
                last = (key, place);
            }
            let Some(series) = found.get_mut(last.1) else { continue };
            let time = Timestamp(times.value(row));
            series.readings += 1;
            series.first_time = Some(series.first_time.map_or(time, |first| first.min(time)));
            if series.last_time.is_none_or(|last| time >= last) {
                series.last_time = Some(time);
                series.last_value = values.is_valid(row).then(|| values.value(row));
                series.last_text = texts.is_valid(row).then(|| Arc::from(texts.value(row)));
            }
            if unit.is_there(row) && series.unit.as_deref() != Some(unit.text(row)) {
                series.unit = Some(unit.word(row));
            }
        }
        found
    }
}

/// A column of words, by row.
struct InWords<'a> {
    keys: &'a Int32Array,
    words: &'a StringArray,
}

impl<'a> InWords<'a> {
    fn of(column: &'a ArrayRef) -> Self {
        let column: &Words = column.as_dictionary();
        Self { keys: column.keys(), words: column.values().as_string() }
    }

    fn key(&self, row: usize) -> i32 {
        self.keys.value(row)
    }

    fn is_there(&self, row: usize) -> bool {
        self.keys.is_valid(row)
    }

    fn text(&self, row: usize) -> &'a str {
        self.words.value(usize::try_from(self.key(row)).unwrap_or_default())
    }

    fn word(&self, row: usize) -> Arc<str> {
        Arc::from(self.text(row))
    }
}

/// A row and what is wrong with it.
type Fault = (usize, String);

fn check_times(times: &TimestampMicrosecondArray, arrival: Arrival) -> Result<(), Fault> {
    let latest = if arrival.trusted { arrival.now.plus_micros(MICROS_PER_DAY) } else { Timestamp(i64::MAX) };
    let plausible = Timestamp::EARLIEST.0..=latest.0;
    match times.values().iter().position(|time| !plausible.contains(time)) {
        None => Ok(()),
        Some(row) => {
            let time = Timestamp(times.value(row));
            let why = if time > latest {
                "is more than a day ahead of this gateway's clock".to_owned()
            } else {
                format!("is before {}", Timestamp::EARLIEST)
            };
            Err((row, format!("the time {time} {why}")))
        }
    }
}

fn check_values(values: &Float64Array, texts: &StringArray) -> Result<(), Fault> {
    for row in 0..values.len() {
        if values.is_null(row) {
            if texts.is_null(row) {
                return Err((row, "it has neither a value nor a text".to_owned()));
            }
        } else if !values.value(row).is_finite() {
            return Err((row, format!("the value {} is not finite", values.value(row))));
        }
        if texts.is_valid(row) && texts.value(row).len() > MAX_TEXT {
            return Err((row, format!("the text is longer than {MAX_TEXT} bytes")));
        }
    }
    Ok(())
}

/// The column with a dictionary of the words in use, each of them once and fit for `name`.
fn tidy_words(column: &ArrayRef, name: &str) -> Result<ArrayRef, Fault> {
    let words: &Words = column.as_dictionary();
    let (keys, texts): (&Int32Array, &StringArray) = (words.keys(), words.values().as_string());
    let mut places: Vec<Option<i32>> = vec![None; texts.len()];
    let mut known: HashMap<&str, i32> = HashMap::new();
    let mut used: Vec<&str> = Vec::new();
    let mut tidy = Vec::with_capacity(keys.len());
    for row in 0..keys.len() {
        let key = keys.is_valid(row).then(|| usize::try_from(keys.value(row)).ok()).flatten();
        let Some((text, place)) = key.and_then(|key| Some((texts.value(key), places.get_mut(key)?))) else {
            tidy.push(None);
            continue;
        };
        if place.is_none() {
            check_word(name, text).map_err(|message| (row, message))?;
            *place = Some(*known.entry(text).or_insert_with(|| {
                used.push(text);
                i32::try_from(used.len() - 1).unwrap_or(i32::MAX)
            }));
        }
        tidy.push(*place);
    }
    let (keys, used) = (Int32Array::from(tidy), used.into_iter().map(Some).collect::<StringArray>());
    let words = Words::try_new(keys, Arc::new(used)).map_err(|error| (0, error.to_string()))?;
    Ok(Arc::new(words))
}

fn check_word(name: &str, text: &str) -> Result<(), String> {
    if name == "time_source" {
        let known = TimeSource::from_word(text).is_some();
        return if known { Ok(()) } else { Err(format!("the time_source \"{text}\" is not known")) };
    }
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("the {name} is empty, longer than {MAX_NAME} bytes or has control characters"));
    }
    Ok(())
}
