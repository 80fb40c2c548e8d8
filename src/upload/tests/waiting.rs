//! How long it waits: for a way, for an answer, for patience that upstream asks for, and for the stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::{Gateway, until};
use super::memory::{Fault, Memory};
use super::shipments::is_whole;
use crate::config::Period;
use crate::upload::LinkMode;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_upstream_asks_to_wait_is_waited_and_a_hint_does_not_shorten_it() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Busy(Duration::from_millis(600))]);
    let (running, begun) = (gateway.start(upstream.clone()), Instant::now());
    until("it asks", || running.link.status().last_error.as_deref() == Some("429")).await;
    running.handle.kick();
    until("it is there", || gateway.books().delivered == 4).await;
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_flush_overrides_what_upstream_asks() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Busy(HOUR)]);
    let running = gateway.start(upstream.clone());
    until("it asks", || running.link.status().last_error.as_deref() == Some("429")).await;
    until("it waits", || running.link.status().state == LinkMode::Probing).await;
    running.handle.flush().await.unwrap();
    until("it is there", || gateway.books().delivered == 4).await;
    running.stop().await;
}

#[tokio::test]
async fn a_put_that_moves_is_waited_for_however_slow() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Trickle]);
    let link = gateway.drain(upstream.clone()).await;
    assert_eq!(upstream.puts().len(), 3, "each once");
    assert_eq!(link.status().last_error, None);
}

#[tokio::test]
async fn a_connection_that_died_in_an_outage_is_given_up_when_the_link_is_back() {
    let mut gateway = Gateway::new();
    // Nothing but the watch over the put can be in time.
    gateway.settings.retry_min = Period(HOUR);
    gateway.settings.retry_max = Period(HOUR);
    let segments = gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::HangBefore]);
    let running = gateway.start(upstream.clone());
    until("it hangs", || upstream.puts().len() == 1).await;
    upstream.set_down(true);
    until("the outage is seen", || running.link.status().state == LinkMode::Offline).await;
    assert!(gateway.open_shipment().is_some());
    upstream.set_down(false);
    until("it is there", || gateway.books().delivered == 4).await;
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    running.stop().await;
    assert_eq!((segments.len(), upstream.puts().len()), (2, 4), "one was put again");
    is_whole(&upstream.objects(), 1);
}

#[tokio::test]
async fn news_of_the_network_are_a_reason_to_look_at_once() {
    let mut gateway = Gateway::new();
    gateway.settings.probe_interval = Period(HOUR);
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.set_down(true);
    let running = gateway.start(upstream.clone());
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    upstream.set_down(false);
    running.handle.network_changed();
    until("it is there", || gateway.books().delivered == 4).await;
    running.stop().await;
}

#[tokio::test]
async fn a_probe_without_an_answer_does_not_hold_up_the_next() {
    let gateway = Gateway::new();
    let upstream = Arc::new(Memory::default());
    upstream.set_deaf_to(3);
    let (running, begun) = (gateway.start(upstream.clone()), Instant::now());
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    assert!(upstream.probes() >= 4);
    let alone = Duration::from_millis(300);
    assert!(begun.elapsed() < 3 * alone, "{:?}", begun.elapsed());
    running.stop().await;
}

#[tokio::test]
async fn a_shipment_that_takes_too_long_is_left_to_the_next_start() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Trickle; 3]);
    let running = gateway.start(upstream.clone());
    until("it is under way", || upstream.puts().len() == 1).await;
    let begun = gateway.open_shipment().expect("a shipment under way");
    running.stop().await;
    assert_eq!(gateway.open_shipment(), Some(begun.clone()));
    let gateway = gateway.reopen().await;
    upstream.script([]);
    gateway.drain(upstream.clone()).await;
    assert_eq!(upstream.objects()[&gateway.manifest_key(1)], begun.manifest);
    is_whole(&upstream.objects(), 1);
}
