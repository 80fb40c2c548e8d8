//! Shipments: recorded with their manifest before anything is put, and again when they are delivered. One at a time.

use rusqlite::{Connection, OptionalExtension};

use super::answers::Recognised;
use super::error::LedgerError;
use super::losses;
use super::refusals;
use super::state::{State, move_readings};
use super::store::Store;
use crate::model::{CutNumber, Digest, InstanceId, Shipment, ShipmentNumber};

impl Store {
    /// See [`super::Ledger::begin_shipment`].
    pub fn begin_shipment(&mut self, shipment: &Shipment) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            check_turn(tx, shipment)?;
            let instance = shipment.instance.as_str();
            let cut = shipment.cut.map(|cut| waiting_cut(tx, shipment, cut)).transpose()?;
            let digest = Digest::of(&shipment.manifest);
            tx.prepare_cached("insert into shipments (instance, number, cut, sha256, manifest, begun) values (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute((instance, shipment.number, cut, digest.0, &shipment.manifest, now.0))?;
            losses::tell(tx, &shipment.losses, &shipment.instance, shipment.number)?;
            if shipment.instance == state.identity.instance {
                state.last_shipment = shipment.number;
            }
            Ok(())
        })
    }

    /// See [`super::Ledger::finish_shipment`].
    pub fn finish_shipment(&mut self, instance: &InstanceId, number: ShipmentNumber) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            let under_way = find_under_way(tx, instance, number)?;
            tx.prepare_cached("update shipments set delivered = ?1, manifest = null where id = ?2")?.execute((now.0, under_way.id))?;
            under_way.cut.map_or(Ok(()), |cut| deliver_cut(tx, state, instance, cut))
        })
    }

    /// See [`super::Ledger::abandon_shipment`].
    pub fn abandon_shipment(&mut self, instance: &InstanceId, number: ShipmentNumber) -> Result<(), LedgerError> {
        self.transact(|tx, state| give_up(tx, state, instance, number).map(drop))
    }

    /// See [`super::Ledger::set_aside_shipment`].
    pub fn set_aside_shipment(&mut self, instance: &InstanceId, number: ShipmentNumber, reason: &str) -> Result<(), LedgerError> {
        self.transact(|tx, state| {
            if *instance == state.identity.instance {
                return Err(LedgerError::Invalid(format!("{instance} is the current instance: begin a new one before it is set aside")));
            }
            give_up(tx, state, instance, number)?;
            tx.execute("update instances set set_aside = ?1 where name = ?2", (reason, instance.as_str()))?;
            Ok(())
        })
    }

    /// See [`super::Ledger::recognise_shipment`].
    pub fn recognise_shipment(&mut self, found: &Recognised) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            let Recognised { instance, number, cut, sha256 } = found;
            if *instance == state.identity.instance {
                return Err(LedgerError::Invalid(format!("{instance} is the current instance: nobody but this ledger ships for it")));
            }
            give_up(tx, state, instance, *number)?;
            let known = "select id, state = 'sealed' from cuts where instance = ?1 and number = ?2";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let known: Option<(i64, bool)> = tx.prepare_cached(known)?.query_row((instance.as_str(), cut), read).optional()?;
            let insert = "insert into shipments (instance, number, cut, sha256, begun, delivered) values (?1, ?2, ?3, ?4, ?5, ?5)";
            tx.execute(insert, (instance.as_str(), number, known.map(|(id, _)| id), sha256.0, now.0))?;
            match known {
                Some((cut, true)) => {
                    forget_rebuilt(tx, instance, cut)?;
                    deliver_cut(tx, state, instance, cut)
                }
                _ => Ok(()),
            }
        })
    }

    /// See [`super::Ledger::take_up_set_aside`].
    pub fn take_up_set_aside(&mut self) -> Result<(), LedgerError> {
        self.transact(|tx, _| {
            tx.execute("update instances set set_aside = null where set_aside is not null", [])?;
            Ok(())
        })
    }
}

/// What the rebuilding missed of a cut is no loss: its manifest accounts for all of it.
fn forget_rebuilt(tx: &Connection, instance: &InstanceId, cut: i64) -> Result<(), LedgerError> {
    let untold = "delete from losses where instance = ?1 and shipment is null and reason = 'rebuilt' \
                  and exists (select 1 from cuts c where c.id = ?2 and losses.first_seq >= c.first_seq and losses.last_seq <= c.last_seq)";
    tx.execute(untold, (instance.as_str(), cut))?;
    Ok(())
}

/// Forgets the shipment under way; gives the id of its cut.
pub(super) fn give_up(
    tx: &Connection,
    state: &mut State,
    instance: &InstanceId,
    number: ShipmentNumber,
) -> Result<Option<i64>, LedgerError> {
    let under_way = find_under_way(tx, instance, number)?;
    tx.execute("delete from shipments where id = ?1", [under_way.id])?;
    // Files of it may be upstream.
    tx.execute("update cuts set tried = 1 where id = ?1", [under_way.cut])?;
    tx.execute("update losses set shipment = null where instance = ?1 and shipment = ?2", (instance.as_str(), number))?;
    if *instance == state.identity.instance {
        state.last_shipment = number.saturating_sub(1);
    }
    Ok(under_way.cut)
}

/// Whether the cut with this id is being shipped: until the outcome is known, nothing of it may change.
pub(super) fn is_under_way(tx: &Connection, cut: i64) -> Result<bool, LedgerError> {
    let sql = "select exists (select 1 from shipments where delivered is null and cut = ?1)";
    Ok(tx.prepare_cached(sql)?.query_row([cut], |row| row.get(0))?)
}

fn check_turn(tx: &Connection, shipment: &Shipment) -> Result<(), LedgerError> {
    let Shipment { instance, number, .. } = shipment;
    let under_way = "select instance, number from shipments where delivered is null";
    let under_way: Option<(String, ShipmentNumber)> =
        tx.prepare_cached(under_way)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if let Some((other, open)) = under_way {
        return Err(LedgerError::Invalid(format!("shipment {open} of {other} is under way")));
    }
    let last = "select coalesce(max(number), 0) from shipments where instance = ?1";
    let last: ShipmentNumber = tx.prepare_cached(last)?.query_row([instance.as_str()], |row| row.get(0))?;
    if *number != last + 1 {
        return Err(LedgerError::Invalid(format!("shipment {number} of {instance} does not follow {last}")));
    }
    Ok(())
}

fn waiting_cut(tx: &Connection, shipment: &Shipment, number: CutNumber) -> Result<i64, LedgerError> {
    let Shipment { instance, first_cut, .. } = shipment;
    let sql = "select id from cuts where instance = ?1 and number = ?2 and first_cut = ?3 and state = 'sealed'";
    let waiting = tx.prepare_cached(sql)?.query_row((instance.as_str(), number, first_cut), |row| row.get(0)).optional()?;
    waiting.ok_or_else(|| LedgerError::Invalid(format!("cut {number} of {instance} is not waiting to be shipped as it was chosen")))
}

struct UnderWay {
    id: i64,
    /// The cut's id.
    cut: Option<i64>,
}

fn find_under_way(tx: &Connection, instance: &InstanceId, number: ShipmentNumber) -> Result<UnderWay, LedgerError> {
    let sql = "select id, cut from shipments where instance = ?1 and number = ?2 and delivered is null";
    let read = |row: &rusqlite::Row<'_>| Ok(UnderWay { id: row.get(0)?, cut: row.get(1)? });
    let found = tx.prepare_cached(sql)?.query_row((instance.as_str(), number), read).optional()?;
    found.ok_or_else(|| LedgerError::Invalid(format!("shipment {number} of {instance} is not under way")))
}

pub(super) fn deliver_cut(tx: &Connection, state: &mut State, instance: &InstanceId, cut: i64) -> Result<(), LedgerError> {
    let delivered = "update cuts set state = 'delivered' where id = ?1 returning readings";
    let readings = tx.prepare_cached(delivered)?.query_row([cut], |row| row.get(0))?;
    refusals::forget(tx, cut)?;
    if *instance == state.identity.instance {
        move_readings(&mut state.books.sealed, &mut state.books.delivered, readings)?;
    }
    Ok(())
}
