//! Merges of cuts and crashes: each reading is there once after every step, and with an older ledger or none.

use std::fs;

use super::merging::{CUTS, deliver_all, files, has_each_once};
use super::merging_crashes::{copy_of_ledger, with_the_ledger_of};
use super::merging_cuts::{cuts, due, due_of, merge_waiting, merged_files, record, sealed_cuts, spans, with_files};
use super::*;
use crate::model::Digest;
use crate::segment::{Merged, Recovered};

#[tokio::test]
async fn a_crash_before_the_transaction_removes_what_was_made() {
    for made_of_three in 1..=3 {
        let rig = due().await;
        let (made, _) = merged_files(&rig);
        for unmade in &made[made_of_three..] {
            rig.dir.remove(&unmade.name).unwrap();
        }
        let rig = rig.restart().await;
        assert_eq!(rig.recover().await, Recovered { removed: made_of_three as u64, ..Recovered::default() });
        has_each_once(&rig, CUTS);
        assert_eq!(spans(&rig).len() as u64, CUTS);
        assert_eq!(rig.recover().await, Recovered::default());
    }
}

#[tokio::test]
async fn a_crash_after_the_transaction_removes_the_sources() {
    let rig = due().await;
    let (made, sources) = merged_files(&rig);
    record(&rig, &made).await.unwrap();
    rig.dir.remove(&sources[0]).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: sources.len() as u64 - 1, ..Recovered::default() });
    assert_eq!(files(&rig).len(), made.len());
    has_each_once(&rig, CUTS);
    assert_eq!(rig.recover().await, Recovered::default());
    // What is left of the sources in the ledger goes when nobody needs it.
    let gone: Vec<_> = rig.reader().gone(100).unwrap().into_iter().map(|gone| (gone.instance, gone.number)).collect();
    assert_eq!(gone.len() as u64, CUTS - 1);
    rig.ledger.prune(gone, u64::MAX).await.unwrap();
    has_each_once(&rig, CUTS);
    deliver_all(&rig).await;
    assert_eq!(rig.books().delivered, CUTS * 20);
}

/// Cuts to be merged, and the ledger as it was when `known` of them were sealed.
async fn with_a_copy_of(known: u64) -> (Rig, Vec<u8>) {
    let rig = Rig::new();
    cuts(&rig, known).await;
    let (rig, copy) = copy_of_ledger(rig).await;
    for cut in known..CUTS {
        rig.commit(some(20, DAY + MICROS_PER_DAY - 10_000_000 + cut as i64 * 1000)).await;
        rig.flush().await;
    }
    (rig, copy)
}

/// A ledger from before the merge meets its files, and as many sources as are left; `known` of the cuts were sealed then.
async fn behind(known: u64, left: usize, delivered: bool) {
    let (rig, copy) = with_a_copy_of(known).await;
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    let old = rig.ledger.identity().instance;
    let (made, sources) = merged_files(&rig);
    record(&rig, &made).await.unwrap();
    if delivered {
        deliver_all(&rig).await;
    }
    for source in &sources[left..] {
        rig.dir.remove(source).unwrap();
    }
    let rig = with_the_ledger_of(rig, &copy).await;
    let expected = Recovered { adopted: made.len() as u64, removed: left as u64, ..Recovered::default() };
    assert_eq!(rig.recover().await, expected, "{known} were known, {left} files are left");
    assert_eq!(rig.ledger.identity().forked_from, Some(old.clone()), "it is behind the world");
    assert_eq!(files(&rig).len(), made.len());
    has_each_once(&rig, CUTS);
    // It was perhaps not delivered, and is put again under the same names.
    let [cut] = &sealed_cuts(&rig)[..] else { panic!("one cut") };
    assert_eq!((&cut.instance, cut.first_cut, cut.number, cut.readings), (&old, 1, CUTS, CUTS * 20));
    let digests = |files: &[Segment]| files.iter().map(|file| (file.name.lake_key("gw"), file.sha256)).collect::<Vec<(String, Digest)>>();
    let mut put = digests(&made);
    put.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut again = digests(&rig.reader().cut_segments(&old, CUTS).unwrap());
    again.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(put, again);
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered::default());
    assert_eq!(merge_waiting(&rig).await, Merged::default());
    deliver_all(&rig).await;
    assert_eq!(spans(&rig), []);
    has_each_once(&rig, CUTS);
}

#[tokio::test]
async fn a_ledger_older_than_the_merge_takes_the_merged_cut_for_its_sources() {
    for (known, left) in [(CUTS, 0), (CUTS, 3), (5, 0), (5, 7), (0, 0)] {
        behind(known, left, false).await;
    }
    behind(CUTS, 0, true).await;
}

#[tokio::test]
async fn a_ledger_older_than_the_merge_takes_the_sources_where_all_are_left() {
    for known in [CUTS, 5] {
        let (rig, copy) = with_a_copy_of(known).await;
        let (made, _) = merged_files(&rig);
        record(&rig, &made).await.unwrap();
        let rig = with_the_ledger_of(rig, &copy).await;
        rig.recover().await;
        assert_eq!(spans(&rig).len() as u64, CUTS);
        has_each_once(&rig, CUTS);
        assert_eq!(rig.recover().await, Recovered::default());
    }
}

async fn without_its_ledger(rig: Rig) -> Rig {
    rig.ledger.close().await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(rig.data.path().join(format!("forebay.db{suffix}")));
    }
    let ledger = open(rig.data.path(), &rig.clock);
    Rig { ledger, ..rig }
}

#[tokio::test]
async fn a_lost_ledger_takes_each_reading_back_once() {
    // All sources are left, and one or all files of the merged cut: perhaps a crash came between two of them.
    for unmade in [2, 0] {
        let rig = due().await;
        let (made, sources) = merged_files(&rig);
        for file in made.iter().take(unmade) {
            rig.dir.remove(&file.name).unwrap();
        }
        let rig = without_its_ledger(rig).await;
        let expected = Recovered { adopted: sources.len() as u64, removed: 3 - unmade as u64, ..Recovered::default() };
        assert_eq!(rig.recover().await, expected);
        assert_eq!(spans(&rig).len() as u64, CUTS);
        has_each_once(&rig, CUTS);
    }
    // Some are gone: all of the merged cut was made.
    let rig = due().await;
    let (made, sources) = merged_files(&rig);
    record(&rig, &made).await.unwrap();
    rig.dir.remove(&sources[2]).unwrap();
    cuts(&rig, 1).await;
    let rig = without_its_ledger(rig).await;
    rig.recover().await;
    assert_eq!(spans(&rig), [(1, CUTS), (CUTS + 1, CUTS + 1)]);
    has_each_once(&rig, CUTS + 1);
    assert_eq!(rig.recover().await, Recovered::default());
}

#[tokio::test]
async fn a_lost_ledger_takes_back_once_what_was_merged_twice() {
    let rig = due_of(CUTS * 2).await;
    assert_eq!(merge_waiting(&rig).await.merges, 2);
    let before = with_files(&rig);
    let (made, _) = merged_files(&rig);
    record(&rig, &made).await.unwrap();
    // One file of the first merge is gone, and all of what that was merged from is still there.
    rig.dir.remove(&before[0].1[0].name).unwrap();
    let rig = without_its_ledger(rig).await;
    rig.recover().await;
    assert_eq!(spans(&rig), [(1, CUTS * 2)]);
    has_each_once(&rig, CUTS * 2);
    assert_eq!(rig.recover().await, Recovered::default());
}
