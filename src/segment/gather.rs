//! From the journal to the draft of a cut: whole batches from the mark upwards, and the records not exported.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;

use super::error::SegmentError;
use super::gathered::Gathered;
use super::layout::{Origin, column, records_schema};
use super::order::{self, Part};
use super::writer::Sheet;
use crate::ledger::{JournalEntry, Reader};
use crate::model::columns::decode_journal;
use crate::model::{FileKind, InstanceId, SegmentName, Seq, StoredRecord};

/// Text of one cut beyond which it ends: readings that carry long texts make smaller cuts, so that memory stays bounded.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// Readings asked of the journal at once, at first and at most.
const PIECES: (u64, u64) = (16, 8192);

/// A piece of the journal that is larger is followed by a smaller one.
const PIECE_BYTES: usize = 1 << 20;

/// Records of one cut; more follow with the next.
const MAX_RECORDS: usize = 10_000;

/// Bodies of one cut's records.
const MAX_RECORD_BYTES: usize = 8 << 20;

/// Records asked of the ledger at once; each may be a megabyte.
const RECORDS_PIECE: usize = 16;

/// A cut before it has files.
pub(super) struct Draft {
    pub(super) origin: Origin,
    pub(super) readings: RecordBatch,
    /// All rows of `readings`, by series.
    pub(super) order: Vec<u32>,
    pub(super) records: RecordBatch,
    pub(super) last_record: i64,
    pub(super) damaged: Vec<(Seq, Seq, String)>,
    /// What it takes in the ledger; its files are hardly ever larger.
    pub(super) bytes: u64,
    parts: Vec<(FileKind, Part)>,
}

impl Draft {
    /// The files of the cut: each with its name and what it is to hold.
    pub(super) fn sheets(&self) -> impl Iterator<Item = (SegmentName, Sheet<'_>)> {
        self.parts.iter().map(|(kind, part)| {
            let batch = match kind {
                FileKind::Readings => &self.readings,
                FileKind::Records => &self.records,
            };
            let name = SegmentName::new(*kind, part.day, self.origin.instance.clone(), self.origin.cut);
            (name, Sheet { kind: *kind, batch, rows: &part.rows })
        })
    }
}

/// The next cut of `instance` with about `max_readings`; `None` if nothing is hot and no record waits. Blocking.
pub(super) fn gather(reader: &Reader, instance: InstanceId, max_readings: u64) -> Result<Option<Draft>, SegmentError> {
    let progress = reader.progress()?;
    let expected = progress.last_seq.saturating_sub(progress.mark).min(max_readings);
    let mut walk = Walk {
        gathered: Gathered::with_capacity(usize::try_from(expected).unwrap_or(0)),
        next: progress.mark + 1,
        damaged: Vec::new(),
        bytes: 0,
    };
    walk.run(reader, progress.mark.saturating_add(max_readings.max(1)))?;
    let (records, last_record) = gather_records(reader)?;
    let last_seq = walk.next - 1;
    if last_seq == progress.mark && records.is_empty() {
        return Ok(None);
    }
    let cut = progress.last_cut + 1;
    let origin = Origin { instance, cut, first_cut: cut, first_seq: progress.mark + 1, last_seq, delivered: false };
    let draft = draft(origin, walk, &records, last_record).map_err(|error| SegmentError::arrow("a cut", &error))?;
    Ok(Some(draft))
}

fn draft(origin: Origin, walk: Walk, records: &[StoredRecord], last_record: i64) -> Result<Draft, ArrowError> {
    let bytes = walk.bytes + records.iter().map(|record| record.body.len() as u64).sum::<u64>();
    let readings = walk.gathered.finish()?;
    let order = order::by_series(&readings)?;
    let records = record_columns(records)?;
    let all_records: Vec<u32> = (0..).take(records.num_rows()).collect();
    let times = |batch: &RecordBatch, name: &str| column::<TimestampMicrosecondArray>(batch, name).cloned();
    let of_readings = order::by_day(&times(&readings, "time")?, &order).into_iter().map(|part| (FileKind::Readings, part));
    let of_records = order::by_day(&times(&records, "first_received")?, &all_records).into_iter().map(|part| (FileKind::Records, part));
    let parts = of_readings.chain(of_records).collect();
    Ok(Draft { origin, readings, order, records, last_record, damaged: walk.damaged, bytes, parts })
}

/// A walk up the journal.
struct Walk {
    gathered: Gathered,
    /// The seq that comes next.
    next: Seq,
    damaged: Vec<(Seq, Seq, String)>,
    bytes: u64,
}

impl Walk {
    /// Takes whole batches until `enough` is reached, the text is long enough, or the journal ends.
    fn run(&mut self, reader: &Reader, enough: Seq) -> Result<(), SegmentError> {
        let mut piece = PIECES.0;
        while self.next <= enough && self.gathered.text_bytes() < MAX_TEXT_BYTES {
            let entries = reader.journal(self.next - 1, piece.min(enough + 1 - self.next))?;
            if entries.is_empty() {
                break;
            }
            let bytes: usize = entries.iter().map(|entry| entry.bytes.as_ref().map_or(0, Vec::len)).sum();
            self.bytes += bytes as u64;
            piece = if bytes > PIECE_BYTES { (piece / 2).max(1) } else { (piece * 2).min(PIECES.1) };
            entries.into_iter().try_for_each(|entry| self.take(entry))?;
        }
        Ok(())
    }

    /// Adds one batch; a damaged one is noted and skipped.
    fn take(&mut self, entry: JournalEntry) -> Result<(), SegmentError> {
        let JournalEntry { first_seq, readings, bytes, .. } = entry;
        if first_seq != self.next || readings == 0 {
            let expected = self.next;
            return Err(SegmentError::Corrupt(format!(
                "the journal has {readings} readings at seq {first_seq} where {expected} comes next"
            )));
        }
        self.next = first_seq + readings;
        if let Err(why) = bytes.and_then(|bytes| self.add(&bytes, first_seq, readings)) {
            self.damaged.push((first_seq, self.next - 1, why));
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8], first_seq: Seq, readings: u64) -> Result<(), String> {
        let batch = decode_journal(bytes, first_seq).map_err(|error| error.to_string())?;
        if batch.num_rows() as u64 != readings {
            return Err(format!("{} readings in a batch of {readings}", batch.num_rows()));
        }
        self.gathered.add(&batch).map_err(|error| error.to_string())
    }
}

/// The records not exported, at most one cut's share, and the id of the last of them.
fn gather_records(reader: &Reader) -> Result<(Vec<StoredRecord>, i64), SegmentError> {
    let mut last = reader.last_exported_record()?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < MAX_RECORDS && bytes < MAX_RECORD_BYTES {
        let piece = reader.records_after(last, RECORDS_PIECE)?;
        let Some(newest) = piece.last() else { break };
        last = newest.id;
        bytes += piece.iter().map(|record| record.body.len()).sum::<usize>();
        records.extend(piece);
    }
    Ok((records, last))
}

fn record_columns(records: &[StoredRecord]) -> Result<RecordBatch, ArrowError> {
    let words = |pick: fn(&StoredRecord) -> &str| -> ArrayRef {
        Arc::new(records.iter().map(|record| Some(pick(record))).collect::<StringArray>())
    };
    let times =
        |pick: fn(&StoredRecord) -> i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_iter_values(records.iter().map(pick))) };
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.id))),
        words(|record| &record.source),
        words(|record| &record.kind),
        words(|record| &record.body),
        times(|record| record.first_received.0),
        times(|record| record.last_received.0),
        Arc::new(Int64Array::from_iter_values(records.iter().map(|record| i64::try_from(record.times).unwrap_or(i64::MAX)))),
    ];
    RecordBatch::try_new(records_schema(), columns)
}
