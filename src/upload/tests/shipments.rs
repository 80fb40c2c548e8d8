//! One shipment at a time, to its end: whatever fails on the way, upstream gets the same bytes once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;

use super::fixture::{Gateway, cuts_in_order, until};
use super::memory::{Fault, Memory};
use crate::config::Order;
use crate::model::{Digest, LossReason, Manifest};

/// The objects of a lake to which `gateway` shipped without any fault.
pub fn is_whole(objects: &BTreeMap<String, Bytes>, shipments: u64) {
    let manifests: Vec<Manifest> =
        objects.iter().filter(|(key, _)| key.starts_with("manifests/")).map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect();
    assert_eq!(manifests.len() as u64, shipments);
    let mut files = 0;
    for manifest in &manifests {
        for file in &manifest.files {
            assert_eq!(Digest::of(objects.get(&file.key).expect("a file that a manifest names")), file.sha256);
            files += 1;
        }
    }
    assert_eq!(files + manifests.len(), objects.len(), "nothing else is there");
}

#[tokio::test]
async fn each_fault_at_each_step_costs_a_retry_and_nothing_else() {
    let faults = [Fault::Fail, Fault::DropReply, Fault::Half, Fault::HangBefore, Fault::HangAfter];
    for fault in faults {
        // Two files and the manifest.
        for step in 0..3 {
            let gateway = Gateway::new();
            gateway.seal(10).await;
            let upstream = Arc::new(Memory::default());
            upstream.script((0..step).map(|_| Fault::None).chain([fault]));
            let link = gateway.drain(upstream.clone()).await;
            is_whole(&upstream.objects(), 1);
            assert_eq!(gateway.books().delivered, 10, "{fault:?} at {step}");
            assert_eq!(link.status().delivered_readings, 10);
            assert_eq!(link.status().last_error, None);
        }
    }
}

#[tokio::test]
async fn killed_at_any_step_the_shipment_goes_on_with_the_same_bytes() {
    for stored in [Fault::HangBefore, Fault::HangAfter] {
        for step in 0..3 {
            let gateway = Gateway::new();
            gateway.seal(10).await;
            let upstream = Arc::new(Memory::default());
            upstream.script((0..step).map(|_| Fault::None).chain([stored]));
            let running = gateway.start(upstream.clone());
            until("it hangs", || upstream.puts().len() == step + 1).await;
            let begun = gateway.open_shipment().expect("a shipment under way");
            running.kill().await;
            let gateway = gateway.reopen().await;
            assert_eq!(gateway.open_shipment(), Some(begun.clone()));
            // What came since does not change it.
            gateway.seal(7).await;
            gateway.drain(upstream.clone()).await;
            let objects = upstream.objects();
            is_whole(&objects, 2);
            assert_eq!(objects.get(&gateway.manifest_key(1)).unwrap(), &begun.manifest);
            assert_eq!(gateway.books().delivered, 17);
        }
    }
}

#[tokio::test]
async fn a_shipment_delivered_and_not_recorded_is_only_recorded() {
    let gateway = Gateway::new();
    gateway.seal(10).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([Fault::None, Fault::None, Fault::HangAfter]);
    let running = gateway.start(upstream.clone());
    until("the manifest is there", || upstream.objects().contains_key(&gateway.manifest_key(1))).await;
    running.kill().await;
    assert_eq!(gateway.books().delivered, 0);
    let (objects, puts) = (upstream.objects(), upstream.puts());
    gateway.drain(upstream.clone()).await;
    assert_eq!((upstream.objects(), upstream.puts()), (objects, puts), "nothing is sent again");
    assert_eq!(gateway.books().delivered, 10);
}

#[tokio::test]
async fn the_order_is_the_configured_one_and_manifests_follow_each_other() {
    for (order, expected) in [(Order::OldestFirst, [1, 2, 3]), (Order::NewestFirst, [3, 2, 1])] {
        let mut gateway = Gateway::new();
        gateway.settings.order = order;
        for _ in 0..3 {
            gateway.seal(4).await;
        }
        let upstream = Arc::new(Memory::default());
        gateway.drain(upstream.clone()).await;
        let objects = upstream.objects();
        assert_eq!(cuts_in_order(&upstream.puts(), |key| objects[key].to_vec()), expected.map(Some));
        let mut previous = None;
        for number in 1..=3 {
            let bytes = &objects[&gateway.manifest_key(number)];
            let manifest: Manifest = serde_json::from_slice(bytes).unwrap();
            assert_eq!((manifest.shipment, manifest.previous), (number, previous));
            previous = Some(Digest::of(bytes));
        }
    }
}

#[tokio::test]
async fn a_file_damaged_before_its_shipment_begins_becomes_a_loss_in_its_manifest() {
    let gateway = Gateway::new();
    let segments = gateway.seal(10).await;
    fs::write(gateway.dir.path(&segments[0].name), "rotten").unwrap();
    let upstream = Arc::new(Memory::default());
    gateway.drain(upstream.clone()).await;
    is_whole(&upstream.objects(), 1);
    let manifest: Manifest = serde_json::from_slice(&upstream.objects()[&gateway.manifest_key(1)]).unwrap();
    assert_eq!((manifest.files.len(), manifest.readings, manifest.first_seq, manifest.last_seq), (1, 5, Some(1), Some(10)));
    assert_eq!(manifest.losses.iter().map(|loss| (loss.readings, loss.reason)).collect::<Vec<_>>(), [(5, LossReason::Damaged)]);
    let books = gateway.books();
    assert_eq!((books.delivered, books.damaged), (5, 5));
    assert_eq!(fs::read(gateway.folder.path().join("quarantine")).map(|_| ()).unwrap_err().kind(), std::io::ErrorKind::IsADirectory);
    assert!(!gateway.dir.path(&segments[0].name).exists());
}

/// Begins a shipment, stops it at its first put, and damages the file `place` of it.
async fn damaged_under_way(stored: Fault, place: usize) -> (Gateway, Arc<Memory>) {
    let gateway = Gateway::new();
    let segments = gateway.seal(10).await;
    let upstream = Arc::new(Memory::default());
    upstream.script([stored]);
    let running = gateway.start(upstream.clone());
    until("it hangs", || upstream.puts().len() == 1).await;
    running.kill().await;
    let mut segments = segments;
    segments.sort_by(|a, b| a.name.cmp(&b.name));
    fs::write(gateway.dir.path(&segments[place].name), "rotten").unwrap();
    (gateway.reopen().await, upstream)
}

#[tokio::test]
async fn a_file_damaged_under_way_that_is_upstream_already_is_no_loss() {
    let (gateway, upstream) = damaged_under_way(Fault::HangAfter, 0).await;
    gateway.drain(upstream.clone()).await;
    is_whole(&upstream.objects(), 1);
    assert_eq!((gateway.books().delivered, gateway.books().damaged), (10, 0));
}

#[tokio::test]
async fn a_file_damaged_under_way_that_is_not_upstream_ends_the_shipment_and_its_number_is_used_again() {
    let (gateway, upstream) = damaged_under_way(Fault::HangAfter, 1).await;
    let begun = gateway.open_shipment().unwrap();
    gateway.drain(upstream.clone()).await;
    is_whole(&upstream.objects(), 1);
    let manifest = upstream.objects()[&gateway.manifest_key(1)].to_vec();
    assert_ne!(manifest, begun.manifest);
    assert_eq!((gateway.books().delivered, gateway.books().damaged), (5, 5));
}

#[tokio::test]
async fn a_cut_whose_files_are_all_damaged_still_tells_of_its_range() {
    let gateway = Gateway::new();
    for segment in gateway.seal(10).await {
        fs::remove_file(gateway.dir.path(&segment.name)).unwrap();
        gateway.ledger.mark_damaged(segment.name, "gone".to_owned()).await.unwrap();
    }
    let upstream = Arc::new(Memory::default());
    gateway.drain(upstream.clone()).await;
    let first: Manifest = serde_json::from_slice(&upstream.objects()[&gateway.manifest_key(1)]).unwrap();
    assert_eq!((first.files.len(), first.readings, first.last_seq, first.losses.len()), (0, 0, Some(10), 2));
    assert_eq!(gateway.books().damaged, 10);
}

#[tokio::test]
async fn losses_without_a_cut_make_a_shipment() {
    let (before, gateway) = (Gateway::new(), Gateway::new());
    let found = before.seal(10).await;
    for segment in &found {
        let path = gateway.dir.path(&segment.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(before.dir.path(&segment.name), path).unwrap();
    }
    // The ledger was rebuilt: what it can't know is a loss of the current instance, which has no cut.
    gateway.ledger.adopt(found, vec![]).await.unwrap();
    let upstream = Arc::new(Memory::default());
    gateway.drain(upstream.clone()).await;
    is_whole(&upstream.objects(), 2);
    let manifest: Manifest = serde_json::from_slice(&upstream.objects()[&gateway.manifest_key(1)]).unwrap();
    assert_eq!((manifest.cut, manifest.files.len(), manifest.forked_from), (None, 0, Some(before.instance())));
    assert_eq!(manifest.losses.iter().map(|loss| loss.reason).collect::<Vec<_>>(), [LossReason::Rebuilt]);
}

#[tokio::test]
async fn a_name_taken_by_others_sets_the_instance_aside_and_the_next_one_ships_on() {
    for taken in ["manifest", "file"] {
        let gateway = Gateway::new();
        let old = gateway.instance();
        let segments = gateway.seal(10).await;
        let key = if taken == "file" { segments[0].name.lake_key("gw-1") } else { gateway.manifest_key(1) };
        let upstream = Arc::new(Memory::default());
        upstream.insert(&key, b"a twin was here");
        let running = gateway.start(upstream.clone());
        until("it is set aside", || gateway.instance() != old && gateway.open_shipment().is_none()).await;
        assert_eq!(upstream.objects()[&key], "a twin was here");
        gateway.seal(6).await;
        until("the new instance ships", || gateway.books().delivered == 6).await;
        let aside = running.link.status().set_aside;
        assert!(aside.len() == 1 && aside[0].instance == old && aside[0].reason.contains(&key), "{aside:?}");
        running.stop().await;
        // Also after a start: it is tried once, and nothing comes of it but the same end.
        let (gateway, new) = (gateway.reopen().await, gateway_instance(&upstream));
        let of_old = |upstream: &Memory| upstream.objects().into_iter().filter(|(key, _)| key.contains(old.as_str())).collect::<Vec<_>>();
        let before = of_old(&upstream);
        gateway.seal(3).await;
        let link = gateway.drain(upstream.clone()).await;
        assert_eq!((link.status().set_aside, gateway.instance().to_string(), of_old(&upstream)), (aside, new, before));
        assert_eq!(gateway.books().delivered, 9);
        // Whoever clears the way has only to start it again.
        upstream.remove(&key);
        let gateway = gateway.reopen().await;
        let running = gateway.start(upstream.clone());
        let shipment = |key: &String| key.starts_with("manifests/") && key.contains(old.as_str());
        until("it is shipped after all", || upstream.objects().keys().any(shipment) && gateway.is_drained()).await;
        assert_eq!(running.link.status().set_aside, []);
        running.stop().await;
        is_whole(&upstream.objects(), 3);
    }
}

/// The instance of the newest manifest.
fn gateway_instance(upstream: &Memory) -> String {
    let puts = upstream.puts();
    let key = puts.iter().rev().find(|key| key.starts_with("manifests/")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&upstream.objects()[key]).unwrap();
    manifest.instance.to_string()
}

#[tokio::test]
async fn a_fork_s_first_manifest_names_its_parent() {
    let gateway = Gateway::new();
    let old = gateway.instance();
    gateway.ledger.fork("a copied card".to_owned()).await.unwrap();
    gateway.seal(4).await;
    let upstream = Arc::new(Memory::default());
    gateway.drain(upstream.clone()).await;
    let manifest: Manifest = serde_json::from_slice(&upstream.objects()[&gateway.manifest_key(1)]).unwrap();
    assert_eq!(manifest.forked_from, Some(old));
}
