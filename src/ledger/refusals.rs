//! Cuts that upstream refused: passed over, so that they block nothing else, and tried again a day later or on demand.

use rusqlite::{Connection, OptionalExtension};

use super::error::LedgerError;
use super::shipments;
use super::store::Store;
use crate::model::{InstanceId, ShipmentNumber, Timestamp};

/// Which refused cuts are to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// All of them.
    All,
    /// Those that were refused only once: perhaps not for what they are.
    RefusedOnce,
    /// Those whose time has come.
    Due,
}

/// The cuts that upstream refuses, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals {
    /// How many.
    pub cuts: u64,
    /// Readings in them.
    pub readings: u64,
    /// Why the latest of them was.
    pub reason: String,
    /// When the next of them is tried again.
    pub again: Timestamp,
}

impl Store {
    /// See [`super::Ledger::refuse_shipment`].
    pub fn refuse_shipment(
        &mut self,
        instance: &InstanceId,
        number: ShipmentNumber,
        reason: &str,
        again: Timestamp,
    ) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            let Some(cut) = shipments::give_up(tx, state, instance, number)? else {
                return Err(LedgerError::Invalid(format!("shipment {number} of {instance} brings no cut that could be passed over")));
            };
            tx.prepare_cached(
                "insert into refused (cut, reason, since, again, times) values (?1, ?2, ?3, ?4, 1) \
                 on conflict (cut) do update set reason = excluded.reason, again = excluded.again, times = times + 1",
            )?
            .execute((cut, reason, now.0, again.0))?;
            Ok(())
        })
    }

    /// See [`super::Ledger::retry_refused`].
    pub fn retry_refused(&mut self, which: Retry) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, _| {
            match which {
                Retry::All => tx.execute("update refused set again = null", []),
                Retry::RefusedOnce => tx.execute("update refused set again = null where times = 1", []),
                Retry::Due => tx.execute("update refused set again = null where again <= ?1", [now.0]),
            }?;
            Ok(())
        })
    }
}

/// It is delivered after all.
pub(super) fn forget(tx: &Connection, cut: i64) -> Result<(), LedgerError> {
    tx.prepare_cached("delete from refused where cut = ?1")?.execute([cut])?;
    Ok(())
}

/// What is passed over now.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<Option<Refusals>> {
    let sql = "select count(*) over (), sum(c.readings) over (), r.reason, min(r.again) over () from refused r \
               join cuts c on c.id = r.cut where c.state = 'sealed' and r.again is not null order by r.since desc, r.cut desc limit 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Refusals { cuts: row.get(0)?, readings: row.get(1)?, reason: row.get(2)?, again: Timestamp(row.get(3)?) })
    };
    connection.prepare_cached(sql)?.query_row([], read).optional()
}
