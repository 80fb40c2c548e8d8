//! After a crash at each step of a seal, and with ledgers and files that do not fit each other.

use std::fs;

use super::*;
use crate::model::{Day, FileKind, InstanceId, LossReason, SegmentName, Shipment};
use crate::segment::seal::stage;
use crate::segment::{Recovered, digest_file};

const HOT: i64 = 500;

/// A rig with hot readings over two days and a record.
async fn hot() -> Rig {
    let rig = Rig::new();
    for batch in 0..5 {
        rig.commit(some(HOT / 5, DAY + batch * MICROS_PER_DAY / 4)).await;
    }
    rig.record("a", "one").await;
    rig
}

/// All readings get sealed once, and nothing else is in the folder.
async fn seals_all_once(rig: &Rig) {
    rig.flush().await;
    let seqs: Vec<_> = rig.sealed().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, (1..=HOT as u64).collect::<Vec<_>>());
    let listing = rig.dir.list().unwrap();
    assert_eq!(listing.segments.len(), rig.segments().len());
    assert!(listing.temporary.is_empty() && listing.foreign.is_empty());
    assert_eq!(rig.recover().await, Recovered::default());
    rig.audit();
}

#[tokio::test]
async fn a_crash_before_the_files_have_names_leaves_nothing() {
    let rig = hot().await;
    let staged = stage(&rig.dir, &rig.draft()).unwrap();
    std::mem::forget(staged);
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { temporary: 3, ..Recovered::default() });
    seals_all_once(&rig).await;
}

#[tokio::test]
async fn a_crash_between_two_renames_loses_and_doubles_nothing() {
    let rig = hot().await;
    let staged = stage(&rig.dir, &rig.draft()).unwrap();
    let temporary = rig.dir.list().unwrap().temporary;
    std::mem::forget(staged);
    fs::rename(&temporary[0], temporary[0].with_extension("")).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { temporary: 2, removed: 1, ..Recovered::default() });
    seals_all_once(&rig).await;
}

#[tokio::test]
async fn a_crash_before_the_sealing_transaction_removes_the_files_and_seals_again() {
    let rig = hot().await;
    stage(&rig.dir, &rig.draft()).unwrap().publish(&rig.dir).unwrap();
    let instance = rig.ledger.identity();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: 3, ..Recovered::default() });
    assert_eq!(rig.ledger.identity(), instance);
    seals_all_once(&rig).await;
}

#[tokio::test]
async fn a_crash_after_the_sealing_transaction_needs_nothing() {
    let rig = hot().await;
    rig.flush().await;
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered::default());
    seals_all_once(&rig).await;
}

#[tokio::test]
async fn files_newer_than_the_ledger_are_adopted_and_a_new_instance_begins() {
    let rig = Rig::new();
    rig.commit(some(100, DAY)).await;
    rig.ledger.close().await.unwrap();
    let (db, copy) = (rig.data.path().join("forebay.db"), rig.data.path().join("copy"));
    fs::copy(&db, &copy).unwrap();
    let rig = rig.restart().await;
    let old = rig.ledger.identity().instance;
    rig.commit(some(300, DAY + MICROS_PER_DAY)).await;
    rig.record("a", "unknown to the copy").await;
    rig.flush().await;
    rig.ledger.close().await.unwrap();
    fs::rename(&copy, &db).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.books().accepted, 100);

    assert_eq!(rig.recover().await, Recovered { adopted: 3, ..Recovered::default() });
    let identity = rig.ledger.identity();
    assert_eq!(identity.forked_from, Some(old.clone()));
    assert!(rig.segments().iter().all(|segment| segment.name.instance == old));
    // The copy's hot readings are in an adopted file: each is there once.
    assert_eq!(rig.sealed().len(), 400);
    assert_eq!(rig.books().kept, 400);
    rig.commit(some(10, DAY)).await;
    assert_eq!(rig.flush().await, Some(1));
    assert_eq!(rig.sealed().len(), 410);
    assert_eq!(rig.recover().await, Recovered::default());
    rig.audit();
}

#[tokio::test]
async fn a_lost_ledger_takes_all_readable_files_back() {
    let rig = hot().await;
    rig.flush().await;
    let spoilt = rig.segments().into_iter().find(|segment| segment.name.kind == FileKind::Records).unwrap();
    rig.ledger.close().await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(rig.data.path().join(format!("forebay.db{suffix}")));
    }
    fs::write(rig.dir.path(&spoilt.name), b"PAR1 but not really PAR1").unwrap();
    let ledger = open(rig.data.path(), &rig.clock);
    let rig = Rig { ledger, ..rig };
    let recovered = rig.recover().await;
    assert_eq!((recovered.adopted, recovered.quarantined), (2, 1));
    assert_eq!(rig.sealed().len(), HOT as usize);
    assert_eq!(fs::read_dir(rig.data.path().join("quarantine")).unwrap().count(), 2);
}

#[tokio::test]
async fn a_segment_whose_file_is_gone_is_a_loss() {
    let rig = hot().await;
    rig.flush().await;
    for segment in rig.segments().iter().filter(|segment| segment.name.kind == FileKind::Readings) {
        fs::remove_file(rig.dir.path(&segment.name)).unwrap();
    }
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { damaged: 2, ..Recovered::default() });
    let books = rig.books();
    assert_eq!((books.damaged, books.sealed, books.kept), (HOT as u64, 0, 0));
    assert!(rig.reader().losses(10).unwrap().iter().all(|status| status.loss.reason == LossReason::Damaged));
    assert_eq!(rig.state.damaged(), 2);
    assert!(rig.dir.list().unwrap().segments.iter().all(|name| name.kind == FileKind::Records));
    assert_eq!(rig.recover().await, Recovered::default());
    rig.audit();
}

/// Ships cut 1 as far as the ledger is concerned.
async fn deliver(rig: &Rig) {
    let instance = rig.ledger.identity().instance;
    let shipment =
        Shipment { instance: instance.clone(), number: 1, cut: Some(1), first_cut: Some(1), manifest: b"{}".to_vec(), losses: Vec::new() };
    rig.ledger.begin_shipment(shipment).await.unwrap();
    rig.ledger.finish_shipment(instance, 1).await.unwrap();
}

#[tokio::test]
async fn a_crash_between_evicting_and_removing_removes_the_file() {
    let rig = hot().await;
    rig.flush().await;
    deliver(&rig).await;
    let names: Vec<_> = rig.segments().into_iter().map(|segment| segment.name).collect();
    rig.ledger.evict(names.clone()).await.unwrap();
    // One of them was damaged before anyone noticed: it is kept for a look.
    fs::write(rig.dir.path(&names[0]), b"damaged").unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { removed: 2, quarantined: 1, ..Recovered::default() });
    assert!(rig.dir.list().unwrap().segments.is_empty());
    assert_eq!(rig.books().damaged, 0);
}

#[tokio::test]
async fn damage_in_a_cut_under_way_does_not_keep_the_daemon_from_starting() {
    let rig = hot().await;
    rig.flush().await;
    let instance = rig.ledger.identity().instance;
    let shipment = Shipment { instance, number: 1, cut: Some(1), first_cut: Some(1), manifest: b"{}".to_vec(), losses: Vec::new() };
    rig.ledger.begin_shipment(shipment).await.unwrap();
    fs::remove_file(rig.dir.path(&rig.segments()[0].name)).unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await.damaged, 1);
    assert_eq!(rig.books().damaged, 0);
}

#[tokio::test]
async fn strange_files_are_set_aside_or_left_alone_and_nothing_stops_the_start() {
    let rig = hot().await;
    rig.flush().await;
    let other: InstanceId = "00000000000000aa".parse().unwrap();
    let lying = SegmentName::new(FileKind::Readings, Some(Day(1)), other.clone(), 9);
    let nonsense = SegmentName::new(FileKind::Readings, None, other, 10);
    let second_file = SegmentName { date: "2020-01-01".to_owned(), ..rig.segments()[0].name.clone() };
    for name in [&lying, &nonsense, &second_file] {
        fs::create_dir_all(rig.dir.path(name).parent().unwrap()).unwrap();
    }
    // A good file under the name of another cut, and one more of a cut that the ledger has with other files.
    fs::copy(rig.dir.path(&rig.segments()[0].name), rig.dir.path(&lying)).unwrap();
    fs::copy(rig.dir.path(&rig.segments()[0].name), rig.dir.path(&second_file)).unwrap();
    fs::write(rig.dir.path(&nonsense), b"").unwrap();
    fs::write(rig.data.path().join("segments/readings/README"), b"hello").unwrap();
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered { quarantined: 3, ..Recovered::default() });
    assert!(rig.data.path().join("segments/readings/README").exists());
    assert_eq!(rig.sealed().len(), HOT as usize);
    rig.audit();
}

#[tokio::test]
async fn the_contents_of_known_segments_are_not_read_at_the_start() {
    let rig = Rig::new();
    for cut in 0..20 {
        rig.commit(some(10, DAY + cut * 1000)).await;
        rig.flush().await;
    }
    for segment in rig.segments() {
        let path = rig.dir.path(&segment.name);
        fs::write(&path, b"not what it was").unwrap();
        assert_ne!(digest_file(&path).unwrap().0, segment.sha256);
    }
    let rig = rig.restart().await;
    assert_eq!(rig.recover().await, Recovered::default());
    assert_eq!(rig.segments().len(), 20);
}
