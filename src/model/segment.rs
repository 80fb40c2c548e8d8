//! Cuts and segments: what is sealed, as plain facts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{CutNumber, Digest, InstanceId, NotA, Seq};
use super::series::SeriesSummary;
use super::time::{Day, Timestamp};

/// The date of a file of stragglers.
pub const MIXED: &str = "mixed";

/// What a file of a cut holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
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

/// Where a file of a cut stands, here (`<kind>/date=<date>/<instance>-<cut>.parquet` below `segments/`) and upstream. One
/// that was merged from several is named `<instance>-<first cut>-<last cut>.parquet` here, and by its last cut upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct SegmentName {
    /// What it holds.
    pub kind: FileKind,
    /// `YYYY-MM-DD`, or `mixed` for stragglers.
    pub date: String,
    /// Whose seqs.
    pub instance: InstanceId,
    /// Which cut; of a merged file its last.
    #[schema(value_type = u64)]
    pub cut: CutNumber,
    /// The first cut of a merged file; else `cut`.
    #[schema(value_type = u64)]
    pub first_cut: CutNumber,
}

impl SegmentName {
    /// The name of the file of `day`, or of the stragglers' file.
    pub fn new(kind: FileKind, day: Option<Day>, instance: InstanceId, cut: CutNumber) -> Self {
        Self { kind, date: day.map_or_else(|| MIXED.to_owned(), |day| day.to_string()), instance, cut, first_cut: cut }
    }

    /// Whether it is merged from files of several cuts.
    pub fn is_merged(&self) -> bool {
        self.first_cut < self.cut
    }

    /// Whether, being merged, it holds what the file `other` holds.
    pub fn holds(&self, other: &Self) -> bool {
        (self.kind, &self.date, &self.instance) == (other.kind, &other.date, &other.instance)
            && self != other
            && self.first_cut <= other.first_cut
            && other.cut <= self.cut
    }

    /// The key of the file in the lake, for gateway `gateway`.
    pub fn lake_key(&self, gateway: &str) -> String {
        let Self { kind, date, instance, cut, .. } = self;
        format!("{}/gateway={gateway}/date={date}/{instance}-{cut:010}.parquet", kind.as_str())
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, date, instance, cut, first_cut } = self;
        f.write_str(&segment_path(kind.as_str(), date, instance.as_str(), (*first_cut, *cut)))
    }
}

/// The name of a segment from its parts: for thousands of names that nobody takes apart.
pub fn segment_path(kind: &str, date: &str, instance: &str, (first_cut, cut): (CutNumber, CutNumber)) -> String {
    if first_cut == cut {
        format!("{kind}/date={date}/{instance}-{cut:010}.parquet")
    } else {
        format!("{kind}/date={date}/{instance}-{first_cut:010}-{cut:010}.parquet")
    }
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
            let (instance, cuts) = file.strip_suffix(".parquet")?.split_once('-')?;
            let (first_cut, cut) = cuts.split_once('-').unwrap_or((cuts, cuts));
            let (first_cut, cut) = (first_cut.parse().ok()?, cut.parse().ok()?);
            let name = Self { kind: FileKind::from_word(kind)?, date: date.to_owned(), instance: instance.parse().ok()?, cut, first_cut };
            (first_cut <= cut && name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| NotA::new(text, "the name of a segment"))
    }
}

/// One immutable Parquet file: one cut, one UTC day; or several cuts that were merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    #[schema(value_type = u64)]
    pub first_seq: Seq,
    /// Highest seq (or record id) in it.
    #[schema(value_type = u64)]
    pub last_seq: Seq,
    /// Oldest event time in it.
    pub min_time: Timestamp,
    /// Newest event time in it.
    pub max_time: Timestamp,
}

/// How far a cut has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CutState {
    /// Sealed here, not delivered.
    Sealed,
    /// Delivered upstream.
    Delivered,
    /// Removed undelivered; a loss says so.
    Dropped,
    /// Merged undelivered: another cut has its range.
    Merged,
}

/// A cut: the seq range `first_seq` through `last_seq` that was sealed together, or that of several undelivered cuts that were
/// merged, as if they had been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Whose seqs.
    pub instance: InstanceId,
    /// Its number; of a merged one that of its last.
    pub number: CutNumber,
    /// The number of the first that was merged into it; else `number`.
    pub first_cut: CutNumber,
    /// First seq of the range; `last_seq + 1` in a cut of records alone.
    pub first_seq: Seq,
    /// Last seq of the range.
    pub last_seq: Seq,
    /// Readings in its segments: the range, less what is lost.
    pub readings: u64,
    /// Records in its files.
    pub records: u64,
    /// When it was sealed; of a merged one its last.
    pub sealed: Timestamp,
    /// How far it has come.
    pub state: CutState,
}

impl Cut {
    /// Whether `next` begins where this one ends.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        (&self.instance, self.number + 1, self.last_seq + 1) == (&next.instance, next.first_cut, next.first_seq)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first_cut: CutNumber, cut: CutNumber) -> SegmentName {
        let name = SegmentName::new(FileKind::Readings, Some(Day(20_000)), "0123456789abcdef".parse().unwrap(), cut);
        SegmentName { first_cut, ..name }
    }

    #[test]
    fn a_name_reads_back_as_it_was_written_merged_or_not() {
        for name in [name(7, 7), name(3, 7), SegmentName { date: MIXED.to_owned(), ..name(1, 288) }] {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert_eq!(name(3, 7).to_string(), "readings/date=2024-10-04/0123456789abcdef-0000000003-0000000007.parquet");
    }

    #[test]
    fn other_names_are_no_segments() {
        for cuts in ["0000000007-0000000003", "0000000003-0000000003", "3-7", "0000000001-0000000002-0000000003", ""] {
            let text = format!("readings/date=2024-10-04/0123456789abcdef-{cuts}.parquet");
            assert!(text.parse::<SegmentName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_merged_file_holds_those_of_its_cuts_and_date() {
        let merged = name(3, 7);
        assert!(merged.holds(&name(3, 3)) && merged.holds(&name(7, 7)) && merged.holds(&name(4, 7)) && !merged.holds(&merged));
        assert!(!merged.holds(&name(2, 2)) && !merged.holds(&name(2, 7)) && !merged.holds(&name(8, 8)));
        assert!(!merged.holds(&SegmentName { date: MIXED.to_owned(), ..name(4, 4) }));
    }
}
