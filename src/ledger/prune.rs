//! Pruning: rows that nobody needs any more leave, so that the ledger does not grow with what has passed through it.

use rusqlite::{Connection, OptionalExtension};

use super::error::LedgerError;
use super::store::Store;
use crate::model::{CutNumber, InstanceId};

/// Losses kept though they are told: what SQL and status can still show, some two megabytes.
const KEPT_LOSSES: u64 = 10_000;

/// Rows of one kind that leave in one transaction, so that it stays short.
const ROWS_AT_ONCE: u64 = 1000;

/// Pages given back in one transaction, so that it stays short.
const PAGES_AT_ONCE: u64 = 1024;

impl Store {
    /// See [`super::Ledger::prune`].
    pub fn prune(&mut self, gone: &[(InstanceId, CutNumber)], record_bytes: u64) -> Result<u64, LedgerError> {
        self.transact(|tx, state| {
            let shipments = forget_shipments(tx)?;
            let cuts = gone.iter().map(|(instance, number)| forget_cut(tx, instance, *number)).sum::<Result<usize, _>>()?;
            let losses = forget_losses(tx)?;
            let records = forget_records(tx, state.exported_record, record_bytes)?;
            fail::fail_point!("ledger.before_prune");
            Ok((shipments + cuts + losses + records) as u64)
        })
    }

    /// See [`super::Ledger::give_back`].
    pub fn give_back(&mut self, keep_bytes: u64) -> Result<bool, LedgerError> {
        let left = self.transact(|tx, _| {
            let page: u64 = tx.query_row("pragma page_size", [], |row| row.get(0))?;
            let free: u64 = tx.query_row("pragma freelist_count", [], |row| row.get(0))?;
            let surplus = free.saturating_sub(keep_bytes / page.max(1));
            let now = surplus.min(PAGES_AT_ONCE);
            if now > 0 {
                let mut statement = tx.prepare(&format!("pragma incremental_vacuum({now})"))?;
                let mut pages = statement.query([])?;
                while pages.next()?.is_some() {}
            }
            Ok(surplus - now)
        })?;
        // The file gets shorter when the WAL is copied into it.
        self.checkpoint(rusqlite::wal::CheckpointMode::PASSIVE)?;
        Ok(left > 0)
    }
}

/// The newest delivered shipment of an instance is what the next one follows; those before it are in the lake.
fn forget_shipments(tx: &Connection) -> Result<usize, LedgerError> {
    let old = "delete from shipments where id in (select id from shipments s where delivered is not null and number < \
               (select max(number) from shipments where instance = s.instance and delivered is not null) limit ?1)";
    let forgotten = tx.prepare_cached(old)?.execute([ROWS_AT_ONCE])?;
    // It knows no cut any more, so that the cut may be forgotten too.
    tx.prepare_cached("update shipments set cut = null where delivered is not null and cut is not null")?.execute([])?;
    Ok(forgotten)
}

/// The newest cut of an instance stays: the next one follows its number.
fn forget_cut(tx: &Connection, instance: &InstanceId, number: CutNumber) -> Result<usize, LedgerError> {
    let done = "select id from cuts c where instance = ?1 and number = ?2 and state <> 'sealed' \
                and number < (select max(number) from cuts where instance = ?1) \
                and not exists (select 1 from segments where cut = c.id and state = 'present')";
    let id: Option<i64> = tx.prepare_cached(done)?.query_row((instance.as_str(), number), |row| row.get(0)).optional()?;
    let Some(id) = id else { return Ok(0) };
    tx.prepare_cached("delete from segments where cut = ?1")?.execute([id])?;
    Ok(tx.prepare_cached("delete from cuts where id = ?1")?.execute([id])?)
}

fn forget_losses(tx: &Connection) -> Result<usize, LedgerError> {
    let told = "delete from losses where id in (select id from losses l where shipment is not null \
                and id <= (select max(id) from losses) - ?1 and not exists \
                (select 1 from shipments where delivered is null and instance = l.instance and number = l.shipment) limit ?2)";
    Ok(tx.prepare_cached(told)?.execute((KEPT_LOSSES, ROWS_AT_ONCE))?)
}

/// Of what is exported the newest `bytes` stay, for SQL.
fn forget_records(tx: &Connection, exported: i64, bytes: u64) -> Result<usize, LedgerError> {
    let mut newest =
        tx.prepare_cached("select id, octet_length(source) + octet_length(kind) + octet_length(body) from records order by id desc")?;
    let mut rows = newest.query([])?;
    let (mut total, mut last) = (0_u64, None);
    while let Some(row) = rows.next()? {
        total += row.get::<_, u64>(1)?;
        if total > bytes {
            last = Some(row.get::<_, i64>(0)?);
            break;
        }
    }
    drop(rows);
    let Some(last) = last else { return Ok(0) };
    let old = "delete from records where id in (select id from records where id <= ?1 order by id limit ?2)";
    Ok(tx.prepare_cached(old)?.execute((last.min(exported), ROWS_AT_ONCE))?)
}
