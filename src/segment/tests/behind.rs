//! A ledger that lost commits or changed its host, and files that its journal still has: each reading stays there once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::model::{FileKind, LossReason, columns};
use crate::segment::Recovered;
use crate::segment::seal::stage;

const BATCH: i64 = 100;
const BATCHES: i64 = 5;
const HOT: u64 = (BATCH * BATCHES) as u64;

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn wal(data: &Path) -> PathBuf {
    data.join("forebay.db-wal")
}

fn wal_bytes(rig: &Rig) -> usize {
    fs::metadata(wal(rig.data.path())).unwrap().len() as usize
}

/// The folder as a kill leaves it, before anyone has opened it again.
fn folder_after_a_kill(rig: &Rig) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(rig.data.path(), copy.path());
    copy
}

fn rig_on(host: &str, data: TempDir, clock: &Arc<SetClock>) -> Rig {
    let ledger = open_on(host, data.path(), clock);
    let dir = SegmentDir::open(data.path()).unwrap();
    Rig { data, clock: Arc::clone(clock), ledger, dir, state: Arc::default() }
}

/// A rig with readings of two days and a record, all hot, and the lengths of its WAL after each commit.
async fn hot() -> (Rig, Vec<usize>) {
    let rig = Rig::new();
    rig.record("a", "one").await;
    let mut lengths = vec![wal_bytes(&rig)];
    for batch in 0..BATCHES {
        rig.commit(some(BATCH, DAY + batch * MICROS_PER_DAY / 4)).await;
        lengths.push(wal_bytes(&rig));
    }
    (rig, lengths)
}

/// What is left of [`hot`] after a seal and two more commits, with a bit flipped in the first page behind `place` batches.
async fn sealed_and_damaged_after(place: usize) -> (Rig, TempDir) {
    let (rig, lengths) = hot().await;
    rig.flush().await;
    rig.commit(some(1, DAY)).await;
    rig.commit(some(1, DAY)).await;
    let folder = folder_after_a_kill(&rig);
    let mut bytes = fs::read(wal(folder.path())).unwrap();
    bytes[lengths[place] + 1000] ^= 1;
    fs::write(wal(folder.path()), bytes).unwrap();
    (rig, folder)
}

/// Every reading of [`hot`] is in the journal or in a segment, and in one place only.
fn has_each_once(rig: &Rig) {
    rig.audit();
    let hot = rig.reader().journal(0, u64::MAX).unwrap().into_iter().flat_map(|entry| {
        let columns = columns::decode_journal(entry.bytes.as_ref().unwrap(), entry.first_seq).unwrap();
        columns::to_readings(&columns).unwrap()
    });
    let all: Vec<_> = hot.chain(rig.sealed()).map(|(_, reading)| (reading.sensor.to_string(), reading.time.0)).collect();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len() as u64, distinct.len() as u64, rig.books().kept), (HOT, HOT, HOT));
}

/// A new instance began, and a loss of it says that commits were lost.
fn has_begun_after_losing_commits(rig: &Rig, before: &Rig) {
    let identity = rig.ledger.identity();
    assert_eq!(identity.forked_from, Some(before.ledger.identity().instance));
    let losses = rig.reader().untold_losses(&identity.instance).unwrap();
    assert!(losses.iter().all(|loss| loss.reason == LossReason::Rebuilt && loss.readings == 0));
    assert!(losses.iter().any(|loss| loss.detail.contains("commits are lost")), "{losses:?}");
}

#[tokio::test]
async fn a_seal_that_the_wal_lost_keeps_its_name_and_leaves_the_journal() {
    for place in [1, 3, BATCHES as usize] {
        let (before, folder) = sealed_and_damaged_after(place).await;
        let rig = rig_on("host", folder, &before.clock);
        assert_eq!(rig.books().hot, place as u64 * BATCH as u64);
        assert_eq!(rig.recover().await, Recovered { adopted: 3, ..Recovered::default() });
        has_each_once(&rig);
        has_begun_after_losing_commits(&rig, &before);
        assert!(rig.segments().iter().all(|segment| segment.name.instance == before.ledger.identity().instance));
        // Its record is in one of the files and is not exported again.
        assert_eq!(rig.flush().await, None);
        let identity = rig.ledger.identity();
        let rig = rig.restart().await;
        assert_eq!(rig.recover().await, Recovered::default());
        assert_eq!(rig.ledger.identity(), identity);
        has_each_once(&rig);
    }
}

#[tokio::test]
async fn a_crash_before_the_new_instance_begins_changes_nothing_of_it() {
    let (before, folder) = sealed_and_damaged_after(BATCHES as usize).await;
    // The first start empties the WAL, and ends before recovery.
    open(folder.path(), &before.clock).close().await.unwrap();
    assert_eq!(fs::metadata(wal(folder.path())).map_or(0, |wal| wal.len()), 0);
    let rig = rig_on("host", folder, &before.clock);
    assert_eq!(rig.recover().await, Recovered { adopted: 3, ..Recovered::default() });
    has_each_once(&rig);
    has_begun_after_losing_commits(&rig, &before);
}

#[tokio::test]
async fn an_incomplete_cut_that_the_journal_still_has_is_sealed_again() {
    let (before, folder) = sealed_and_damaged_after(BATCHES as usize).await;
    let missing = before.segments().into_iter().find(|segment| segment.name.kind == FileKind::Readings).unwrap();
    let rig = rig_on("host", folder, &before.clock);
    fs::remove_file(rig.dir.path(&missing.name)).unwrap();
    assert_eq!(rig.recover().await, Recovered { removed: 2, ..Recovered::default() });
    has_each_once(&rig);
    has_begun_after_losing_commits(&rig, &before);
    assert_eq!(rig.flush().await, Some(1));
    has_each_once(&rig);
}

#[tokio::test]
async fn on_another_host_a_seal_that_was_not_recorded_is_made_again() {
    let (before, _) = hot().await;
    stage(&before.dir, &before.draft()).unwrap().publish(&before.dir).unwrap();
    let rig = rig_on("another host", folder_after_a_kill(&before), &before.clock);
    assert_eq!(rig.recover().await, Recovered { removed: 3, ..Recovered::default() });
    let identity = rig.ledger.identity();
    assert_eq!(identity.forked_from, Some(before.ledger.identity().instance));
    has_each_once(&rig);
    assert_eq!(rig.flush().await, Some(1));
    has_each_once(&rig);
    assert!(rig.segments().iter().all(|segment| segment.name.instance == identity.instance));
}
