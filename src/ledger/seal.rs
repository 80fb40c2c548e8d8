//! The seal's one transaction: segments in, journal range out, mark and series forward.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::error::LedgerError;
use super::losses;
use super::mark_log;
use super::rows;
use super::segments;
use super::sessions;
use super::state::{State, move_readings, take_readings};
use super::store::Store;
use crate::model::{Cut, CutState, FileKind, Loss, LossReason, SealedCut, Seq, SeriesSummary};

/// Idempotency keys kept, newest first: two megabytes, and at a request a second more than five hours of retries.
const KEPT_IDEMPOTENCY_KEYS: i64 = 20_000;

impl Store {
    /// See [`super::Ledger::finish_seal`].
    pub fn finish_seal(&mut self, cut: &SealedCut) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| {
            let lost = check(tx, state, cut)?;
            record_cut(tx, state, cut)?;
            move_range(tx, state, cut, lost)?;
            cut.series.iter().try_for_each(|series| merge_series(tx, series))?;
            mark_log::fold(tx, state)?;
            sessions::forget_expired(tx, now)?;
            forget_idempotency(tx)?;
            fail::fail_point!("ledger.before_seal");
            Ok(())
        })?;
        fail::fail_point!("ledger.after_seal");
        let SealedCut { number, first_seq, last_seq, ref segments, .. } = *cut;
        tracing::debug!(cut = number, first_seq, last_seq, segments = segments.len(), "a cut is recorded");
        Ok(())
    }
}

fn invalid<T>(why: String) -> Result<T, LedgerError> {
    Err(LedgerError::Invalid(why))
}

/// Checks the cut against the ledger; gives how many readings of its range are lost.
fn check(tx: &Connection, state: &State, cut: &SealedCut) -> Result<u64, LedgerError> {
    let SealedCut { number, first_seq, last_seq, last_record, .. } = *cut;
    if number != state.last_cut + 1 {
        return invalid(format!("cut {number} does not follow cut {}", state.last_cut));
    }
    if first_seq != state.mark() + 1 || last_seq + 1 < first_seq || last_seq > state.last_seq() {
        let (mark, last) = (state.mark(), state.last_seq());
        return invalid(format!("cut {number} is {first_seq} through {last_seq}, hot is above {mark} through {last}"));
    }
    let newest_record: i64 = tx.query_row("select coalesce(max(id), 0) from records", [], |row| row.get(0))?;
    if last_record < state.exported_record || last_record > newest_record.max(state.exported_record) {
        return invalid(format!("record {last_record} is not between {} and {newest_record}", state.exported_record));
    }
    if cut.segments.is_empty() && cut.damaged.is_empty() {
        return invalid(format!("cut {number} is empty"));
    }
    for segment in &cut.segments {
        if segment.name.cut != number || segment.name.instance != state.identity.instance {
            return invalid(format!("segment {} is not of cut {number} of {}", segment.name, state.identity.instance));
        }
    }
    if !covers_whole_batches(tx, first_seq, last_seq)? {
        return invalid(format!("cut {number} through {last_seq} would split a batch"));
    }
    let lost = check_damaged(tx, cut)?;
    let (range, found) = (last_seq + 1 - first_seq, rows_of(cut, FileKind::Readings));
    if found + lost != range {
        return invalid(format!("cut {number} has {range} readings, its files {found} and its damaged batches {lost}"));
    }
    Ok(lost)
}

/// Whether the closed range begins and ends with batches, and holds nothing else.
fn covers_whole_batches(tx: &Connection, first_seq: Seq, last_seq: Seq) -> Result<bool, LedgerError> {
    let within = "select coalesce(sum(readings), 0) from journal where first_seq >= ?1 and first_seq + readings - 1 <= ?2";
    let readings: u64 = tx.prepare_cached(within)?.query_row((first_seq, last_seq), |row| row.get(0))?;
    Ok(readings == (last_seq + 1).saturating_sub(first_seq))
}

/// The damaged ranges are whole batches of the cut and do not overlap; gives how many readings they hold.
fn check_damaged(tx: &Connection, cut: &SealedCut) -> Result<u64, LedgerError> {
    let mut above = cut.first_seq;
    let mut lost = 0;
    for &(first, last, _) in &cut.damaged {
        if first < above || last < first || last > cut.last_seq || !covers_whole_batches(tx, first, last)? {
            return invalid(format!("{first} through {last} of cut {} are not damaged batches in order", cut.number));
        }
        lost += last + 1 - first;
        above = last + 1;
    }
    Ok(lost)
}

fn rows_of(cut: &SealedCut, kind: FileKind) -> u64 {
    cut.segments.iter().filter(|segment| segment.name.kind == kind).map(|segment| segment.rows).sum()
}

fn record_cut(tx: &Connection, state: &mut State, cut: &SealedCut) -> Result<(), LedgerError> {
    let instance = state.identity.instance.clone();
    let &SealedCut { number, first_seq, last_seq, sealed, .. } = cut;
    let (readings, records) = (rows_of(cut, FileKind::Readings), rows_of(cut, FileKind::Records));
    let row = Cut { instance, number, first_cut: number, first_seq, last_seq, readings, records, sealed, state: CutState::Sealed };
    let id = segments::insert_cut(tx, &row, false)?;
    cut.segments.iter().try_for_each(|segment| segments::insert(tx, state, id, segment))?;
    state.last_cut = number;
    state.exported_record = cut.last_record;
    Ok(())
}

fn move_range(tx: &Connection, state: &mut State, cut: &SealedCut, lost: u64) -> Result<(), LedgerError> {
    tx.prepare_cached("delete from journal where first_seq <= ?1")?.execute([cut.last_seq])?;
    let books = &mut state.books;
    move_readings(&mut books.hot, &mut books.sealed, rows_of(cut, FileKind::Readings))?;
    move_readings(&mut books.hot, &mut books.damaged, lost)?;
    take_readings(&mut books.kept, lost)?;
    for (first_seq, last_seq, detail) in &cut.damaged {
        let (first_seq, last_seq, instance) = (*first_seq, *last_seq, state.identity.instance.clone());
        let (readings, detail) = (last_seq + 1 - first_seq, format!("journal: {detail}"));
        losses::add(tx, &Loss { id: 0, instance, first_seq, last_seq, readings, reason: LossReason::Damaged, noted: cut.sealed, detail })?;
    }
    Ok(())
}

fn merge_series(tx: &Connection, later: &SeriesSummary) -> Result<(), LedgerError> {
    let known = format!("select {} from series where sensor = ?1 and metric = ?2", rows::SERIES);
    let key = (&*later.key.sensor, &*later.key.metric);
    let known = tx.prepare_cached(&known)?.query_row(key, rows::series).optional()?;
    let mut series = known.unwrap_or_else(|| SeriesSummary::empty(later.key.clone()));
    series.merge(later);
    tx.prepare_cached(
        "insert or replace into series (sensor, metric, unit, first_time, last_time, readings, last_value, last_text) \
         values (:sensor, :metric, :unit, :first_time, :last_time, :readings, :last_value, :last_text)",
    )?
    .execute(named_params! {
        ":sensor": &*series.key.sensor,
        ":metric": &*series.key.metric,
        ":unit": series.unit.as_deref(),
        ":first_time": series.first_time.map(|time| time.0),
        ":last_time": series.last_time.map(|time| time.0),
        ":readings": series.readings,
        ":last_value": series.last_value,
        ":last_text": series.last_text.as_deref(),
    })?;
    Ok(())
}

fn forget_idempotency(tx: &Connection) -> Result<(), LedgerError> {
    let old = "delete from idempotency where id <= (select max(id) from idempotency) - ?1";
    tx.prepare_cached(old)?.execute([KEPT_IDEMPOTENCY_KEYS])?;
    Ok(())
}
