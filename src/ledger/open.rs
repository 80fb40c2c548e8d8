//! Opening: from a folder to a checked, migrated file that is durable with its name; a damaged one is set aside.
//!
//! A new file is built under a temporary name and renamed when it is whole, so a file under the final name that is not
//! a ledger is damaged, never half created.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, OpenFlags};

use super::behind;
use super::error::LedgerError;
use super::instances::{self, Begin, Due};
use super::losses;
use super::salvage;
use super::schema;
use super::state;
use super::store::Store;
use super::suspicion;
use super::wal;
use super::{FILE_NAME, Open};
use crate::disk;
use crate::model::{InstanceId, LossReason, Timestamp};

/// What belongs to a file beside itself.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// A WAL that is reset is cut to this, so that one large transaction does not hold its space for ever.
const WAL_KEPT_BYTES: i64 = 2 << 20;

/// `synchronous` as SQLite counts it: every commit is fsynced.
const FULL: i64 = 2;

/// Opens or creates the ledger in `data_dir`.
pub(super) fn open(data_dir: &Path, open: Open) -> Result<Store, LedgerError> {
    let path = data_dir.join(FILE_NAME);
    let now = open.clock.now();
    let mut lost = None;
    let connection = if path.exists() {
        lost = lost_commits(data_dir, &path, now)?;
        match check(&path) {
            Err(LedgerError::Corrupt(damage)) => rebuild(data_dir, &path, &open.host_id, now, &damage)?,
            other => other?,
        }
    } else {
        set_aside(data_dir, &path, now)?;
        behind::forget(&path);
        create(&path, &open.host_id, now, None)?
    };
    let mut store = Store::new(connection, path.clone(), open.clock)?;
    store.set_due(Due::find(store.state(), lost, open.host_id));
    match store.checkpoint(CheckpointMode::TRUNCATE) {
        // The WAL stays, and what is in it counts all the same; retention makes room.
        Err(LedgerError::Full(error)) => tracing::warn!(error, "the ledger's WAL stays at the start"),
        other => other?,
    }
    // The file, or its WAL, is fsynced by the checkpoint. Never by a descriptor of our own: closing it would drop SQLite's locks.
    disk::sync_folder(data_dir).map_err(|error| LedgerError::io("making durable", data_dir, &error))?;
    Ok(store)
}

/// What a loss should say of commits that were durable and are lost, now or at a start that did not come to its end.
fn lost_commits(data_dir: &Path, path: &Path, now: Timestamp) -> Result<Option<String>, LedgerError> {
    let failed = |error: io::Error| LedgerError::io("noting a damaged WAL beside", path, &error);
    let Some(lost) = look_at_wal(data_dir, path, now)? else {
        return behind::noted(path).map_err(failed);
    };
    behind::note(path, &lost).map_err(failed)?;
    fail::fail_point!("ledger.after_behind");
    Ok(Some(lost))
}

/// Looks whether commits that were durable are behind damage in the WAL, where SQLite would leave them out silently; if
/// so, keeps a copy of it and gives what a loss should say.
fn look_at_wal(data_dir: &Path, path: &Path, now: Timestamp) -> Result<Option<String>, LedgerError> {
    let wal = disk::with_suffix(path, "-wal");
    let bytes = match fs::read(&wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| LedgerError::io("reading", &wal, &error))?,
    };
    let lost = wal::lost_commits(&bytes);
    if lost == 0 {
        return Ok(None);
    }
    let copy = || -> io::Result<PathBuf> {
        let aside = disk::with_suffix(&quarantine_name(data_dir, now)?, "-wal");
        disk::write_atomically(&aside, &bytes)?;
        Ok(aside)
    };
    let aside = copy().map_err(|error| LedgerError::io("setting aside", &wal, &error))?;
    Ok(Some(format!("the ledger's WAL was damaged and at least {lost} commits are lost; a copy is {}", aside.display())))
}

/// Opens an existing file, checks it if it was not closed in order, and migrates it.
fn check(path: &Path) -> Result<Connection, LedgerError> {
    let closed_in_order = !suspicion::stands(path) && fs::metadata(disk::with_suffix(path, "-wal")).map_or(0, |meta| meta.len()) == 0;
    let mut connection = connect(path)?;
    match schema::version_of(&connection)? {
        0 => return Err(LedgerError::Corrupt(format!("{} holds no ledger", path.display()))),
        version if version > schema::VERSION => {
            let known = schema::VERSION;
            return Err(LedgerError::Invalid(format!(
                "{} has schema version {version}, this forebay knows {known}: install the newer forebay again",
                path.display()
            )));
        }
        _ => {}
    }
    assert_durable(&connection)?;
    if !closed_in_order {
        check_integrity(&connection)?;
        suspicion::forget(path);
    }
    schema::migrate(&mut connection)?;
    state::load(&connection)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // A connection that is dropped after a failure must not write; `close` copies the WAL itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Sets what durability depends on, and reads it back.
fn assert_durable(connection: &Connection) -> Result<(), LedgerError> {
    connection.execute_batch("pragma synchronous = full; pragma cell_size_check = on; pragma temp_store = memory")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    let journal: String = connection.query_row("pragma journal_mode = wal", [], |row| row.get(0))?;
    let synchronous: i64 = connection.query_row("pragma synchronous", [], |row| row.get(0))?;
    if journal != "wal" || synchronous != FULL {
        return Err(LedgerError::Broken(format!("journal_mode is {journal} and synchronous {synchronous}: commits would not be durable")));
    }
    Ok(())
}

fn check_integrity(connection: &Connection) -> Result<(), LedgerError> {
    let mut statement = connection.prepare("pragma integrity_check(10)")?;
    let found: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if found == ["ok"] { Ok(()) } else { Err(LedgerError::Corrupt(found.join("; "))) }
}

/// A damaged file that was set aside.
struct Replaced<'a> {
    aside: &'a Path,
    damage: &'a str,
}

/// Builds a new file, with what is left of the one it replaces, and gives it its name when it is durable.
fn create(path: &Path, host_id: &str, now: Timestamp, replaced: Option<&Replaced<'_>>) -> Result<Connection, LedgerError> {
    let temp = disk::temp_path(path);
    let failed = |error: io::Error| LedgerError::io("creating", path, &error);
    remove_all(&temp).and_then(|()| disk::create_file(&temp)).map_err(failed)?;
    let mut connection = connect(&temp)?;
    connection.execute_batch("pragma auto_vacuum = incremental")?;
    assert_durable(&connection)?;
    schema::migrate(&mut connection)?;
    fill(&mut connection, host_id, now, replaced)?;
    connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE)?;
    drop(connection);
    disk::sync_file(&temp).map_err(failed)?;
    fail::fail_point!("ledger.before_create");
    for companion in COMPANIONS {
        remove_if_there(&disk::with_suffix(&temp, companion)).map_err(failed)?;
    }
    disk::rename(&temp, path).map_err(failed)?;
    tracing::info!(path = %path.display(), "a new ledger");
    let connection = connect(path)?;
    assert_durable(&connection)?;
    Ok(connection)
}

/// The first rows: who this folder is, and what became of the ledger before.
fn fill(connection: &mut Connection, host_id: &str, now: Timestamp, replaced: Option<&Replaced<'_>>) -> Result<(), LedgerError> {
    let transaction = connection.transaction()?;
    let reason = if replaced.is_some() { "rebuilt" } else { "new" };
    let forked_from = replaced.and_then(|old| salvage::instance(old.aside));
    let mut first = instances::first(&transaction, host_id, &Begin { id: InstanceId::random(), begun: now, reason }, forked_from)?;
    if let Some(Replaced { aside, damage }) = replaced {
        let salvaged = salvage::carry_over(aside, &transaction, &mut first)?;
        let detail = format!("the ledger was damaged ({damage}) and is in {}; {salvaged}", aside.display());
        losses::add(&transaction, &losses::unknown(&first.identity.instance, LossReason::Rebuilt, now, &detail))?;
    }
    state::save(&transaction, &first)?;
    Ok(transaction.commit()?)
}

/// Sets a damaged file aside and begins a new one.
fn rebuild(data_dir: &Path, path: &Path, host_id: &str, now: Timestamp, damage: &str) -> Result<Connection, LedgerError> {
    let aside = set_aside(data_dir, path, now)?.unwrap_or_default();
    suspicion::forget(path);
    tracing::error!(damage, quarantined = %aside.display(), "the ledger is damaged; a new one begins");
    create(path, host_id, now, Some(&Replaced { aside: &aside, damage }))
}

/// Moves what there is of the file and its companions to `quarantine/`; gives the file's new name if anything was there.
fn set_aside(data_dir: &Path, path: &Path, now: Timestamp) -> Result<Option<PathBuf>, LedgerError> {
    // The companions first: the file alone under its name would be read without what its WAL adds.
    let there: Vec<_> = COMPANIONS.into_iter().chain([""]).filter(|suffix| disk::with_suffix(path, suffix).exists()).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let move_all = || -> io::Result<PathBuf> {
        let aside = quarantine_name(data_dir, now)?;
        there.iter().try_for_each(|suffix| disk::rename(&disk::with_suffix(path, suffix), &disk::with_suffix(&aside, suffix)))?;
        Ok(aside)
    };
    move_all().map(Some).map_err(|error| LedgerError::io("setting aside", path, &error))
}

/// A free name in `quarantine/`, which is there afterwards.
fn quarantine_name(data_dir: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let folder = data_dir.join("quarantine");
    disk::create_folder(&folder)?;
    let is_free = |name: &PathBuf| !COMPANIONS.into_iter().chain([""]).any(|suffix| disk::with_suffix(name, suffix).exists());
    let mut names = (now.0..).map(|micros| folder.join(format!("ledger-{micros}.db")));
    names.find(is_free).ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

fn remove_all(path: &Path) -> io::Result<()> {
    COMPANIONS.into_iter().try_for_each(|companion| remove_if_there(&disk::with_suffix(path, companion)))?;
    remove_if_there(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
