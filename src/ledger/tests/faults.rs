//! Faults: full disks, damaged files, newer versions.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::FILE_NAME;
use super::*;
use crate::error::ErrorKind;

fn file(folder: &TempDir, suffix: &str) -> std::path::PathBuf {
    folder.path().join(format!("{FILE_NAME}{suffix}"))
}

async fn limit_pages(ledger: &Ledger, spare: i64) {
    let limit = move |store: &mut super::super::store::Store| {
        let pages: i64 = store.connection().query_row("pragma page_count", [], |row| row.get(0))?;
        let free: i64 = store.connection().query_row("pragma freelist_count", [], |row| row.get(0))?;
        store.connection().query_row(&format!("pragma max_page_count = {}", pages - free + spare), [], |_| Ok(()))?;
        Ok(())
    };
    ledger.call(limit).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_the_same_batch_goes_in_when_there_is_room() {
    let (folder, ledger) = new();
    commit(&ledger, 10).await;
    limit_pages(&ledger, 3).await;
    let large = Arc::new(Batch { records: vec![record("a", &"x".repeat(100_000), 1)], ..batch(10) });
    for _ in 0..3 {
        let error = ledger.commit(Arc::clone(&large)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert_eq!(books(&ledger), Books { accepted: 10, hot: 10, kept: 10, ..Books::default() });
    }
    limit_pages(&ledger, 1_000_000).await;
    assert_eq!(ledger.commit(large).await.unwrap().last_seq, 20);
    let killed = as_after_a_kill(folder.path());
    assert_eq!(books(&open(killed.path())).hot, 20);
}

#[tokio::test]
async fn a_panic_in_the_thread_breaks_the_ledger_for_good() {
    let (folder, ledger) = new();
    commit(&ledger, 1).await;
    let panicking = ledger.call(|store| store.transact(|_, _| -> Result<(), LedgerError> { panic!("a test") })).await;
    assert_eq!(panicking.unwrap_err().kind(), ErrorKind::Broken);
    assert_eq!(ledger.commit(batch(1)).await.unwrap_err().kind(), ErrorKind::Broken);
    assert_eq!(ledger.close().await.unwrap_err().kind(), ErrorKind::Broken);
    assert_eq!(books(&open(folder.path())).accepted, 1);
}

#[tokio::test]
async fn the_first_broken_error_answers_every_later_call() {
    let (folder, ledger) = new();
    commit(&ledger, 1).await;
    let broken = LedgerError::Broken("fsync: input/output error".to_owned());
    let first = broken.clone();
    let outcome = ledger.call(move |store| store.transact(|_, _| -> Result<(), LedgerError> { Err(first) })).await;
    assert_eq!(outcome, Err(broken.clone()));
    assert_eq!(ledger.commit(batch(1)).await, Err(broken.clone()));
    assert_eq!(ledger.close().await, Err(broken));
    assert_eq!(books(&open(folder.path())).accepted, 1);
}

#[tokio::test]
async fn a_close_leaves_one_whole_file_that_only_its_owner_reads() {
    let (folder, ledger) = new();
    commit(&ledger, 5).await;
    let mode = |suffix| fs::metadata(file(&folder, suffix)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("-wal"), mode("-shm")], [0o600; 3]);
    ledger.close().await.unwrap();
    ledger.close().await.unwrap();
    assert_eq!(fs::metadata(file(&folder, "-wal")).map_or(0, |meta| meta.len()), 0);
    let alone = tempfile::tempdir().unwrap();
    fs::copy(file(&folder, ""), file(&alone, "")).unwrap();
    assert_eq!(books(&open(alone.path())).accepted, 5);
}

#[tokio::test]
async fn the_wal_stays_small() {
    let (folder, ledger) = new();
    for _ in 0..300 {
        commit(&ledger, 20).await;
    }
    let wal = fs::metadata(file(&folder, "-wal")).unwrap().len();
    assert!(wal < 2_000_000, "{wal} bytes");
    assert_eq!(books(&ledger).accepted, 6000);
}

#[tokio::test]
async fn space_comes_back_after_a_large_journal_is_sealed() {
    let (folder, ledger) = new();
    let body = "x".repeat(1 << 20);
    let swell = move |store: &mut super::super::store::Store| {
        store.transact(|tx, _| {
            tx.execute("create table swollen (body text)", [])?;
            for _ in 0..30 {
                tx.execute("insert into swollen values (?1)", [&body])?;
            }
            Ok(tx.execute_batch("drop table swollen")?)
        })
    };
    ledger.call(swell).await.unwrap();
    commit(&ledger, 1).await;
    ledger.close().await.unwrap();
    let before = fs::metadata(file(&folder, "")).unwrap().len();
    let ledger = open(folder.path());
    while ledger.give_back(4 << 20).await.unwrap() {
        commit(&ledger, 1).await;
    }
    books(&ledger);
    let fill = reader(&ledger).fill().unwrap();
    let after = fs::metadata(file(&folder, "")).unwrap().len();
    assert!(before > 30 << 20 && after < 5 << 20, "{before} bytes, then {after}");
    assert_eq!((fill.used_bytes + fill.free_bytes, fill.free_bytes), (after, 4 << 20));
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let (folder, ledger) = new();
    commit(&ledger, 5).await;
    ledger.close().await.unwrap();
    let newer = rusqlite::Connection::open(file(&folder, "")).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    drop(newer);
    let before = fs::read(file(&folder, "")).unwrap();
    let error = try_open(folder.path(), "host-1").err().unwrap();
    assert!(error.to_string().contains("schema version 1000"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(fs::read(file(&folder, "")).unwrap(), before);
}

fn quarantined(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder.path().join("quarantine"))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Opens a folder whose ledger is damaged; gives how many readings were carried over.
async fn assert_rebuilt(folder: &TempDir, old: &InstanceId) -> u64 {
    let ledger = open(folder.path());
    assert_ne!(ledger.identity().instance, *old);
    let losses = reader(&ledger).untold_losses(&ledger.identity().instance).unwrap();
    assert_eq!(losses.iter().map(|loss| loss.reason.as_str()).collect::<Vec<_>>(), ["rebuilt"]);
    assert!(losses[0].detail.contains("quarantine"), "{}", losses[0].detail);
    assert!(quarantined(folder)[0].starts_with("ledger-"));
    let carried_over = books(&ledger).hot;
    assert!(losses[0].detail.contains(&format!("{carried_over} readings")), "{}", losses[0].detail);
    assert_eq!(decoded(&reader(&ledger), 0), (1..=carried_over).collect::<Vec<_>>());
    commit(&ledger, 2).await;
    ledger.close().await.unwrap();
    assert_eq!(books(&open(folder.path())).accepted, carried_over + 2);
    assert_eq!(quarantined(folder).iter().filter(|name| name.ends_with(".db")).count(), 1);
    carried_over
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_and_a_new_ledger_begins() {
    for damage in [&b""[..], &b"garbage that is long enough to be taken for a header of something else entirely, but is not one"[..]] {
        let (folder, ledger) = new();
        commit(&ledger, 5).await;
        ledger.close().await.unwrap();
        fs::write(file(&folder, ""), damage).unwrap();
        assert_eq!(assert_rebuilt(&folder, &ledger.identity().instance).await, 0);
        assert_eq!(fs::read(folder.path().join("quarantine").join(&quarantined(&folder)[0])).unwrap(), damage);
    }
}

#[tokio::test]
async fn a_damaged_page_is_found_after_a_kill_and_the_other_batches_are_carried_over() {
    let (folder, ledger) = new();
    for _ in 0..40 {
        commit(&ledger, 200).await;
    }
    ledger.close().await.unwrap();
    // A kill leaves a WAL that is not empty.
    let ledger = open(folder.path());
    commit(&ledger, 1).await;
    let killed = as_after_a_kill(folder.path());
    damage_last_pages(&file(&killed, ""), 8);
    let carried_over = assert_rebuilt(&killed, &ledger.identity().instance).await;
    assert!((2000..8000).contains(&carried_over), "{carried_over}");
    assert_eq!(open(killed.path()).identity().forked_from, Some(ledger.identity().instance));
}

/// Overwrites the beginning of some pages, from the end of the file.
fn damage_last_pages(path: &Path, pages: usize) {
    let mut bytes = fs::read(path).unwrap();
    for page in bytes.rchunks_mut(4096).take(pages) {
        page[..200].fill(0xa5);
    }
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn damage_met_while_running_is_looked_into_at_the_next_start() {
    let (folder, ledger) = new();
    commit(&ledger, 5000).await;
    ledger.close().await.unwrap();
    damage_last_pages(&file(&folder, ""), 4);
    // Closed in order: nothing is checked, and the damage is met by who reads the journal.
    let running = open(folder.path());
    assert_eq!(running.identity(), ledger.identity());
    let error = reader(&running).journal(0, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(file(&folder, "-suspect").exists());
    running.close().await.unwrap();
    assert_rebuilt(&folder, &ledger.identity().instance).await;
    assert!(!file(&folder, "-suspect").exists());
}

#[tokio::test]
async fn damage_that_a_transaction_meets_breaks_the_ledger_and_is_noted() {
    let (folder, ledger) = new();
    commit(&ledger, 5).await;
    let meet = |store: &mut super::super::store::Store| {
        store.transact(|tx, _| {
            tx.execute("update journal set readings = 6", [])?;
            Err::<(), _>(LedgerError::Corrupt("database disk image is malformed".to_owned()))
        })
    };
    let error = ledger.call(meet).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
    assert_eq!(ledger.commit(batch(1)).await.unwrap_err(), error);
    assert!(file(&folder, "-suspect").exists());
    // The check finds nothing wrong here, and the ledger goes on.
    assert_eq!(books(&open(folder.path())).accepted, 5);
    assert!(!file(&folder, "-suspect").exists());
}

#[tokio::test]
async fn what_an_unfinished_creation_left_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    for suffix in [".tmp", ".tmp-wal"] {
        fs::write(file(&folder, suffix), b"rubbish").unwrap();
    }
    let ledger = open(folder.path());
    commit(&ledger, 3).await;
    ledger.close().await.unwrap();
    assert_eq!(books(&open(folder.path())).accepted, 3);
    assert!(!file(&folder, ".tmp").exists());
    assert_eq!(quarantined(&folder), [] as [String; 0]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_with_its_name() {
    let error = try_open(std::path::Path::new("/nonexistent/folder"), "host-1").err().unwrap();
    assert!(error.to_string().contains("/nonexistent/folder/forebay.db"), "{error}");
}

#[tokio::test]
async fn a_wal_without_its_file_is_set_aside_unread() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(file(&folder, "-wal"), b"rubbish").unwrap();
    assert_eq!(books(&open(folder.path())).accepted, 0);
    let names = quarantined(&folder);
    assert!(names.len() == 1 && names[0].ends_with(".db-wal"), "{names:?}");
}

#[tokio::test]
async fn commits_behind_damage_in_the_wal_are_not_lost_silently() {
    let (folder, ledger) = new();
    for _ in 0..20 {
        commit(&ledger, 2).await;
    }
    let killed = as_after_a_kill(folder.path());
    let mut wal = fs::read(file(&killed, "-wal")).unwrap();
    let middle = wal.len() / 2;
    wal[middle] ^= 1;
    fs::write(file(&killed, "-wal"), &wal).unwrap();
    // Neither the damaged WAL nor a start that ends early makes the new instance be forgotten.
    let early = open(killed.path());
    assert_eq!(early.identity(), ledger.identity());
    early.close().await.unwrap();
    let again = open(killed.path());
    assert!(again.is_behind().await.unwrap() && file(&killed, "-behind").exists());
    again.begin_if_due().await.unwrap();
    assert!(!again.is_behind().await.unwrap() && !file(&killed, "-behind").exists());
    let hot = books(&again).hot;
    assert!((2..38).contains(&hot), "{hot}");
    assert_eq!(again.identity().forked_from, Some(ledger.identity().instance));
    let losses = reader(&again).untold_losses(&again.identity().instance).unwrap();
    assert!(losses.len() == 1 && losses[0].detail.contains("commits are lost"), "{losses:?}");
    assert_eq!(fs::read(killed.path().join("quarantine").join(&quarantined(&killed)[0])).unwrap(), wal);
    // It is told once, and a WAL that is whole, or torn in its last commit, is no loss.
    let second = as_after_a_kill(killed.path());
    assert_eq!(open(second.path()).begin_if_due().await.unwrap(), again.identity());
    assert_eq!(open(folder.path()).begin_if_due().await.unwrap(), ledger.identity());
}
