//! What the columns of a file mean, what is no reading, and that a file comes in once.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use crate::config;
use crate::ingest::Latest;
use crate::ledger::{Ledger, Open};
use crate::model::{Digest, Reading, TimeSource, Timestamp, columns};
use crate::space::{Allowance, Space};

const NOW: Timestamp = Timestamp(1_795_168_800_000_000);
const ARRIVAL: Arrival = Arrival { now: NOW, trusted: true };

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(values.iter().map(|text| Some(*text).filter(|text| !text.is_empty())).collect::<StringArray>())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// One reading a text of `times`, with whatever else `columns` say.
fn rows(time: ArrayRef, columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let same = |word: &str| texts(&vec![word; time.len()]);
    let mut all = vec![("sensor", same("tank-1")), ("metric", same("level"))];
    all.retain(|(name, _)| columns.iter().all(|(other, _)| other != name));
    if columns.iter().all(|(name, _)| *name != "value" && *name != "text") {
        all.push(("value", Arc::new(Float64Array::from(vec![1.5; time.len()]))));
    }
    all.extend(columns);
    all.push(("time", time));
    batch(all)
}

fn readings(batch: &RecordBatch) -> Vec<Reading> {
    let rows = Rows::check(batch, 0, ARRIVAL).unwrap();
    let numbered = columns::decode_journal(&rows.encode().unwrap(), 1).unwrap();
    columns::to_readings(&numbered).unwrap().into_iter().map(|(_, reading)| reading).collect()
}

fn times_of(time: ArrayRef) -> Vec<i64> {
    readings(&rows(time, vec![])).iter().map(|reading| reading.time.0).collect()
}

fn fault(batch: &RecordBatch) -> String {
    Rows::check(batch, 100, ARRIVAL).unwrap_err().to_string()
}

#[test]
fn a_time_is_one_however_it_is_written() {
    let seconds = 1_795_168_800;
    let micros = seconds * 1_000_000;
    let written = texts(&[
        "2026-11-20T10:00:00Z",
        "2026-11-20T12:00:00+02:00",
        "2026-11-20 10:00:00",
        "2026-11-20T10:00:00.000000",
        "1795168800",
        "1795168800000",
        "1795168800.0",
    ]);
    assert_eq!(times_of(written), [micros; 7]);
    assert_eq!(times_of(Arc::new(TimestampNanosecondArray::from(vec![micros * 1000 + 999]))), [micros]);
    assert_eq!(times_of(Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("+05:00"))), [micros]);
    assert_eq!(times_of(Arc::new(Int64Array::from(vec![seconds, seconds * 1000, micros]))), [micros; 3]);
    assert_eq!(times_of(Arc::new(Float64Array::from(vec![seconds as f64 + 0.25]))), [micros + 250_000]);
    assert_eq!(times_of(Arc::new(Date32Array::from(vec![20_777]))), [20_777 * 86_400_000_000]);
}

#[test]
fn values_and_names_come_in_any_type_and_what_is_not_said_is_filled_in() {
    let values: [(ArrayRef, f64); 4] = [
        (Arc::new(Int64Array::from(vec![3])), 3.0),
        (Arc::new(Float32Array::from(vec![0.5])), 0.5),
        (Arc::new(BooleanArray::from(vec![true])), 1.0),
        (texts(&["2.25"]), 2.25),
    ];
    for (column, expected) in values {
        let names: ArrayRef = Arc::new(StringViewArray::from(vec!["tank-1"]));
        let found = readings(&rows(texts(&["2026-11-20T10:00:00Z"]), vec![("value", column), ("sensor", names)]));
        let reading = Reading {
            time: NOW,
            sensor: Arc::from("tank-1"),
            metric: Arc::from("level"),
            value: Some(expected),
            text: None,
            unit: None,
            quality: None,
            arrived: NOW,
            time_source: TimeSource::Sensor,
        };
        assert_eq!(found, [reading]);
    }
}

#[test]
fn a_row_that_is_no_reading_is_named() {
    let time = || texts(&["2026-11-20T10:00:00Z", "2026-11-20T10:00:01Z"]);
    let with = |name: &'static str, values: &[&str]| rows(time(), vec![(name, texts(values))]);
    assert_eq!(fault(&rows(texts(&["2026-11-20T10:00:00Z", ""]), vec![])), "row 102: it has no time");
    assert!(fault(&rows(texts(&["yesterday", ""]), vec![])).starts_with("row 101: the time \"yesterday\" is not a time"));
    assert!(fault(&rows(texts(&["1999-12-31T23:59:59Z"]), vec![])).contains("is before 2000-01-01"));
    assert!(fault(&rows(texts(&["2026-11-21T10:00:01Z"]), vec![])).contains("more than a day ahead"));
    assert_eq!(fault(&with("sensor", &["a", ""])), "row 102: it has no sensor");
    assert!(fault(&with("metric", &["a", "b\nc"])).starts_with("row 102: the metric is empty"));
    assert_eq!(fault(&with("value", &["1", "warm"])), "row 102: the value \"warm\" is not a number");
    assert_eq!(fault(&with("value", &["1", "inf"])), "row 102: the value inf is not finite");
    assert_eq!(fault(&with("value", &["1", ""])), "row 102: it has neither a value nor a text");
    assert!(fault(&with("quality", &["1", "40000"])).starts_with("row 102: the quality \"40000\" is not a whole number"));
    assert_eq!(fault(&with("time_source", &["sensor", "guess"])), "row 102: the time_source \"guess\" is not known");
    assert!(fault(&with("text", &["x", &"x".repeat(70_000)])).starts_with("row 102: the text is longer"));
}

#[test]
fn columns_that_are_not_those_of_readings_are_named() {
    let time = || texts(&["2026-11-20T10:00:00Z"]);
    assert!(
        fault(&rows(time(), vec![("celsius", texts(&["1"]))])).starts_with("the column \"celsius\" is none of a reading's; they are time,")
    );
    assert!(fault(&batch(vec![("time", time()), ("metric", texts(&["a"]))])).starts_with("there is no column \"sensor\""));
    assert!(fault(&batch(vec![("time", time()), ("sensor", texts(&["a"])), ("metric", texts(&["a"]))])).contains("neither"));
    let twice = batch(vec![
        ("time", time()),
        ("sensor", texts(&["a"])),
        ("metric", texts(&["a"])),
        ("value", texts(&["1"])),
        ("value", texts(&["2"])),
    ]);
    assert_eq!(fault(&twice), "there are two columns \"value\"");
}

#[test]
fn rows_come_back_from_the_journal_as_they_were_and_sum_up_by_series() {
    let reading = |place: i64| Reading {
        time: Timestamp(NOW.0 - place * 1_000_000),
        sensor: Arc::from(format!("s{}", place % 3)),
        metric: Arc::from("t"),
        value: (place % 4 != 0).then_some(place as f64),
        text: (place % 4 == 0).then(|| Arc::from("OPEN")),
        unit: (place % 2 == 0).then(|| Arc::from("°C")),
        quality: (place % 5 == 0).then_some(192),
        arrived: Timestamp(NOW.0 + place),
        time_source: TimeSource::Anchored,
    };
    let all: Vec<Reading> = (0..100).map(reading).collect();
    let batch = columns::journal_columns(&all).unwrap();
    assert_eq!(readings(&batch), all);
    assert_eq!(readings(&batch.slice(40, 7)), all[40..47]);
    let mut found = Rows::check(&batch, 0, ARRIVAL).unwrap().series();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    let mut expected: Vec<_> = Vec::new();
    for sensor in ["s0", "s1", "s2"] {
        let of_sensor: Vec<_> = all.iter().filter(|reading| *reading.sensor == *sensor).collect();
        let key = crate::model::SeriesKey { sensor: Arc::from(sensor), metric: Arc::from("t") };
        let mut series = crate::model::SeriesSummary::empty(key);
        of_sensor.iter().for_each(|reading| series.add(reading));
        expected.push(series);
    }
    assert_eq!(found, expected);
}

#[test]
fn the_journal_holds_the_words_in_use_and_no_others() {
    let many: Vec<Reading> = (0..1000).map(|place| Reading { sensor: Arc::from(format!("sensor number {place}")), ..one() }).collect();
    let batch = columns::journal_columns(&many).unwrap();
    let bytes = |rows: &RecordBatch| Rows::check(rows, 0, ARRIVAL).unwrap().encode().unwrap().len();
    assert!(bytes(&batch.slice(7, 1)) < bytes(&batch) / 4);
}

fn one() -> Reading {
    readings(&rows(texts(&["2026-11-20T10:00:00Z"]), vec![])).remove(0)
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn a_stream_is_read_whole_and_bytes_of_any_kind_cost_an_error_at_most() {
    let batch = columns::journal_columns(&vec![one(); 1000]).unwrap();
    let bytes = stream(&[batch.clone(), batch.slice(0, 10)]);
    assert_eq!(read_stream(Bytes::from(bytes.clone())).unwrap(), [batch.clone(), batch.slice(0, 10)]);
    assert_eq!(read_stream(Bytes::new()).unwrap(), []);
    let too_many = vec![batch; MAX_ROWS / 1000 + 1];
    assert!(read_stream(Bytes::from(stream(&too_many))).unwrap_err().to_string().contains("more than 65536 rows"));
    // Every byte of the head wrong once: errors or panics, which cost the request, but no abort and no endless memory.
    for place in 0..bytes.len().min(1_500) {
        let mut wrong = bytes.clone();
        wrong[place] ^= 0xff;
        let _ = std::panic::catch_unwind(|| read_stream(Bytes::from(wrong)).map(|batches| batches.len()));
    }
}

struct House {
    _folder: TempDir,
    ledger: Ledger,
    latest: Arc<Latest>,
    importer: Importer,
    space: Space,
}

impl House {
    fn open(max_series: usize, max_hot: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: crate::clock::SharedClock = Arc::new(SystemClock);
        let ledger = Ledger::open(folder.path(), Open { host_id: "host".to_owned(), clock: Arc::clone(&clock) }).unwrap();
        let latest = Arc::new(Latest::new(&config::Ingest { max_series, ..config::Ingest::default() }, Vec::new()));
        let space = Space::default();
        let importer = Importer::new(ledger.clone(), Arc::clone(&latest), clock, space.clone(), max_hot);
        Self { _folder: folder, ledger, latest, importer, space }
    }

    async fn take(&self, first_row: u64, rows: usize) -> Result<u64, ImportError> {
        let batch = columns::journal_columns(&vec![one(); rows]).unwrap();
        self.importer.take(Piece { file: Digest::of(b"a file"), first_row, batches: vec![batch] }).await
    }

    fn accepted(&self) -> u64 {
        let mut reader = self.ledger.reader().unwrap();
        assert_eq!(reader.audit().unwrap(), Vec::<String>::new());
        reader.books().unwrap().accepted
    }
}

#[tokio::test]
async fn a_piece_comes_in_once_and_only_after_those_before_it() {
    let house = House::open(10, 1_000);
    assert!(matches!(house.take(10, 5).await, Err(ImportError::Gap { known: 0, first_row: 10 })));
    assert_eq!(house.take(0, 10).await.unwrap(), 10);
    assert_eq!(house.take(0, 10).await.unwrap(), 10);
    assert_eq!(house.take(10, 5).await.unwrap(), 15);
    assert!(matches!(house.take(14, 5).await, Err(ImportError::Gap { known: 15, .. })));
    assert_eq!((house.accepted(), house.importer.known(Digest::of(b"a file")).await.unwrap()), (15, 15));
    assert_eq!(house.importer.known(Digest::of(b"another")).await.unwrap(), 0);
    assert_eq!(house.latest.series().iter().map(|series| series.readings).sum::<u64>(), 15);
}

#[tokio::test]
async fn senders_at_the_same_time_store_nothing_twice() {
    let house = Arc::new(House::open(10, 1_000));
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let house = Arc::clone(&house);
            tokio::spawn(async move { house.take(0, 10).await.unwrap() })
        })
        .collect();
    for sender in senders {
        assert_eq!(sender.await.unwrap(), 10);
    }
    assert_eq!(house.accepted(), 10);
}

#[tokio::test]
async fn a_series_too_many_refuses_the_piece_whole() {
    let house = House::open(0, 1_000);
    assert!(matches!(house.take(0, 10).await, Err(ImportError::TooManySeries(_))));
    assert_eq!(house.accepted(), 0);
}

#[tokio::test]
async fn without_space_an_import_is_told_at_once() {
    let house = House::open(10, 1_000);
    house.space.refuse("the cap is reached");
    assert!(matches!(house.take(0, 10).await, Err(ImportError::NoSpace(_))));
    house.space.admit();
    assert_eq!(house.take(0, 10).await.unwrap(), 10);
}

#[tokio::test]
async fn an_import_takes_no_more_than_the_room_below_the_cap() {
    let house = House::open(10, 1_000);
    house.space.allow(0, Allowance { bytes: 0, largest: 1 << 20, low: 0 });
    assert!(matches!(house.take(0, 10).await, Err(ImportError::NoSpace(_))));
    assert_eq!(house.accepted(), 0);
    house.space.allow(0, Allowance { bytes: 1 << 20, largest: 1 << 20, low: 0 });
    assert_eq!(house.take(0, 10).await.unwrap(), 10);
}

#[tokio::test]
async fn an_import_waits_while_too_much_is_hot() {
    let house = House::open(10, 5);
    house.take(0, 10).await.unwrap();
    assert!(matches!(house.take(10, 1).await, Err(ImportError::Busy(10))));
    assert_eq!(house.accepted(), 10);
}
