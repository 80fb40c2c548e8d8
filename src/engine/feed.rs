//! The feed: what the engine must be told, pulled from the ledger.
//!
//! Owns: what the engine has been told. Does not own: the socket, the journal.
//! Invariants: one moment of the ledger makes a [`ToEngine::Commit`]: its rows, mark, segments and books agree, so the
//! engine sees each reading once.
//! On failure: the session ends, and the next one begins from nothing.

use arrow::error::ArrowError;
use bytes::Bytes;

use super::protocol::{Moment, SmallTable, ToEngine};
use super::tables;
use crate::ledger::{JournalEntry, Ledger, LedgerError, Progress, Reader};
use crate::model::{
    Books, CutNumber, FileKind, InstanceId, LossStatus, Segment, SegmentName, Seq, SeriesSummary, ShipmentNumber, StoredRecord,
};
use crate::segment::SegmentDir;

/// Readings read from the journal at a time: some megabytes.
const PIECE_READINGS: u64 = 50_000;

/// Text of the records that SQL shows.
const MAX_RECORDS_BYTES: usize = 16 << 20;

/// Losses that SQL shows, the newest.
const MAX_LOSSES: usize = 100_000;

/// Why nothing could be pulled.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A table could not be written.
    #[error("a table can't be handed over: {0}")]
    Table(#[from] ArrowError),
    /// The readings have other numbers now.
    #[error("a new instance began, whose readings are numbered anew")]
    Renumbered,
}

/// How much is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Readings, segments and books: between queries, so that the next one has little to wait for.
    Readings,
    /// The small tables too: before a query.
    Everything,
}

/// Orders to send, in this order.
#[derive(Debug, Default)]
pub struct Pulled {
    /// With their bodies.
    pub orders: Vec<(ToEngine, Bytes)>,
    /// Whether they end with a [`ToEngine::Commit`]; otherwise there is more to pull.
    pub complete: bool,
    /// The segments attached from then on, where they changed.
    pub attached: Option<Vec<SegmentName>>,
    /// Segments that wait for their verification.
    pub waiting_segments: usize,
}

/// What the list of segments depends on, cheap to ask: when none of it changed, the list has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentsMark {
    newest: i64,
    kept_sealed: u64,
    verified: u64,
}

/// What the losses depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LossesMark {
    lost: u64,
    last_shipment: ShipmentNumber,
}

/// What the engine has been told.
#[derive(Debug, Clone, Default)]
struct Known {
    last_seq: Seq,
    moment: Option<(Progress, Books)>,
    segments: Option<SegmentsMark>,
    /// The table of the attached ones.
    attached: Bytes,
    waiting_segments: usize,
    series: Option<CutNumber>,
    losses: Option<LossesMark>,
    records: Option<u64>,
}

/// Pulls. Blocking.
pub struct Feed {
    ledger: Ledger,
    reader: Reader,
    dir: SegmentDir,
    instance: InstanceId,
    known: Known,
}

impl Feed {
    /// A feed for an engine that knows nothing yet.
    ///
    /// # Errors
    /// A ledger that can't be read.
    pub fn open(ledger: Ledger, dir: SegmentDir) -> Result<Self, FeedError> {
        let (reader, instance) = (ledger.reader()?, ledger.identity().instance);
        Ok(Self { ledger, reader, dir, instance, known: Known::default() })
    }

    /// Looks at the list of segments at the next pull, whatever the marks say.
    pub fn distrust_segments(&mut self) {
        self.known.segments = None;
    }

    /// Pulls the next piece. Its orders must be sent: the feed takes them for known.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub fn pull(&mut self, depth: Depth) -> Result<Pulled, FeedError> {
        if self.ledger.identity().instance != self.instance {
            return Err(FeedError::Renumbered);
        }
        let (dir, known) = (&self.dir, &self.known);
        let piece = self.reader.snapshot(|reader| Piece::read(reader, dir, known, depth))?;
        if piece.progress.last_seq < self.known.last_seq {
            return Err(FeedError::Renumbered);
        }
        self.hand_over(piece)
    }

    fn hand_over(&mut self, piece: Piece) -> Result<Pulled, FeedError> {
        let mut orders: Vec<(ToEngine, Bytes)> = Vec::new();
        for entry in piece.journal {
            self.known.last_seq = entry.last_seq();
            match entry.bytes {
                Ok(bytes) => orders.push((ToEngine::Rows { first_seq: entry.first_seq }, bytes.into())),
                // It stays in the books as hot until the sealer finds it and records the loss.
                Err(damage) => tracing::warn!(first_seq = entry.first_seq, damage, "a damaged batch can't be shown to queries"),
            }
        }
        let Some(rest) = piece.rest else {
            return Ok(Pulled { orders, complete: false, ..Pulled::default() });
        };
        let known = &mut self.known;
        known.last_seq = piece.progress.last_seq;
        if let Some((mark, list)) = rest.series {
            orders.push((ToEngine::Table(SmallTable::SealedSeries), tables::sealed_series(&list)?.into()));
            known.series = Some(mark);
        }
        if let Some((mark, list)) = rest.losses {
            orders.push((ToEngine::Table(SmallTable::Losses), tables::losses(&list)?.into()));
            known.losses = Some(mark);
        }
        if let Some((mark, list)) = rest.records {
            orders.push((ToEngine::Table(SmallTable::Records), tables::records(&list)?.into()));
            known.records = Some(mark);
        }
        let mut attached = None;
        if let Some((mark, list, waiting)) = rest.segments {
            let table = Bytes::from(tables::segments(&list)?);
            (known.segments, known.waiting_segments) = (Some(mark), waiting);
            // It is looked at more often than it changes.
            if known.attached != table {
                orders.push((ToEngine::Table(SmallTable::Segments), table.clone()));
                known.attached = table;
                attached = Some(list.into_iter().map(|segment| segment.name).collect());
            }
        }
        let moment = Some((piece.progress.clone(), piece.books));
        if !orders.is_empty() || known.moment != moment {
            let Progress { last_seq, mark, .. } = piece.progress;
            orders.push((ToEngine::Commit(Moment { last_seq, mark, books: piece.books }), Bytes::new()));
            known.moment = moment;
        }
        Ok(Pulled { orders, complete: true, attached, waiting_segments: known.waiting_segments })
    }
}

/// What one moment of the ledger says that the engine does not know.
struct Piece {
    progress: Progress,
    books: Books,
    journal: Vec<JournalEntry>,
    /// Only where the journal is read to its end.
    rest: Option<Rest>,
}

/// What changed beside the journal.
#[derive(Default)]
struct Rest {
    segments: Option<(SegmentsMark, Vec<Segment>, usize)>,
    series: Option<(CutNumber, Vec<SeriesSummary>)>,
    losses: Option<(LossesMark, Vec<LossStatus>)>,
    records: Option<(u64, Vec<StoredRecord>)>,
}

impl Piece {
    fn read(reader: &Reader, dir: &SegmentDir, known: &Known, depth: Depth) -> Result<Self, LedgerError> {
        let (progress, books) = (reader.progress()?, reader.books()?);
        let journal = reader.journal(known.last_seq.max(progress.mark), PIECE_READINGS)?;
        let reached = journal.last().map_or(progress.last_seq, JournalEntry::last_seq);
        let rest = if reached >= progress.last_seq { Some(Rest::read(reader, dir, known, (&progress, books), depth)?) } else { None };
        Ok(Self { progress, books, journal, rest })
    }
}

impl Rest {
    fn read(
        reader: &Reader,
        dir: &SegmentDir,
        known: &Known,
        (progress, books): (&Progress, Books),
        depth: Depth,
    ) -> Result<Self, LedgerError> {
        let mut rest = Self::default();
        // Asked for before the names: one that is verified in between is noticed next time.
        let verified = *dir.verified().changes().borrow();
        let last_cut = progress.last_cut;
        let mark = SegmentsMark { newest: reader.newest_segment()?, kept_sealed: books.kept.saturating_sub(books.hot), verified };
        if known.segments != Some(mark) {
            let (names, waiting) = attachable(reader, dir)?;
            rest.segments = Some((mark, names, waiting));
        }
        if depth == Depth::Readings {
            return Ok(rest);
        }
        if known.series != Some(last_cut) {
            rest.series = Some((last_cut, reader.series()?));
        }
        let mark = LossesMark { lost: books.thinned + books.dropped + books.damaged, last_shipment: progress.last_shipment };
        if known.losses != Some(mark) {
            rest.losses = Some((mark, reader.losses(MAX_LOSSES)?));
        }
        let received = reader.tally()?.records;
        if known.records != Some(received) {
            rest.records = Some((received, reader.newest_records(MAX_RECORDS_BYTES)?));
        }
        Ok(rest)
    }
}

/// Segments of readings that are verified, newest first, and how many are not.
fn attachable(reader: &Reader, dir: &SegmentDir) -> Result<(Vec<Segment>, usize), LedgerError> {
    let all = reader.segments()?.into_iter().filter(|segment| segment.name.kind == FileKind::Readings);
    let (verified, waiting): (Vec<_>, Vec<_>) = all.partition(|segment| dir.verified().contains(&segment.name));
    Ok((verified, waiting.len()))
}
