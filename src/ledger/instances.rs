//! Instances: the lives of one data folder. A new one begins whenever the ledger may be behind the world.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::answers::Identity;
use super::error::LedgerError;
use super::losses;
use super::merge;
use super::merge_cuts;
use super::segments;
use super::state::State;
use super::store::Store;
use crate::model::{Books, CutNumber, CutState, FileKind, InstanceId, Loss, LossReason, Segment, SegmentName, Seq, Tally, Timestamp};

/// The facts of a beginning.
pub(super) struct Begin<'a> {
    pub id: InstanceId,
    pub begun: Timestamp,
    pub reason: &'a str,
}

/// A beginning that waits for recovery: files that the ledger does not know are of the old instance, and only as long as
/// the journal is numbered as it was can they be compared with it.
#[derive(Debug, Clone)]
pub(super) struct Due {
    /// The instance at the start; another one than this is new enough.
    old: InstanceId,
    /// Which durable commits are lost.
    behind: Option<String>,
    /// Another host than the recorded one.
    host: Option<String>,
}

impl Due {
    /// `lost` says which durable commits are lost, `host` is where the ledger is now.
    pub fn find(state: &State, lost: Option<String>, host: String) -> Option<Self> {
        let host = (state.host_id != host).then_some(host);
        (lost.is_some() || host.is_some()).then(|| Self { old: state.identity.instance.clone(), behind: lost, host })
    }

    fn reason(&self, state: &State) -> String {
        let moved = self.host.as_ref().map(|host| format!("host {host} instead of {}", state.host_id));
        self.behind.iter().cloned().chain(moved).collect::<Vec<_>>().join("; ")
    }
}

impl Store {
    /// See [`super::Ledger::is_behind`].
    pub fn is_behind(&self) -> bool {
        self.due().is_some_and(|due| due.behind.is_some())
    }

    /// See [`super::Ledger::begin_if_due`].
    pub fn begin_if_due(&mut self) -> Result<Identity, LedgerError> {
        let Some(due) = self.due().cloned() else {
            return Ok(self.state().identity.clone());
        };
        let begun = self.now();
        let identity = self.transact(|tx, state| {
            if state.identity.instance == due.old {
                let reason = due.reason(state);
                begin(tx, state, &Begin { id: InstanceId::random(), begun, reason: &reason })?;
            }
            if let Some(lost) = &due.behind {
                losses::add(tx, &losses::unknown(&state.identity.instance, LossReason::Rebuilt, begun, lost))?;
            }
            if let Some(host) = due.host {
                state.host_id = host;
            }
            Ok(state.identity.clone())
        })?;
        fail::fail_point!("ledger.after_begin");
        self.forget_due();
        Ok(identity)
    }

    /// See [`super::Ledger::fork`].
    pub fn fork(&mut self, reason: &str) -> Result<Identity, LedgerError> {
        let begun = self.now();
        self.transact(|tx, state| {
            begin(tx, state, &Begin { id: InstanceId::random(), begun, reason })?;
            Ok(state.identity.clone())
        })
    }

    /// See [`super::Ledger::adopt`].
    pub fn adopt(&mut self, of_cuts: &[Segment], delivered: &[Segment]) -> Result<Identity, LedgerError> {
        let found: Vec<_> = of_cuts.iter().chain(delivered).collect();
        if found.is_empty() {
            return Err(LedgerError::Invalid("no segments to adopt".to_owned()));
        }
        let now = self.now();
        self.transact(|tx, state| {
            for files in cuts_of(of_cuts).values() {
                adopt_cut(tx, state, files, now)?;
            }
            for file in delivered {
                insert_adopted(tx, &file.name.instance, now)?;
                merge::adopt(tx, state, file, now)?;
            }
            begin_after_adopting(tx, state, &found, now)?;
            Ok(state.identity.clone())
        })
    }
}

/// The state of a new file.
pub(super) fn first(tx: &Connection, host_id: &str, begin: &Begin<'_>, forked_from: Option<InstanceId>) -> Result<State, LedgerError> {
    insert(tx, begin, forked_from.as_ref())?;
    Ok(State {
        host_id: host_id.to_owned(),
        identity: Identity { instance: begin.id.clone(), forked_from },
        exported_record: 0,
        books: Books::default(),
        tally: Tally::default(),
        last_cut: 0,
        last_shipment: 0,
        mark_log_bytes: 0,
        segments_check: 0,
    })
}

/// Begins an instance: the hot readings are numbered anew from 1, and the books of this instance hold them alone.
pub(super) fn begin(tx: &Connection, state: &mut State, begin: &Begin<'_>) -> Result<(), LedgerError> {
    let forked_from = state.identity.instance.clone();
    insert(tx, begin, Some(&forked_from))?;
    number_anew(tx)?;
    let Books { hot, kept, .. } = state.books;
    state.books = Books { accepted: hot, hot, kept, ..Books::default() };
    state.tally = Tally::default();
    (state.last_cut, state.last_shipment) = (0, 0);
    tracing::warn!(instance = %begin.id, %forked_from, reason = begin.reason, hot, "a new instance begins");
    state.identity = Identity { instance: begin.id.clone(), forked_from: Some(forked_from) };
    Ok(())
}

/// Numbers the journal from 1. Oldest first, so that a batch only ever moves to seqs that are free.
fn number_anew(tx: &Connection) -> Result<(), LedgerError> {
    let mut statement = tx.prepare("select first_seq, readings from journal order by first_seq")?;
    let batches: Vec<(Seq, u64)> = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut first_seq = 1;
    for (known_as, readings) in batches {
        if known_as != first_seq {
            tx.prepare_cached("update journal set first_seq = ?1 where first_seq = ?2")?.execute((first_seq, known_as))?;
        }
        first_seq += readings;
    }
    Ok(())
}

fn insert(tx: &Connection, begin: &Begin<'_>, forked_from: Option<&InstanceId>) -> Result<(), LedgerError> {
    let Begin { id, begun, reason } = begin;
    tx.execute(
        "insert into instances (name, forked_from, begun, reason) values (?1, ?2, ?3, ?4)",
        (id.as_str(), forked_from.map(InstanceId::as_str), begun.0, reason),
    )?;
    Ok(())
}

/// Makes an instance known whose files are adopted.
fn insert_adopted(tx: &Connection, instance: &InstanceId, now: Timestamp) -> Result<(), LedgerError> {
    tx.execute(
        "insert into instances (name, begun, reason) values (?1, ?2, 'adopted') on conflict (name) do nothing",
        (instance.as_str(), now.0),
    )?;
    Ok(())
}

fn cuts_of(found: &[Segment]) -> BTreeMap<(&InstanceId, CutNumber, CutNumber), Vec<&Segment>> {
    let mut cuts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for segment in found {
        let SegmentName { instance, first_cut, cut, .. } = &segment.name;
        cuts.entry((instance, *first_cut, *cut)).or_default().push(segment);
    }
    cuts
}

/// Records a cut that only its files know. It counts as not delivered: putting it again under its names is harmless.
fn adopt_cut(tx: &Connection, state: &mut State, files: &[&Segment], now: Timestamp) -> Result<(), LedgerError> {
    let Some(SegmentName { instance, first_cut, cut: number, .. }) = files.first().map(|file| &file.name) else { return Ok(()) };
    insert_adopted(tx, instance, now)?;
    let of_readings = || files.iter().filter(|file| file.name.kind == FileKind::Readings);
    let readings: u64 = of_readings().map(|file| file.rows).sum();
    let known_mark = "select coalesce(max(last_seq), 0) from cuts where instance = ?1";
    let known_mark: Seq = tx.query_row(known_mark, [instance.as_str()], |row| row.get(0))?;
    let first_seq = of_readings().map(|file| file.first_seq).min().unwrap_or(known_mark + 1);
    let last_seq = of_readings().map(|file| file.last_seq).max().unwrap_or(known_mark);
    let records = files.iter().filter(|file| file.name.kind == FileKind::Records).map(|file| file.rows).sum();
    let cut = crate::model::Cut {
        instance: instance.clone(),
        number: *number,
        first_cut: *first_cut,
        first_seq,
        last_seq,
        readings,
        records,
        sealed: now,
        state: CutState::Sealed,
    };
    let is_merged = first_cut < number;
    let id = if is_merged { merge_cuts::adopt(tx, state, &cut)? } else { segments::insert_cut(tx, &cut, true)? };
    for file in files {
        segments::insert(tx, state, id, file)?;
    }
    state.books.kept += readings;
    if *instance == state.identity.instance {
        files.iter().filter(|file| file.name.kind == FileKind::Records).try_for_each(|file| count_as_exported(tx, state, file))?;
    }
    let missing = (last_seq + 1).saturating_sub(first_seq).saturating_sub(readings);
    if missing > 0 {
        let detail = format!("{missing} readings of cut {number} are in no file that was found");
        let (instance, reason) = (instance.clone(), LossReason::Rebuilt);
        losses::add(tx, &Loss { id: 0, instance, first_seq, last_seq, readings: missing, reason, noted: now, detail })?;
    } else if *instance == state.identity.instance {
        forget_sealed_batches(tx, state, first_seq, last_seq)?;
    }
    Ok(())
}

/// The records of the ledger that an adopted file of the current instance holds too are not exported again, unless older
/// ones are still to be.
fn count_as_exported(tx: &Connection, state: &mut State, file: &Segment) -> Result<(), LedgerError> {
    let here = "select count(*) filter (where id < ?2), coalesce(max(id) filter (where id <= ?3), 0) from records where id > ?1";
    let found = tx.query_row(here, (state.exported_record, file.first_seq, file.last_seq), |row| Ok((row.get(0)?, row.get(1)?)));
    if let (0, newest) = found? {
        state.exported_record = state.exported_record.max(newest);
    }
    Ok(())
}

/// Removes the journal batches that a complete cut of the current instance holds too: otherwise they would be there twice.
fn forget_sealed_batches(tx: &Connection, state: &mut State, first_seq: Seq, last_seq: Seq) -> Result<(), LedgerError> {
    let within = "first_seq >= ?1 and first_seq + readings - 1 <= ?2";
    let twice: u64 =
        tx.query_row(&format!("select coalesce(sum(readings), 0) from journal where {within}"), (first_seq, last_seq), |row| row.get(0))?;
    tx.execute(&format!("delete from journal where {within}"), (first_seq, last_seq))?;
    let books = &mut state.books;
    for place in [&mut books.hot, &mut books.accepted, &mut books.kept] {
        super::state::take_readings(place, twice)?;
    }
    Ok(())
}

/// What could not be recovered is a loss, and a new instance begins; one that replaced a ledger that was damaged or
/// missing, and has shipped nothing under its name, is new enough.
fn begin_after_adopting(tx: &Connection, state: &mut State, found: &[&Segment], now: Timestamp) -> Result<(), LedgerError> {
    let current = state.identity.instance.clone();
    let fresh = state.books.accepted == 0 || is_rebuilt(tx, &current)?;
    let unused = state.last_cut == 0 && state.last_shipment == 0 && found.iter().all(|segment| segment.name.instance != current);
    if !(fresh && unused) {
        begin(tx, state, &Begin { id: InstanceId::random(), begun: now, reason: "segments newer than the ledger" })?;
    } else if state.identity.forked_from.is_none() {
        let newest = found.iter().max_by_key(|segment| segment.max_time).map(|segment| segment.name.instance.clone());
        let name = newest.as_ref().map(InstanceId::as_str);
        tx.execute("update instances set forked_from = ?1 where name = ?2", (name, current.as_str()))?;
        state.identity.forked_from = newest;
    }
    if is_rebuilt(tx, &state.identity.instance)? {
        return Ok(());
    }
    let detail = format!("{} files were not known to the ledger: marks of sessions and counters may be behind", found.len());
    losses::add(tx, &losses::unknown(&state.identity.instance, LossReason::Rebuilt, now, &detail))
}

/// Whether a loss says that the ledger of this instance began as a rebuilt one.
fn is_rebuilt(tx: &Connection, instance: &InstanceId) -> Result<bool, LedgerError> {
    let told = "select exists (select 1 from losses where instance = ?1 and reason = 'rebuilt')";
    Ok(tx.query_row(told, [instance.as_str()], |row| row.get(0))?)
}
