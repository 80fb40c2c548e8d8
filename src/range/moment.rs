//! A moment: the journal and the segments of one state of the ledger, so that a reading is seen once.

use std::ops::Range;
use std::path::PathBuf;

use super::Ranges;
use crate::ledger::{LedgerError, Reader};
use crate::model::{FileKind, Segment, Timestamp};
use crate::segment::Pin;

/// Lists of segments that are taken until all of one are there.
const TRIES: u32 = 3;

/// A segment that is kept from being removed.
pub(super) struct Pinned {
    pub(super) segment: Segment,
    pub(super) path: PathBuf,
    pub(super) pin: Pin,
}

impl Ranges {
    /// What `hot` reads of the journal, and the segments with readings of `times` that are there beside it.
    pub(super) fn moment<T>(&self, times: &Range<Timestamp>, mut hot: impl FnMut(&Reader) -> T) -> Result<(T, Vec<Pinned>), LedgerError> {
        let (mut reader, mut tries) = (self.ledger.reader()?, TRIES);
        loop {
            tries -= 1;
            let found = reader.snapshot(|reader| {
                let pinned = self.pin(reader, times)?;
                // What is not there was merged or evicted between the list and the pin: the next list is without it.
                let is_gone = |pinned: &Pinned| !pinned.path.exists();
                Ok((tries == 0 || !pinned.iter().any(is_gone)).then(|| (hot(reader), pinned)))
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    fn pin(&self, reader: &Reader, times: &Range<Timestamp>) -> Result<Vec<Pinned>, LedgerError> {
        let segments = reader.segments()?.into_iter().filter(|segment| segment.name.kind == FileKind::Readings);
        let overlapping = segments.filter(|segment| segment.max_time >= times.start && segment.min_time < times.end);
        let pinned = |segment: Segment| {
            let (path, pin) = (self.segments.path(&segment.name), self.segments.pin(std::slice::from_ref(&segment.name)));
            Pinned { segment, path, pin }
        };
        Ok(overlapping.map(pinned).collect())
    }
}
