//! Imports: rows of a file go into the journal, and how far the file has come is written in the same transaction.

use rusqlite::{Connection, OptionalExtension};

use super::commit::{add_readings, add_series};
use super::error::LedgerError;
use super::store::Store;
use crate::model::{Digest, ImportedRows, Tally};

/// Files remembered, newest first: two megabytes.
const KEPT_FILES: i64 = 20_000;

impl Store {
    /// See [`super::Ledger::import`].
    pub fn import(&mut self, import: &ImportedRows) -> Result<u64, LedgerError> {
        let committed = self.now();
        let rows = self.transact(|tx, state| {
            let known = imported_rows(tx, &import.file)?.unwrap_or(0);
            if known != import.first_row {
                let (file, first_row) = (import.file, import.first_row);
                return Err(LedgerError::Invalid(format!("{known} rows of the file {file} are imported, row {first_row} does not follow")));
            }
            add_readings(tx, state, import.rows, Some(&import.bytes), committed)?;
            add_series(tx, &import.new_series)?;
            state.tally.add(&Tally { readings: import.rows, ..Tally::default() });
            let rows = known + import.rows;
            note(tx, &import.file, rows)?;
            fail::fail_point!("ledger.before_import");
            Ok(rows)
        })?;
        fail::fail_point!("ledger.after_import");
        tracing::debug!(file = %import.file, rows, bytes = import.bytes.len(), "rows of a file");
        Ok(rows)
    }
}

/// How many rows of `file` are committed; `None` of a file that is not known.
pub(super) fn imported_rows(connection: &Connection, file: &Digest) -> rusqlite::Result<Option<u64>> {
    connection.prepare_cached("select rows from imports where file = ?1")?.query_row([file.0], |row| row.get(0)).optional()
}

fn note(tx: &Connection, file: &Digest, rows: u64) -> Result<(), LedgerError> {
    let sql = "insert into imports (file, rows) values (?1, ?2) on conflict (file) do update set rows = excluded.rows";
    tx.prepare_cached(sql)?.execute((file.0, rows))?;
    let old = "delete from imports where id <= (select max(id) from imports) - ?1";
    tx.prepare_cached(old)?.execute([KEPT_FILES])?;
    Ok(())
}
