//! The limits hold: what goes, in which order, and what is said of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{CLOCK, MIB, Rig, settings};
use crate::config::{Period, Retention, WhenFull};
use crate::model::{Books, LossReason};
use crate::segment::{Recovered, Removal};

#[tokio::test]
async fn nothing_goes_while_there_is_room_and_the_reserve_is_made() {
    let mut rig = Rig::new(settings(16, WhenFull::DropOldest));
    let cut = rig.cut(500).await;
    rig.deliver(cut).await;
    let before = rig.books();
    rig.round().await;
    let situation = rig.round().await;
    assert!(!situation.without_reserve && rig.data.path().join("reserve").exists());
    assert_eq!((rig.books(), rig.cuts_here()), (before, vec![1]));
    assert!(rig.state.room().used_bytes > 4 * MIB && rig.state.dropping().is_none());
}

#[tokio::test]
async fn what_is_delivered_goes_first_and_the_oldest_of_it_first() {
    let mut rig = Rig::new(settings(20, WhenFull::DropOldest));
    for _ in 0..6 {
        rig.cut(1000).await;
    }
    let delivered = [4, 3, 6];
    for cut in delivered {
        rig.deliver(cut).await;
    }
    let mut cuts = 6;
    while rig.books().dropped == 0 {
        let here = rig.cuts_here();
        let left: Vec<_> = here.iter().filter(|cut| delivered.contains(cut)).copied().collect();
        assert!([3, 4, 6].ends_with(&left), "{here:?}");
        assert_eq!(here.iter().filter(|cut| !delivered.contains(cut)).count(), cuts - 3, "{here:?}");
        rig.cut(1000).await;
        cuts += 1;
        rig.round().await;
        assert!(cuts < 40, "the cap was not noticed");
    }
    let (here, books) = (rig.cuts_here(), rig.books());
    let dropped = usize::try_from(books.dropped / 1000).unwrap();
    let undelivered: Vec<_> = (1..=cuts as u64).filter(|cut| !delivered.contains(cut)).collect();
    assert_eq!(here, undelivered[dropped..], "the oldest of what is not delivered, when nothing else is left");
    assert_eq!((books.delivered, books.kept), (3000, 1000 * here.len() as u64));
    let loss = rig.reader().losses(100).unwrap().pop().unwrap().loss;
    assert_eq!((loss.first_seq, loss.last_seq, loss.reason), (1, 1000, LossReason::Dropped));
    assert!(loss.detail.contains("of retention.cap (20.0 MiB)"), "{}", loss.detail);
    assert_eq!(rig.state.dropping(), Some(books.dropped));
}

#[tokio::test]
async fn the_cut_of_the_shipment_under_way_stays_until_its_outcome_is_known() {
    let mut rig = Rig::new(settings(12, WhenFull::DropOldest));
    let first = rig.cut(1000).await;
    let shipment = rig.begin_shipment(first).await;
    while rig.books().dropped < 3000 {
        rig.cut(1000).await;
        rig.round().await;
    }
    assert!(rig.cuts_here().contains(&first), "{:?}", rig.cuts_here());
    rig.ledger.finish_shipment(shipment.instance, shipment.number).await.unwrap();
    rig.cut(1000).await;
    rig.round().await;
    let books = rig.books();
    assert!(!rig.cuts_here().contains(&first));
    assert_eq!(books.delivered, 1000, "what was delivered is no drop");
}

#[tokio::test]
async fn a_segment_that_is_read_goes_when_its_reader_is_done() {
    let mut rig = Rig::new(settings(12, WhenFull::DropOldest));
    let cut = rig.cut(1000).await;
    rig.deliver(cut).await;
    let name = rig.segments()[0].name.clone();
    let pin = rig.dir.pin(std::slice::from_ref(&name));
    let mut leaving = 0;
    while leaving == 0 {
        rig.cut(1000).await;
        leaving = rig.round().await.leaving;
    }
    assert!(leaving > MIB / 2 && rig.dir.path(&name).exists());
    assert!(rig.segments().iter().all(|segment| segment.name != name), "queries that begin now do not see it");
    drop(pin);
    rig.round().await;
    assert_eq!(rig.dir.remove(&name).unwrap(), Removal::Absent);
}

#[tokio::test]
async fn a_kill_between_the_record_and_the_removal_is_settled_at_the_next_start() {
    let mut rig = Rig::new(settings(64, WhenFull::DropOldest));
    for _ in 0..3 {
        rig.cut(100).await;
    }
    rig.deliver(1).await;
    let instance = rig.ledger.identity().instance;
    let names: Vec<_> = rig.segments().into_iter().map(|segment| segment.name).filter(|name| name.cut == 1).collect();
    rig.ledger.evict(names).await.unwrap();
    rig.ledger.drop_cuts(vec![(instance.clone(), 2)], "a test".to_owned()).await.unwrap();
    assert_eq!(rig.recover().await, Recovered { removed: 2, ..Recovered::default() });
    assert_eq!((rig.cuts_here(), rig.ledger.identity().instance), (vec![3], instance));
    let expected = Books { accepted: 300, sealed: 100, delivered: 100, dropped: 100, kept: 100, ..Books::default() };
    assert_eq!(rig.books(), expected);
}

#[tokio::test]
async fn a_large_journal_is_sealed_and_goes_as_a_cut() {
    let mut rig = Rig::new(settings(12, WhenFull::DropOldest));
    rig.commit(10_000).await;
    let mut situation = rig.round().await;
    for _ in 0..3 {
        situation = rig.round().await;
    }
    let books = rig.books();
    assert!(books.hot == 0 && books.dropped + books.sealed == 10_000, "{books:?}");
    assert!(situation.used <= 12 * MIB, "{situation:?}");
    assert_eq!(rig.space.refusal(), None);
}

#[tokio::test]
async fn readings_have_a_cap_of_their_own() {
    let mut rig = Rig::new(Retention { cap_readings: 250, ..settings(64, WhenFull::DropOldest) });
    for _ in 0..4 {
        rig.cut(100).await;
    }
    rig.deliver(4).await;
    rig.round().await;
    assert_eq!(rig.cuts_here(), [2, 3]);
    assert_eq!((rig.books().kept, rig.books().dropped), (200, 100));
    assert!(rig.reader().losses(1).unwrap()[0].loss.detail.contains("retention.cap_readings is 250"));
}

#[tokio::test]
async fn age_counts_for_what_is_delivered_and_only_with_a_clock_that_can_be_believed() {
    let hour = Period(Duration::from_secs(3600));
    let mut rig =
        Rig::new(Retention { max_age: Period(Duration::from_millis(60)), check_interval: hour, ..settings(64, WhenFull::DropOldest) });
    for _ in 0..2 {
        rig.cut(100).await;
    }
    rig.deliver(1).await;
    let elapsed = std::time::Instant::now();
    let look = async |rig: &mut Rig, ahead: i64, synchronised: bool| {
        let now = CLOCK + ahead + i64::try_from(elapsed.elapsed().as_micros()).unwrap();
        rig.clock.now.store(now, Ordering::Relaxed);
        rig.clock.synchronised.store(synchronised, Ordering::Relaxed);
        rig.round().await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        rig.cuts_here()
    };
    let day = 86_400_000_000;
    assert_eq!(look(&mut rig, day, false).await, [1, 2]);
    assert_eq!(look(&mut rig, 2 * day, true).await, [1, 2], "it was synchronised just now");
    assert_eq!(look(&mut rig, 9 * day, true).await, [1, 2], "it jumped");
    assert_eq!(look(&mut rig, 9 * day, true).await, [2]);
    assert_eq!(rig.books().delivered, 100);
}

#[tokio::test]
async fn rows_of_what_is_gone_leave_the_ledger_when_the_files_are_gone() {
    let mut rig = Rig::new(settings(12, WhenFull::DropOldest));
    for _ in 0..12 {
        let cut = rig.cut(1000).await;
        rig.deliver(cut).await;
        rig.round().await;
    }
    let here = rig.cuts_here();
    rig.enforcer.pruned = None;
    rig.round().await;
    let cuts: Vec<_> = rig.reader().cuts().unwrap().iter().map(|cut| cut.number).collect();
    assert_eq!(cuts, here, "{cuts:?}");
    assert!(here.len() < 12);
    assert_eq!(rig.books().delivered, 12_000);
}
