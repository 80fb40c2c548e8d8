//! The columns of a reading: the one Arrow schema of journal, segments, engine and answers.
//!
//! Times are microseconds without zone, UTC by contract. `seq` is not in the journal's bytes: it is the batch's first
//! seq plus the row's place, so that a fork can number its journal anew without touching a byte.

use std::io;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array as _, ArrayRef, DictionaryArray, Float64Array, Int16Array, Int64Array, RecordBatch, StringArray, StringDictionaryBuilder,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::ids::Seq;
use super::reading::Reading;
use super::time::{TimeSource, Timestamp};

/// zstd's fastest ordinary level: on small batches the higher ones gain 2 % and cost twice the time.
const JOURNAL_COMPRESSION: i32 = 1;

/// Most bytes a journal batch may unpack to; a reading takes about 60, and text is bounded by the message.
const MAX_JOURNAL_BYTES: usize = 512 << 20;

/// The longest head of a zstd frame, which tells the size of what is in it.
pub const JOURNAL_HEAD_BYTES: usize = 18;

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn word_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn fields(word: &DataType) -> Vec<Field> {
    vec![
        Field::new("time", time_type(), false),
        Field::new("sensor", word.clone(), false),
        Field::new("metric", word.clone(), false),
        Field::new("value", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("unit", word.clone(), true),
        Field::new("quality", DataType::Int16, true),
        Field::new("arrived", time_type(), false),
        Field::new("time_source", word.clone(), false),
    ]
}

static JOURNAL_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(fields(&word_type()))));

static HOT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| with_seq(fields(&word_type())));

static READING_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| with_seq(fields(&DataType::Utf8)));

fn with_seq(mut fields: Vec<Field>) -> SchemaRef {
    fields.push(Field::new("seq", DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// The schema of a reading as users see it: ten columns, words as plain UTF-8.
pub fn reading_schema() -> SchemaRef {
    Arc::clone(&READING_SCHEMA)
}

/// The same with words as dictionaries: what [`decode_journal`] gives.
pub fn hot_schema() -> SchemaRef {
    Arc::clone(&HOT_SCHEMA)
}

/// The same without seq, as the journal has them.
pub fn journal_schema() -> SchemaRef {
    Arc::clone(&JOURNAL_SCHEMA)
}

/// The columns of `readings`, without seq.
///
/// # Errors
/// More than 2^31 different words in one batch.
pub fn journal_columns(readings: &[Reading]) -> Result<RecordBatch, ArrowError> {
    let times = |pick: fn(&Reading) -> Timestamp| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(readings.iter().map(|reading| pick(reading).0)))
    };
    let columns: Vec<ArrayRef> = vec![
        times(|reading| reading.time),
        words(readings.iter().map(|reading| Some(&*reading.sensor)))?,
        words(readings.iter().map(|reading| Some(&*reading.metric)))?,
        Arc::new(readings.iter().map(|reading| reading.value).collect::<Float64Array>()),
        Arc::new(readings.iter().map(|reading| reading.text.as_deref()).collect::<StringArray>()),
        words(readings.iter().map(|reading| reading.unit.as_deref()))?,
        Arc::new(readings.iter().map(|reading| reading.quality).collect::<Int16Array>()),
        times(|reading| reading.arrived),
        words(readings.iter().map(|reading| Some(reading.time_source.as_str())))?,
    ];
    RecordBatch::try_new(Arc::clone(&JOURNAL_SCHEMA), columns)
}

fn words<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef, ArrowError> {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for value in values {
        match value {
            Some(word) => {
                builder.append(word)?;
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// The bytes of a journal batch: an Arrow IPC stream of one record batch, compressed whole with zstd.
///
/// # Errors
/// As [`journal_columns`].
pub fn encode_journal(readings: &[Reading]) -> Result<Vec<u8>, ArrowError> {
    encode_columns(&journal_columns(readings)?)
}

/// The same of columns of [`journal_schema`].
///
/// # Errors
/// Columns of another schema.
pub fn encode_columns(columns: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    if columns.schema() != *JOURNAL_SCHEMA {
        return Err(not_a_batch("it has other columns"));
    }
    let mut stream = StreamWriter::try_new(Vec::new(), &columns.schema())?;
    stream.write(columns)?;
    let plain = stream.into_inner()?;
    zstd::bulk::compress(&plain, JOURNAL_COMPRESSION).map_err(|error| ArrowError::IoError("compressing a journal batch".into(), error))
}

/// Reads what [`encode_journal`] wrote and numbers its rows from `first_seq`; the schema is [`hot_schema`].
///
/// # Errors
/// Bytes that are not a journal batch. The caller checks their digest before.
pub fn decode_journal(bytes: &[u8], first_seq: Seq) -> Result<RecordBatch, ArrowError> {
    let size = unpacked_bytes(bytes).ok_or_else(|| not_a_batch("its size is not plausible"))?;
    let plain = zstd::bulk::decompress(bytes, size).map_err(|error| ArrowError::IoError("unpacking a journal batch".into(), error))?;
    let mut stream = StreamReader::try_new(io::Cursor::new(plain), None)?;
    let columns = stream.next().ok_or_else(|| not_a_batch("it is empty"))??;
    number_rows(&columns, first_seq)
}

/// How many bytes a journal batch unpacks to; its first [`JOURNAL_HEAD_BYTES`] are enough to know. `None` where they are no
/// batch's.
pub fn unpacked_bytes(head: &[u8]) -> Option<usize> {
    let size = zstd::zstd_safe::get_frame_content_size(head).ok().flatten()?;
    usize::try_from(size).ok().filter(|size| *size <= MAX_JOURNAL_BYTES)
}

fn not_a_batch(why: &str) -> ArrowError {
    ArrowError::ParseError(format!("not a journal batch: {why}"))
}

/// Appends the column `seq`: `first_seq`, `first_seq + 1` ...
fn number_rows(columns: &RecordBatch, first_seq: Seq) -> Result<RecordBatch, ArrowError> {
    let first = i64::try_from(first_seq).map_err(|_| not_a_batch("its seq is beyond 2^63"))?;
    let rows = i64::try_from(columns.num_rows()).unwrap_or(i64::MAX);
    let mut arrays = columns.columns().to_vec();
    arrays.push(Arc::new(Int64Array::from_iter_values(first..first.saturating_add(rows))));
    RecordBatch::try_new(hot_schema(), arrays)
}

/// The same rows with words as plain UTF-8, as [`reading_schema`] has them.
///
/// # Errors
/// A batch whose columns are not those of [`hot_schema`].
pub fn plain_words(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = reading_schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
}

/// The rows of a batch as readings, with their seqs; for small answers and for tests.
///
/// # Errors
/// A batch whose columns are not those of [`hot_schema`] or [`reading_schema`], or a time source of another name.
pub fn to_readings(batch: &RecordBatch) -> Result<Vec<(Seq, Reading)>, ArrowError> {
    let batch = plain_words(batch)?;
    let times = |place: usize| column::<TimestampMicrosecondArray>(&batch, place);
    let strings = |place: usize| column::<StringArray>(&batch, place);
    let (time, arrived, seq) = (times(0)?, times(7)?, column::<Int64Array>(&batch, 9)?);
    let (sensor, metric, text, unit, source) = (strings(1)?, strings(2)?, strings(4)?, strings(5)?, strings(8)?);
    let (value, quality) = (column::<Float64Array>(&batch, 3)?, column::<Int16Array>(&batch, 6)?);
    let optional = |array: &StringArray, row: usize| array.is_valid(row).then(|| Arc::from(array.value(row)));
    (0..batch.num_rows())
        .map(|row| {
            let time_source = TimeSource::from_word(source.value(row)).ok_or_else(|| not_a_batch("an unknown time source"))?;
            let reading = Reading {
                time: Timestamp(time.value(row)),
                sensor: Arc::from(sensor.value(row)),
                metric: Arc::from(metric.value(row)),
                value: value.is_valid(row).then(|| value.value(row)),
                text: optional(text, row),
                unit: optional(unit, row),
                quality: quality.is_valid(row).then(|| quality.value(row)),
                arrived: Timestamp(arrived.value(row)),
                time_source,
            };
            Ok((u64::try_from(seq.value(row)).unwrap_or_default(), reading))
        })
        .collect()
}

fn column<T: 'static>(batch: &RecordBatch, place: usize) -> Result<&T, ArrowError> {
    let array = batch.columns().get(place).and_then(|array| array.as_any().downcast_ref::<T>());
    array.ok_or_else(|| not_a_batch("a column of another type"))
}

/// A dictionary column of words.
pub type Words = DictionaryArray<Int32Type>;

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(place: i64) -> Reading {
        Reading {
            time: Timestamp(1_700_000_000_000_000 + place),
            sensor: Arc::from(format!("s{}", place % 7)),
            metric: Arc::from("temperature"),
            value: (place % 3 != 0).then_some(20.5 + place as f64),
            text: (place % 3 == 0).then(|| Arc::from("OPEN")),
            unit: (place % 2 == 0).then(|| Arc::from("°C")),
            quality: (place % 5 == 0).then_some(192),
            arrived: Timestamp(1_700_000_000_000_000 + place + 9),
            time_source: TimeSource::Sensor,
        }
    }

    #[test]
    fn a_journal_batch_comes_back_as_it_went_with_seqs() {
        let readings: Vec<_> = (0..100).map(reading).collect();
        let bytes = encode_journal(&readings).unwrap();
        assert!(unpacked_bytes(&bytes[..JOURNAL_HEAD_BYTES]).unwrap() > bytes.len());
        let batch = decode_journal(&bytes, 41).unwrap();
        let expected: Vec<_> = (41..).zip(readings).collect();
        assert_eq!(to_readings(&batch).unwrap(), expected);
    }

    #[test]
    fn cut_off_and_foreign_bytes_are_an_error() {
        let bytes = encode_journal(&[reading(1)]).unwrap();
        for end in 0..bytes.len() {
            assert!(decode_journal(&bytes[..end], 1).is_err(), "{end} of {} bytes", bytes.len());
        }
        assert!(decode_journal(b"hello", 1).is_err());
    }
}
