//! The feed: what the engine must be told, pulled from the ledger.
//!
//! Owns: what the engine has been told. Does not own: the socket, the journal.
//! Invariants: one moment of the ledger makes a [`ToEngine::Commit`]: its rows, mark, segments and books agree, so the
//! engine sees each reading once. It is never fed more than it can hold: where more is hot, nothing is fed until the sealer
//! has caught up.
//! On failure: the session ends, and the next one begins from nothing.

use arrow::error::ArrowError;
use bytes::Bytes;

use super::hot::{Hot, HotLimits};
use super::protocol::{Moment, SmallTable, ToEngine};
use super::tables;
use crate::ledger::{Ledger, LedgerError, Progress, Reader};
use crate::model::{Books, CutNumber, FileKind, InstanceId, LossStatus, Segment, Seq, SeriesSummary, ShipmentNumber, StoredRecord};
use crate::segment::{Pin, SegmentDir};

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
    /// Nobody takes what is pulled.
    #[error("the session is over")]
    Unwanted,
    /// The journal has changed otherwise than by a seal.
    #[error("hot readings above {0} are no longer in the journal")]
    Gone(Seq),
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

/// Orders to send, in this order, with their bodies.
pub type Piece = Vec<(ToEngine, Bytes)>;

/// What was pulled.
pub enum Pulled {
    /// All there was: the last piece ended with a [`ToEngine::Commit`], or there was nothing new.
    All {
        /// The segments attached from then on, kept from removal; where they changed.
        attached: Option<Pin>,
        /// Segments that wait for their verification.
        waiting_segments: usize,
        /// Whether what is hot should be sealed before it becomes too much.
        heavy: bool,
    },
    /// Nothing: so many readings are hot, which is more than the engine can hold.
    TooMuch(u64),
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
    limits: HotLimits,
    hot: Hot,
    known: Known,
}

impl Feed {
    /// A feed for an engine that knows nothing yet, and holds at most so much that is hot.
    ///
    /// # Errors
    /// A ledger that can't be read.
    pub fn open(ledger: Ledger, dir: SegmentDir, limits: HotLimits) -> Result<Self, FeedError> {
        let (reader, instance) = (ledger.reader()?, ledger.identity().instance);
        Ok(Self { ledger, reader, dir, instance, limits, hot: Hot::default(), known: Known::default() })
    }

    /// Looks at the list of segments at the next pull, whatever the marks say.
    pub fn distrust_segments(&mut self) {
        self.known.segments = None;
    }

    /// Pulls what the engine does not know and gives it to `send`, piece by piece; the feed takes it for known. All of it is
    /// of one moment, which the ledger keeps until the last piece is taken: what is sealed meanwhile is still there to be read.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub fn pull(&mut self, depth: Depth, send: impl FnMut(Piece) -> bool) -> Result<Pulled, FeedError> {
        if self.ledger.identity().instance != self.instance {
            return Err(FeedError::Renumbered);
        }
        let Self { reader, dir, limits, hot, known, .. } = self;
        reader.snapshot(|reader| Ok(known.pull(reader, dir, hot, *limits, depth, send)))?
    }
}

impl Known {
    fn pull(
        &mut self,
        reader: &Reader,
        dir: &SegmentDir,
        hot: &mut Hot,
        limits: HotLimits,
        depth: Depth,
        mut send: impl FnMut(Piece) -> bool,
    ) -> Result<Pulled, FeedError> {
        let (progress, books) = (reader.progress()?, reader.books()?);
        if progress.last_seq < self.last_seq {
            return Err(FeedError::Renumbered);
        }
        hot.look(reader, &progress)?;
        if hot.bytes() > limits.most {
            return Ok(Pulled::TooMuch(books.hot));
        }
        let fed = self.feed(reader, hot, &progress, &mut send)?;
        let rest = Rest::read(reader, dir, self, (&progress, books), depth)?;
        let attached = self.conclude(rest, fed, (progress, books), send)?;
        Ok(Pulled::All { attached, waiting_segments: self.waiting_segments, heavy: hot.bytes() > limits.heavy })
    }

    /// Sends the readings above the mark that the engine does not have; whether there were any.
    fn feed(&mut self, reader: &Reader, hot: &Hot, progress: &Progress, send: &mut impl FnMut(Piece) -> bool) -> Result<bool, FeedError> {
        let mut after = self.last_seq.max(progress.mark);
        while let Some(readings) = hot.next_piece(after) {
            let (mut piece, before) = (Piece::new(), after);
            for entry in reader.journal(after, readings)? {
                after = entry.last_seq().max(after + 1);
                match entry.bytes {
                    Ok(bytes) => piece.push((ToEngine::Rows { first_seq: entry.first_seq }, bytes.into())),
                    // It stays in the books as hot until the sealer finds it and records the loss.
                    Err(damage) => tracing::warn!(first_seq = entry.first_seq, damage, "a damaged batch can't be shown to queries"),
                }
            }
            // What was looked at is not there: the next session looks anew.
            if after == before {
                return Err(FeedError::Gone(after));
            }
            if !send(piece) {
                return Err(FeedError::Unwanted);
            }
        }
        let is_more = self.last_seq < progress.last_seq;
        self.last_seq = progress.last_seq;
        Ok(is_more)
    }

    /// Sends the small tables that changed, and makes everything true as of `moment`.
    fn conclude(
        &mut self,
        rest: Rest,
        fed: bool,
        moment: (Progress, Books),
        mut send: impl FnMut(Piece) -> bool,
    ) -> Result<Option<Pin>, FeedError> {
        let mut piece = Piece::new();
        if let Some((mark, list)) = rest.series {
            piece.push((ToEngine::Table(SmallTable::SealedSeries), tables::sealed_series(&list)?.into()));
            self.series = Some(mark);
        }
        if let Some((mark, list)) = rest.losses {
            piece.push((ToEngine::Table(SmallTable::Losses), tables::losses(&list)?.into()));
            self.losses = Some(mark);
        }
        if let Some((mark, list)) = rest.records {
            piece.push((ToEngine::Table(SmallTable::Records), tables::records(&list)?.into()));
            self.records = Some(mark);
        }
        let mut attached = None;
        if let Some((mark, list, pin, waiting)) = rest.segments {
            let table = Bytes::from(tables::segments(&list)?);
            (self.segments, self.waiting_segments) = (Some(mark), waiting);
            // It is looked at more often than it changes.
            if self.attached != table {
                piece.push((ToEngine::Table(SmallTable::Segments), table.clone()));
                self.attached = table;
                attached = Some(pin);
            }
        }
        if fed || !piece.is_empty() || self.moment.as_ref() != Some(&moment) {
            let (Progress { last_seq, mark, .. }, books) = moment.clone();
            piece.push((ToEngine::Commit(Moment { last_seq, mark, books }), Bytes::new()));
            self.moment = Some(moment);
            if !send(piece) {
                return Err(FeedError::Unwanted);
            }
        }
        Ok(attached)
    }
}

/// What changed beside the journal.
#[derive(Default)]
struct Rest {
    segments: Option<(SegmentsMark, Vec<Segment>, Pin, usize)>,
    series: Option<(CutNumber, Vec<SeriesSummary>)>,
    losses: Option<(LossesMark, Vec<LossStatus>)>,
    records: Option<(u64, Vec<StoredRecord>)>,
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
            let (segments, waiting) = attachable(reader, dir)?;
            let names: Vec<_> = segments.iter().map(|segment| segment.name.clone()).collect();
            rest.segments = Some((mark, segments, dir.pin(&names), waiting));
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
