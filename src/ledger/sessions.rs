//! Sessions: peers that outlive their connections, with the marks of what they were told is kept.
//!
//! A session may expire some time after its connection ended. That is judged by the wall clock, when it is opened again
//! and at each seal. A clock that leaps ends sessions early: what was on its way at that moment may then be stored twice,
//! as after any session that is lost.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::answers::StoredSession;
use super::error::LedgerError;
use super::mark_log::{self, LONG_LOG_BYTES};
use super::state::State;
use super::store::Store;
use crate::model::{MarkEvent, MessageDigest, SessionId, SessionMarks, Timestamp};

/// Sessions kept; beyond it the one unused longest is ended. A gateway has hundreds; this bounds what strangers can leave.
const MAX_SESSIONS: u64 = 10_000;

/// Bytes of one mark in a row: packet id and digest.
const MARK_BYTES: usize = 10;

impl Store {
    /// See [`super::Ledger::open_session`].
    pub fn open_session(&mut self, name: &str, expiry: Option<Duration>) -> Result<StoredSession, LedgerError> {
        let now = self.now();
        self.transact(|tx, state| match resume(tx, state, name, expiry, now)? {
            Some(session) => Ok(session),
            None => create(tx, name, expiry, now),
        })
    }

    /// See [`super::Ledger::resume_session`].
    pub fn resume_session(&mut self, name: &str, expiry: Option<Duration>) -> Result<Option<StoredSession>, LedgerError> {
        let now = self.now();
        self.transact(|tx, state| resume(tx, state, name, expiry, now))
    }

    /// See [`super::Ledger::leave_session`].
    pub fn leave_session(&mut self, name: &str, expiry: Duration) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, _: &mut State| {
            tx.prepare_cached("update sessions set expiry = ?1, expires = ?2 + ?1 * 1000000 where name = ?3")?.execute((
                expiry.as_secs(),
                now.0,
                name,
            ))?;
            Ok(())
        })
    }

    /// See [`super::Ledger::leave_sessions`].
    pub fn leave_sessions(&mut self) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, _: &mut State| {
            let left = "update sessions set expires = ?1 + expiry * 1000000 where expiry is not null and expires is null";
            tx.execute(left, [now.0])?;
            Ok(())
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

/// Removes the sessions whose time is over, with their marks.
pub(super) fn forget_expired(tx: &Connection, now: Timestamp) -> Result<(), LedgerError> {
    tx.prepare_cached("delete from sessions where expiry is not null and expires <= ?1")?.execute([now.0])?;
    Ok(())
}

fn resume(
    tx: &Connection,
    state: &mut State,
    name: &str,
    expiry: Option<Duration>,
    now: Timestamp,
) -> Result<Option<StoredSession>, LedgerError> {
    if state.mark_log_bytes > LONG_LOG_BYTES {
        mark_log::fold(tx, state)?;
    }
    tx.prepare_cached("delete from sessions where name = ?1 and expires <= ?2")?.execute((name, now.0))?;
    let known: Option<SessionId> =
        tx.prepare_cached("select id from sessions where name = ?1")?.query_row([name], |row| row.get(0)).optional()?;
    let Some(id) = known else { return Ok(None) };
    let mut marks = marks_of(tx, id)?.unwrap_or_default();
    mark_log::replay(tx, id, &mut marks)?;
    let (used, seconds) = (next_use(tx, now)?, expiry.map(|expiry| expiry.as_secs()));
    tx.prepare_cached("update sessions set last_used = ?1, expiry = ?2, expires = null where id = ?3")?.execute((used, seconds, id))?;
    Ok(Some(StoredSession { id, marks, present: true }))
}

fn create(tx: &Connection, name: &str, expiry: Option<Duration>, now: Timestamp) -> Result<StoredSession, LedgerError> {
    let count: u64 = tx.prepare_cached("select count(*) from sessions")?.query_row([], |row| row.get(0))?;
    if count >= MAX_SESSIONS {
        let unused = "delete from sessions where id = (select id from sessions order by last_used limit 1) returning name";
        let ended: Option<String> = tx.prepare_cached(unused)?.query_row([], |row| row.get(0)).optional()?;
        tracing::warn!(ended, limit = MAX_SESSIONS, "too many sessions: the one unused longest is ended");
    }
    let (used, seconds) = (next_use(tx, now)?, expiry.map(|expiry| expiry.as_secs()));
    tx.prepare_cached("insert into sessions (name, opened, last_used, marks, expiry) values (?1, ?2, ?3, x'', ?4)")?
        .execute((name, now.0, used, seconds))?;
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
    let known: Option<(Vec<u8>, Vec<u8>)> = tx
        .prepare_cached("select marks, held from sessions where id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(known.map(|(marks, held)| {
        let mut known = SessionMarks::default();
        each_mark(&marks, |packet_id, digest| known.apply(&MarkEvent::Noted { session, packet_id, digest }));
        each_mark(&held, |packet_id, digest| known.apply(&MarkEvent::Received { session, packet_id, digest }));
        known
    }))
}

/// Rewrites the marks of a session; that they changed shows that it is in use.
pub(super) fn store_marks(tx: &Connection, session: SessionId, marks: &SessionMarks) -> Result<(), LedgerError> {
    tx.prepare_cached("update sessions set marks = ?1, held = ?2, last_used = (select max(last_used) + 1 from sessions) where id = ?3")?
        .execute((encode(marks.iter()), encode(marks.iter_held()), session))?;
    Ok(())
}

fn encode(marks: impl Iterator<Item = (u16, MessageDigest)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(marks.size_hint().0 * MARK_BYTES);
    for (packet_id, digest) in marks {
        bytes.extend(packet_id.to_le_bytes());
        bytes.extend(digest.to_le_bytes());
    }
    bytes
}

fn each_mark(bytes: &[u8], mut take: impl FnMut(u16, MessageDigest)) {
    let mut rest = bytes;
    while let Some((packet_id, after)) = rest.split_first_chunk() {
        let Some((digest, after)) = after.split_first_chunk() else {
            break;
        };
        take(u16::from_le_bytes(*packet_id), u64::from_le_bytes(*digest));
        rest = after;
    }
}
