//! What the daemon knew before it was started again: read once from the ledger, held in memory from then on.

use super::latest::Latest;
use super::once::Once;
use crate::config::Config;
use crate::ledger::{LedgerError, Reader};
use crate::model::{Seq, columns};

/// Hot readings decoded at a time: a few megabytes.
const DECODED_AT_ONCE: u64 = 20_000;

/// The series as of the mark with the hot readings added, and the hot readings that routes with `once` know. Blocking.
///
/// # Errors
/// The ledger can't be read.
pub fn remember(reader: &Reader, config: &Config) -> Result<(Latest, Once), LedgerError> {
    let (latest, mut once) = (Latest::new(&config.ingest, reader.series()?), Once::default());
    let asked_once = config.route.iter().any(|route| route.once.is_some());
    let mut after: Seq = reader.progress()?.mark;
    loop {
        let entries = reader.journal(after, DECODED_AT_ONCE)?;
        let Some(last) = entries.last() else { return Ok((latest, once)) };
        after = last.last_seq();
        for entry in entries {
            // A damaged batch is counted by the cut that finds it.
            let Some(batch) = entry.bytes.ok().and_then(|bytes| columns::decode_journal(&bytes, entry.first_seq).ok()) else { continue };
            let readings: Vec<_> = columns::to_readings(&batch).unwrap_or_default().into_iter().map(|(_, reading)| reading).collect();
            if asked_once {
                readings.iter().for_each(|reading| _ = once.is_new(reading));
            }
            latest.add(&readings);
        }
    }
}
