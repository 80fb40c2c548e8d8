//! From the journal to files.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::disk;
use crate::model::{CutState, Day, FileKind, LossReason, SegmentName};
use crate::segment::gathered::Gathered;
use crate::segment::{digest_file, inspect_file, records_schema};

#[tokio::test]
async fn a_flush_seals_everything_sorted_in_one_file_a_day_and_the_books_balance() {
    let rig = Rig::new();
    let mut all = Vec::new();
    for batch in 0..30 {
        let readings = some(100, DAY + batch * MICROS_PER_DAY / 15);
        all.extend(readings.clone());
        rig.commit(readings).await;
    }
    assert_eq!(rig.flush().await, Some(1));
    let expected: Vec<_> = (1..).zip(all).collect();
    assert_eq!(rig.sealed(), expected);
    let books = rig.books();
    assert_eq!((books.hot, books.sealed, books.kept), (0, 3000, 3000));
    let dates: Vec<_> = rig.segments().iter().map(|segment| segment.name.date.clone()).collect();
    assert_eq!(dates, ["2026-11-21", "2026-11-20"]);
    rig.audit();
}

#[tokio::test]
async fn the_ledger_knows_each_file_as_it_is_on_disk() {
    let rig = Rig::new();
    rig.commit(some(100, DAY + MICROS_PER_DAY - 50_000_000)).await;
    rig.flush().await;
    for segment in rig.segments() {
        let path = rig.dir.path(&segment.name);
        assert_eq!(digest_file(&path).unwrap(), (segment.sha256, segment.bytes));
        let readings = readings_of(&path);
        let seqs = || readings.iter().map(|(seq, _)| *seq);
        let times = || readings.iter().map(|(_, reading)| reading.time);
        assert_eq!((seqs().min(), seqs().max()), (Some(segment.first_seq), Some(segment.last_seq)));
        assert_eq!((times().min(), times().max()), (Some(segment.min_time), Some(segment.max_time)));
        assert!(times().all(|time| time.utc_day().to_string() == segment.name.date));
        let inspected = inspect_file(&path, FileKind::Readings).unwrap();
        let origin = inspected.origin.unwrap();
        assert_eq!((inspected.rows, inspected.duplicates), (segment.rows, 0));
        assert_eq!((origin.instance, origin.cut, origin.first_seq, origin.last_seq), (segment.name.instance.clone(), 1, 1, 100));
        assert!(rig.dir.verified().contains(&segment.name));
    }
    assert_eq!(rig.segments().len(), 2);
    assert!(rig.dir.list().unwrap().temporary.is_empty());
}

#[tokio::test]
async fn odd_readings_come_back_as_they_were() {
    let rig = Rig::new();
    let sensors = ["", "a/b c", "温度計", "ünï\u{0}\n", "zz", "Z", "\u{10ffff}"];
    let readings: Vec<Reading> = (0..700)
        .map(|place| Reading {
            value: [Some(-0.0), None, Some(f64::MAX), Some(f64::MIN_POSITIVE), Some(1.0 / 3.0)][place % 5],
            text: (place % 5 == 1).then(|| Arc::from(["OPEN", "", "🚪 zu", &*"x".repeat(5000)][place % 4])),
            unit: [None, Some(Arc::from("°C")), Some(Arc::from(""))][place % 3].clone(),
            quality: [None, Some(i16::MIN), Some(192)][place % 3],
            time_source: [TimeSource::Sensor, TimeSource::Gateway, TimeSource::Anchored, TimeSource::Unsynchronised][place % 4],
            // Equal times, and times that go back.
            ..reading(sensors[place % 7], ["m", "é"][place % 2], DAY + (place as i64 % 3) * 1_000, 0.0)
        })
        .collect();
    for batch in readings.chunks(13) {
        rig.commit(batch.to_vec()).await;
    }
    rig.flush().await;
    let sealed = rig.sealed();
    let expected: Vec<_> = (1..).zip(readings).collect();
    assert_eq!(sealed, expected);
    let signs = |list: &[(Seq, Reading)]| list.iter().filter_map(|(_, reading)| reading.value.map(f64::to_bits)).collect::<Vec<_>>();
    assert_eq!(signs(&sealed), signs(&expected));
    assert_eq!(read(&rig.dir.path(&rig.segments()[0].name)).unwrap().schema(), columns::reading_schema());
}

#[tokio::test]
async fn stragglers_of_many_days_share_one_file() {
    let rig = Rig::new();
    let far = (0..400).map(|day| reading("s", "m", DAY - day * 7 * MICROS_PER_DAY, 1.0));
    rig.commit(far.chain(some(1000, DAY)).collect()).await;
    rig.flush().await;
    let segments = rig.segments();
    assert_eq!(segments.len(), 33);
    let mixed = segments.iter().find(|segment| segment.name.date == "mixed").unwrap();
    assert_eq!(mixed.rows, 400 - 32);
    let today = segments.iter().find(|segment| segment.name.date == Day(DAY / MICROS_PER_DAY).to_string()).unwrap();
    assert_eq!(today.rows, 1001);
    assert_eq!(rig.sealed().len(), 1400);
}

#[tokio::test]
async fn the_series_in_the_ledger_are_those_of_the_readings() {
    let rig = Rig::new();
    let mut first = some(100, DAY);
    first.push(Reading { value: None, text: Some(Arc::from("late")), ..reading("s1", "temperature", DAY + 96_000_000, 0.0) });
    first.push(reading("s1", "temperature", DAY - 5, 3.0));
    rig.commit(first.clone()).await;
    rig.flush().await;
    let mut expected = std::collections::BTreeMap::new();
    first.sort_by_key(|reading| reading.time);
    for reading in &first {
        let key = crate::model::SeriesKey { sensor: reading.sensor.clone(), metric: reading.metric.clone() };
        let empty = crate::model::SeriesSummary::empty(key.clone());
        expected.entry(key).or_insert(empty).add(reading);
    }
    let mut series = rig.reader().series().unwrap();
    series.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(series, expected.into_values().collect::<Vec<_>>());
}

#[tokio::test]
async fn records_go_with_the_next_cut_or_alone_and_each_once() {
    let rig = Rig::new();
    rig.record("a", "{\"x\": \"é\"}").await;
    rig.commit(some(10, DAY)).await;
    assert_eq!(rig.flush().await, Some(1));
    rig.record("b", "second").await;
    assert_eq!(rig.flush().await, Some(2));
    assert_eq!(rig.flush().await, None);
    let files: Vec<_> = rig.segments().into_iter().filter(|segment| segment.name.kind == FileKind::Records).collect();
    let mut ids: Vec<_> = files.iter().map(|file| (file.name.cut, file.rows, file.first_seq, file.last_seq)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(1, 1, 1, 1), (2, 1, 2, 2)]);
    let mut reader = read(&rig.dir.path(&files[0].name)).unwrap();
    assert_eq!(reader.schema(), records_schema());
    assert_eq!(reader.next().unwrap().unwrap().num_rows(), 1);
    let cuts = rig.reader().cuts().unwrap();
    assert_eq!((cuts[1].first_seq, cuts[1].last_seq, cuts[1].readings, cuts[1].records), (11, 10, 0, 1));
    assert!(cuts.iter().all(|cut| cut.state == CutState::Sealed));
    rig.audit();
}

#[tokio::test]
async fn a_batch_damaged_in_the_journal_is_a_loss_and_the_rest_is_sealed() {
    let rig = Rig::new();
    for batch in 0..3 {
        rig.commit(some(50, DAY + batch * 100_000_000)).await;
    }
    rig.ledger.close().await.unwrap();
    damage(&rig.data.path().join("forebay.db"), &columns::encode_journal(&some(50, DAY + 100_000_000)).unwrap());
    let ledger = open(rig.data.path(), &rig.clock);
    let rig = Rig { ledger, ..rig };
    assert_eq!(rig.flush().await, Some(1));
    let seqs: Vec<_> = rig.sealed().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs, (1..=50).chain(101..=150).collect::<Vec<_>>());
    let books = rig.books();
    assert_eq!((books.sealed, books.damaged, books.hot), (100, 50, 0));
    let loss = &rig.reader().losses(1).unwrap()[0].loss;
    assert_eq!((loss.first_seq, loss.last_seq, loss.reason), (51, 100, LossReason::Damaged));
    rig.audit();
}

/// Flips a bit in the middle of the place where `file` holds `bytes`.
fn damage(file: &Path, bytes: &[u8]) {
    let mut all = fs::read(file).unwrap();
    // A blob is cut into pages: its beginning is found, and the byte after it is part of it.
    let start = bytes.get(..200).unwrap();
    let place = all.windows(start.len()).position(|window| window == start).unwrap();
    all[place + 100] ^= 1;
    fs::write(file, all).unwrap();
}

#[tokio::test]
async fn enough_readings_are_sealed_without_being_asked_in_several_cuts() {
    let rig = Rig::new();
    for batch in 0..10 {
        rig.commit(some(100, DAY + batch * 100_000_000)).await;
    }
    let sealer = rig.start(settings(Duration::from_secs(3600), 300));
    until("three cuts are made", || rig.state.seals() == 3).await;
    rig.commit(some(100, DAY)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.state.seals(), 3);
    rig.commit(some(100, DAY)).await;
    until("the fourth cut is made", || rig.state.seals() == 4).await;
    sealer.stop().await.unwrap();
    let ranges: Vec<_> = rig.reader().cuts().unwrap().iter().map(|cut| (cut.first_seq, cut.last_seq)).collect();
    assert_eq!(ranges, [(1, 300), (301, 600), (601, 900), (901, 1200)]);
    rig.audit();
}

#[tokio::test]
async fn readings_and_records_are_sealed_by_age() {
    let rig = Rig::new();
    let sealer = rig.start(settings(Duration::from_millis(200), 1_000_000));
    rig.commit(some(10, DAY)).await;
    until("the readings are sealed", || rig.books().sealed == 10).await;
    rig.record("a", "alone").await;
    until("the record is exported", || rig.reader().last_exported_record().unwrap() == 1).await;
    sealer.stop().await.unwrap();
    assert_eq!(rig.state.demands(), 0);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_seals_nothing_early_and_keeps_nothing_back() {
    let rig = Rig::new();
    let sealer = rig.start(settings(Duration::from_millis(1500), 1_000_000));
    // Its look at the wall clock, once at its start, is over when it answers.
    assert_eq!(sealer.handle.seal_now(Demand::Flush).await.unwrap(), None);
    rig.commit(some(10, DAY)).await;
    rig.clock.set(DAY + 3650 * MICROS_PER_DAY);
    rig.commit(some(10, DAY)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.state.seals(), 0);
    rig.clock.set(0);
    until("the readings are sealed", || rig.books().hot == 0).await;
    sealer.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_hot_before_the_start_keeps_its_age() {
    let rig = Rig::new();
    rig.commit(some(10, DAY)).await;
    rig.clock.set(rig.clock.now().0 + 3_600_000_000);
    let sealer = rig.start(settings(Duration::from_secs(3600), 1_000_000));
    until("the readings are sealed", || rig.books().sealed == 10).await;
    sealer.stop().await.unwrap();
}

#[tokio::test]
async fn a_reconnect_cuts_once_a_minute_and_a_flush_always() {
    let rig = Rig::new();
    let sealer = rig.start(settings(Duration::from_secs(3600), 1_000_000));
    rig.commit(some(10, DAY)).await;
    assert_eq!(sealer.handle.seal_now(Demand::Reconnect).await.unwrap(), Some(1));
    rig.commit(some(10, DAY)).await;
    assert_eq!(sealer.handle.seal_now(Demand::Reconnect).await.unwrap(), None);
    assert_eq!(sealer.handle.seal_now(Demand::Flush).await.unwrap(), Some(2));
    assert_eq!(sealer.handle.seal_now(Demand::Flush).await.unwrap(), None);
    sealer.stop().await.unwrap();
}

#[tokio::test]
async fn after_the_stop_nothing_is_sealed() {
    let rig = Rig::new();
    let sealer = rig.start(settings(Duration::from_secs(3600), 1_000_000));
    let handle = sealer.handle.clone();
    sealer.stop().await.unwrap();
    rig.commit(some(10, DAY)).await;
    assert!(matches!(handle.seal_now(Demand::Flush).await, Err(SegmentError::Stopped)));
    assert_eq!(rig.books().hot, 10);
}

#[tokio::test]
async fn a_full_disk_costs_no_reading_and_is_tried_again() {
    let rig = Rig::new();
    rig.commit(some(10, DAY)).await;
    // Whatever is written to the temporary name meets a full disk.
    let name = SegmentName::new(FileKind::Readings, Some(Day(DAY / MICROS_PER_DAY)), rig.ledger.identity().instance, 1);
    let temporary = disk::temp_path(&rig.dir.path(&name));
    fs::create_dir(temporary.parent().unwrap()).unwrap();
    symlink("/dev/full", &temporary).unwrap();
    let sealer = rig.start(settings(Duration::from_secs(3600), 1_000_000));
    let error = sealer.handle.seal_now(Demand::Flush).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Full);
    assert_eq!((rig.state.failures(), rig.books().hot), (1, 10));
    assert!(rig.state.last_error().unwrap().contains("full"));
    assert!(!temporary.is_symlink());
    assert_eq!(sealer.handle.seal_now(Demand::Flush).await.unwrap(), Some(1));
    assert_eq!(rig.state.last_error(), None);
    sealer.stop().await.unwrap();
    rig.audit();
}

#[tokio::test]
async fn a_cut_that_the_ledger_refuses_leaves_no_file() {
    let rig = Rig::new();
    rig.commit(some(10, DAY)).await;
    let draft = rig.draft();
    let segments = crate::segment::seal::stage(&rig.dir, &draft).unwrap().publish(&rig.dir).unwrap();
    assert_eq!(rig.dir.list().unwrap().segments.len(), 1);
    rig.ledger.fork("another digest upstream".to_owned()).await.unwrap();
    let cut = crate::segment::seal::sealed_cut(draft, segments.clone(), rig.clock.now()).unwrap();
    let error = rig.ledger.finish_seal(cut).await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Invalid);
    crate::segment::seal::discard(&rig.dir, &segments);
    assert!(rig.dir.list().unwrap().segments.is_empty());
    assert_eq!(rig.flush().await, Some(1));
    assert_eq!(rig.sealed().len(), 10);
}

#[test]
fn a_full_cut_in_the_making_takes_under_sixty_bytes_a_reading() {
    let mut gathered = Gathered::with_capacity(100_000);
    for batch in 0..1000 {
        let readings = some(100, DAY + batch * 100_000_000);
        gathered.add(&columns::decode_journal(&columns::encode_journal(&readings).unwrap(), 1 + batch as u64 * 100).unwrap()).unwrap();
    }
    let batch = gathered.finish().unwrap();
    assert_eq!(batch.num_rows(), 100_000);
    assert!(batch.get_array_memory_size() < 100_000 * 60, "{} bytes", batch.get_array_memory_size());
}
