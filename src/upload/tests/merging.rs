//! Cuts that are merged while others are shipped, or before: upstream gets each reading once, in cuts that are whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fixture::{Gateway, until};
use super::memory::{Fault, Memory};
use super::shipments::is_whole;
use crate::config::{self, ByteSize, Order, Retention};
use crate::model::Manifest;
use crate::segment::{Merged, Merger, MergerSetup, Scrubber};
use crate::upload::{FileUpstream, Upstream, verify};

/// Four merges, and some.
const CUTS: u64 = 4 * 18 + 5;

/// A gateway with cuts of ten readings, sealed two days ago, and a merger.
pub async fn with_backlog(order: Order) -> (Gateway, Merger) {
    let mut gateway = Gateway::new();
    gateway.settings.order = order;
    for _ in 0..CUTS {
        gateway.seal(10).await;
    }
    let (stop, all) = (CancellationToken::new(), gateway.read(|reader| reader.segments()));
    let scrubber = tokio::spawn(Scrubber::new(gateway.ledger.clone(), gateway.dir.clone(), Arc::default()).run(stop.clone()));
    until("all is verified", || all.iter().all(|file| gateway.dir.verified().contains(&file.name))).await;
    stop.cancel();
    scrubber.await.unwrap().unwrap();
    gateway.clock.forward(Duration::from_secs(2 * 86_400));
    let merger = merger(&gateway);
    (gateway, merger)
}

fn merger(gateway: &Gateway) -> Merger {
    Merger::new(MergerSetup {
        ledger: gateway.ledger.clone(),
        dir: gateway.dir.clone(),
        clock: gateway.clock.clone(),
        state: Arc::default(),
        data_dir: gateway.folder.path().to_owned(),
        segment: config::Segment::default(),
        retention: watch::channel(Retention { min_free: ByteSize(0), ..Retention::default() }).1,
    })
}

async fn merge(merger: &Merger) -> Merged {
    merger.merge_waiting(0, &CancellationToken::new()).await.unwrap()
}

fn shipments(gateway: &Gateway) -> u64 {
    gateway.read(|reader| Ok(reader.last_shipment(&gateway.instance())?.map_or(0, |(number, _)| number)))
}

#[tokio::test]
async fn a_merged_cut_is_one_shipment_under_the_number_of_its_last() {
    let (gateway, merger) = with_backlog(Order::OldestFirst).await;
    assert_eq!(merge(&merger).await.merges, 4);
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let upstream: Arc<dyn Upstream> = Arc::new(FileUpstream::new(lake.clone(), Arc::default()));
    gateway.drain(upstream).await;
    assert_eq!((gateway.books().delivered, shipments(&gateway)), (CUTS * 10, 4 + 5));
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(lake.join(gateway.manifest_key(2))).unwrap()).unwrap();
    assert_eq!((manifest.cut, manifest.first_seq, manifest.last_seq, manifest.readings), (Some(36), Some(181), Some(360), 180));
    assert!(manifest.files.iter().all(|file| file.key.ends_with("-0000000036.parquet")), "{manifest:?}");
    let report = verify(lake.to_str().unwrap(), None).await.unwrap();
    assert!(report.is_complete(), "{report}");
}

#[tokio::test]
async fn what_is_under_way_is_not_merged_whatever_becomes_of_it() {
    for (fault, order) in [(Fault::HangBefore, Order::NewestFirst), (Fault::HangAfter, Order::OldestFirst)] {
        let (gateway, merger) = with_backlog(order).await;
        let upstream = Arc::new(Memory::default());
        upstream.script([Fault::None, fault]);
        let running = gateway.start(upstream.clone());
        until("the second put", || upstream.puts().len() >= 2).await;
        assert!(merge(&merger).await.merges > 0);
        running.kill().await;
        let gateway = gateway.reopen().await;
        gateway.drain(upstream.clone()).await;
        assert_eq!(gateway.books().delivered, CUTS * 10, "{fault:?}");
        is_whole(&upstream.objects(), shipments(&gateway));
    }
}

#[tokio::test]
async fn merging_and_shipping_at_once_get_along() {
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let (gateway, merger) = with_backlog(order).await;
        let upstream = Arc::new(Memory::default());
        let running = gateway.start(upstream.clone());
        let merging = async {
            while !gateway.is_drained() {
                merge(&merger).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), merging).await.expect("it drains");
        running.stop().await;
        assert_eq!(gateway.books().delivered, CUTS * 10);
        is_whole(&upstream.objects(), shipments(&gateway));
    }
}
