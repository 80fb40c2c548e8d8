//! Losses: rows that say which readings are not kept in full, and why.

use rusqlite::Connection;
use rusqlite::named_params;

use super::error::LedgerError;
use crate::model::{InstanceId, Loss, LossReason, Timestamp};

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
