//! Segments and cuts: their rows, and how a segment leaves.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::error::LedgerError;
use super::losses;
use super::rows;
use super::shipments;
use super::state::{State, move_readings, take_readings};
use super::store::Store;
use crate::model::{Cut, CutState, FileKind, Loss, LossReason, Segment, SegmentName, Timestamp, segment_path};

/// What leaving depends on.
pub(super) struct Known {
    pub(super) id: i64,
    /// The cut's id; of a merged segment that of its last.
    pub(super) cut: i64,
    pub(super) cut_state: CutState,
    pub(super) here: String,
    pub(super) segment: Segment,
}

impl Store {
    /// See [`super::Ledger::evict`].
    pub fn evict(&mut self, names: &[SegmentName]) -> Result<(), LedgerError> {
        self.transact(|tx, state| names.iter().try_for_each(|name| evict(tx, state, name)))
    }

    /// See [`super::Ledger::mark_damaged`].
    pub fn mark_damaged(&mut self, name: &SegmentName, detail: &str) -> Result<(), LedgerError> {
        let now = self.now();
        self.transact(|tx, state| mark_damaged(tx, state, name, detail, now))
    }
}

/// Adds the row of a cut, of which files may be upstream if it is `tried`; gives its id.
pub(super) fn insert_cut(tx: &Connection, cut: &Cut, tried: bool) -> Result<i64, LedgerError> {
    tx.prepare_cached(
        "insert into cuts (instance, number, first_cut, first_seq, last_seq, readings, records, sealed, state, tried) \
         values (:instance, :number, :first_cut, :first_seq, :last_seq, :readings, :records, :sealed, :state, :tried)",
    )?
    .execute(named_params! {
        ":instance": cut.instance.as_str(),
        ":number": cut.number,
        ":first_cut": cut.first_cut,
        ":first_seq": cut.first_seq,
        ":last_seq": cut.last_seq,
        ":readings": cut.readings,
        ":records": cut.records,
        ":sealed": cut.sealed.0,
        ":state": rows::cut_state_word(cut.state),
        ":tried": tried,
    })?;
    Ok(tx.last_insert_rowid())
}

/// Adds the row of a segment that is here.
pub(super) fn insert(tx: &Connection, state: &mut State, cut: i64, segment: &Segment) -> Result<(), LedgerError> {
    tx.prepare_cached(
        "insert into segments (cut, kind, date, first_cut, bytes, sha256, rows, first_seq, last_seq, min_time, max_time, state) \
         values (:cut, :kind, :date, :first_cut, :bytes, :sha256, :rows, :first_seq, :last_seq, :min_time, :max_time, 'present')",
    )?
    .execute(named_params! {
        ":cut": cut,
        ":kind": segment.name.kind.as_str(),
        ":date": segment.name.date,
        ":first_cut": segment.name.first_cut,
        ":bytes": segment.bytes,
        ":sha256": segment.sha256.0,
        ":rows": segment.rows,
        ":first_seq": segment.first_seq,
        ":last_seq": segment.last_seq,
        ":min_time": segment.min_time.0,
        ":max_time": segment.max_time.0,
    })?;
    state.take_in(&segment.name);
    Ok(())
}

/// The names of the segments that are here, as `SegmentName` writes them, and nothing else of them.
pub(super) fn paths(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let sql = "select s.kind, s.date, c.instance, s.first_cut, c.number from segments s join cuts c on c.id = s.cut \
               where s.state = 'present'";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut paths = HashSet::new();
    while let Some(row) = rows.next()? {
        let word = |place: usize| Ok::<_, rusqlite::Error>(row.get_ref(place)?.as_str()?);
        paths.insert(segment_path(word(0)?, word(1)?, word(2)?, (row.get(3)?, row.get(4)?)));
    }
    Ok(paths)
}

pub(super) fn find(tx: &Connection, name: &SegmentName) -> Result<Known, LedgerError> {
    const AFTER: usize = rows::AFTER_SEGMENT;
    let sql = format!(
        "select {}, s.id, s.cut, c.state, s.state from segments s join cuts c on c.id = s.cut \
         where c.instance = ?1 and c.number = ?2 and s.kind = ?3 and s.date = ?4 and s.first_cut = ?5",
        rows::SEGMENT
    );
    let known = tx
        .prepare_cached(&sql)?
        .query_row((name.instance.as_str(), name.cut, name.kind.as_str(), &name.date, name.first_cut), |row| {
            Ok(Known {
                segment: rows::segment(row)?,
                id: row.get(AFTER)?,
                cut: row.get(AFTER + 1)?,
                cut_state: rows::cut_state(row, AFTER + 2)?,
                here: row.get(AFTER + 3)?,
            })
        })
        .optional()?;
    known.ok_or_else(|| LedgerError::Invalid(format!("segment {name} is not known")))
}

fn evict(tx: &Connection, state: &mut State, name: &SegmentName) -> Result<(), LedgerError> {
    let known = find(tx, name)?;
    if known.here != "present" {
        return Err(LedgerError::Invalid(format!("segment {name} is {} already", known.here)));
    }
    if known.cut_state != CutState::Delivered {
        return Err(LedgerError::Invalid(format!("segment {name} is not delivered")));
    }
    leave(tx, state, &known, "evicted")
}

/// All files of a cut that are here are about to be removed; gives them.
pub(super) fn evict_all(tx: &Connection, state: &mut State, cut: i64) -> Result<Vec<Segment>, LedgerError> {
    let sql = format!(
        "select {}, s.id, c.state from segments s join cuts c on c.id = s.cut where s.cut = ?1 and s.state = 'present'",
        rows::SEGMENT
    );
    let known = |row: &Row<'_>| {
        let (segment, cut_state) = (rows::segment(row)?, rows::cut_state(row, rows::AFTER_SEGMENT + 1)?);
        Ok(Known { segment, id: row.get(rows::AFTER_SEGMENT)?, cut, cut_state, here: "present".to_owned() })
    };
    let here: Vec<Known> = tx.prepare_cached(&sql)?.query_map([cut], known)?.collect::<Result<_, _>>()?;
    here.iter().try_for_each(|known| leave(tx, state, known, "evicted"))?;
    Ok(here.into_iter().map(|known| known.segment).collect())
}

/// The segment is no longer here.
pub(super) fn leave(tx: &Connection, state: &mut State, known: &Known, how: &str) -> Result<(), LedgerError> {
    tx.prepare_cached("update segments set state = ?1 where id = ?2")?.execute((how, known.id))?;
    state.let_go(&known.segment.name);
    match known.segment.name.kind {
        FileKind::Readings => take_readings(&mut state.books.kept, known.segment.rows),
        FileKind::Records => Ok(()),
    }
}

fn mark_damaged(tx: &Connection, state: &mut State, name: &SegmentName, detail: &str, now: Timestamp) -> Result<(), LedgerError> {
    let known = find(tx, name)?;
    match known.here.as_str() {
        "damaged" | "lost" => return Ok(()),
        "present" => {}
        gone => return Err(LedgerError::Invalid(format!("segment {name} is {gone}"))),
    }
    if shipments::is_under_way(tx, known.cut)? {
        return Err(LedgerError::Invalid(format!("segment {name} is being shipped: finish or abandon the shipment first")));
    }
    if known.cut_state != CutState::Sealed {
        return leave(tx, state, &known, "damaged");
    }
    leave(tx, state, &known, "lost")?;
    lose(tx, state, &known, detail, now)
}

/// The cut still ships its other files; the loss tells of this one's rows. Records are lost to the lake alone: the ledger
/// still has them, and their loss counts no readings.
fn lose(tx: &Connection, state: &mut State, known: &Known, detail: &str, now: Timestamp) -> Result<(), LedgerError> {
    let Segment { name, rows, first_seq, last_seq, .. } = &known.segment;
    let (instance, reason) = (name.instance.clone(), LossReason::Damaged);
    if name.kind == FileKind::Records {
        tx.execute("update cuts set records = records - ?1 where id = ?2", (rows, known.cut))?;
        let detail = format!("{rows} records (ids {first_seq} through {last_seq}) in {name}: {detail}");
        return losses::add(tx, &losses::unknown(&instance, reason, now, &detail));
    }
    tx.execute("update cuts set readings = readings - ?1 where id = ?2", (rows, known.cut))?;
    if instance == state.identity.instance {
        move_readings(&mut state.books.sealed, &mut state.books.damaged, *rows)?;
    }
    let (first_seq, last_seq, readings, detail) = (*first_seq, *last_seq, *rows, format!("{name}: {detail}"));
    losses::add(tx, &Loss { id: 0, instance, first_seq, last_seq, readings, reason, noted: now, detail })
}
