//! Ranges against a real ledger and real segments, compared with what a plain loop over the readings finds.

use std::ops::Range;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::SystemClock;
use crate::config::{self, ByteSize};
use crate::ledger::{Ledger, Open};
use crate::model::{Batch, Reading, Shipment, Tally};
use crate::segment::{Demand, Merger, MergerSetup, Sealer, SealerHandle, SealerState};

/// What a plain loop makes of the values of a bucket.
type Pick = fn(&[f64]) -> f64;

struct House {
    _folder: TempDir,
    ledger: Ledger,
    dir: SegmentDir,
    sealer: SealerHandle,
    stop: CancellationToken,
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: crate::clock::SharedClock = Arc::new(SystemClock);
        let ledger = Ledger::open(folder.path(), Open { host_id: "host".to_owned(), clock: Arc::clone(&clock) }).unwrap();
        let dir = SegmentDir::open(folder.path()).unwrap();
        let state = Arc::new(SealerState::default());
        let (worker, sealer) = Sealer::new(ledger.clone(), dir.clone(), config::Segment::default(), clock, state);
        let stop = CancellationToken::new();
        tokio::spawn(worker.run(stop.clone()));
        Self { _folder: folder, ledger, dir, sealer, stop }
    }

    async fn commit(&self, readings: &[Reading]) {
        let tally = Tally { readings: readings.len() as u64, ..Tally::default() };
        self.ledger.commit(Batch { readings: readings.to_vec(), tally, ..Batch::default() }).await.unwrap();
    }

    async fn seal(&self) {
        self.sealer.seal_now(Demand::Flush).await.unwrap();
    }

    fn ranges(&self) -> Ranges {
        Ranges::new(self.ledger.clone(), self.dir.clone())
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One reading of one of three series each second; every tenth is a text without a value.
fn readings(places: Range<i64>) -> Vec<Reading> {
    let reading = |place: i64| Reading {
        time: Timestamp(1_795_168_800_000_000 + place * 1_000_000),
        sensor: Arc::from(["a", "b", "a"][place.rem_euclid(3) as usize]),
        metric: Arc::from(["t", "t", "u"][place.rem_euclid(3) as usize]),
        value: (place % 10 != 0).then_some(place as f64),
        text: (place % 10 == 0).then(|| Arc::from("OPEN")),
        unit: Some(Arc::from("°C")),
        quality: Some(192),
        arrived: Timestamp(0),
        time_source: TimeSource::Sensor,
    };
    places.map(reading).collect()
}

fn question(from: i64, to: i64) -> Question {
    let at = |place: i64| Timestamp(1_795_168_800_000_000 + place * 1_000_000);
    Question { sensor: Arc::from("a"), metric: Arc::from("t"), from: at(from), to: at(to) }
}

/// Two segments and a hot rest, the middle committed last: later seqs have earlier times there.
async fn filled() -> (House, Vec<Reading>) {
    let house = House::open();
    let mut all = Vec::new();
    for (places, sealed) in [(0..300, true), (600..900, true), (300..600, false)] {
        let batch = readings(places);
        house.commit(&batch).await;
        if sealed {
            house.seal().await;
        }
        all.extend(batch);
    }
    all.sort_by_key(|reading| reading.time);
    (house, all)
}

#[tokio::test]
async fn readings_of_journal_and_segments_come_once_and_in_order() {
    let (house, all) = filled().await;
    let ranges = house.ranges();
    let asked = question(100, 750);
    let expected: Vec<_> = all
        .iter()
        .filter(|reading| (&*reading.sensor, &*reading.metric) == ("a", "t") && (asked.from..asked.to).contains(&reading.time))
        .map(|reading| (reading.time, reading.value, reading.text.clone()))
        .collect();
    let found = tokio::task::spawn_blocking(move || ranges.readings(&asked, 10_000)).await.unwrap().unwrap();
    let shown: Vec<_> = found.readings.iter().map(|point| (point.time, point.value, point.text.clone())).collect();
    assert_eq!(shown, expected);
    assert!(!found.more && !found.incomplete);
    assert_eq!(found.readings[0].unit.as_deref(), Some("°C"));
}

#[tokio::test]
async fn a_limit_keeps_the_earliest_and_says_that_there_are_more() {
    let (house, _) = filled().await;
    let ranges = house.ranges();
    let found = tokio::task::spawn_blocking(move || ranges.readings(&question(299, 700), 3)).await.unwrap().unwrap();
    let places: Vec<_> = found.readings.iter().map(|point| (point.time.0 - 1_795_168_800_000_000) / 1_000_000).collect();
    assert_eq!((places, found.more), (vec![300, 303, 306], true));
}

#[tokio::test]
async fn buckets_agree_with_a_plain_loop() {
    let (house, all) = filled().await;
    const STEP: i64 = 60_000_000;
    let asked = question(0, 900);
    let values: Vec<_> = all
        .iter()
        .filter(|reading| (&*reading.sensor, &*reading.metric) == ("a", "t"))
        .filter_map(|reading| Some((reading.time.0.div_euclid(STEP) * STEP, reading.value?)))
        .collect();
    let expected = |pick: Pick| {
        let mut times: Vec<_> = values.iter().map(|(time, _)| *time).collect();
        times.dedup();
        let of = |time: i64| values.iter().filter(|(found, _)| *found == time).map(|(_, value)| *value).collect::<Vec<_>>();
        times.into_iter().map(|time| Bucket { time: Timestamp(time), value: pick(&of(time)) }).collect::<Vec<_>>()
    };
    let picks: [(Aggregate, Pick); 7] = [
        (Aggregate::Count, |all| all.len() as f64),
        (Aggregate::Sum, |all| all.iter().sum()),
        (Aggregate::Avg, |all| all.iter().sum::<f64>() / all.len() as f64),
        (Aggregate::Min, |all| all.iter().copied().fold(f64::MAX, f64::min)),
        (Aggregate::Max, |all| all.iter().copied().fold(f64::MIN, f64::max)),
        (Aggregate::First, |all| all[0]),
        (Aggregate::Last, |all| all[all.len() - 1]),
    ];
    for (aggregate, pick) in picks {
        let (ranges, asked) = (house.ranges(), asked.clone());
        let found = tokio::task::spawn_blocking(move || ranges.buckets(&asked, STEP, aggregate)).await.unwrap().unwrap();
        assert_eq!(found.buckets, expected(pick), "{aggregate:?}");
    }
}

#[tokio::test]
async fn a_step_that_makes_too_many_buckets_is_refused() {
    let house = House::open();
    house.commit(&readings(0..40_000)).await;
    let ranges = house.ranges();
    let found = tokio::task::spawn_blocking(move || ranges.buckets(&question(0, 40_000), 1, Aggregate::Avg)).await.unwrap();
    assert!(matches!(found, Err(RangeError::TooManyBuckets)), "{found:?}");
}

#[tokio::test]
async fn a_segment_that_can_not_be_read_is_left_out_and_said() {
    let (house, _) = filled().await;
    let segment = house.ledger.reader().unwrap().segments().unwrap().remove(0);
    std::fs::write(house.dir.path(&segment.name), b"not Parquet").unwrap();
    let ranges = house.ranges();
    let found = tokio::task::spawn_blocking(move || ranges.readings(&question(0, 900), 10_000)).await.unwrap().unwrap();
    assert_eq!((found.readings.len(), found.incomplete), (200, true));
}

/// Delivers all that is sealed, as far as the ledger is concerned.
async fn deliver_all(house: &House) {
    while let Some(cut) = house.ledger.reader().unwrap().next_cut(false).unwrap() {
        let (instance, number) = (cut.instance, cut.number);
        let shipment = Shipment {
            instance: instance.clone(),
            number,
            cut: Some(number),
            first_cut: Some(number),
            manifest: b"{}".to_vec(),
            losses: vec![],
        };
        house.ledger.begin_shipment(shipment).await.unwrap();
        house.ledger.finish_shipment(instance, number).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_neither_hides_nor_doubles_a_reading() {
    const CUTS: i64 = 36;
    let house = House::open();
    for cut in 0..CUTS {
        house.commit(&readings(cut * 30..(cut + 1) * 30)).await;
        house.seal().await;
    }
    deliver_all(&house).await;
    let merger = Merger::new(MergerSetup {
        ledger: house.ledger.clone(),
        dir: house.dir.clone(),
        clock: Arc::new(SystemClock),
        state: Arc::default(),
        data_dir: house.dir.root().to_owned(),
        segment: config::Segment::default(),
        retention: watch::channel(config::Retention { min_free: ByteSize(0), ..config::Retention::default() }).1,
    });
    let (ranges, merging) = (house.ranges(), CancellationToken::new());
    let (expected, merged) = (CUTS as usize * 10, merging.clone());
    let asking = tokio::task::spawn_blocking(move || {
        let mut answers = 0;
        while !merged.is_cancelled() || answers < 10 {
            let found = ranges.readings(&question(0, i64::from(i32::MAX)), MAX_ROWS).unwrap();
            assert_eq!((found.readings.len(), found.incomplete), (expected, false));
            let mut export = ranges.export(everything()).unwrap();
            let rows: usize = export.by_ref().map(|batch| batch.num_rows()).sum();
            assert_eq!((rows, export.is_incomplete()), (CUTS as usize * 30, false));
            answers += 1;
        }
    });
    let done = merger.merge_due(0, &CancellationToken::new()).await.unwrap();
    assert_eq!((done.merges, done.sources), (2, CUTS as u64));
    while merger.remove_leaving().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    merging.cancel();
    asking.await.unwrap();
    assert_eq!(house.dir.list().unwrap().segments.len(), 2);
}

/// All readings of an export by time, none of them twice.
fn exported(house: &House, selection: Selection) -> (Vec<Reading>, bool) {
    let mut export = house.ranges().export(selection).unwrap();
    let mut found: Vec<_> = export.by_ref().flat_map(|batch| crate::model::columns::to_readings(&batch).unwrap()).collect();
    let seqs: std::collections::BTreeSet<_> = found.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs.len(), found.len());
    found.sort_by_key(|(_, reading)| reading.time);
    (found.into_iter().map(|(_, reading)| reading).collect(), export.is_incomplete())
}

fn everything() -> Selection {
    Selection { sensor: None, metric: None, times: Timestamp(i64::MIN)..Timestamp(i64::MAX) }
}

#[tokio::test]
async fn an_export_holds_every_reading_once_sealed_or_hot() {
    let (house, all) = filled().await;
    assert_eq!(exported(&house, everything()), (all, false));
}

#[tokio::test]
async fn an_export_is_of_its_moment_whatever_is_sealed_meanwhile() {
    let (house, all) = filled().await;
    let mut export = house.ranges().export(everything()).unwrap();
    let mut found = export.next().unwrap().num_rows();
    house.commit(&readings(1_000..1_100)).await;
    house.seal().await;
    found += export.by_ref().map(|batch| batch.num_rows()).sum::<usize>();
    assert_eq!((found, export.is_incomplete()), (all.len(), false));
}

#[tokio::test]
async fn an_export_may_be_of_a_sensor_a_metric_and_a_time() {
    let (house, all) = filled().await;
    let Question { from, to, .. } = question(50, 150);
    let some = |word: &str| Some(Arc::from(word));
    for (sensor, metric) in [(some("a"), None), (None, some("t")), (some("a"), some("u")), (some("nobody"), None)] {
        let fits = |reading: &Reading| {
            sensor.as_ref().is_none_or(|sensor| *sensor == reading.sensor)
                && metric.as_ref().is_none_or(|metric| *metric == reading.metric)
                && (from..to).contains(&reading.time)
        };
        let expected: Vec<_> = all.iter().filter(|reading| fits(reading)).cloned().collect();
        let selection = Selection { sensor: sensor.clone(), metric: metric.clone(), times: from..to };
        assert_eq!(exported(&house, selection), (expected, false));
    }
}

#[tokio::test]
async fn an_export_leaves_out_what_it_cannot_read_and_says_so() {
    let (house, all) = filled().await;
    let segments = house.ledger.reader().unwrap().segments().unwrap();
    let damaged = &segments[0];
    std::fs::write(house.dir.path(&damaged.name), b"no Parquet").unwrap();
    let (found, incomplete) = exported(&house, everything());
    assert_eq!((found.len() as u64, incomplete), (all.len() as u64 - damaged.rows, true));
}
