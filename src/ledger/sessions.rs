//! Sessions: peers that outlive their connections, with the marks of what they were told is kept.

use rusqlite::{Connection, OptionalExtension};

use super::answers::StoredSession;
use super::error::LedgerError;
use super::mark_log::{self, LONG_LOG_BYTES};
use super::state::State;
use super::store::Store;
use crate::model::{MarkEvent, SessionId, SessionMarks, Timestamp};

/// Sessions kept; beyond it the one unused longest is ended. A gateway has hundreds; this bounds what strangers can leave.
const MAX_SESSIONS: u64 = 10_000;

/// Bytes of one mark in a row: packet id and digest.
const MARK_BYTES: usize = 10;

impl Store {
    /// See [`super::Ledger::open_session`].
    pub fn open_session(&mut self, name: &str) -> Result<StoredSession, LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            if state.mark_log_bytes > LONG_LOG_BYTES {
                mark_log::fold(tx, state)?;
            }
            let known = "select id from sessions where name = ?1";
            match tx.prepare_cached(known)?.query_row([name], |row| row.get(0)).optional()? {
                Some(id) => reopen(tx, id, now),
                None => create(tx, name, now),
            }
        })
    }

    /// See [`super::Ledger::end_session`].
    pub fn end_session(&mut self, name: &str) -> Result<(), LedgerError> {
        self.transact(|tx, _: &mut State| {
            tx.prepare_cached("delete from sessions where name = ?1")?.execute([name])?;
            Ok(())
        })
    }
}

fn reopen(tx: &Connection, id: SessionId, now: Timestamp) -> Result<StoredSession, LedgerError> {
    let mut marks = marks_of(tx, id)?.unwrap_or_default();
    mark_log::replay(tx, id, &mut marks)?;
    let used = next_use(tx, now)?;
    tx.prepare_cached("update sessions set last_used = ?1 where id = ?2")?.execute((used, id))?;
    Ok(StoredSession { id, marks, present: true })
}

fn create(tx: &Connection, name: &str, now: Timestamp) -> Result<StoredSession, LedgerError> {
    let count: u64 = tx.prepare_cached("select count(*) from sessions")?.query_row([], |row| row.get(0))?;
    if count >= MAX_SESSIONS {
        let unused = "delete from sessions where id = (select id from sessions order by last_used limit 1) returning name";
        let ended: Option<String> = tx.prepare_cached(unused)?.query_row([], |row| row.get(0)).optional()?;
        tracing::warn!(ended, limit = MAX_SESSIONS, "too many sessions: the one unused longest is ended");
    }
    let used = next_use(tx, now)?;
    tx.prepare_cached("insert into sessions (name, opened, last_used, marks) values (?1, ?2, ?3, x'')")?.execute((name, now.0, used))?;
    let id = SessionId::try_from(tx.last_insert_rowid()).map_err(|_| LedgerError::Invalid("no session numbers are left".to_owned()))?;
    Ok(StoredSession { id, marks: SessionMarks::default(), present: false })
}

/// Now, or just above the latest use where the clock went back: the order of use must hold, not the time.
fn next_use(tx: &Connection, now: Timestamp) -> Result<i64, LedgerError> {
    let latest: Option<i64> = tx.prepare_cached("select max(last_used) from sessions")?.query_row([], |row| row.get(0))?;
    Ok(latest.map_or(now.0, |latest| now.0.max(latest.saturating_add(1))))
}

/// The marks of a session as of the last fold; `None` if it is not known.
pub(super) fn marks_of(tx: &Connection, session: SessionId) -> Result<Option<SessionMarks>, LedgerError> {
    let marks: Option<Vec<u8>> =
        tx.prepare_cached("select marks from sessions where id = ?1")?.query_row([session], |row| row.get(0)).optional()?;
    Ok(marks.map(|bytes| decode(session, &bytes)))
}

/// Rewrites the marks of a session; that they changed shows that it is in use.
pub(super) fn store_marks(tx: &Connection, session: SessionId, marks: &SessionMarks) -> Result<(), LedgerError> {
    tx.prepare_cached("update sessions set marks = ?1, last_used = (select max(last_used) + 1 from sessions) where id = ?2")?
        .execute((encode(marks), session))?;
    Ok(())
}

fn encode(marks: &SessionMarks) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(marks.len() * MARK_BYTES);
    for (packet_id, digest) in marks.iter() {
        bytes.extend(packet_id.to_le_bytes());
        bytes.extend(digest.to_le_bytes());
    }
    bytes
}

fn decode(session: SessionId, bytes: &[u8]) -> SessionMarks {
    let mut marks = SessionMarks::default();
    let mut rest = bytes;
    while let Some((packet_id, after)) = rest.split_first_chunk() {
        let Some((digest, after)) = after.split_first_chunk() else {
            break;
        };
        let (packet_id, digest) = (u16::from_le_bytes(*packet_id), u64::from_le_bytes(*digest));
        marks.apply(&MarkEvent::Noted { session, packet_id, digest });
        rest = after;
    }
    marks
}
