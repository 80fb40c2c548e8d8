//! Salvage: what can still be read of a damaged ledger goes into the new one.
//!
//! The hot readings have no other copy, so each batch of the journal whose digest still fits is carried over, numbered
//! anew. Segments are found in their folder; sessions and counters are lost, which the new ledger's first loss says.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::LedgerError;
use super::rows;
use super::state::State;
use crate::model::{Digest, InstanceId, Seq, columns};

/// What became of the journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Salvaged {
    /// Readings carried over.
    pub readings: u64,
    /// Batches known by number that could not be read.
    pub unreadable: u64,
    /// Whether the end of the journal could not be reached, so that nobody knows what else there was.
    pub cut_short: bool,
}

impl fmt::Display for Salvaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readings, unreadable, cut_short } = self;
        write!(f, "{readings} readings of its journal were carried over, {unreadable} batches could not be read")?;
        if *cut_short { write!(f, ", and an unknown part of it is damaged") } else { Ok(()) }
    }
}

struct OldBatch {
    readings: u64,
    committed: i64,
    bytes: Vec<u8>,
}

/// The instance that the damaged ledger at `path` was, if that can be read.
pub(super) fn instance(path: &Path) -> Option<InstanceId> {
    let old = open(path).ok()?;
    old.query_row("select instance from state", [], |row| rows::instance(row, 0)).ok()
}

/// Carries over the journal of the damaged ledger at `path`.
///
/// # Errors
/// Those of writing; what can't be read is counted.
pub(super) fn carry_over(path: &Path, tx: &Connection, state: &mut State) -> Result<Salvaged, LedgerError> {
    let mut salvaged = Salvaged::default();
    let Ok(old) = open(path) else {
        return Ok(Salvaged { cut_short: true, ..salvaged });
    };
    let (batches, whole) = known_batches(&old);
    salvaged.cut_short = !whole;
    for first_seq in batches {
        let Some(batch) = read(&old, first_seq) else {
            salvaged.unreadable += 1;
            continue;
        };
        tx.prepare_cached("insert into journal (first_seq, readings, committed, sha256, bytes) values (?1, ?2, ?3, ?4, ?5)")?.execute((
            state.last_seq() + 1,
            batch.readings,
            batch.committed,
            Digest::of(&batch.bytes).0,
            &batch.bytes,
        ))?;
        for place in [&mut state.books.accepted, &mut state.books.hot, &mut state.books.kept] {
            *place += batch.readings;
        }
        salvaged.readings += batch.readings;
    }
    Ok(salvaged)
}

/// Not read-only: what the WAL adds can be seen only by one who may write its index. The file itself stays as it is.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    old.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    old.execute_batch("pragma query_only = on")?;
    Ok(old)
}

/// First seqs of the batches that can be reached from either end, past one damaged place; and whether all were.
fn known_batches(old: &Connection) -> (BTreeSet<Seq>, bool) {
    let mut known = BTreeSet::new();
    for order in ["asc", "desc"] {
        let mut walk = || -> rusqlite::Result<()> {
            let mut statement = old.prepare(&format!("select first_seq from journal order by first_seq {order}"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                known.insert(row.get(0)?);
            }
            Ok(())
        };
        if walk().is_ok() {
            return (known, true);
        }
    }
    (known, false)
}

fn read(old: &Connection, first_seq: Seq) -> Option<OldBatch> {
    let sql = "select committed, sha256, bytes from journal where first_seq = ?1";
    let row = old.query_row(sql, [first_seq], |row| Ok((row.get(0)?, rows::digest(row, 1)?, row.get::<_, Vec<u8>>(2)?)));
    let (committed, _, bytes) = row.ok().filter(|(_, digest, bytes)| Digest::of(bytes) == *digest)?;
    // The count beside the bytes has no digest: they tell it themselves.
    let readings = columns::decode_journal(&bytes, 1).ok()?.num_rows() as u64;
    Some(OldBatch { readings, committed, bytes })
}
