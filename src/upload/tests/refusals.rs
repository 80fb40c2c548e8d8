//! What upstream refuses for good blocks nothing else, is not forgotten, and is tried again.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Gateway, cuts_in_order, until};
use super::memory::{Fault, Memory};
use super::shipments::is_whole;
use crate::config::{Order, Period};
use crate::model::{Digest, Manifest};
use crate::upload::LinkMode;

/// Whether `key` is of a file of `cut`.
fn is_file_of(key: &str, cut: u64) -> bool {
    key.ends_with(&format!("-{cut:010}.parquet"))
}

/// Three cuts of 4 readings, oldest first, of which upstream refuses the files of the first.
async fn first_refused() -> (Gateway, Arc<Memory>) {
    let gateway = Gateway::new();
    for _ in 0..3 {
        gateway.seal(4).await;
    }
    let upstream = Arc::new(Memory::default());
    upstream.refuse(|key| is_file_of(key, 1));
    (gateway, upstream)
}

#[tokio::test]
async fn a_refused_cut_is_passed_over_and_the_others_follow_each_other() {
    let (gateway, upstream) = first_refused().await;
    let running = gateway.start(upstream.clone());
    until("the others are there", || gateway.books().delivered == 8).await;
    let objects = upstream.objects();
    assert_eq!(cuts_in_order(&upstream.puts(), |key| objects[key].to_vec()), [2, 3].map(Some));
    is_whole(&objects, 2);
    let second: Manifest = serde_json::from_slice(&objects[&gateway.manifest_key(2)]).unwrap();
    assert_eq!(second.previous, Some(Digest::of(&objects[&gateway.manifest_key(1)])));
    let refusals = gateway.read(|reader| reader.refusals()).unwrap();
    assert_eq!((refusals.cuts, refusals.readings, refusals.reason.as_str()), (1, 4, "413"));
    assert_eq!((running.link.status().refused, gateway.books().sealed), (None, 4));

    // It is tried again by a flush.
    let tried = upstream.puts().len();
    running.handle.flush().await.unwrap();
    until("it is tried again", || upstream.puts().len() > tried).await;
    until("it is refused again", || gateway.refused() == 1).await;
    upstream.refuse(|_| false);
    running.handle.flush().await.unwrap();
    until("it is there", || gateway.books().delivered == 12).await;
    running.stop().await;
    is_whole(&upstream.objects(), 3);
    assert_eq!(gateway.refused(), 0);
}

#[tokio::test]
async fn a_refused_cut_is_tried_again_a_day_later() {
    let (gateway, upstream) = first_refused().await;
    let running = gateway.start(upstream.clone());
    until("the others are there", || gateway.books().delivered == 8).await;
    upstream.refuse(|_| false);
    gateway.clock.forward(Duration::from_secs(23 * 3600));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(gateway.refused(), 1, "not before");
    gateway.clock.forward(Duration::from_secs(3600));
    until("it is there", || gateway.books().delivered == 12).await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_manifest_is_as_good_as_a_refused_file() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let segments = gateway.seal(5).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::None, Fault::None, Fault::Refuse]);
    let running = gateway.start(upstream.clone());
    until("the other is there", || gateway.books().delivered == 5).await;
    assert_eq!(gateway.refused(), 1);
    let before = upstream.puts();
    running.handle.flush().await.unwrap();
    until("both are there", || gateway.books().delivered == 9).await;
    running.stop().await;
    is_whole(&upstream.objects(), 2);
    let again: Vec<_> = upstream.puts()[before.len()..].to_vec();
    assert_eq!((again.len(), segments.len()), (1, 2), "files that are there are not sent again: {again:?}");
}

#[tokio::test]
async fn where_everything_is_refused_it_slows_down_and_later_all_of_it_goes() {
    let mut gateway = Gateway::new();
    gateway.settings.retry_max = Period(Duration::from_millis(400));
    for _ in 0..8 {
        gateway.seal(4).await;
    }
    let upstream = Arc::new(Memory::default());
    upstream.refuse(|_| true);
    let running = gateway.start(upstream.clone());
    until("the link is known to be refused", || running.link.status().refused.is_some()).await;
    assert_eq!((gateway.refused(), upstream.puts().len()), (2, 2), "one more was tried, and no third");
    assert_eq!(running.link.status().refused.as_deref(), Some("refused: 413"));
    until("the pause is over", || upstream.puts().len() == 3).await;
    upstream.refuse(|_| false);
    until("all is there", || gateway.books().delivered == 32).await;
    assert_eq!((running.link.status().refused, gateway.refused()), (None, 0));
    running.stop().await;
    is_whole(&upstream.objects(), 8);
}

#[tokio::test]
async fn cuts_that_are_refused_for_what_they_are_cost_two_attempts_and_no_more() {
    let mut gateway = Gateway::new();
    gateway.settings.order = Order::NewestFirst;
    for _ in 0..6 {
        gateway.seal(4).await;
    }
    let upstream = Arc::new(Memory::default());
    let too_large = |key: &str| is_file_of(key, 5) || is_file_of(key, 6);
    upstream.refuse(too_large);
    let running = gateway.start(upstream.clone());
    until("the others are there", || gateway.books().delivered == 16).await;
    until("both are refused for good", || gateway.refused() == 2).await;
    gateway.seal(4).await;
    until("a later one is there", || gateway.books().delivered == 20).await;
    running.stop().await;
    let attempts = upstream.puts().iter().filter(|key| too_large(key)).count();
    assert!((3..=4).contains(&attempts), "{attempts} attempts");
    is_whole(&upstream.objects(), 5);
}

#[tokio::test]
async fn where_upstream_does_not_know_us_no_cut_is_blamed() {
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::Fail; 3]);
    let running = gateway.start(upstream.clone());
    until("it began", || gateway.open_shipment().is_some()).await;
    upstream.set_forbidden(true);
    until("it says so", || running.link.status().refused.is_some()).await;
    assert_eq!((gateway.refused(), gateway.open_shipment().map(|open| open.number)), (0, Some(1)));
    upstream.set_forbidden(false);
    until("it is there", || gateway.books().delivered == 4).await;
    assert_eq!(running.link.status().refused, None);
    running.stop().await;
}

#[tokio::test]
async fn keys_that_may_look_but_not_put_are_shown_and_no_cut_is_blamed() {
    let mut gateway = Gateway::new();
    gateway.settings.retry_max = Period(Duration::from_millis(100));
    for _ in 0..3 {
        gateway.seal(4).await;
    }
    let upstream = Arc::new(Memory::default());
    upstream.set_read_only(true);
    let running = gateway.start(upstream.clone());
    until("it is tried again and again", || upstream.puts().len() >= 4).await;
    let status = running.link.status();
    assert_eq!((status.refused.as_deref(), status.last_error.as_deref()), (Some("refused: 403"), Some("refused: 403")));
    assert_eq!((gateway.refused(), gateway.open_shipment().map(|open| open.number)), (0, Some(1)));
    upstream.set_read_only(false);
    until("all is there", || gateway.books().delivered == 12).await;
    assert_eq!(running.link.status().refused, None);
    running.stop().await;
    is_whole(&upstream.objects(), 3);
}

#[tokio::test]
async fn a_probe_that_is_refused_is_shown_and_not_repeated_at_once() {
    let mut gateway = Gateway::new();
    gateway.settings.retry_max = Period(Duration::from_secs(3600));
    let upstream = Arc::new(Memory::default());
    upstream.set_forbidden(true);
    let running = gateway.start(upstream.clone());
    until("it is offline", || running.link.status().state == LinkMode::Offline).await;
    assert_eq!(running.link.status().refused.as_deref(), Some("refused: 403, who are you"));
    running.handle.kick();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(upstream.probes(), 1);
    upstream.set_forbidden(false);
    running.handle.flush().await.unwrap();
    until("it is online", || running.link.status().state == LinkMode::Online).await;
    assert_eq!(running.link.status().refused, None);
    running.stop().await;
}

#[tokio::test]
async fn what_may_have_been_delivered_is_not_refused_before_that_is_known() {
    let mut gateway = Gateway::new();
    gateway.settings.retry_max = Period(Duration::from_millis(200));
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    // The manifest's put gets no answer; then nothing is taken any more.
    upstream.script([Fault::None, Fault::None, Fault::HangBefore, Fault::Refuse]);
    let running = gateway.start(upstream.clone());
    until("it is refused", || running.link.status().refused.is_some()).await;
    assert_eq!(gateway.refused(), 0, "the number is not given away while the first put may still get there");
    until("it is there", || gateway.books().delivered == 4).await;
    running.stop().await;
    is_whole(&upstream.objects(), 1);

    // With an answer that was lost it is there, and found there.
    let gateway = Gateway::new();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::None, Fault::None, Fault::DropReply, Fault::Refuse]);
    gateway.drain(upstream.clone()).await;
    assert_eq!((gateway.books().delivered, gateway.refused()), (4, 0));
}

#[tokio::test]
async fn a_refusal_outlives_a_kill_and_a_start_tries_again() {
    let (gateway, upstream) = first_refused().await;
    let running = gateway.start(upstream.clone());
    until("the others are there", || gateway.books().delivered == 8).await;
    running.kill().await;
    let gateway = gateway.reopen().await;
    assert_eq!(gateway.read(|reader| reader.refusals()).unwrap().reason, "413");
    upstream.refuse(|_| false);
    let running = gateway.start(upstream.clone());
    until("it is there", || gateway.books().delivered == 12).await;
    running.stop().await;
    is_whole(&upstream.objects(), 3);
}

#[tokio::test]
async fn a_loss_in_a_refused_shipment_is_told_by_the_next() {
    let gateway = Gateway::new();
    let bad = gateway.seal(4).await;
    gateway.seal(4).await;
    gateway.ledger.mark_damaged(bad[0].name.clone(), "a test".to_owned()).await.unwrap();
    let upstream = Arc::new(Memory::default());
    upstream.refuse(|key| is_file_of(key, 1));
    gateway.drain(upstream.clone()).await;
    let manifest: Manifest = serde_json::from_slice(&upstream.objects()[&gateway.manifest_key(1)]).unwrap();
    assert_eq!((manifest.cut, manifest.losses.len()), (Some(2), 1));
}
