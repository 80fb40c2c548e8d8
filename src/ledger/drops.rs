//! Drops: undelivered readings leave to make room, and a loss says so.

use rusqlite::{Connection, OptionalExtension};

use super::error::LedgerError;
use super::losses;
use super::refusals;
use super::rows;
use super::segments;
use super::shipments;
use super::state::{State, move_readings, take_readings};
use super::store::Store;
use crate::model::{Cut, CutNumber, CutState, FileKind, InstanceId, Loss, LossReason, Seq, Timestamp};

impl Store {
    /// See [`super::Ledger::drop_cuts`].
    pub fn drop_cuts(&mut self, cuts: &[(InstanceId, CutNumber)], why: &str) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            cuts.iter().try_for_each(|(instance, number)| drop_cut(tx, state, instance, *number, why, now))?;
            fail::fail_point!("ledger.before_drop");
            Ok(())
        })?;
        fail::fail_point!("ledger.after_drop");
        Ok(())
    }

    /// See [`super::Ledger::drop_hot`].
    pub fn drop_hot(&mut self, bytes: u64, why: &str) -> Result<u64, LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            let first_seq = state.mark() + 1;
            let Some(last_seq) = end_of_oldest(tx, bytes)? else { return Ok(0) };
            let readings = (last_seq + 1).saturating_sub(first_seq);
            tx.prepare_cached("delete from journal where first_seq <= ?1")?.execute([last_seq])?;
            move_readings(&mut state.books.hot, &mut state.books.dropped, readings)?;
            take_readings(&mut state.books.kept, readings)?;
            let (instance, detail) = (state.identity.instance.clone(), format!("not sealed yet: {why}"));
            let reason = LossReason::Dropped;
            losses::add_or_extend(tx, &Loss { id: 0, instance, first_seq, last_seq, readings, reason, noted: now, detail })?;
            Ok(readings)
        })
    }
}

/// The last seq of the oldest batches that have `bytes` together, or of all; `None` where the journal is empty.
fn end_of_oldest(tx: &Connection, bytes: u64) -> Result<Option<Seq>, LedgerError> {
    let mut statement = tx.prepare_cached("select first_seq + readings - 1, octet_length(bytes) from journal order by first_seq")?;
    let mut batches = statement.query([])?;
    let (mut end, mut found) = (None, 0_u64);
    while let Some(batch) = batches.next()? {
        end = Some(batch.get(0)?);
        found += batch.get::<_, u64>(1)?;
        if found >= bytes {
            break;
        }
    }
    Ok(end)
}

fn drop_cut(
    tx: &Connection,
    state: &mut State,
    instance: &InstanceId,
    number: CutNumber,
    why: &str,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let (id, cut) = find(tx, instance, number)?;
    if cut.state != CutState::Sealed {
        return Err(LedgerError::Invalid(format!("cut {number} of {instance} is {} already", rows::cut_state_word(cut.state))));
    }
    if shipments::is_under_way(tx, id)? {
        return Err(LedgerError::Invalid(format!("cut {number} of {instance} is being shipped: its outcome must be known first")));
    }
    let files = segments::evict_all(tx, state, id)?;
    tx.prepare_cached("update cuts set state = 'dropped' where id = ?1")?.execute([id])?;
    refusals::forget(tx, id)?;
    if *instance == state.identity.instance {
        move_readings(&mut state.books.sealed, &mut state.books.dropped, cut.readings)?;
    }
    let of_readings = || files.iter().filter(|file| file.name.kind == FileKind::Readings);
    let times = of_readings().map(|file| file.min_time).min().zip(of_readings().map(|file| file.max_time).max());
    let span = times.map_or_else(String::new, |(from, to)| format!(", times {from} to {to}"));
    losses::add_or_extend(tx, &loss_of(&cut, now, &format!("{span}: {why}")))
}

fn find(tx: &Connection, instance: &InstanceId, number: CutNumber) -> Result<(i64, Cut), LedgerError> {
    let sql = format!("select {}, id from cuts where instance = ?1 and number = ?2", rows::CUT);
    let found = tx
        .prepare_cached(&sql)?
        .query_row((instance.as_str(), number), |row| Ok((row.get(rows::AFTER_CUT)?, rows::cut(row)?)))
        .optional()?;
    found.ok_or_else(|| LedgerError::Invalid(format!("cut {number} of {instance} is not known")))
}

/// Records are lost to the lake alone, and their loss counts no readings.
fn loss_of(cut: &Cut, noted: Timestamp, detail: &str) -> Loss {
    let records = if cut.records > 0 { format!(" with {} records", cut.records) } else { String::new() };
    let detail = format!("cut {}{records}{detail}", cut.number);
    let reason = LossReason::Dropped;
    if cut.readings == 0 {
        return losses::unknown(&cut.instance, reason, noted, &detail);
    }
    let &Cut { first_seq, last_seq, readings, .. } = cut;
    Loss { id: 0, instance: cut.instance.clone(), first_seq, last_seq, readings, reason, noted, detail }
}
