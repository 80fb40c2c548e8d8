//! Losses: rows that say which readings are not kept in full, and why.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::error::LedgerError;
use crate::model::{InstanceId, Loss, LossReason, Seq, Timestamp};

/// Losses that no shipment carries, beyond which a new one is added to the one before it: a link that is down for years
/// must not fill the ledger with them. It is as many as one manifest takes.
const MAX_UNTOLD: u64 = 1000;

/// A loss whose range nobody knows: `0..0`, no readings counted.
pub(super) fn unknown(instance: &InstanceId, reason: LossReason, noted: Timestamp, detail: &str) -> Loss {
    Loss { id: 0, instance: instance.clone(), first_seq: 0, last_seq: 0, readings: 0, reason, noted, detail: detail.to_owned() }
}

/// Adds `loss` under the next id; the one it carries is not looked at.
pub(super) fn add(tx: &Connection, loss: &Loss) -> Result<(), LedgerError> {
    tx.prepare_cached(
        "insert into losses (instance, first_seq, last_seq, readings, reason, noted, detail) \
         values (:instance, :first_seq, :last_seq, :readings, :reason, :noted, :detail)",
    )?
    .execute(named_params! {
        ":instance": loss.instance.as_str(),
        ":first_seq": loss.first_seq,
        ":last_seq": loss.last_seq,
        ":readings": loss.readings,
        ":reason": loss.reason.as_str(),
        ":noted": loss.noted.0,
        ":detail": loss.detail,
    })?;
    let Loss { instance, first_seq, last_seq, readings, reason, detail, .. } = loss;
    tracing::error!(%instance, first_seq, last_seq, readings, reason = reason.as_str(), detail, "a loss");
    Ok(())
}

/// Adds `loss`; where very many are untold already, the newest of its instance takes it up if their ranges touch.
pub(super) fn add_or_extend(tx: &Connection, loss: &Loss) -> Result<(), LedgerError> {
    let untold: u64 = tx.prepare_cached("select count(*) from losses where shipment is null")?.query_row([], |row| row.get(0))?;
    if untold < MAX_UNTOLD {
        return add(tx, loss);
    }
    let newest = "select id, last_seq, reason from losses where instance = ?1 and shipment is null order by id desc limit 1";
    let newest: Option<(u64, Seq, String)> =
        tx.prepare_cached(newest)?.query_row([loss.instance.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    match newest {
        Some((id, last_seq, reason)) if reason == loss.reason.as_str() && (last_seq + 1 == loss.first_seq || loss.last_seq == last_seq) => {
            let extend = "update losses set last_seq = ?1, readings = readings + ?2, noted = ?3, detail = ?4 where id = ?5";
            let detail = format!("the last of several: {}", loss.detail);
            tx.prepare_cached(extend)?.execute((loss.last_seq, loss.readings, loss.noted.0, detail, id))?;
            let Loss { instance, first_seq, last_seq, readings, .. } = loss;
            tracing::error!(%instance, first_seq, last_seq, readings, reason, loss = id, "a loss, added to one before it");
            Ok(())
        }
        _ => add(tx, loss),
    }
}

/// Marks `ids` as told by `shipment` of `instance`.
///
/// # Errors
/// `Invalid`: one of them is another instance's, told already, or not there.
pub(super) fn tell(tx: &Connection, ids: &[u64], instance: &InstanceId, shipment: u64) -> Result<(), LedgerError> {
    let mut statement = tx.prepare_cached("update losses set shipment = ?1 where id = ?2 and instance = ?3 and shipment is null")?;
    for id in ids {
        if statement.execute((shipment, id, instance.as_str()))? != 1 {
            return Err(LedgerError::Invalid(format!("loss {id} is not an untold loss of {instance}")));
        }
    }
    Ok(())
}
