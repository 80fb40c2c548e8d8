//! From many cuts that nobody ships to few, with the same rows.

use std::fs;

use super::merging::{CUTS, deliver_all, files, has_each_once, merger, until_removed};
use super::*;
use crate::ledger::LedgerError;
use crate::model::{Cut, CutState, FileKind, SegmentName, Shipment};
use crate::segment::merge::{WithFiles, merge_cuts};
use crate::segment::{Merged, Recovered};
use crate::space::Allowance;

/// `count` cuts of 20 readings each, over two days, a record in every fourth.
pub(super) async fn cuts(rig: &Rig, count: u64) {
    for cut in 0..count as i64 {
        if cut % 4 == 0 {
            rig.record(&format!("source {cut}"), "{}").await;
        }
        rig.commit(some(20, DAY + MICROS_PER_DAY - 10_000_000 + cut * 1000)).await;
        rig.flush().await;
    }
}

/// Enough for one merge, sealed two days ago.
pub(super) async fn due_of(count: u64) -> Rig {
    let rig = Rig::new();
    cuts(&rig, count).await;
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    rig
}

pub(super) async fn due() -> Rig {
    due_of(CUTS).await
}

pub(super) async fn merge_waiting(rig: &Rig) -> Merged {
    merger(rig).merge_waiting(0, &CancellationToken::new()).await.unwrap()
}

pub(super) fn sealed_cuts(rig: &Rig) -> Vec<Cut> {
    let mut cuts = rig.reader().cuts().unwrap();
    cuts.retain(|cut| cut.state == CutState::Sealed);
    cuts
}

/// The numbers of the first and the last cut of each that waits.
pub(super) fn spans(rig: &Rig) -> Vec<(u64, u64)> {
    sealed_cuts(rig).iter().map(|cut| (cut.first_cut, cut.number)).collect()
}

pub(super) fn with_files(rig: &Rig) -> Vec<WithFiles> {
    let files_of = |cut: &Cut| rig.reader().cut_segments(&cut.instance, cut.number).unwrap();
    sealed_cuts(rig).into_iter().map(|cut| (cut.clone(), files_of(&cut))).collect()
}

/// The files of the merged cut, with all steps done but the ledger's transaction, and the files they were merged from.
pub(super) fn merged_files(rig: &Rig) -> (Vec<Segment>, Vec<SegmentName>) {
    let cuts = with_files(rig);
    let (made, held) = merge_cuts(&rig.dir, &cuts, &CancellationToken::new()).unwrap();
    assert_eq!(held.len(), cuts.len());
    (made, cuts.into_iter().flat_map(|(_, files)| files).map(|file| file.name).collect())
}

/// Records the merge of all that waits.
pub(super) async fn record(rig: &Rig, made: &[Segment]) -> Result<(), LedgerError> {
    let numbers = sealed_cuts(rig).iter().map(|cut| cut.number).collect();
    rig.ledger.merge_cuts(rig.ledger.identity().instance, numbers, made.to_vec()).await
}

fn shipment_of(cut: &Cut, number: u64) -> Shipment {
    let (instance, first_cut) = (cut.instance.clone(), Some(cut.first_cut));
    Shipment { instance, number, cut: Some(cut.number), first_cut, manifest: b"{}".to_vec(), losses: Vec::new() }
}

#[tokio::test]
async fn cuts_become_one_as_if_they_had_been_sealed_at_once() {
    let rig = due().await;
    let (before, books, sources) = (rig.sealed(), rig.books(), files(&rig));
    let merger = merger(&rig);
    let merged = merger.merge_waiting(0, &CancellationToken::new()).await.unwrap();
    assert_eq!((merged.merges, merged.sources as usize, merged.rows, merged.put_off), (1, sources.len(), CUTS * 20 + 5, false));
    assert_eq!((rig.sealed(), rig.books()), (before, books));
    has_each_once(&rig, CUTS);
    let [cut] = &sealed_cuts(&rig)[..] else { panic!("one cut") };
    assert_eq!((cut.first_cut, cut.number, cut.first_seq, cut.last_seq), (1, CUTS, 1, CUTS * 20));
    assert_eq!((cut.readings, cut.records), (CUTS * 20, 5));
    let segments = rig.reader().cut_segments(&cut.instance, cut.number).unwrap();
    let kinds: Vec<_> = segments.iter().map(|segment| (segment.name.kind, segment.name.date.as_str())).collect();
    let expected = [(FileKind::Readings, "2026-11-20"), (FileKind::Readings, "2026-11-21"), (FileKind::Records, "2026-11-20")];
    assert_eq!(kinds, expected);
    for segment in &segments {
        assert_eq!(crate::segment::inspect::describe(&rig.dir.path(&segment.name), &segment.name).unwrap(), *segment);
        assert!(rig.dir.verified().contains(&segment.name));
    }
    until_removed(&merger).await;
    assert_eq!(files(&rig).len(), 3);
    assert_eq!(merge_waiting(&rig).await, Merged::default());
    // It is shipped like any other, and evicted.
    deliver_all(&rig).await;
    assert_eq!((rig.books().delivered, spans(&rig)), (CUTS * 20, vec![]));
    let names = rig.segments().into_iter().map(|segment| segment.name).collect();
    rig.ledger.evict(names).await.unwrap();
    assert_eq!(rig.books().kept, 0);
    rig.audit();
}

#[tokio::test]
async fn merged_cuts_are_merged_again_and_what_is_merged_when_delivered_holds_them() {
    let rig = due_of(CUTS * CUTS).await;
    let merged = merge_waiting(&rig).await;
    assert_eq!((merged.merges, spans(&rig)), (CUTS + 1, vec![(1, CUTS * CUTS)]));
    has_each_once(&rig, CUTS * CUTS);
    cuts(&rig, 4).await;
    deliver_all(&rig).await;
    rig.clock.set(DAY + 9 * MICROS_PER_DAY);
    merger(&rig).merge_due(0, &CancellationToken::new()).await.unwrap();
    has_each_once(&rig, CUTS * CUTS + 4);
    let rig = rig.restart().await;
    rig.recover().await;
    assert_eq!(files(&rig).len(), rig.segments().len());
    has_each_once(&rig, CUTS * CUTS + 4);
    assert_eq!(rig.recover().await, Recovered::default());
}

#[tokio::test]
async fn what_is_fresh_goes_upstream_as_it_is_and_what_was_tried_stays_as_it_is() {
    let rig = Rig::new();
    cuts(&rig, CUTS).await;
    assert_eq!(merge_waiting(&rig).await, Merged::default(), "fresh");
    cuts(&rig, 3).await;
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    // Its file may be upstream, though it made way.
    let tried = sealed_cuts(&rig)[1].clone();
    rig.ledger.begin_shipment(shipment_of(&tried, 1)).await.unwrap();
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    rig.ledger.abandon_shipment(tried.instance.clone(), 1).await.unwrap();
    assert_eq!(merge_waiting(&rig).await, Merged::default());
    assert_eq!(spans(&rig), [(1, 1), (2, 2), (3, CUTS + 2), (CUTS + 3, CUTS + 3)]);
    has_each_once(&rig, CUTS + 3);
}

#[tokio::test]
async fn a_choice_that_was_made_before_the_merge_is_stale_after_it() {
    let rig = due().await;
    let chosen = sealed_cuts(&rig);
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    for cut in [chosen.first().unwrap(), chosen.last().unwrap()] {
        assert!(matches!(rig.ledger.begin_shipment(shipment_of(cut, 1)).await, Err(LedgerError::Invalid(_))));
    }
    let all = chosen.iter().map(|cut| (cut.instance.clone(), cut.number)).collect();
    assert!(matches!(rig.ledger.drop_cuts(all, "a test".to_owned()).await, Err(LedgerError::Invalid(_))));
    has_each_once(&rig, CUTS);
    let now = sealed_cuts(&rig)[0].clone();
    rig.ledger.begin_shipment(shipment_of(&now, 1)).await.unwrap();
    rig.audit();
}

#[tokio::test]
async fn the_ledger_refuses_a_merge_of_cuts_that_are_not_what_they_were() {
    let rig = due().await;
    let (made, _) = merged_files(&rig);
    let instance = rig.ledger.identity().instance;
    let merge = |cuts: Vec<u64>, made: &[Segment]| {
        let (ledger, instance, made) = (rig.ledger.clone(), instance.clone(), made.to_vec());
        async move { ledger.merge_cuts(instance, cuts, made).await.is_err() }
    };
    let all = || (1..=CUTS).collect::<Vec<_>>();
    assert!(merge(all()[1..].to_vec(), &made).await && merge(vec![1], &made).await && merge(vec![], &[]).await);
    assert!(merge(all().into_iter().filter(|cut| *cut != 7).collect(), &made).await, "a gap");
    assert!(merge(all(), &made[1..]).await && merge(all(), &[&made[..], &made[..1]].concat()).await);
    assert!(merge(all(), &made.iter().map(|file| Segment { rows: file.rows + 1, ..file.clone() }).collect::<Vec<_>>()).await);
    rig.ledger.drop_cuts(vec![(instance.clone(), 1)], "a test".to_owned()).await.unwrap();
    assert!(merge(all(), &made).await, "one of them was dropped");
    rig.ledger.fork("a test".to_owned()).await.unwrap();
    assert!(merge(all()[1..].to_vec(), &made).await, "they are of another instance");
    assert_eq!(rig.books().kept, (CUTS - 1) * 20);
}

#[tokio::test]
async fn a_merged_cut_that_is_dropped_or_damaged_is_a_loss_that_names_its_readings() {
    let rig = due().await;
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    let cut = sealed_cuts(&rig)[0].clone();
    let damaged = rig.reader().cut_segments(&cut.instance, cut.number).unwrap().remove(1);
    rig.ledger.mark_damaged(damaged.name.clone(), "a test".to_owned()).await.unwrap();
    rig.audit();
    let books = rig.books();
    assert_eq!((books.damaged, books.sealed), (damaged.rows, CUTS * 20 - damaged.rows));
    rig.ledger.drop_cuts(vec![(cut.instance, cut.number)], "a test".to_owned()).await.unwrap();
    rig.audit();
    let losses: Vec<_> = rig.reader().losses(10).unwrap().into_iter().map(|status| status.loss).collect();
    assert_eq!((losses[0].first_seq, losses[0].last_seq, losses[0].readings), (1, CUTS * 20, CUTS * 20 - damaged.rows));
    assert_eq!((losses[1].readings, rig.books().kept), (damaged.rows, 0));
}

#[tokio::test]
async fn a_damaged_source_is_set_aside_and_the_others_are_merged() {
    let rig = due().await;
    let damaged = rig.segments()[7].clone();
    let mut bytes = fs::read(rig.dir.path(&damaged.name)).unwrap();
    bytes[100] ^= 1;
    fs::write(rig.dir.path(&damaged.name), bytes).unwrap();
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    assert_eq!((rig.state.damaged(), rig.books().damaged), (1, damaged.rows));
    let cut = &sealed_cuts(&rig)[0];
    assert_eq!((cut.first_seq, cut.last_seq, cut.readings), (1, CUTS * 20, CUTS * 20 - damaged.rows));
    rig.audit();
}

#[tokio::test]
async fn no_cuts_are_merged_where_the_cap_does_not_hold_both_or_before_they_are_verified() {
    let rig = due().await;
    let bytes: u64 = rig.segments().iter().map(|segment| segment.bytes).sum();
    let allow = |bytes: u64| {
        let (settled, bytes) = (rig.dir.space().claims().settled, bytes.cast_signed());
        rig.dir.space().allow(settled, Allowance { bytes, largest: u64::MAX, low: 0 });
    };
    allow(bytes - 1);
    assert_eq!(merge_waiting(&rig).await, Merged { put_off: true, ..Merged::default() });
    allow(bytes);
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    let rig = due().await.restart().await;
    assert_eq!(merge_waiting(&rig).await, Merged { put_off: true, ..Merged::default() });
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(merge_cuts(&rig.dir, &with_files(&rig), &stop).is_err());
    assert_eq!(rig.dir.list().unwrap().temporary.len(), 0);
    has_each_once(&rig, CUTS);
}

#[tokio::test]
async fn long_texts_make_smaller_cuts() {
    let rig = Rig::new();
    let text = "y".repeat(100_000);
    for cut in 0..CUTS as i64 {
        let long = |place: i64| Reading { text: Some(Arc::from(&*text)), ..reading("s", "m", DAY + (cut * 10 + place) * 1000, 0.0) };
        rig.commit((0..10).map(long).collect()).await;
        rig.flush().await;
    }
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    // A cut has a megabyte of them, and eight are as much as one may hold.
    assert_eq!(merge_waiting(&rig).await.merges, 1);
    assert_eq!(spans(&rig)[..2], [(1, 8), (9, 9)]);
    rig.audit();
}
