//! What the engine is fed, and what not.

use super::*;
use crate::config::ByteSize;
use crate::error::ErrorKind;

/// 200 bytes that say nothing twice, so that they stay 200 bytes everywhere.
fn long(number: i64) -> Reading {
    let mut state = number.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + (state % 26) as u8)
    };
    Reading { value: None, text: Some((0..200).map(|_| letter()).collect::<String>().into()), ..reading(number) }
}

async fn commit(bench: &Bench, readings: Vec<Reading>) {
    let tally = Tally { readings: readings.len() as u64, ..Tally::default() };
    bench.ledger.commit(Batch { readings, tally, ..Batch::default() }).await.unwrap();
}

const SEEN: &str = "select count(*), sum(seq), min(seq), max(seq), count(distinct seq) from readings";

/// What [`SEEN`] says of readings 1 through `last`, each once.
fn each_once(last: u64) -> [u64; 5] {
    [last, last * (last + 1) / 2, 1, last, last]
}

fn engine(mib: u64, query_timeout: Duration) -> config::Engine {
    config::Engine { memory: ByteSize(mib << 20), query_timeout: Period(query_timeout), ..config::Engine::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn far_more_hot_text_than_the_engine_holds_is_sealed_and_seen_once() {
    const BATCH: i64 = 10_000;
    const BATCHES: i64 = 30;
    // Of 64 MiB it holds a third: a quarter of these.
    let bench = Bench::new();
    let handle = bench.start(&engine(64, Duration::from_secs(300)));
    let committed = {
        let bench = &bench;
        async move {
            for batch in 0..BATCHES {
                commit(bench, (batch * BATCH..(batch + 1) * BATCH).map(long).collect()).await;
            }
        }
    };
    let asking = {
        let (handle, ledger) = (handle.clone(), bench.ledger.clone());
        async move {
            for _ in 0..10 {
                let before = ledger.progress().borrow().last_seq;
                let seen = numbers(&handle, "select count(*), coalesce(max(seq), 0), count(distinct seq) from readings").await;
                assert!(seen[0] >= before && seen[0] == seen[1] && seen[0] == seen[2], "{seen:?} after {before}");
            }
        }
    };
    tokio::join!(committed, asking);
    assert_eq!(numbers(&handle, SEEN).await, each_once((BATCH * BATCHES) as u64));
    let report = handle.state().report();
    assert_eq!((report.restarts, report.excess_readings), (0, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_more_is_hot_than_the_engine_holds_queries_are_told_so_and_ingest_goes_on() {
    let bench = Bench::new();
    // Nobody meets its demands.
    let (_worker, nobody) =
        Sealer::new(bench.ledger.clone(), bench.dir.clone(), config::Segment::default(), Arc::new(SystemClock), Arc::default());
    let settings = engine(32, Duration::from_secs(1));
    let (engine, handle) =
        Engine::new(&settings, bench.ledger.clone(), bench.dir.clone(), nobody, Arc::default(), program("engine::tests::child"));
    tokio::spawn(engine.run(bench.stop.clone()));
    commit(&bench, (0..100).map(long).collect()).await;
    until("ready", || handle.state().phase() == Phase::Ready).await;
    commit(&bench, (100..50_000).map(long).collect()).await;
    until("word of it", || handle.state().report().excess_readings == 50_000).await;
    let error = ask(&handle, SEEN, Format::Csv).await.unwrap_err();
    assert_eq!((error.kind(), error), (ErrorKind::Transient, QueryError::Behind { hot: 50_000 }));
    commit(&bench, (50_000..50_010).map(long).collect()).await;
    until("word of these too", || handle.state().report().excess_readings == 50_010).await;
    bench.seal().await;
    until("an engine that keeps up", || handle.state().report().excess_readings == 0).await;
    assert_eq!(numbers(&handle, SEEN).await, each_once(50_010));
    assert_eq!(handle.state().report().restarts, 0);
}
