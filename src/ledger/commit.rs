//! The commit: a batch, and everything that belongs to it, becomes true at once.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::error::LedgerError;
use super::mark_log;
use super::state::State;
use super::store::Store;
use crate::model::{Batch, Committed, Digest, Record, SeriesKey, Timestamp, columns};

impl Store {
    /// See [`super::Ledger::commit`].
    pub fn commit(&mut self, batch: &Batch) -> Result<Committed, LedgerError> {
        let committed = self.now();
        // Compressing takes longer than the transaction; it needs no lock.
        let bytes = match batch.readings.as_slice() {
            [] => None,
            readings => Some(columns::encode_journal(readings).map_err(|error| LedgerError::Invalid(error.to_string()))?),
        };
        let answer = self.transact(|tx, state| {
            let answer = add_readings(tx, state, batch.readings.len() as u64, bytes.as_deref(), committed)?;
            batch.records.iter().try_for_each(|record| add_record(tx, record))?;
            add_series(tx, &batch.new_series)?;
            mark_log::append(tx, state, &batch.marks)?;
            add_idempotency(tx, batch)?;
            state.tally.add(&batch.tally);
            fail::fail_point!("ledger.before_commit");
            Ok(answer)
        })?;
        fail::fail_point!("ledger.after_commit");
        tracing::debug!(first_seq = answer.first_seq, last_seq = answer.last_seq, bytes = bytes.map_or(0, |bytes| bytes.len()), "a batch");
        Ok(answer)
    }
}

/// Adds a journal batch, if there is one, to the journal and the books.
pub(super) fn add_readings(
    tx: &Connection,
    state: &mut State,
    readings: u64,
    bytes: Option<&[u8]>,
    committed: Timestamp,
) -> Result<Committed, LedgerError> {
    let first_seq = state.last_seq() + 1;
    if let Some(bytes) = bytes {
        tx.prepare_cached("insert into journal (first_seq, readings, committed, sha256, bytes) values (?1, ?2, ?3, ?4, ?5)")?.execute((
            first_seq,
            readings,
            committed.0,
            Digest::of(bytes).0,
            bytes,
        ))?;
        for place in [&mut state.books.accepted, &mut state.books.hot, &mut state.books.kept] {
            *place += readings;
        }
    }
    Ok(Committed { first_seq, last_seq: state.last_seq() })
}

/// A record that says what its source said last is counted; any other is a new row.
fn add_record(tx: &Connection, record: &Record) -> Result<(), LedgerError> {
    let latest = "select id, kind = ?2 and body = ?3 from records where source = ?1 order by id desc limit 1";
    let latest: Option<(i64, bool)> = tx
        .prepare_cached(latest)?
        .query_row((&*record.source, &*record.kind, &record.body), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((id, true)) = latest {
        tx.prepare_cached("update records set times = times + 1, last_received = ?1 where id = ?2")?.execute((record.received.0, id))?;
        return Ok(());
    }
    tx.prepare_cached(
        "insert into records (source, kind, body, first_received, last_received, times) \
         values (:source, :kind, :body, :received, :received, 1)",
    )?
    .execute(named_params! {
        ":source": &*record.source,
        ":kind": &*record.kind,
        ":body": record.body,
        ":received": record.received.0,
    })?;
    Ok(())
}

pub(super) fn add_series(tx: &Connection, new_series: &[SeriesKey]) -> Result<(), LedgerError> {
    let mut statement =
        tx.prepare_cached("insert into series (sensor, metric, readings) values (?1, ?2, 0) on conflict (sensor, metric) do nothing")?;
    for key in new_series {
        statement.execute((&*key.sensor, &*key.metric))?;
    }
    Ok(())
}

fn add_idempotency(tx: &Connection, batch: &Batch) -> Result<(), LedgerError> {
    let mut statement = tx.prepare_cached("insert into idempotency (digest, received) values (?1, ?2) on conflict (digest) do nothing")?;
    for (digest, received) in &batch.idempotency {
        statement.execute((digest.0, received.0))?;
    }
    Ok(())
}
