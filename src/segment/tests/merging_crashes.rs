//! Merges of delivered files and crashes: each reading is there once after every step, and with an older ledger or none.

use std::fs;

use super::merging::{CUTS, cuts, deliver_all, due, files, has_each_once, names};
use super::*;
use crate::ledger::LedgerError;
use crate::model::SegmentName;
use crate::segment::Recovered;
use crate::segment::merge::merge;

/// The merged file, with all steps done but the ledger's transaction.
fn merged_file(rig: &Rig) -> (Segment, Vec<SegmentName>) {
    let standing = rig.reader().standing(&rig.reader().groups().unwrap()[0]).unwrap();
    let sources: Vec<_> = standing.into_iter().map(|standing| standing.segment).collect();
    let (segment, held) = merge(&rig.dir, &sources, &CancellationToken::new()).unwrap();
    (segment, held.iter().map(|source| source.name.clone()).collect())
}

#[tokio::test]
async fn the_ledger_refuses_a_merge_whose_sources_are_not_what_they_were() {
    let rig = due().await;
    let (merged, sources) = merged_file(&rig);
    let finish = |merged: Segment, sources: Vec<SegmentName>| {
        let ledger = rig.ledger.clone();
        async move { matches!(ledger.finish_merge(merged, sources).await, Err(LedgerError::Invalid(_))) }
    };
    assert!(finish(merged.clone(), sources[1..].to_vec()).await);
    assert!(finish(Segment { rows: merged.rows + 1, ..merged.clone() }, sources.clone()).await);
    let narrow = SegmentName { first_cut: 2, ..merged.name.clone() };
    assert!(finish(Segment { name: narrow, ..merged.clone() }, sources.clone()).await);
    rig.ledger.evict(vec![sources[4].clone()]).await.unwrap();
    assert!(finish(merged, sources).await);
    assert_eq!(rig.books().kept, (CUTS - 1) * 20);
    rig.audit();
}

#[tokio::test]
async fn a_crash_before_the_merging_transaction_removes_the_merged_file() {
    let rig = due().await;
    let (merged, _) = merged_file(&rig);
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: 1, ..Recovered::default() });
    assert!(!files(&rig).contains(&merged.name));
    has_each_once(&rig, CUTS);
    // Also where retention took one of its sources meanwhile.
    let (_, sources) = merged_file(&rig);
    rig.ledger.evict(vec![sources[0].clone()]).await.unwrap();
    rig.dir.remove(&sources[0]).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: 1, ..Recovered::default() });
    assert_eq!((rig.books().kept, files(&rig).len()), ((CUTS - 1) * 20, CUTS as usize - 1));
    assert_eq!(rig.recover().await, Recovered::default());
}

#[tokio::test]
async fn a_crash_after_the_merging_transaction_removes_the_sources() {
    let rig = due().await;
    let (merged, sources) = merged_file(&rig);
    rig.ledger.finish_merge(merged.clone(), sources.clone()).await.unwrap();
    rig.dir.remove(&sources[0]).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: CUTS - 1, ..Recovered::default() });
    assert_eq!(files(&rig), [merged.name]);
    has_each_once(&rig, CUTS);
    assert_eq!(rig.recover().await, Recovered::default());
}

/// Puts back a copy of the ledger that was made when it was closed.
pub(super) async fn with_the_ledger_of(rig: Rig, copy: &[u8]) -> Rig {
    let rig = rig.restart().await;
    rig.ledger.close().await.unwrap();
    fs::write(rig.data.path().join("forebay.db"), copy).unwrap();
    rig.restart().await
}

pub(super) async fn copy_of_ledger(rig: Rig) -> (Rig, Vec<u8>) {
    rig.ledger.close().await.unwrap();
    let bytes = fs::read(rig.data.path().join("forebay.db")).unwrap();
    (rig.restart().await, bytes)
}

#[tokio::test]
async fn a_ledger_older_than_the_merge_takes_the_merged_file_for_its_sources() {
    for (delivered, removed) in [(true, CUTS as usize), (true, 3), (false, CUTS as usize)] {
        let rig = Rig::new();
        cuts(&rig, CUTS).await;
        if delivered {
            deliver_all(&rig).await;
        }
        let (rig, copy) = copy_of_ledger(rig).await;
        deliver_all(&rig).await;
        let old = rig.ledger.identity().instance;
        let (merged, sources) = merged_file(&rig);
        rig.ledger.finish_merge(merged.clone(), sources.clone()).await.unwrap();
        for source in sources.iter().take(removed) {
            rig.dir.remove(source).unwrap();
        }
        let rig = with_the_ledger_of(rig, &copy).await;
        let expected = Recovered { adopted: 1, removed: CUTS - removed as u64, ..Recovered::default() };
        assert_eq!(rig.recover().await, expected);
        assert_eq!(rig.ledger.identity().forked_from, Some(old), "it is behind the world");
        assert_eq!((files(&rig), names(&rig)), (vec![merged.name.clone()], vec![merged.name.clone()]));
        assert_eq!(rig.reader().next_cut(false).unwrap(), None, "what is merged was delivered");
        has_each_once(&rig, CUTS);
        let rig = rig.restart().await;
        assert_eq!(rig.recover().await, Recovered::default());
        rig.ledger.evict(vec![merged.name]).await.unwrap();
        rig.audit();
    }
}

#[tokio::test]
async fn a_lost_ledger_takes_each_reading_back_once() {
    let rig = due().await;
    let (merged, sources) = merged_file(&rig);
    rig.ledger.finish_merge(merged, sources).await.unwrap();
    cuts(&rig, 1).await;
    rig.ledger.close().await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(rig.data.path().join(format!("forebay.db{suffix}")));
    }
    let ledger = open(rig.data.path(), &rig.clock);
    let rig = Rig { ledger, ..rig };
    // The merged file and the cut after it; the sources were still there.
    assert_eq!(rig.recover().await, Recovered { adopted: 2, removed: CUTS, ..Recovered::default() });
    has_each_once(&rig, CUTS + 1);
    assert_eq!(rig.reader().next_cut(false).unwrap().map(|cut| cut.number), Some(CUTS + 1));
    assert_eq!(rig.recover().await, Recovered::default());
}

#[tokio::test]
async fn a_merged_file_that_is_damaged_is_no_reason_to_lose_its_sources() {
    let rig = due().await;
    let (merged, _) = merged_file(&rig);
    fs::write(rig.dir.path(&merged.name), b"PAR1 but not really PAR1").unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { quarantined: 1, ..Recovered::default() });
    has_each_once(&rig, CUTS);
}
