//! Damage on the medium.

use std::fs;

use super::*;
use crate::model::Shipment;
use crate::segment::Scrubber;

const FAST: u64 = 1 << 40;

fn scrubber(rig: &Rig) -> Scrubber {
    Scrubber::new(rig.ledger.clone(), rig.dir.clone(), Arc::clone(&rig.state))
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// Three cuts, and the process began anew: nothing is verified.
async fn three_cuts() -> Rig {
    let rig = Rig::new();
    for cut in 0..3 {
        rig.commit(some(10, DAY + cut * 100_000_000)).await;
        rig.flush().await;
    }
    let rig = rig.restart().await;
    assert!(rig.segments().iter().all(|segment| !rig.dir.verified().contains(&segment.name)));
    rig
}

#[tokio::test]
async fn one_wrong_bit_is_found_set_aside_and_counted() {
    let rig = three_cuts().await;
    let segments = rig.segments();
    flip(&rig.dir.path(&segments[1].name), 200);
    assert!(scrubber(&rig).pass(FAST, |_| true).await.unwrap());
    let verified: Vec<_> = segments.iter().map(|segment| rig.dir.verified().contains(&segment.name)).collect();
    assert_eq!(verified, [true, false, true]);
    assert!(!rig.dir.path(&segments[1].name).exists());
    assert_eq!(fs::read_dir(rig.data.path().join("quarantine")).unwrap().count(), 2);
    let books = rig.books();
    assert_eq!((books.damaged, books.sealed, books.kept), (10, 20, 20));
    assert_eq!((rig.state.verified(), rig.state.damaged()), (2, 1));
    rig.audit();
}

#[tokio::test]
async fn a_file_that_vanished_is_a_loss() {
    let rig = three_cuts().await;
    fs::remove_file(rig.dir.path(&rig.segments()[0].name)).unwrap();
    scrubber(&rig).pass(FAST, |_| true).await.unwrap();
    assert_eq!(rig.books().damaged, 10);
    assert_eq!(rig.segments().len(), 2);
    rig.audit();
}

#[tokio::test]
async fn damage_that_the_ledger_can_not_note_yet_is_told_later() {
    let rig = three_cuts().await;
    let instance = rig.ledger.identity().instance;
    let shipment =
        Shipment { instance: instance.clone(), number: 1, cut: Some(2), first_cut: Some(2), manifest: b"{}".to_vec(), losses: Vec::new() };
    rig.ledger.begin_shipment(shipment).await.unwrap();
    flip(&rig.dir.path(&rig.segments()[1].name), 100);
    assert!(!scrubber(&rig).pass(FAST, |_| true).await.unwrap());
    assert_eq!(rig.books().damaged, 0);
    rig.ledger.abandon_shipment(instance, 1).await.unwrap();
    assert!(scrubber(&rig).pass(FAST, |_| true).await.unwrap());
    assert_eq!(rig.books().damaged, 10);
    rig.audit();
}

#[tokio::test]
async fn the_first_pass_verifies_what_is_not_and_tells_of_it() {
    let rig = three_cuts().await;
    let mut changes = rig.dir.verified().changes();
    let stop = CancellationToken::new();
    let task = tokio::spawn(scrubber(&rig).run(stop.clone()));
    changes.changed().await.unwrap();
    until("all are verified", || rig.segments().iter().all(|segment| rig.dir.verified().contains(&segment.name))).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    // What this process sealed counts as verified, and the first pass leaves it out.
    rig.commit(some(10, DAY)).await;
    rig.flush().await;
    scrubber(&rig).pass(FAST, |name| !rig.dir.verified().contains(name)).await.unwrap();
    assert_eq!(rig.state.verified(), 3);
}
