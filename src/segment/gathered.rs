//! The readings of a cut, gathered column by column from many small batches.
//!
//! Words are interned once for the whole cut, so that a quarter of a million readings take about 50 bytes each, however
//! many batches they came in, and sorting them compares numbers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Float64Builder, Int16Array, Int16Builder, Int32Array, Int32Builder, Int64Array, Int64Builder,
    RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

use super::layout::column;
use crate::model::columns::{Words, hot_schema};

/// One column of words in the making.
#[derive(Default)]
struct WordColumn {
    places: HashMap<Arc<str>, i32>,
    keys: Int32Builder,
}

impl WordColumn {
    fn add(&mut self, words: &Words) -> Result<(), ArrowError> {
        let values = words.values().as_any().downcast_ref::<StringArray>();
        let values = values.ok_or_else(|| ArrowError::SchemaError("words that are not UTF-8".into()))?;
        let places: Vec<Option<i32>> = values.iter().map(|word| word.map(|word| self.place(word))).collect();
        let place = |key: i32| usize::try_from(key).ok().and_then(|key| places.get(key).copied().flatten());
        self.keys.extend(words.keys().iter().map(|key| key.and_then(place)));
        Ok(())
    }

    fn place(&mut self, word: &str) -> i32 {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        // A cut has fewer readings than an i32 can count.
        let place = i32::try_from(self.places.len()).unwrap_or(i32::MAX);
        self.places.insert(Arc::from(word), place);
        place
    }

    /// The column with its dictionary in the order of the words' bytes, so that keys compare as words do.
    fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let mut words: Vec<(Arc<str>, i32)> = self.places.into_iter().collect();
        words.sort_unstable();
        let mut ranks = vec![0; words.len()];
        for (rank, (_, place)) in (0..).zip(&words) {
            if let Some(slot) = usize::try_from(*place).ok().and_then(|place| ranks.get_mut(place)) {
                *slot = rank;
            }
        }
        let rank = |place: i32| usize::try_from(place).ok().and_then(|place| ranks.get(place).copied());
        let keys: Int32Array = self.keys.finish().unary_opt(rank);
        let values: StringArray = words.iter().map(|(word, _)| Some(&**word)).collect();
        Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))?))
    }
}

/// The readings gathered so far.
pub(super) struct Gathered {
    time: TimestampMicrosecondBuilder,
    sensor: WordColumn,
    metric: WordColumn,
    value: Float64Builder,
    text: StringBuilder,
    unit: WordColumn,
    quality: Int16Builder,
    arrived: TimestampMicrosecondBuilder,
    time_source: WordColumn,
    seq: Int64Builder,
}

impl Gathered {
    /// Room for `rows` readings; more may come.
    pub(super) fn with_capacity(rows: usize) -> Self {
        let words = || WordColumn { places: HashMap::new(), keys: Int32Builder::with_capacity(rows) };
        Self {
            time: TimestampMicrosecondBuilder::with_capacity(rows),
            sensor: words(),
            metric: words(),
            value: Float64Builder::with_capacity(rows),
            text: StringBuilder::with_capacity(rows, 0),
            unit: words(),
            quality: Int16Builder::with_capacity(rows),
            arrived: TimestampMicrosecondBuilder::with_capacity(rows),
            time_source: words(),
            seq: Int64Builder::with_capacity(rows),
        }
    }

    /// Adds the rows of `batch`, whose schema is [`hot_schema`]. All of them or none.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        if batch.schema() != hot_schema() {
            return Err(ArrowError::SchemaError("not the columns of a journal batch".into()));
        }
        self.text.append_array(column::<StringArray>(batch, "text")?)?;
        self.time.append_array(column::<TimestampMicrosecondArray>(batch, "time")?);
        self.sensor.add(column(batch, "sensor")?)?;
        self.metric.add(column(batch, "metric")?)?;
        self.value.append_array(column::<Float64Array>(batch, "value")?);
        self.unit.add(column(batch, "unit")?)?;
        self.quality.append_array(column::<Int16Array>(batch, "quality")?);
        self.arrived.append_array(column::<TimestampMicrosecondArray>(batch, "arrived")?);
        self.time_source.add(column(batch, "time_source")?)?;
        self.seq.append_array(column::<Int64Array>(batch, "seq")?);
        Ok(())
    }

    /// Bytes of text, which alone can be long.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.values_slice().len()
    }

    /// All rows in one batch of [`hot_schema`], with sorted dictionaries.
    pub(super) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.time.finish()),
            self.sensor.finish()?,
            self.metric.finish()?,
            Arc::new(self.value.finish()),
            Arc::new(self.text.finish()),
            self.unit.finish()?,
            Arc::new(self.quality.finish()),
            Arc::new(self.arrived.finish()),
            self.time_source.finish()?,
            Arc::new(self.seq.finish()),
        ];
        RecordBatch::try_new(hot_schema(), columns)
    }
}
