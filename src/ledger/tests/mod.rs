//! Tests of the room, by story. Every step is followed by an audit of the books.

mod books;
mod drops;
mod faults;
mod instances;
mod journal;
mod pruning;
mod sessions;
mod shipments;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::{Ledger, LedgerError, Open, Reader, Recognised, Refusals, Retry};
use crate::clock::Clock;
use crate::model::{
    Batch, Books, CutNumber, CutState, Day, Digest, FileKind, InstanceId, Reading, Record, SealedCut, Segment, SegmentName, Seq, SeriesKey,
    SeriesSummary, Shipment, ShipmentNumber, Tally, TimeSource, Timestamp, columns,
};

/// A clock that ticks a second a look.
#[derive(Default)]
struct Ticks(AtomicI64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp(1_763_000_000_000_000 + self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }

    fn synchronised(&self) -> bool {
        true
    }
}

fn try_open(folder: &Path, host: &str) -> Result<Ledger, LedgerError> {
    Ledger::open(folder, Open { host_id: host.to_owned(), clock: Arc::new(Ticks::default()) })
}

fn open(folder: &Path) -> Ledger {
    try_open(folder, "host-1").unwrap()
}

fn new() -> (TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path());
    (folder, ledger)
}

fn reader(ledger: &Ledger) -> Reader {
    ledger.reader().unwrap()
}

/// The books, after an audit.
fn books(ledger: &Ledger) -> Books {
    let mut reader = reader(ledger);
    assert_eq!(reader.audit().unwrap(), Vec::<String>::new());
    reader.books().unwrap()
}

/// What a kill -9 leaves: the files as they are while the ledger is open.
fn as_after_a_kill(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn reading(number: u64) -> Reading {
    Reading {
        time: Timestamp(1_763_000_000_000_000 + number as i64),
        sensor: Arc::from(format!("s{}", number % 3)),
        metric: Arc::from("temperature"),
        value: Some(number as f64),
        text: None,
        unit: Some(Arc::from("°C")),
        quality: None,
        arrived: Timestamp(1_763_000_000_000_000 + number as i64),
        time_source: TimeSource::Sensor,
    }
}

fn batch(readings: u64) -> Batch {
    Batch {
        readings: (0..readings).map(reading).collect(),
        tally: Tally { readings, messages_qos1: readings, ..Tally::default() },
        ..Batch::default()
    }
}

fn record(source: &str, body: &str, received: i64) -> Record {
    Record { source: Arc::from(source), kind: Arc::from("config"), body: body.to_owned(), received: Timestamp(received) }
}

async fn commit(ledger: &Ledger, readings: u64) {
    ledger.commit(batch(readings)).await.unwrap();
}

fn segment(kind: FileKind, day: i64, instance: &InstanceId, cut: CutNumber, seqs: (Seq, Seq), rows: u64) -> Segment {
    let name = SegmentName::new(kind, Some(Day(day)), instance.clone(), cut);
    let sha256 = Digest::of(name.to_string().as_bytes());
    let (min_time, max_time) = (Day(day).start(), Day(day).start().plus_micros(5));
    Segment { name, bytes: 1000, sha256, rows, first_seq: seqs.0, last_seq: seqs.1, min_time, max_time }
}

/// The next cut, through `last_seq`, in two files where it has two readings or more.
fn next_cut(ledger: &Ledger, last_seq: Seq) -> SealedCut {
    let reader = reader(ledger);
    let progress = reader.progress().unwrap();
    let (first_seq, number, instance) = (progress.mark + 1, progress.last_cut + 1, ledger.identity().instance);
    let count = last_seq + 1 - first_seq;
    let day = 20_000 + number as i64;
    let segments = match count {
        0 => vec![],
        1 => vec![segment(FileKind::Readings, day, &instance, number, (first_seq, last_seq), 1)],
        _ => vec![
            segment(FileKind::Readings, day, &instance, number, (first_seq, last_seq - 1), count - 1),
            segment(FileKind::Readings, day + 1, &instance, number, (last_seq, last_seq), 1),
        ],
    };
    let last_record = reader.last_exported_record().unwrap();
    SealedCut { number, first_seq, last_seq, last_record, segments, series: vec![], damaged: vec![], sealed: Timestamp(7) }
}

async fn seal(ledger: &Ledger) {
    let last_seq = reader(ledger).progress().unwrap().last_seq;
    ledger.finish_seal(next_cut(ledger, last_seq)).await.unwrap();
}

fn shipment(instance: &InstanceId, number: ShipmentNumber, cut: Option<CutNumber>) -> Shipment {
    let manifest = format!("{instance} {number} {cut:?}").into_bytes();
    Shipment { instance: instance.clone(), number, cut, first_cut: cut, manifest, losses: vec![] }
}

async fn deliver(ledger: &Ledger, number: ShipmentNumber, cut: CutNumber) {
    let instance = ledger.identity().instance;
    ledger.begin_shipment(shipment(&instance, number, Some(cut))).await.unwrap();
    ledger.finish_shipment(instance, number).await.unwrap();
}

fn invalid<T: std::fmt::Debug>(outcome: Result<T, LedgerError>) -> String {
    match outcome {
        Err(LedgerError::Invalid(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

fn summary(sensor: &str, readings: u64, last: i64) -> SeriesSummary {
    let key = SeriesKey { sensor: Arc::from(sensor), metric: Arc::from("temperature") };
    SeriesSummary {
        unit: Some(Arc::from("°C")),
        first_time: Some(Timestamp(1)),
        last_time: Some(Timestamp(last)),
        readings,
        last_value: Some(last as f64),
        ..SeriesSummary::empty(key)
    }
}

fn decoded(reader: &Reader, after: Seq) -> Vec<Seq> {
    let entries = reader.journal(after, u64::MAX).unwrap();
    let rows = entries.iter().flat_map(|entry| {
        let columns = columns::decode_journal(entry.bytes.as_ref().unwrap(), entry.first_seq).unwrap();
        columns::to_readings(&columns).unwrap().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>()
    });
    rows.collect()
}
