//! Merges: delivered segments give way to one that holds their rows. The books do not change. Of cuts: `merge_cuts`.

use rusqlite::{Connection, OptionalExtension};

use super::answers::{Group, Standing};
use super::error::LedgerError;
use super::reader::Reader;
use super::rows;
use super::segments::{self, Known};
use super::shipments;
use super::state::{State, take_readings};
use super::store::Store;
use crate::model::{Cut, CutState, FileKind, Segment, SegmentName, Timestamp};

/// The segments of one kind, date and instance that are here; their cuts may be joined as `c`.
const OF_GROUP: &str = "s.state = 'present' and s.kind = ?1 and s.date = ?2 and c.instance = ?3";

/// Of these the ones that a merged segment from the cut `?4` through `?5` holds.
const WITHIN: &str = "s.first_cut >= ?4 and c.number <= ?5";

impl Store {
    /// See [`super::Ledger::finish_merge`].
    pub fn finish_merge(&mut self, merged: &Segment, sources: &[SegmentName]) -> Result<(), LedgerError> {
        self.transact(|tx, state| {
            let sources = sources.iter().map(|name| segments::find(tx, name)).collect::<Result<Vec<_>, _>>()?;
            let last = check(tx, merged, &sources)?;
            for source in &sources {
                give_way(tx, state, source.id, &source.segment.name)?;
            }
            segments::insert(tx, state, last, merged)?;
            fail::fail_point!("ledger.before_merge");
            Ok(())
        })?;
        fail::fail_point!("ledger.after_merge");
        Ok(())
    }
}

fn invalid<T>(why: String) -> Result<T, LedgerError> {
    Err(LedgerError::Invalid(why))
}

/// Checks that `merged` is what `sources` were; gives the id of its last cut.
fn check(tx: &Connection, merged: &Segment, sources: &[Known]) -> Result<i64, LedgerError> {
    let name = &merged.name;
    for Known { cut_state, here, segment, .. } in sources {
        if here != "present" || *cut_state != CutState::Delivered {
            return invalid(format!("segment {} is {here} and its cut {}", segment.name, rows::cut_state_word(*cut_state)));
        }
        if !name.holds(&segment.name) {
            return invalid(format!("segment {} is not within {name}", segment.name));
        }
    }
    let rows: u64 = sources.iter().map(|source| source.segment.rows).sum();
    let first = sources.iter().map(|source| source.segment.name.first_cut).min();
    let last = sources.iter().find(|source| source.segment.name.cut == name.cut);
    let within = present_within(tx, name)?.len();
    match last {
        Some(last) if rows == merged.rows && first == Some(name.first_cut) && within == sources.len() => Ok(last.cut),
        _ => invalid(format!("{name} with {} rows is not its {} sources with {rows} rows: {within} are there", merged.rows, sources.len())),
    }
}

/// The segments that are here and that `name` holds: id, and name with everything.
fn present_within(tx: &Connection, name: &SegmentName) -> Result<Vec<(i64, Segment)>, LedgerError> {
    let sql = format!("select {}, s.id from segments s join cuts c on c.id = s.cut where {OF_GROUP} and {WITHIN}", rows::SEGMENT);
    let mut statement = tx.prepare_cached(&sql)?;
    let group = (name.kind.as_str(), &name.date, name.instance.as_str(), name.first_cut, name.cut);
    let found = statement.query_map(group, |row| Ok((row.get(rows::AFTER_SEGMENT)?, rows::segment(row)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What the segment held is in a merged one from now on.
pub(super) fn give_way(tx: &Connection, state: &mut State, id: i64, name: &SegmentName) -> Result<(), LedgerError> {
    tx.prepare_cached("update segments set state = 'merged' where id = ?1")?.execute([id])?;
    state.let_go(name);
    Ok(())
}

/// Takes a merged file that the ledger does not know, because it is older than the merge. What it holds was delivered.
pub(super) fn adopt(tx: &Connection, state: &mut State, file: &Segment, now: Timestamp) -> Result<(), LedgerError> {
    let name = &file.name;
    for (id, source) in present_within(tx, name)? {
        give_way(tx, state, id, &source.name)?;
        if name.kind == FileKind::Readings {
            take_readings(&mut state.books.kept, source.rows)?;
        }
        deliver(tx, state, &source.name)?;
    }
    deliver(tx, state, name)?;
    let known = "select id from cuts where instance = ?1 and number = ?2";
    let known = tx.prepare_cached(known)?.query_row((name.instance.as_str(), name.cut), |row| row.get(0)).optional()?;
    let cut = match known {
        Some(id) => id,
        None => segments::insert_cut(tx, &unknown_cut(file, now), true)?,
    };
    segments::insert(tx, state, cut, file)?;
    if name.kind == FileKind::Readings {
        state.books.kept += file.rows;
    }
    Ok(())
}

/// The cut of `name` was delivered, if the ledger does not know it yet and is not about to find out.
fn deliver(tx: &Connection, state: &mut State, name: &SegmentName) -> Result<(), LedgerError> {
    let waiting = "select id from cuts c where instance = ?1 and number = ?2 and state = 'sealed' \
                   and not exists (select 1 from shipments where cut = c.id and delivered is null)";
    let waiting = tx.prepare_cached(waiting)?.query_row((name.instance.as_str(), name.cut), |row| row.get(0)).optional()?;
    waiting.map_or(Ok(()), |id| shipments::deliver_cut(tx, state, &name.instance, id))
}

/// A cut of which a merged file alone is known: none of its readings count for it.
fn unknown_cut(file: &Segment, sealed: Timestamp) -> Cut {
    let Segment { name, first_seq, last_seq, .. } = file;
    let (instance, number, first_seq, last_seq) = (name.instance.clone(), name.cut, *first_seq, *last_seq);
    Cut { instance, number, first_cut: number, first_seq, last_seq, readings: 0, records: 0, sealed, state: CutState::Delivered }
}

impl Reader {
    /// Where more than one delivered segment of a kind, date and instance is here; the newest date first.
    pub fn groups(&self) -> Result<Vec<Group>, LedgerError> {
        let sql = "select s.kind, s.date, c.instance from segments s join cuts c on c.id = s.cut \
                   where s.state = 'present' and c.state = 'delivered' group by 1, 2, 3 having count(*) > 1 order by 2 desc, 1, 3";
        self.all(sql, [], |row| Ok(Group { kind: rows::kind(row, 0)?, date: row.get(1)?, instance: rows::instance(row, 2)? }))
    }

    /// All segments of `group` that are here, delivered or not, by cut.
    pub fn standing(&self, group: &Group) -> Result<Vec<Standing>, LedgerError> {
        let columns = rows::SEGMENT;
        let sql =
            format!("select {columns}, c.sealed, c.state from segments s join cuts c on c.id = s.cut where {OF_GROUP} order by c.number");
        self.all(&sql, (group.kind.as_str(), &group.date, group.instance.as_str()), |row| {
            let (sealed, state) = (rows::time(row, rows::AFTER_SEGMENT)?, rows::cut_state(row, rows::AFTER_SEGMENT + 1)?);
            Ok(Standing { segment: rows::segment(row)?, sealed, is_delivered: state == CutState::Delivered })
        })
    }

    /// How many of the rows that a merged file of this name would hold the ledger knows of, here or not.
    pub fn rows_within(&self, name: &SegmentName) -> Result<u64, LedgerError> {
        let sql = format!(
            "select coalesce(sum(s.rows), 0) from segments s join cuts c on c.id = s.cut \
             where s.state <> 'merged' and s.kind = ?1 and s.date = ?2 and c.instance = ?3 and {WITHIN}"
        );
        let group = (name.kind.as_str(), &name.date, name.instance.as_str(), name.first_cut, name.cut);
        self.one(&sql, group, |row| row.get(0))
    }

    /// The segment of this name that was here, or is.
    pub fn known_segment(&self, name: &SegmentName) -> Result<Option<Segment>, LedgerError> {
        let sql = format!(
            "select {} from segments s join cuts c on c.id = s.cut where s.state in ('present', 'evicted', 'merged') \
             and s.kind = ?1 and s.date = ?2 and c.instance = ?3 and s.first_cut = ?4 and c.number = ?5",
            rows::SEGMENT
        );
        let whole = (name.kind.as_str(), &name.date, name.instance.as_str(), name.first_cut, name.cut);
        self.maybe(&sql, whole, rows::segment)
    }

    /// Grows with every segment that comes to be here: when it has not, the list has only become shorter.
    pub fn newest_segment(&self) -> Result<i64, LedgerError> {
        self.one("select coalesce(max(id), 0) from segments", [], |row| row.get(0))
    }
}
