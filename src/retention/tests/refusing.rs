//! Without room: nothing is taken, nothing is lost, and it goes on by itself.

use super::{Rig, settings};
use crate::config::{ByteSize, Retention, WhenFull};

#[tokio::test]
async fn at_the_cap_readings_are_refused_until_something_is_delivered() {
    let mut rig = Rig::new(settings(12, WhenFull::Refuse));
    let mut cuts = 0;
    while rig.space.refusal().is_none() {
        cuts = rig.cut(1000).await;
        rig.round().await;
        assert!(cuts < 20, "the cap was not noticed");
    }
    let why = rig.space.refusal().unwrap();
    assert!(why.contains("retention.cap (12.0 MiB)"), "{why}");
    rig.round().await;
    assert_eq!((rig.space.refusal(), rig.books().dropped, rig.cuts_here().len() as u64), (Some(why), 0, cuts));
    rig.deliver(1).await;
    rig.round().await;
    assert_eq!((rig.space.refusal(), rig.cuts_here()[0]), (None, 2));
}

#[tokio::test]
async fn what_would_not_make_enough_room_is_not_dropped() {
    let mut rig = Rig::new(settings(12, WhenFull::DropOldest));
    rig.cut(1000).await;
    std::fs::write(rig.data.path().join("foreign"), vec![1; 20 << 20]).unwrap();
    rig.round().await;
    let why = rig.space.refusal().unwrap();
    assert!(why.contains("would not make room enough"), "{why}");
    assert_eq!((rig.books().dropped, rig.cuts_here()), (0, vec![1]));
}

#[tokio::test]
async fn a_disk_that_others_filled_costs_what_is_delivered_and_not_all_of_the_rest() {
    // More than any disk has, and so half of it.
    let mut rig = Rig::new(Retention { min_free: ByteSize(1 << 60), ..settings(64, WhenFull::DropOldest) });
    for _ in 0..3 {
        rig.cut(1000).await;
    }
    rig.deliver(2).await;
    let situation = rig.round().await;
    let is_short = situation.disk_free < situation.disk_size / 2;
    assert_eq!(rig.cuts_here().len(), if is_short { 2 } else { 3 });
    assert_eq!((rig.space.refusal(), rig.books().dropped), (None, 0));
}

#[tokio::test]
async fn a_full_disk_that_somebody_meets_makes_room_and_brings_the_reserve_back() {
    let mut rig = Rig::new(settings(64, WhenFull::DropOldest));
    for _ in 0..3 {
        rig.cut(3000).await;
    }
    rig.round().await;
    assert!(rig.data.path().join("reserve").exists());
    rig.enforcer.meet_full();
    assert!(rig.space.refusal().is_some() && !rig.data.path().join("reserve").exists());
    rig.round().await;
    // Four megabytes at least, whatever the figures say.
    assert_eq!(rig.cuts_here(), [3]);
    assert!(rig.space.refusal().is_none() && rig.data.path().join("reserve").exists());
}

#[tokio::test]
async fn the_worker_hears_of_a_full_disk_and_stops_when_told() {
    let mut rig = Rig::new(settings(64, WhenFull::DropOldest));
    for _ in 0..3 {
        rig.cut(3000).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let (space, dir) = (rig.space.clone(), rig.dir.clone());
    let work = tokio::spawn(rig.enforcer.run(stop.clone()));
    space.report_full();
    let mut left = usize::MAX;
    for _ in 0..1000 {
        left = dir.list().unwrap().segments.len();
        if left < 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(left < 3);
    stop.cancel();
    work.await.unwrap().unwrap();
}
