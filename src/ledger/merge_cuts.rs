//! Merges of cuts: neighbours that are not delivered become one, as if they had been sealed at once. The books do not change.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};

use super::answers::Waiting;
use super::error::LedgerError;
use super::merge::give_way;
use super::reader::{Reader, bounded};
use super::rows;
use super::segments;
use super::state::{State, take_readings};
use super::store::Store;
use crate::model::{Cut, CutNumber, FileKind, InstanceId, Segment, Timestamp};

/// What a cut must be to be merged, of a row of cuts: it waits, and nothing of it may be upstream.
const FREE: &str = "state = 'sealed' and tried = 0 \
                    and id not in (select cut from shipments where delivered is null and cut is not null)";

impl Store {
    /// See [`super::Ledger::merge_cuts`].
    pub fn merge_cuts(&mut self, instance: &InstanceId, sources: &[CutNumber], segments: &[Segment]) -> Result<(), LedgerError> {
        self.transact(|tx, state| {
            if *instance != state.identity.instance {
                return invalid(format!("{instance} is not the current instance: its cuts stay as they are"));
            }
            let sources = sources.iter().map(|number| free_cut(tx, instance, *number)).collect::<Result<Vec<_>, _>>()?;
            let (last, merged) = union(&sources)?;
            let files = sources.iter().map(|(id, _)| present(tx, *id)).collect::<Result<Vec<_>, _>>()?.concat();
            check(&merged, segments, &files)?;
            for (id, source) in &files {
                give_way(tx, state, *id, &source.name)?;
            }
            for (id, _) in sources.iter().filter(|(id, _)| *id != last) {
                set_merged(tx, *id)?;
            }
            widen(tx, last, &merged)?;
            segments.iter().try_for_each(|segment| segments::insert(tx, state, last, segment))?;
            fail::fail_point!("ledger.before_merge_cuts");
            Ok(())
        })?;
        fail::fail_point!("ledger.after_merge_cuts");
        Ok(())
    }
}

fn invalid<T>(why: String) -> Result<T, LedgerError> {
    Err(LedgerError::Invalid(why))
}

fn free_cut(tx: &Connection, instance: &InstanceId, number: CutNumber) -> Result<(i64, Cut), LedgerError> {
    let sql = format!("select {}, id from cuts where instance = ?1 and number = ?2 and {FREE}", rows::CUT);
    let read = |row: &Row<'_>| Ok((row.get(rows::AFTER_CUT)?, rows::cut(row)?));
    let free = tx.prepare_cached(&sql)?.query_row((instance.as_str(), number), read).optional()?;
    free.ok_or_else(|| LedgerError::Invalid(format!("cut {number} of {instance} is not waiting, or something of it may be upstream")))
}

/// What neighbours become, and the id of the last of them, whose place it takes.
fn union(sources: &[(i64, Cut)]) -> Result<(i64, Cut), LedgerError> {
    for ((_, cut), (_, next)) in sources.iter().zip(sources.iter().skip(1)) {
        if !cut.is_followed_by(next) {
            return invalid(format!("cut {} does not follow cut {}", next.number, cut.number));
        }
    }
    let (Some((_, first)), Some((id, last)), 2..) = (sources.first(), sources.last(), sources.len()) else {
        return invalid("a merge takes two cuts at least".to_owned());
    };
    let sum = |of: fn(&Cut) -> u64| sources.iter().map(|(_, cut)| of(cut)).sum();
    let (readings, records) = (sum(|cut| cut.readings), sum(|cut| cut.records));
    Ok((*id, Cut { first_cut: first.first_cut, first_seq: first.first_seq, readings, records, ..last.clone() }))
}

/// The files of a cut that are here, with their ids.
fn present(tx: &Connection, cut: i64) -> Result<Vec<(i64, Segment)>, LedgerError> {
    let sql =
        format!("select {}, s.id from segments s join cuts c on c.id = s.cut where s.cut = ?1 and s.state = 'present'", rows::SEGMENT);
    let mut statement = tx.prepare_cached(&sql)?;
    let found = statement.query_map([cut], |row| Ok((row.get(rows::AFTER_SEGMENT)?, rows::segment(row)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Checks that `segments` are the files of `merged`, and hold as many rows of each kind and date as `files` do.
fn check(merged: &Cut, segments: &[Segment], files: &[(i64, Segment)]) -> Result<(), LedgerError> {
    let rows_of = |all: &mut dyn Iterator<Item = &Segment>| {
        let mut rows: BTreeMap<(FileKind, String), u64> = BTreeMap::new();
        all.for_each(|segment| *rows.entry((segment.name.kind, segment.name.date.clone())).or_default() += segment.rows);
        rows
    };
    let wrong = segments
        .iter()
        .find(|Segment { name, .. }| (&name.instance, name.first_cut, name.cut) != (&merged.instance, merged.first_cut, merged.number));
    if let Some(Segment { name, .. }) = wrong {
        return invalid(format!("{name} is not of cuts {} through {} of {}", merged.first_cut, merged.number, merged.instance));
    }
    let (before, after) = (rows_of(&mut files.iter().map(|(_, file)| file)), rows_of(&mut segments.iter()));
    if before != after || after.len() != segments.len() {
        return invalid(format!(
            "cuts {} through {} have {before:?}, and what they were merged to {after:?}",
            merged.first_cut, merged.number
        ));
    }
    Ok(())
}

fn set_merged(tx: &Connection, cut: i64) -> Result<(), LedgerError> {
    tx.prepare_cached("update cuts set state = 'merged' where id = ?1")?.execute([cut])?;
    Ok(())
}

/// The cut with this id is what it was merged to from now on.
fn widen(tx: &Connection, id: i64, merged: &Cut) -> Result<(), LedgerError> {
    let Cut { first_cut, first_seq, last_seq, readings, records, .. } = merged;
    let widen = "update cuts set first_cut = ?2, first_seq = ?3, last_seq = ?4, readings = ?5, records = ?6 where id = ?1";
    tx.prepare_cached(widen)?.execute((id, first_cut, first_seq, last_seq, readings, records))?;
    Ok(())
}

/// The ledger is older than the merge to `merged`: what it knows of its sources gives way, and its row is there; gives the id.
pub(super) fn adopt(tx: &Connection, state: &mut State, merged: &Cut) -> Result<i64, LedgerError> {
    let sql = "select id, number from cuts where instance = ?1 and first_cut >= ?2 and number <= ?3 and state = 'sealed'";
    let mut statement = tx.prepare_cached(sql)?;
    let known = statement.query_map((merged.instance.as_str(), merged.first_cut, merged.number), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let known: Vec<(i64, CutNumber)> = known.collect::<Result<_, _>>()?;
    for (cut, _) in &known {
        for (id, source) in present(tx, *cut)? {
            give_way(tx, state, id, &source.name)?;
            if source.name.kind == FileKind::Readings {
                take_readings(&mut state.books.kept, source.rows)?;
            }
        }
        set_merged(tx, *cut)?;
    }
    let Some((last, _)) = known.iter().find(|(_, number)| *number == merged.number) else {
        return segments::insert_cut(tx, merged, true);
    };
    widen(tx, *last, merged)?;
    tx.prepare_cached("update cuts set state = 'sealed', tried = 1 where id = ?1")?.execute([last])?;
    Ok(*last)
}

impl Reader {
    /// Cuts of the current instance with numbers above `after` that wait, of which nothing may be upstream, that were sealed
    /// before `sealed_before` and have fewer than `rows` readings and records: by number, at most `limit`.
    pub fn waiting(&self, after: CutNumber, sealed_before: Timestamp, rows: u64, limit: usize) -> Result<Vec<Waiting>, LedgerError> {
        let sql = format!(
            "select {}, (select group_concat(distinct date) from segments where cut = c.id and state = 'present') from cuts c \
             where {FREE} and instance = (select instance from state) and number > ?1 and sealed < ?2 \
             and readings + records between 1 and ?3 - 1 order by number limit ?4",
            rows::CUT
        );
        self.all(&sql, (after, sealed_before.0, rows, bounded(limit)), |row| {
            let dates: Option<String> = row.get(rows::AFTER_CUT)?;
            Ok(Waiting { cut: rows::cut(row)?, dates: dates.iter().flat_map(|dates| dates.split(',')).map(str::to_owned).collect() })
        })
    }
}
