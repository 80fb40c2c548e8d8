//! After the ledger was lost: what was delivered before it is recognised upstream, and what was not is delivered.

use std::fs;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::fixture::{Gateway, until};
use super::memory::{Fault, Memory};
use super::merging::with_backlog;
use crate::config::Order;
use crate::model::{LossReason, Manifest, Segment};
use crate::upload::{FileUpstream, Upstream, verify};

/// A gateway whose folder has the files of `before` that are in `found`, and a ledger that was rebuilt from them.
async fn rebuilt(before: &Gateway, found: Vec<Segment>) -> Gateway {
    let gateway = Gateway::new();
    for segment in &found {
        let path = gateway.dir.path(&segment.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(before.dir.path(&segment.name), path).unwrap();
    }
    gateway.ledger.adopt(found, vec![]).await.unwrap();
    gateway
}

fn undelivered(gateway: &Gateway) -> usize {
    gateway.read(|reader| Ok(reader.cuts()?.iter().filter(|cut| cut.state == crate::model::CutState::Sealed).count()))
}

#[tokio::test]
async fn cuts_that_are_in_the_lake_already_are_recorded_and_nothing_is_sent_again() {
    let before = Gateway::new();
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(before.seal(10).await);
    }
    let upstream = Arc::new(Memory::default());
    before.drain(upstream.clone()).await;
    let (objects, puts) = (upstream.objects(), upstream.puts().len());

    let gateway = rebuilt(&before, found).await;
    assert_eq!(undelivered(&gateway), 3);
    let link = gateway.drain(upstream.clone()).await;
    assert_eq!((undelivered(&gateway), link.status().set_aside), (0, vec![]));
    // What is new tells of the rebuilding, in the new instance.
    assert_eq!(upstream.puts()[puts..], [gateway.manifest_key(1)]);
    assert!(objects.iter().all(|(key, bytes)| upstream.objects()[key] == bytes));
}

#[tokio::test]
async fn a_merged_cut_that_is_in_the_lake_already_is_recorded_too() {
    let (before, merger) = with_backlog(Order::NewestFirst).await;
    assert!(merger.merge_waiting(0, &CancellationToken::new()).await.unwrap().merges > 0);
    let found = before.read(|reader| reader.segments());
    let cuts = undelivered(&before);
    let upstream = Arc::new(Memory::default());
    before.drain(upstream.clone()).await;
    let mut objects = upstream.objects();
    let gateway = rebuilt(&before, found).await;
    assert_eq!(undelivered(&gateway), cuts);
    let link = gateway.drain(upstream.clone()).await;
    assert_eq!((undelivered(&gateway), link.status().set_aside), (0, vec![]));
    let new = gateway.manifest_key(1);
    objects.insert(new.clone(), upstream.objects()[&new].clone());
    assert_eq!(upstream.objects(), objects, "nothing but what tells of the rebuilding");
}

#[tokio::test]
async fn what_was_evicted_before_is_passed_over_and_what_was_not_sent_follows_the_old_chain() {
    let (before, lake) = (Gateway::new(), tempfile::tempdir().unwrap());
    let lake = lake.path().join("lake");
    let upstream = || -> Arc<dyn Upstream> { Arc::new(FileUpstream::new(lake.clone(), Arc::default())) };
    before.seal(10).await;
    let damaged = before.seal(10).await;
    fs::write(before.dir.path(&damaged[0].name), "rotten").unwrap();
    before.drain(upstream()).await;
    let unsent = before.seal(10).await;

    let found = [&damaged[1..], &unsent[..]].concat();
    let gateway = rebuilt(&before, found).await;
    gateway.drain(upstream()).await;
    assert_eq!(undelivered(&gateway), 0);
    let third = Manifest::key("gw-1", &before.instance(), 3);
    let manifest: Manifest = serde_json::from_slice(&fs::read(lake.join(third)).unwrap()).unwrap();
    assert_eq!((manifest.cut, manifest.readings), (Some(3), 10));
    let report = verify(lake.to_str().unwrap(), None).await.unwrap();
    assert!(report.is_complete() && report.to_string().contains(LossReason::Damaged.as_str()), "{report}");
}

#[tokio::test]
async fn a_stranger_s_manifest_is_still_in_the_way() {
    let before = Gateway::new();
    let found = before.seal(10).await;
    let upstream = Arc::new(Memory::default());
    before.drain(upstream.clone()).await;
    let key = before.manifest_key(1);
    let ours: Manifest = serde_json::from_slice(&upstream.objects()[&key]).unwrap();
    let mut other_files = ours.clone();
    other_files.files[0].sha256 = crate::model::Digest::of(b"a twin's");
    let mut other_chain = ours.clone();
    other_chain.previous = Some(crate::model::Digest::of(b"a twin's"));
    let mut other_gateway = ours;
    other_gateway.gateway = "gw-2".to_owned();
    let forged = [other_files, other_chain, other_gateway].map(|manifest| serde_json::to_vec(&manifest).unwrap());
    for forged in forged.into_iter().chain([b"{".to_vec()]) {
        upstream.insert(&key, &forged);
        let gateway = rebuilt(&before, found.clone()).await;
        let running = gateway.start(upstream.clone());
        until("it is set aside", || running.link.status().set_aside.len() == 1).await;
        until("the rest is shipped", || gateway.is_drained()).await;
        running.stop().await;
        assert_eq!(undelivered(&gateway), 1);
    }
}

#[tokio::test]
async fn a_link_that_fails_while_the_manifest_is_read_back_costs_a_retry() {
    let before = Gateway::new();
    let found = before.seal(10).await;
    let upstream = Arc::new(Memory::default());
    before.drain(upstream.clone()).await;
    let gateway = rebuilt(&before, found).await;
    upstream.set_down(true);
    let running = gateway.start(upstream.clone());
    until("it fails", || running.link.status().last_error.is_some()).await;
    upstream.script([Fault::Fail]);
    upstream.set_down(false);
    until("all is recorded", || undelivered(&gateway) == 0).await;
    running.stop().await;
}
