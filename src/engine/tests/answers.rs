//! What answers say.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use futures::StreamExt;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_query_is_in_its_answer() {
    let (bench, handle) = Bench::started();
    for round in 1..=30 {
        bench.commit((round - 1) * 7..round * 7).await;
        let expected = round as u64 * 7;
        assert_eq!(numbers(&handle, "select count(*), max(seq) from readings").await, [expected, expected]);
        if round % 10 == 0 {
            bench.seal().await;
            assert_eq!(numbers(&handle, "select count(*), max(seq) from readings").await, [expected, expected]);
        }
    }
    let report = handle.state().report();
    assert_eq!((report.state, report.restarts, report.last_seq), (Phase::Ready, 0, 210));
    assert!(report.segments >= 3 && report.rss_bytes > 1 << 20, "{report:?}");
    assert!(report.isolation.iter().any(|layer| layer == "rlimit"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_agrees_with_the_books_of_its_moment_while_readings_are_sealed() {
    let (bench, handle) = Bench::started();
    let answers = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let writing = async {
        let mut round = 0;
        while round < 60 || answers.load(Relaxed) < 25 {
            bench.commit(round * 200..(round + 1) * 200).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if round % 3 == 0 {
                bench.seal().await;
            }
            round += 1;
        }
        done.store(true, Relaxed);
        round as u64 * 200
    };
    let asking = async {
        while !done.load(Relaxed) {
            let sql = "select (select count(*) from readings), (select count(distinct seq) from readings), \
                       (select coalesce(max(seq), 0) from readings), (select coalesce(sum(readings), 0) from series), \
                       kept, accepted, hot + sealed from books";
            let row = numbers(&handle, sql).await;
            assert!(row.iter().all(|count| *count == row[0]), "{row:?}");
            answers.fetch_add(1, Relaxed);
        }
    };
    let (written, ()) = tokio::join!(writing, asking);
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [written]);
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_have_the_promised_columns_hot_and_sealed() {
    let (bench, handle) = Bench::started();
    bench.commit(10..11).await;
    let expected = "time,sensor,metric,value,text,unit,quality,arrived,time_source,seq\n\
                    2026-11-20T10:00:00.010000Z,s10,temperature,10.0,OPEN,°C,192,2026-11-20T10:00:00.010005Z,sensor,1\n";
    assert_eq!(ask(&handle, "select * from readings", Format::Csv).await.unwrap(), expected);
    bench.seal().await;
    assert_eq!(ask(&handle, "select * from readings;", Format::Csv).await.unwrap(), expected);
    assert_eq!(handle.state().report().segments, 1);
    let types = ask(&handle, "select column_type from (describe readings)", Format::Csv).await.unwrap();
    let expected = "TIMESTAMP VARCHAR VARCHAR DOUBLE VARCHAR VARCHAR SMALLINT TIMESTAMP VARCHAR BIGINT";
    assert_eq!(types.lines().skip(1).collect::<Vec<_>>().join(" "), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_counts_what_is_sealed_and_what_is_hot_and_shows_the_newest() {
    let (bench, handle) = Bench::started();
    bench.commit(0..100).await;
    bench.seal().await;
    bench.commit(100..150).await;
    let sql = "select count(*), min(readings), max(readings), sum(readings) from series";
    assert_eq!(numbers(&handle, sql).await, [50, 3, 3, 150]);
    let sql = "select unit, first_time, last_time, last_value, last_text from series where sensor = 's10' and metric = 'temperature'";
    let expected = ["°C", "2026-11-20T10:00:00.010000Z", "2026-11-20T10:00:00.110000Z", "110.0", "OPEN"];
    assert_eq!(row(&handle, sql).await, expected);
    // An older reading that arrives late counts, but is not the newest.
    bench.commit(10..11).await;
    assert_eq!(row(&handle, "select readings, last_value from series where sensor = 's10'").await, ["4", "110.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_losses_are_tables() {
    let (bench, handle) = Bench::started();
    assert_eq!(numbers(&handle, "select (select count(*) from records), (select count(*) from losses)").await, [0, 0]);
    let record =
        Record { source: Arc::from("a/config"), kind: Arc::from("config"), body: "{}".to_owned(), received: Timestamp(TEN_O_CLOCK) };
    for times in 1..=2 {
        let tally = Tally { records: 1, ..Tally::default() };
        bench.ledger.commit(Batch { records: vec![record.clone()], tally, ..Batch::default() }).await.unwrap();
        let sql = "select id, source, kind, body, first_received, times from records";
        assert_eq!(row(&handle, sql).await, ["1", "a/config", "config", "{}", "2026-11-20T10:00:00.000000Z", &times.to_string()]);
    }
    bench.commit(0..10).await;
    bench.seal().await;
    let segment = bench.ledger.reader().unwrap().segments().unwrap().into_iter().find(|segment| segment.rows == 10).unwrap();
    bench.ledger.mark_damaged(segment.name, "a flipped bit".to_owned()).await.unwrap();
    let sql = "select first_seq, last_seq, losses.readings, reason, detail like '%a flipped bit', kept, damaged from losses, books";
    assert_eq!(row(&handle, sql).await, ["1", "10", "10", "damaged", "true", "0", "10"]);
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_gives_times_that_can_be_reckoned_with() {
    let (_bench, handle) = Bench::started();
    let sql = "select (now() - interval 1 hour < current_timestamp)::int, (current_date <= today())::int, \
               (time_bucket(interval 1 minute, now()) <= now())::int, (timestamp '2020-01-01' < localtimestamp)::int";
    assert_eq!(numbers(&handle, sql).await, [1, 1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_limit_holds_and_keeps_the_order() {
    let (bench, handle) = Bench::started();
    bench.commit(0..5000).await;
    let answer = handle.query("select seq from readings order by seq desc".to_owned(), Format::Csv, Some(3)).await.unwrap();
    assert!(!answer.incomplete);
    assert_eq!(answer.bytes().await.unwrap(), b"seq\n5000\n4999\n4998\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_nobody_and_gets_everything() {
    let (bench, handle) = Bench::started();
    bench.commit(0..1000).await;
    let sql = "select seq, repeat('x', 100) as padding from readings, range(300)";
    let mut slow = handle.query(sql.to_owned(), Format::Csv, None).await.unwrap();
    let mut bytes = 0;
    for _ in 0..20 {
        bench.commit(0..10).await;
        numbers(&handle, "select count(*) from readings").await;
        bytes += slow.body.next().await.unwrap().unwrap().len();
    }
    while let Some(piece) = slow.body.next().await {
        bytes += piece.unwrap().len();
    }
    let padded: usize = (1..=1000).map(|seq: usize| (seq.to_string().len() + 102) * 300).sum();
    assert_eq!(bytes, "seq,padding\n".len() + padded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_starts_late_has_a_full_journal_soon() {
    let bench = Bench::new();
    for round in 0..25 {
        bench.commit(round * 10_000..(round + 1) * 10_000).await;
    }
    let begun = Instant::now();
    let handle = bench.start(&config::Engine::default());
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [250_000]);
    let took = begun.elapsed();
    tracing::info!(?took, report = ?handle.state().report(), "250,000 hot readings");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
