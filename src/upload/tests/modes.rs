//! The link: it goes, it comes back, and the state says so.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Gateway, Running, cuts_in_order, until};
use super::memory::{Fault, Memory};
use super::shipments::is_whole;
use crate::config::{Order, Period};
use crate::upload::{FileUpstream, LinkMode, MARK, verify};

#[tokio::test]
async fn the_state_follows_the_link_and_nothing_is_lost_on_the_way() {
    let gateway = Gateway::new();
    let upstream = Arc::new(Memory::default());
    let running = gateway.start(upstream.clone());
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    gateway.seal(4).await;
    until("the first cut is there", || gateway.books().delivered == 4).await;

    upstream.set_down(true);
    gateway.seal(4).await;
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    let since = running.link.status().since;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let status = running.link.status();
    assert_eq!((status.state, status.since), (LinkMode::Offline, since), "probing in between is not shown");
    assert_eq!(status.last_error.as_deref(), Some("the link is down"));

    upstream.set_down(false);
    until("the second cut is there", || gateway.books().delivered == 8).await;
    until("it is online again", || running.link.status().state == LinkMode::Online).await;
    running.stop().await;
}

#[tokio::test]
async fn an_idle_link_that_goes_is_noticed() {
    let gateway = Gateway::new();
    let upstream = Arc::new(Memory::default());
    let running = gateway.start(upstream.clone());
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    upstream.set_down(true);
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    running.stop().await;
}

#[tokio::test]
async fn a_kick_cuts_a_pause_short() {
    let mut gateway = Gateway::new();
    gateway.settings.probe_interval = Period(Duration::from_secs(3600));
    gateway.settings.retry_min = Period(Duration::from_secs(3600));
    gateway.settings.retry_max = Period(Duration::from_secs(3600));
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.set_down(true);
    let running = gateway.start(upstream.clone());
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    upstream.set_down(false);
    upstream.script([Fault::Fail]);
    running.handle.kick();
    until("the attempt failed", || upstream.puts().len() == 1).await;
    // A kick that comes before the pause begins is no kick of the pause.
    let delivered = || {
        running.handle.kick();
        gateway.books().delivered == 4
    };
    until("it is there", delivered).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lake_folder_that_vanishes_and_comes_back_ends_complete() {
    let gateway = Gateway::new();
    let (lake, away) = (gateway.folder.path().join("lake"), gateway.folder.path().join("away"));
    let running = gateway.start(Arc::new(FileUpstream::new(lake.clone(), Arc::default())));
    gateway.seal(6).await;
    until("the first cut is there", || gateway.books().delivered == 6).await;

    fs::rename(&lake, &away).unwrap();
    gateway.seal(6).await;
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    assert!(running.link.status().last_error.unwrap().contains(MARK));
    // An empty mount point is no lake, neither now nor after a start.
    fs::create_dir(&lake).unwrap();
    running.stop().await;
    let gateway = gateway.reopen().await;
    let running = gateway.start(Arc::new(FileUpstream::new(lake.clone(), Arc::default())));
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    assert_eq!(fs::read_dir(&lake).unwrap().count(), 0);

    fs::remove_dir(&lake).unwrap();
    fs::rename(&away, &lake).unwrap();
    until("the second cut is there", || gateway.books().delivered == 12).await;
    running.stop().await;
    let report = verify(lake.to_str().unwrap(), None).await.unwrap();
    assert!(report.to_string().ends_with("\ncomplete"), "{report}");
}

#[tokio::test]
async fn a_shipment_under_way_is_finished_before_it_stops() {
    let gateway = Gateway::new();
    gateway.seal(10).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Slow; 3]);
    let running = gateway.start(upstream.clone());
    until("it is under way", || upstream.puts().len() == 1).await;
    assert!(gateway.open_shipment().is_some());
    running.stop().await;
    assert_eq!(gateway.books().delivered, 10);
}

#[tokio::test]
async fn when_the_link_is_back_what_is_hot_is_sealed_and_sent_at_once() {
    let mut gateway = Gateway::new();
    gateway.start_sealer();
    let upstream = Arc::new(Memory::default());
    upstream.set_down(true);
    let running = gateway.start(upstream.clone());
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.commit(9).await;
    upstream.set_down(false);
    until("what was hot is there", || gateway.books().delivered == 9).await;
    running.stop().await;
}

#[tokio::test]
async fn the_newest_readings_go_first_after_a_reconnect_also_before_a_shipment_cut_short() {
    let mut gateway = Gateway::new();
    gateway.settings.order = Order::NewestFirst;
    for _ in 0..3 {
        gateway.seal(4).await;
    }
    gateway.start_sealer();
    let upstream = Arc::new(Memory::default());
    // The first file of the third cut gets there, the second is cut short.
    upstream.script([Fault::None, Fault::HangBefore]);
    let running = gateway.start(upstream.clone());
    until("the second file hangs", || upstream.puts().len() == 2).await;
    upstream.set_down(true);
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.commit(9).await;
    upstream.set_down(false);
    until("all is there", || gateway.books().delivered == 21).await;
    running.stop().await;
    let (objects, puts) = (upstream.objects(), upstream.puts());
    assert_eq!(cuts_in_order(&puts, |key| objects[key].to_vec()), [4, 3, 2, 1].map(Some));
    is_whole(&objects, 4);
    let first = &puts[0];
    assert_eq!(puts.iter().filter(|key| *key == first).count(), 1, "what was there already is not sent again");
}

/// A gateway with the second file of its third cut held upstream, 9 newer readings, and a link that is back.
async fn overtaken(upstream: &Arc<Memory>) -> (Gateway, Running) {
    let mut gateway = Gateway::new();
    gateway.settings.order = Order::NewestFirst;
    for _ in 0..3 {
        gateway.seal(4).await;
    }
    gateway.start_sealer();
    upstream.script([Fault::None, Fault::Held]);
    let running = gateway.start(upstream.clone());
    until("the second file is held", || upstream.puts().len() == 2).await;
    upstream.set_down(true);
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.commit(9).await;
    upstream.set_down(false);
    (gateway, running)
}

#[tokio::test]
async fn a_file_under_way_when_the_link_comes_back_goes_on_beside_the_newest_readings_and_is_sent_once() {
    let upstream = Arc::new(Memory::default());
    let (gateway, running) = overtaken(&upstream).await;
    until("the newest are there", || gateway.books().delivered == 9).await;
    let held = upstream.puts()[1].clone();
    assert!(!upstream.objects().contains_key(&held));
    upstream.let_go();
    until("all is there", || gateway.books().delivered == 21).await;
    running.stop().await;
    let (objects, puts) = (upstream.objects(), upstream.puts());
    assert_eq!(cuts_in_order(&puts, |key| objects[key].to_vec()), [4, 3, 2, 1].map(Some));
    is_whole(&objects, 4);
    assert_eq!(puts.iter().filter(|key| **key == held).count(), 1, "{puts:?}");
}

#[tokio::test]
async fn a_file_left_behind_by_who_was_killed_is_put_by_the_next() {
    let upstream = Arc::new(Memory::default());
    let (gateway, running) = overtaken(&upstream).await;
    until("the newest are there", || gateway.books().delivered >= 9).await;
    running.kill().await;
    let gateway = gateway.reopen().await;
    gateway.drain(upstream.clone()).await;
    assert_eq!(gateway.books().delivered, 21);
    is_whole(&upstream.objects(), 4);
}

#[tokio::test]
async fn what_was_sealed_in_the_outage_goes_first_too() {
    let mut gateway = Gateway::new();
    gateway.settings.order = Order::NewestFirst;
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Held]);
    let running = gateway.start(upstream.clone());
    until("it is held", || upstream.puts().len() == 1).await;
    upstream.set_down(true);
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.seal(9).await;
    upstream.set_down(false);
    until("the newest are there", || gateway.books().delivered == 9).await;
    upstream.let_go();
    until("all is there", || gateway.books().delivered == 13).await;
    running.stop().await;
    is_whole(&upstream.objects(), 2);
}

#[tokio::test]
async fn with_oldest_first_a_shipment_cut_short_goes_on_first() {
    let mut gateway = Gateway::new();
    gateway.seal(4).await;
    gateway.start_sealer();
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::HangBefore]);
    let running = gateway.start(upstream.clone());
    until("it hangs", || upstream.puts().len() == 1).await;
    upstream.set_down(true);
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.commit(9).await;
    upstream.set_down(false);
    until("all is there", || gateway.books().delivered == 13).await;
    running.stop().await;
    assert_eq!(cuts_in_order(&upstream.puts(), |key| upstream.objects()[key].to_vec()), [1, 2].map(Some));
}

#[tokio::test]
async fn a_lake_that_goes_before_its_first_shipment_is_not_made_again_elsewhere() {
    let gateway = Gateway::new();
    let lake = gateway.folder.path().join("lake");
    let running = gateway.start(Arc::new(FileUpstream::new(lake.clone(), Arc::default())));
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    fs::rename(&lake, gateway.folder.path().join("away")).unwrap();
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    assert!(!lake.exists());
    running.stop().await;
}
