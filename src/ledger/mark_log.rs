//! The mark log: changes of session marks as they were committed, a row a commit, until a fold gives them to their sessions.
//!
//! A mark must be durable with each batch, but writing every session's marks anew each second would wear out the flash:
//! a commit appends some fifteen bytes a message instead. A fold (at each seal, and before the log gets long to read)
//! rewrites only the sessions that the log names.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::Connection;

use super::error::LedgerError;
use super::sessions;
use super::state::State;
use crate::model::{MarkEvent, SessionId, SessionMarks};

/// The log at which opening a session folds it first: reading this much takes about a millisecond.
pub(super) const LONG_LOG_BYTES: usize = 256 << 10;

const NOTED: u8 = 1;
const PROVEN: u8 = 2;
const ENDED: u8 = 3;
const RECEIVED: u8 = 4;
const RELEASED: u8 = 5;

/// Appends the events of one commit.
pub(super) fn append(tx: &Connection, state: &mut State, events: &[MarkEvent]) -> Result<(), LedgerError> {
    if events.is_empty() {
        return Ok(());
    }
    let bytes = encode(events);
    tx.prepare_cached("insert into mark_log (events) values (?1)")?.execute([&bytes])?;
    state.mark_log_bytes += bytes.len();
    Ok(())
}

/// Applies what the log says of `session` to its `marks`.
pub(super) fn replay(tx: &Connection, session: SessionId, marks: &mut SessionMarks) -> Result<(), LedgerError> {
    each_event(tx, |event| {
        if event.session() == session {
            marks.apply(event);
        }
        Ok(())
    })
}

/// Gives every session its marks and empties the log. Events of sessions that ended are dropped.
pub(super) fn fold(tx: &Connection, state: &mut State) -> Result<(), LedgerError> {
    if state.mark_log_bytes == 0 {
        return Ok(());
    }
    let mut touched: BTreeMap<SessionId, Option<SessionMarks>> = BTreeMap::new();
    each_event(tx, |event| {
        let session = event.session();
        let marks = match touched.entry(session) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(sessions::marks_of(tx, session)?),
        };
        if let Some(marks) = marks {
            marks.apply(event);
        }
        Ok(())
    })?;
    for (session, marks) in touched {
        if let Some(marks) = marks {
            sessions::store_marks(tx, session, &marks)?;
        }
    }
    tx.execute("delete from mark_log", [])?;
    state.mark_log_bytes = 0;
    Ok(())
}

fn each_event(tx: &Connection, mut take: impl FnMut(&MarkEvent) -> Result<(), LedgerError>) -> Result<(), LedgerError> {
    let mut statement = tx.prepare_cached("select id, events from mark_log order by id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, bytes): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Some((event, after)) = decode(rest) else {
                // The readings are not touched by this; a redelivery may be stored twice.
                tracing::error!(row = id, bytes = rest.len(), "session marks are damaged and left out");
                break;
            };
            take(&event)?;
            rest = after;
        }
    }
    Ok(())
}

fn encode(events: &[MarkEvent]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(events.len() * 15);
    for event in events {
        let kind = match event {
            MarkEvent::Noted { .. } => NOTED,
            MarkEvent::Proven { .. } => PROVEN,
            MarkEvent::Ended { .. } => ENDED,
            MarkEvent::Received { .. } => RECEIVED,
            MarkEvent::Released { .. } => RELEASED,
        };
        bytes.push(kind);
        bytes.extend(event.session().to_le_bytes());
        match *event {
            MarkEvent::Noted { packet_id, digest, .. } | MarkEvent::Received { packet_id, digest, .. } => {
                bytes.extend(packet_id.to_le_bytes());
                bytes.extend(digest.to_le_bytes());
            }
            MarkEvent::Proven { count, .. } => bytes.extend(count.to_le_bytes()),
            MarkEvent::Released { packet_id, .. } => bytes.extend(packet_id.to_le_bytes()),
            MarkEvent::Ended { .. } => {}
        }
    }
    bytes
}

/// The first event of `bytes` and what follows it; `None` where they are cut off or of an unknown kind.
fn decode(bytes: &[u8]) -> Option<(MarkEvent, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (session, rest) = rest.split_first_chunk()?;
    let session = SessionId::from_le_bytes(*session);
    match *kind {
        NOTED | RECEIVED => {
            let (packet_id, rest) = rest.split_first_chunk()?;
            let (digest, rest) = rest.split_first_chunk()?;
            let (packet_id, digest) = (u16::from_le_bytes(*packet_id), u64::from_le_bytes(*digest));
            let noted = *kind == NOTED;
            let event =
                if noted { MarkEvent::Noted { session, packet_id, digest } } else { MarkEvent::Received { session, packet_id, digest } };
            Some((event, rest))
        }
        RELEASED => {
            let (packet_id, rest) = rest.split_first_chunk()?;
            Some((MarkEvent::Released { session, packet_id: u16::from_le_bytes(*packet_id) }, rest))
        }
        PROVEN => {
            let (count, rest) = rest.split_first_chunk()?;
            Some((MarkEvent::Proven { session, count: u32::from_le_bytes(*count) }, rest))
        }
        ENDED => Some((MarkEvent::Ended { session }, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went_and_cut_off_ones_do_not_come() {
        let events = [
            MarkEvent::Noted { session: 7, packet_id: 65_535, digest: u64::MAX - 1 },
            MarkEvent::Proven { session: u32::MAX, count: 9 },
            MarkEvent::Received { session: 7, packet_id: 1, digest: 3 },
            MarkEvent::Released { session: 7, packet_id: 1 },
            MarkEvent::Ended { session: 1 },
        ];
        let bytes = encode(&events);
        let mut rest = bytes.as_slice();
        for event in events {
            let (found, after) = decode(rest).unwrap();
            assert_eq!(found, event);
            rest = after;
        }
        assert!(rest.is_empty());
        assert_eq!(decode(&bytes[..14]), None);
        assert_eq!(decode(&[9, 0, 0, 0, 0]), None);
    }
}
