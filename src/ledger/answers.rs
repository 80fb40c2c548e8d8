//! What the ledger answers with, beside the nouns that all rooms share.

use crate::model::{
    Cut, CutNumber, Digest, FileKind, InstanceId, Segment, SegmentName, Seq, SessionId, SessionMarks, ShipmentNumber, Timestamp,
};

/// How far everything has come; a watch of it is the wake-up of every worker behind the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Highest committed seq.
    pub last_seq: Seq,
    /// Highest sealed seq.
    pub mark: Seq,
    /// Last cut sealed.
    pub last_cut: CutNumber,
    /// Last shipment begun.
    pub last_shipment: ShipmentNumber,
    /// Counts transactions since start; 0 where it was read from the file.
    pub version: u64,
}

/// Who this data folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The current instance.
    pub instance: InstanceId,
    /// The one before, if this began as a fork.
    pub forked_from: Option<InstanceId>,
}

/// One batch of the journal, its digest already checked.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    /// Seq of its first reading.
    pub first_seq: Seq,
    /// How many readings.
    pub readings: u64,
    /// For `columns::decode_journal`; `Err` says what is damaged.
    pub bytes: Result<Vec<u8>, String>,
}

impl JournalEntry {
    /// Seq of its last reading.
    pub fn last_seq(&self) -> Seq {
        (self.first_seq + self.readings).saturating_sub(1)
    }
}

/// How large one batch of the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSize {
    /// Seq of its last reading.
    pub last_seq: Seq,
    /// How many readings.
    pub readings: u64,
    /// Bytes that it unpacks to; 0 where it is damaged.
    pub bytes: u64,
}

/// What is sealed and not delivered, of every instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Readings in it.
    pub readings: u64,
    /// Bytes of its files that are here.
    pub bytes: u64,
    /// Those among them that are not shipped for now: upstream refused their cut, or their instance is set aside.
    pub held_bytes: u64,
    /// When its oldest cut was sealed.
    pub oldest: Option<Timestamp>,
}

/// A shipment that an earlier ledger of this folder delivered, as its manifest upstream tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Whose; not the current one.
    pub instance: InstanceId,
    /// Its number.
    pub number: ShipmentNumber,
    /// The cut it brought, known here or not.
    pub cut: Option<CutNumber>,
    /// Of its manifest's bytes.
    pub sha256: Digest,
}

/// A session of a peer that outlives its connections.
#[derive(Debug, Clone, Default)]
pub struct StoredSession {
    /// Its number, for marks.
    pub id: SessionId,
    /// Its marks, as committed.
    pub marks: SessionMarks,
    /// Whether it was known before this call.
    pub present: bool,
}

/// Segments that may be merged with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What they hold.
    pub kind: FileKind,
    /// Of which day.
    pub date: String,
    /// Whose.
    pub instance: InstanceId,
}

/// A segment that is here, and how its cut stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The segment.
    pub segment: Segment,
    /// When its cut was sealed; of a merged one its last.
    pub sealed: Timestamp,
    /// Whether its cut is delivered.
    pub is_delivered: bool,
}

/// A cut that is not delivered and may be merged with its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The cut.
    pub cut: Cut,
    /// Of its files that are here, each once.
    pub dates: Vec<String>,
}

/// A segment that is here though it is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evictable {
    /// Its name.
    pub name: SegmentName,
    /// Its size.
    pub bytes: u64,
    /// Readings that leave `kept` with it.
    pub readings: u64,
    /// When its cut was sealed.
    pub sealed: Timestamp,
}

/// A cut that is neither delivered nor being shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Droppable {
    /// Whose.
    pub instance: InstanceId,
    /// Its number.
    pub number: CutNumber,
    /// Size of its files.
    pub bytes: u64,
    /// Readings that leave `kept` with it.
    pub readings: u64,
    /// Its files that are here.
    pub files: Vec<SegmentName>,
}

/// A cut of which nothing is here any more, as far as the ledger knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Whose.
    pub instance: InstanceId,
    /// Its number.
    pub number: CutNumber,
    /// Its files, which were let go of.
    pub files: Vec<SegmentName>,
}

/// How full the ledger's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Readings kept on this machine, in the journal and in segments.
    pub kept: u64,
    /// Readings in the journal.
    pub hot: u64,
    /// Bytes of the file that hold something.
    pub used_bytes: u64,
    /// Bytes of the file that can be given back.
    pub free_bytes: u64,
}
