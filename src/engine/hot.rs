//! How much memory hot readings take in the engine's table, told before they are fed.

use std::collections::VecDeque;

use crate::ledger::{JournalSize, LedgerError, Progress, Reader};
use crate::model::{CutNumber, Seq};

/// What a reading takes beside the bytes of its batch and the names of its series: words that a batch has once the table has
/// in each row.
const READING_CHARGE: u64 = 24;

/// Bytes handed over at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// How large what is hot may become, in bytes of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotLimits {
    /// From so much on it should be sealed.
    pub heavy: u64,
    /// More is not fed.
    pub most: u64,
}

/// The batches that are hot, as far as they were looked at.
#[derive(Debug, Default)]
pub struct Hot {
    /// Oldest first, with the bytes that they take in the table.
    batches: VecDeque<JournalSize>,
    /// Of all of them.
    bytes: u64,
    /// The names of a series, on average, after this cut.
    names: Option<(CutNumber, u64)>,
}

impl Hot {
    /// Lets go of what is sealed, and looks at what is new.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub fn look(&mut self, reader: &Reader, progress: &Progress) -> Result<(), LedgerError> {
        while let Some(sealed) = self.batches.pop_front_if(|batch| batch.last_seq <= progress.mark) {
            self.bytes -= sealed.bytes;
        }
        let names = match self.names {
            Some((cut, names)) if cut == progress.last_cut => names,
            _ => reader.bytes_of_names()?,
        };
        self.names = Some((progress.last_cut, names));
        let known = self.batches.back().map_or(progress.mark, |batch| batch.last_seq);
        for size in reader.journal_sizes(known)? {
            let bytes = size.bytes + size.readings * (names + READING_CHARGE);
            self.bytes += bytes;
            self.batches.push_back(JournalSize { bytes, ..size });
        }
        Ok(())
    }

    /// Bytes that all of it takes in the table.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many readings above `after` make the next piece; `None` if there are none.
    pub fn next_piece(&self, after: Seq) -> Option<u64> {
        let first = self.batches.partition_point(|batch| batch.last_seq <= after);
        let (mut readings, mut bytes) = (0, 0);
        for batch in self.batches.range(first..) {
            if readings > 0 && bytes + batch.bytes > PIECE_BYTES {
                break;
            }
            (readings, bytes) = (readings + batch.readings, bytes + batch.bytes);
        }
        (readings > 0).then_some(readings)
    }
}
