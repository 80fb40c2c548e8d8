//! Cuts and segments: what is sealed, as plain facts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{CutNumber, Digest, InstanceId, NotA, Seq};
use super::series::SeriesSummary;
use super::time::{Day, Timestamp};

/// What a file of a cut holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Readings of one UTC day.
    Readings,
    /// Records of one UTC day of first arrival.
    Records,
}

impl FileKind {
    /// The folder name, here and upstream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Records => "records",
        }
    }

    /// The kind whose folder is `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Readings, Self::Records].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Where a file of a cut stands, here (`<kind>/date=<date>/<instance>-<cut>.parquet` below `segments/`) and upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SegmentName {
    /// What it holds.
    pub kind: FileKind,
    /// `YYYY-MM-DD`, or `mixed` for stragglers.
    pub date: String,
    /// Whose seqs.
    pub instance: InstanceId,
    /// Which cut.
    pub cut: CutNumber,
}

impl SegmentName {
    /// The name of the file of `day`, or of the stragglers' file.
    pub fn new(kind: FileKind, day: Option<Day>, instance: InstanceId, cut: CutNumber) -> Self {
        Self { kind, date: day.map_or_else(|| "mixed".to_owned(), |day| day.to_string()), instance, cut }
    }

    /// The key of the file in the lake, for gateway `gateway`.
    pub fn lake_key(&self, gateway: &str) -> String {
        let Self { kind, date, instance, cut } = self;
        format!("{}/gateway={gateway}/date={date}/{instance}-{cut:010}.parquet", kind.as_str())
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, date, instance, cut } = self;
        f.write_str(&segment_path(kind.as_str(), date, instance.as_str(), *cut))
    }
}

/// The name of a segment from its parts: for thousands of names that nobody takes apart.
pub fn segment_path(kind: &str, date: &str, instance: &str, cut: CutNumber) -> String {
    format!("{kind}/date={date}/{instance}-{cut:010}.parquet")
}

/// What the segment at `path` adds to the check of all of them (FNV-1a). The sum of a set of names tells it from any other
/// set, as far as chance goes, without comparing one name.
pub fn check_of(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for SegmentName {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let parse = || {
            let (kind, rest) = text.split_once("/date=")?;
            let (date, file) = rest.split_once('/')?;
            let (instance, cut) = file.strip_suffix(".parquet")?.split_once('-')?;
            let name =
                Self { kind: FileKind::from_word(kind)?, date: date.to_owned(), instance: instance.parse().ok()?, cut: cut.parse().ok()? };
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| NotA::new(text, "the name of a segment"))
    }
}

/// One immutable Parquet file: one cut, one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name.
    #[serde(flatten)]
    pub name: SegmentName,
    /// Its size on disk.
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: Digest,
    /// Readings or records in it.
    pub rows: u64,
    /// Lowest seq (or record id) in it.
    pub first_seq: Seq,
    /// Highest seq (or record id) in it.
    pub last_seq: Seq,
    /// Oldest event time in it.
    pub min_time: Timestamp,
    /// Newest event time in it.
    pub max_time: Timestamp,
}

/// How far a cut has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutState {
    /// Sealed here, not delivered.
    Sealed,
    /// Delivered upstream.
    Delivered,
    /// Removed undelivered; a loss says so.
    Dropped,
}

/// A cut: the seq range `first_seq` through `last_seq` that was sealed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Whose seqs.
    pub instance: InstanceId,
    /// Its number.
    pub number: CutNumber,
    /// First seq of the range; `last_seq + 1` in a cut of records alone.
    pub first_seq: Seq,
    /// Last seq of the range.
    pub last_seq: Seq,
    /// Readings in its segments: the range, less what is lost.
    pub readings: u64,
    /// Records in its files.
    pub records: u64,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// How far it has come.
    pub state: CutState,
}

/// What a seal hands to the ledger: the facts that the sealing transaction makes true.
#[derive(Debug, Clone)]
pub struct SealedCut {
    /// Its number: the ledger's next.
    pub number: CutNumber,
    /// First seq: one above the mark.
    pub first_seq: Seq,
    /// Last seq: the new mark; `first_seq - 1` in a cut of records alone.
    pub last_seq: Seq,
    /// The highest record id exported with it (unchanged from before if none).
    pub last_record: i64,
    /// Its files.
    pub segments: Vec<Segment>,
    /// What its readings add to each series.
    pub series: Vec<SeriesSummary>,
    /// Damaged journal batches in its range, as closed seq ranges with what was found.
    pub damaged: Vec<(Seq, Seq, String)>,
    /// When it was sealed.
    pub sealed: Timestamp,
}
