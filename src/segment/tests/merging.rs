//! From many delivered files to few, with the same rows.

use std::fs;

use tokio::sync::watch;

use super::*;
use crate::config::{ByteSize, Retention};
use crate::model::{FileKind, SegmentName, Shipment};
use crate::segment::merge::merge;
use crate::segment::{Merged, Merger, MergerSetup};
use crate::space::Allowance;

pub(super) const CUTS: u64 = 18;

pub(super) fn merger(rig: &Rig) -> Merger {
    merger_within(rig, watch::channel(Retention { min_free: ByteSize(0), ..Retention::default() }).1)
}

fn merger_within(rig: &Rig, retention: watch::Receiver<Retention>) -> Merger {
    let clock: SharedClock = Arc::<SetClock>::clone(&rig.clock);
    Merger::new(MergerSetup {
        ledger: rig.ledger.clone(),
        dir: rig.dir.clone(),
        clock,
        state: Arc::clone(&rig.state),
        data_dir: rig.data.path().to_owned(),
        segment: settings(Duration::from_millis(10), 1),
        retention,
    })
}

async fn merge_due(rig: &Rig) -> Merged {
    merger(rig).merge_due(0, &CancellationToken::new()).await.unwrap()
}

/// Ships all that is sealed, as far as the ledger is concerned.
pub(super) async fn deliver_all(rig: &Rig) {
    while let Some(cut) = rig.reader().next_cut(false).unwrap() {
        let number = rig.reader().last_shipment(&cut.instance).unwrap().map_or(0, |(number, _)| number) + 1;
        let shipment = Shipment {
            instance: cut.instance.clone(),
            number,
            cut: Some(cut.number),
            first_cut: Some(cut.first_cut),
            manifest: b"{}".to_vec(),
            losses: Vec::new(),
        };
        rig.ledger.begin_shipment(shipment).await.unwrap();
        rig.ledger.finish_shipment(cut.instance, number).await.unwrap();
    }
}

/// `count` cuts of one day, of 20 readings each, and what they hold.
pub(super) async fn cuts(rig: &Rig, count: u64) {
    for cut in 0..count as i64 {
        rig.commit(some(20, DAY + cut * 20_000_000)).await;
        rig.flush().await;
    }
}

/// Enough for one merge, delivered.
pub(super) async fn due() -> Rig {
    let rig = Rig::new();
    cuts(&rig, CUTS).await;
    deliver_all(&rig).await;
    rig
}

/// Every reading of `count` cuts is there once, and the folder holds what the ledger says.
pub(super) fn has_each_once(rig: &Rig, count: u64) {
    rig.audit();
    let seqs: Vec<_> = rig.sealed().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, (1..=count * 20).collect::<Vec<_>>());
    assert_eq!(rig.books().kept, count * 20);
}

pub(super) fn files(rig: &Rig) -> Vec<SegmentName> {
    rig.dir.list().unwrap().segments
}

pub(super) fn names(rig: &Rig) -> Vec<SegmentName> {
    let mut names: Vec<_> = rig.segments().into_iter().map(|segment| segment.name).collect();
    names.sort();
    names
}

/// Waits until the sources are removed.
pub(super) async fn until_removed(merger: &Merger) {
    while merger.remove_leaving().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn delivered_files_become_one_with_the_same_rows_and_the_books_stay() {
    let rig = due().await;
    let (before, books, sources) = (rig.sealed(), rig.books(), rig.segments());
    let merger = merger(&rig);
    let merged = merger.merge_due(0, &CancellationToken::new()).await.unwrap();
    assert_eq!((merged.merges, merged.sources, merged.rows), (1, CUTS, CUTS * 20));
    assert_eq!((rig.sealed(), rig.books()), (before, books));
    let [segment] = &rig.segments()[..] else { panic!("one segment") };
    let name = &segment.name;
    assert_eq!((name.first_cut, name.cut, name.is_merged(), segment.bytes), (1, CUTS, true, merged.bytes));
    assert!(rig.dir.verified().contains(name));
    let of = |pick: fn(&Segment) -> i64| sources.iter().map(pick).collect::<Vec<_>>();
    let (oldest, newest) = (of(|source| source.min_time.0).into_iter().min(), of(|source| source.max_time.0).into_iter().max());
    assert_eq!((Some(segment.min_time.0), Some(segment.max_time.0)), (oldest, newest));
    assert_eq!((segment.first_seq, segment.last_seq), (1, CUTS * 20));
    assert_eq!(crate::segment::inspect::describe(&rig.dir.path(name), name).unwrap(), *segment);
    until_removed(&merger).await;
    assert_eq!(files(&rig), std::slice::from_ref(name));
    assert!(!rig.dir.verified().contains(&sources[0].name));
    has_each_once(&rig, CUTS);
    assert_eq!(merge_due(&rig).await, Merged::default());
}

#[tokio::test]
async fn merged_files_are_merged_again_and_evicted_like_others() {
    let rig = Rig::new();
    cuts(&rig, CUTS + 2).await;
    deliver_all(&rig).await;
    assert_eq!(merge_due(&rig).await.merges, 1);
    rig.commit(some(CUTS as i64 * 20, DAY + MICROS_PER_DAY / 2)).await;
    rig.flush().await;
    deliver_all(&rig).await;
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    assert_eq!(merge_due(&rig).await.merges, 1);
    has_each_once(&rig, 2 * CUTS + 2);
    let [name] = &names(&rig)[..] else { panic!("one segment") };
    assert_eq!((name.first_cut, name.cut), (1, CUTS + 3));
    rig.ledger.evict(vec![name.clone()]).await.unwrap();
    assert_eq!(rig.books().kept, 0);
    rig.audit();
}

#[tokio::test]
async fn a_source_stays_as_long_as_somebody_reads_it() {
    let rig = due().await;
    let merger = merger(&rig);
    let source = names(&rig)[3].clone();
    let pin = rig.dir.pin(std::slice::from_ref(&source));
    merger.merge_due(0, &CancellationToken::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(merger.remove_leaving().await.unwrap(), 1);
    assert!(rig.dir.path(&source).exists());
    drop(pin);
    until_removed(&merger).await;
    assert!(!rig.dir.path(&source).exists());
}

#[tokio::test]
async fn the_worker_merges_by_itself_and_ends_when_it_is_told_to() {
    let rig = due().await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(merger(&rig).run(stop.clone()));
    until("one file is left", || files(&rig).len() == 1).await;
    stop.cancel();
    task.await.unwrap().unwrap();
    has_each_once(&rig, CUTS);
}

#[tokio::test]
async fn records_are_merged_too() {
    let rig = Rig::new();
    for cut in 0..CUTS {
        rig.record(&format!("source {}", cut % 3), &format!("{{\"cut\": {cut}}}")).await;
        rig.flush().await;
    }
    deliver_all(&rig).await;
    assert_eq!(merge_due(&rig).await.rows, CUTS);
    let [segment] = &rig.segments()[..] else { panic!("one segment") };
    assert_eq!((segment.name.kind, segment.rows), (FileKind::Records, CUTS));
    let bodies = read(&rig.dir.path(&segment.name)).unwrap().map(|batch| {
        let batch = batch.unwrap();
        let bodies: &arrow::array::StringArray = crate::segment::layout::column(&batch, "body").unwrap();
        bodies.iter().map(|body| body.unwrap().to_owned()).collect::<Vec<_>>()
    });
    let expected: Vec<_> = (0..CUTS).map(|cut| format!("{{\"cut\": {cut}}}")).collect();
    assert_eq!(bodies.flatten().collect::<Vec<_>>(), expected);
    rig.audit();
}

#[tokio::test]
async fn odd_readings_come_through_as_they_were() {
    let rig = Rig::new();
    let sensors = ["", "a/b c", "温度計", "ünï\u{0}\n", "zz", "Z"];
    for cut in 0..CUTS as usize {
        let odd = |place: usize| Reading {
            value: [Some(-0.0), None, Some(f64::MAX), Some(1.0 / 3.0)][place % 4],
            text: (place % 4 == 1).then(|| Arc::from(["OPEN", "", "🚪 zu", &*"x".repeat(3000)][(place + cut) % 4])),
            unit: [None, Some(Arc::from("°C")), Some(Arc::from(""))][(place + cut) % 3].clone(),
            quality: [None, Some(i16::MIN)][place % 2],
            // Equal times in different cuts, and times that go back.
            ..reading(sensors[place % 6], ["m", "é"][place % 2], DAY + ((place + CUTS as usize - cut) as i64 % 7) * 1_000, 0.0)
        };
        rig.commit((0..1500).map(odd).collect()).await;
        rig.flush().await;
    }
    deliver_all(&rig).await;
    let before = rig.sealed();
    assert_eq!(merge_due(&rig).await.rows, CUTS * 1500);
    let after = rig.sealed();
    assert_eq!((before.len(), rig.segments().len()), (after.len(), 1));
    assert!(before == after, "other readings than before");
    let bits = |list: &[(Seq, Reading)]| list.iter().filter_map(|(_, reading)| reading.value.map(f64::to_bits)).collect::<Vec<_>>();
    assert_eq!(bits(&before), bits(&after));
}

#[tokio::test]
async fn long_texts_make_smaller_files() {
    let rig = Rig::new();
    let text = "y".repeat(100_000);
    for cut in 0..CUTS as i64 {
        let long = |place: i64| Reading { text: Some(Arc::from(&*text)), ..reading("s", "m", DAY + (cut * 10 + place) * 1000, 0.0) };
        rig.commit((0..10).map(long).collect()).await;
        rig.flush().await;
    }
    deliver_all(&rig).await;
    let merged = merge_due(&rig).await;
    // A cut has a megabyte of them, and eight are as much as one file may hold.
    assert_eq!((merged.merges, merged.sources), (1, 8));
    let left: Vec<_> = names(&rig).iter().map(|name| (name.first_cut, name.cut)).collect();
    assert_eq!(left.len(), CUTS as usize - 7);
    rig.audit();
}

#[tokio::test]
async fn a_damaged_source_is_set_aside_and_never_becomes_right() {
    let rig = due().await;
    let damaged = names(&rig)[7].clone();
    let path = rig.dir.path(&damaged);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(merge_due(&rig).await, Merged::default());
    assert!(!names(&rig).contains(&damaged) && !path.exists());
    assert_eq!((rig.state.damaged(), rig.books().kept), (1, (CUTS - 1) * 20));
    rig.audit();
    // The others are merged without it, when the day is over.
    rig.clock.set(DAY + 3 * MICROS_PER_DAY);
    assert_eq!(merge_due(&rig).await.sources, CUTS - 1);
    rig.audit();
}

#[tokio::test]
async fn nothing_is_merged_where_the_cap_does_not_hold_both() {
    let rig = due().await;
    let bytes: u64 = rig.segments().iter().map(|segment| segment.bytes).sum();
    let stop = CancellationToken::new();
    let allow = |bytes: u64| {
        let (settled, bytes) = (rig.dir.space().claims().settled, bytes.cast_signed());
        rig.dir.space().allow(settled, Allowance { bytes, largest: u64::MAX, low: 0 });
    };
    allow(bytes - 1);
    assert_eq!(merger(&rig).merge_due(0, &stop).await.unwrap(), Merged::default());
    allow(bytes);
    assert_eq!(merger(&rig).merge_due(0, &stop).await.unwrap().merges, 1);
}

#[tokio::test]
async fn what_is_not_verified_yet_waits_and_a_stop_ends_a_merge() {
    let rig = due().await.restart().await;
    assert_eq!(merge_due(&rig).await, Merged::default());
    let sources: Vec<_> = rig.reader().standing(&rig.reader().groups().unwrap()[0]).unwrap();
    let sources: Vec<_> = sources.into_iter().map(|standing| standing.segment).collect();
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(merge(&rig.dir, &sources, &stop).is_err());
    assert_eq!(rig.dir.list().unwrap().temporary.len(), 0);
    has_each_once(&rig, CUTS);
}

#[tokio::test]
async fn what_must_stay_free_may_change_while_the_merger_runs() {
    let rig = due().await;
    let disk = rustix::fs::statvfs(rig.data.path()).unwrap();
    if disk.f_bavail > disk.f_blocks / 2 {
        eprintln!("skipped: at most half of a disk must stay free, and of this one more is");
        return;
    }
    let (limits, changes) = watch::channel(Retention { min_free: ByteSize(u64::MAX), ..Retention::default() });
    let merger = merger_within(&rig, changes);
    let stop = CancellationToken::new();
    assert_eq!(merger.merge_due(0, &stop).await.unwrap(), Merged::default());
    limits.send_replace(Retention { min_free: ByteSize(0), ..Retention::default() });
    assert_eq!(merger.merge_due(0, &stop).await.unwrap().merges, 1);
}
