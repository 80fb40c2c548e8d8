//! The state: the one row that every transaction rewrites, with the books of the current instance.

use std::collections::HashSet;

use rusqlite::{Connection, Row, named_params};

use super::answers::{Identity, Progress};
use super::error::LedgerError;
use super::rows;
use super::segments;
use crate::model::{Books, CutNumber, SegmentName, Seq, ShipmentNumber, Tally, check_of};

/// What the thread knows without asking. A transaction changes a copy, and the copy becomes true with its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub host_id: String,
    pub identity: Identity,
    /// Highest record id exported.
    pub exported_record: i64,
    pub books: Books,
    pub tally: Tally,
    /// Last cut of the current instance.
    pub last_cut: CutNumber,
    /// Last shipment begun of the current instance.
    pub last_shipment: ShipmentNumber,
    /// Bytes of events in `mark_log`.
    pub mark_log_bytes: usize,
    /// What [`check_of`] adds up to for the segments that are here.
    pub segments_check: u64,
}

impl State {
    /// Highest committed seq: seqs have no gaps, so it is their count.
    pub fn last_seq(&self) -> Seq {
        self.books.accepted
    }

    /// Highest sealed seq: all above it are hot.
    pub fn mark(&self) -> Seq {
        self.books.accepted.saturating_sub(self.books.hot)
    }

    /// A segment is here from now on.
    pub fn take_in(&mut self, name: &SegmentName) {
        self.segments_check = self.segments_check.wrapping_add(check_of(&name.to_string()));
    }

    /// A segment is no longer here.
    pub fn let_go(&mut self, name: &SegmentName) {
        self.segments_check = self.segments_check.wrapping_sub(check_of(&name.to_string()));
    }

    pub fn progress(&self, version: u64) -> Progress {
        let Self { last_cut, last_shipment, .. } = *self;
        Progress { last_seq: self.last_seq(), mark: self.mark(), last_cut, last_shipment, version }
    }
}

const COLUMNS: &str = "s.host_id, s.instance, i.forked_from, s.exported_record, \
    s.accepted, s.hot, s.sealed, s.delivered, s.thinned, s.dropped, s.damaged, s.kept, \
    s.messages_qos0, s.messages_qos1, s.messages_qos2, s.messages_http, s.readings, s.records, \
    s.rejected, s.duplicates, s.ignored, s.skipped_members, s.times_replaced, s.segments_check, \
    (select coalesce(max(number), 0) from cuts where instance = s.instance), \
    (select coalesce(max(number), 0) from shipments where instance = s.instance), \
    (select coalesce(sum(length(events)), 0) from mark_log)";

/// Reads the row.
pub(super) fn load(connection: &Connection) -> Result<State, LedgerError> {
    let sql = format!("select {COLUMNS} from state s join instances i on i.name = s.instance");
    let (state, check) = connection.prepare_cached(&sql)?.query_row([], |row| Ok((state(row)?, row.get::<_, Option<i64>>(23)?)))?;
    // Until it is counted for the first time, after the migration.
    let check = check.map_or_else(|| segments::paths(connection).map(|paths| sum_of(&paths)), |check| Ok(check.cast_unsigned()))?;
    Ok(State { segments_check: check, ..state })
}

fn sum_of(paths: &HashSet<String>) -> u64 {
    paths.iter().fold(0, |sum, path| sum.wrapping_add(check_of(path)))
}

fn state(row: &Row<'_>) -> rusqlite::Result<State> {
    let forked_from: Option<String> = row.get(2)?;
    let identity = Identity { instance: rows::instance(row, 1)?, forked_from: forked_from.and_then(|name| name.parse().ok()) };
    let books = Books {
        accepted: row.get(4)?,
        hot: row.get(5)?,
        sealed: row.get(6)?,
        delivered: row.get(7)?,
        thinned: row.get(8)?,
        dropped: row.get(9)?,
        damaged: row.get(10)?,
        kept: row.get(11)?,
    };
    let tally = Tally {
        messages_qos0: row.get(12)?,
        messages_qos1: row.get(13)?,
        messages_qos2: row.get(14)?,
        messages_http: row.get(15)?,
        readings: row.get(16)?,
        records: row.get(17)?,
        rejected: row.get(18)?,
        duplicates: row.get(19)?,
        ignored: row.get(20)?,
        skipped_members: row.get(21)?,
        times_replaced: row.get(22)?,
    };
    Ok(State {
        host_id: row.get(0)?,
        identity,
        exported_record: row.get(3)?,
        books,
        tally,
        last_cut: row.get(24)?,
        last_shipment: row.get(25)?,
        mark_log_bytes: row.get(26)?,
        segments_check: 0,
    })
}

const SAVE: &str = "insert or replace into state (one, host_id, instance, exported_record, \
    accepted, hot, sealed, delivered, thinned, dropped, damaged, kept, \
    messages_qos0, messages_qos1, messages_qos2, messages_http, readings, records, \
    rejected, duplicates, ignored, skipped_members, times_replaced, segments_check) \
    values (1, :host_id, :instance, :exported_record, \
    :accepted, :hot, :sealed, :delivered, :thinned, :dropped, :damaged, :kept, \
    :messages_qos0, :messages_qos1, :messages_qos2, :messages_http, :readings, :records, \
    :rejected, :duplicates, :ignored, :skipped_members, :times_replaced, :segments_check)";

/// Writes the row.
pub(super) fn save(connection: &Connection, state: &State) -> Result<(), LedgerError> {
    let State { books, tally, .. } = state;
    connection.prepare_cached(SAVE)?.execute(named_params! {
        ":host_id": state.host_id,
        ":instance": state.identity.instance.as_str(),
        ":exported_record": state.exported_record,
        ":accepted": books.accepted,
        ":hot": books.hot,
        ":sealed": books.sealed,
        ":delivered": books.delivered,
        ":thinned": books.thinned,
        ":dropped": books.dropped,
        ":damaged": books.damaged,
        ":kept": books.kept,
        ":messages_qos0": tally.messages_qos0,
        ":messages_qos1": tally.messages_qos1,
        ":messages_qos2": tally.messages_qos2,
        ":messages_http": tally.messages_http,
        ":readings": tally.readings,
        ":records": tally.records,
        ":rejected": tally.rejected,
        ":duplicates": tally.duplicates,
        ":ignored": tally.ignored,
        ":skipped_members": tally.skipped_members,
        ":times_replaced": tally.times_replaced,
        ":segments_check": state.segments_check.cast_signed(),
    })?;
    Ok(())
}

/// Moves `count` readings from one place of the books to another.
///
/// # Errors
/// There are fewer than `count` in the place they come from: the call contradicts the books.
pub(super) fn move_readings(from: &mut u64, to: &mut u64, count: u64) -> Result<(), LedgerError> {
    take_readings(from, count)?;
    *to += count;
    Ok(())
}

/// Takes `count` readings out of a place of the books.
pub(super) fn take_readings(from: &mut u64, count: u64) -> Result<(), LedgerError> {
    let left = from.checked_sub(count);
    *from = left.ok_or_else(|| LedgerError::Invalid(format!("{count} readings are to leave where there are {from}")))?;
    Ok(())
}
