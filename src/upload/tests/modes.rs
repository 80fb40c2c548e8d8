//! The link: it goes, it comes back, and the state says so.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fixture::{Gateway, clock, until};
use super::memory::{Fault, Memory};
use crate::config::{self, Period};
use crate::segment::Sealer;
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
    until("the attempt failed", || running.link.status().state == LinkMode::Probing).await;
    running.handle.kick();
    until("it is there", || gateway.books().delivered == 4).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_is_tried_again_at_the_longest_pause_and_blocks_nothing_but_itself() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Refuse; 5]);
    let running = gateway.start(upstream.clone());
    until("it says why", || running.link.status().last_error.as_deref() == Some("refused: 403")).await;
    until("it got through", || gateway.books().delivered == 4).await;
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
    let never = Period(Duration::from_secs(3600));
    let settings = config::Segment { seal_interval: never, ..config::Segment::default() };
    let (sealer, handle) = Sealer::new(gateway.ledger.clone(), gateway.dir.clone(), settings, clock(), Arc::default());
    gateway.sealer = Some(handle);
    let stop = CancellationToken::new();
    let sealing = tokio::spawn(sealer.run(stop.clone()));
    let upstream = Arc::new(Memory::default());
    upstream.set_down(true);
    let running = gateway.start(upstream.clone());
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    gateway.commit(9).await;
    upstream.set_down(false);
    until("what was hot is there", || gateway.books().delivered == 9).await;
    running.stop().await;
    stop.cancel();
    sealing.await.unwrap().unwrap();
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
