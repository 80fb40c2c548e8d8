//! What goes wrong, and what it costs.

use std::fs;

use super::*;
use crate::config::ByteSize;
use crate::error::ErrorKind;

/// The one child of this process that is this program running an engine for `bench`: its folder says so.
pub fn engine_of(bench: &Bench) -> u32 {
    let root = bench.dir.root().canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut engines = processes.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == root));
    engines.next().expect("an engine runs")
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn with_timeout(timeout: Duration) -> config::Engine {
    config::Engine { query_timeout: Period(timeout), ..config::Engine::default() }
}

/// Millions of combinations that nobody stops but the clock.
const ENDLESS: &str = "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range % 7 = 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_costs_its_queries_and_no_reading() {
    let (bench, handle) = Bench::started();
    bench.commit(0..1000).await;
    for round in 1..=3 {
        assert_eq!(numbers(&handle, "select count(*) from readings").await, [1000]);
        let asking = handle.clone();
        let under_way = tokio::spawn(async move { ask(&asking, ENDLESS, Format::Csv).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(engine_of(&bench));
        assert_eq!(under_way.await.unwrap(), Err(QueryError::EngineGone));
        until("another start", || handle.state().report().restarts == round).await;
    }
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [1000]);
    assert_eq!(handle.state().phase(), Phase::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_at_its_limit_and_the_engine_lives_on() {
    let bench = Bench::new();
    let limit = Duration::from_millis(400);
    let handle = bench.start(&with_timeout(limit));
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let begun = Instant::now();
    assert_eq!(ask(&handle, ENDLESS, Format::Csv).await, Err(QueryError::TimedOut { limit }));
    assert!(begun.elapsed() < limit + Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(numbers(&handle, "select 1").await, [1]);
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_can_not_be_interrupted_is_ended_with_its_engine() {
    let bench = Bench::new();
    let limit = Duration::from_millis(400);
    let handle = bench.start(&config::Engine { memory: ByteSize(2 << 30), ..with_timeout(limit) });
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let begun = Instant::now();
    let bomb = ask(&handle, "select len(list_sort(range(20000000)))", Format::Csv).await;
    assert_eq!(bomb, Err(QueryError::TimedOut { limit }));
    assert!(begun.elapsed() < limit + Duration::from_secs(3), "{:?}", begun.elapsed());
    until("another start", || handle.state().report().restarts == 1 && handle.state().phase() == Phase::Ready).await;
    assert_eq!(numbers(&handle, "select 1").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_wants_too_much_memory_fails_alone() {
    let bench = Bench::new();
    let handle = bench.start(&config::Engine { memory: ByteSize(64 << 20), ..config::Engine::default() });
    bench.commit(0..100).await;
    for bomb in [
        "select len(range(1000000000))",
        "select len(repeat('x', 2000000000))",
        "select len(list(a.range)) from range(50000000) a",
        "select len(string_agg(repeat('x', 1000), '')) from range(1000000)",
        "select count(*) from (select * from range(30000000) order by hash(range))",
    ] {
        let error = ask(&handle, bomb, Format::Csv).await.expect_err(bomb);
        assert!(matches!(error, QueryError::Memory(_) | QueryError::Sql(_) | QueryError::EngineGone), "{bomb}: {error:?}");
        until("ready", || handle.state().phase() == Phase::Ready).await;
        assert_eq!(numbers(&handle, "select count(*) from readings").await, [100], "after {bomb}");
    }
    let report = handle.state().report();
    assert!(report.restarts == 0 && report.rss_bytes < 384 << 20, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_frees_a_place_and_who_finds_none_is_told() {
    let bench = Bench::new();
    let handle = bench.start(&config::Engine { max_concurrent_queries: 2, ..config::Engine::default() });
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let endless = || {
        let handle = handle.clone();
        tokio::spawn(async move { ask(&handle, ENDLESS, Format::Csv).await })
    };
    let (one, two) = (endless(), endless());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = ask(&handle, "select 1", Format::Csv).await.unwrap_err();
    assert_eq!((error.kind(), error), (ErrorKind::Transient, QueryError::Busy { running: 2 }));
    one.abort();
    two.abort();
    let end = Instant::now() + Duration::from_secs(2);
    while ask(&handle, "select 1", Format::Csv).await.is_err() {
        assert!(Instant::now() < end, "the places are not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_loses_its_answer_at_the_limit() {
    let bench = Bench::new();
    let limit = Duration::from_millis(700);
    let handle = bench.start(&config::Engine { max_concurrent_queries: 1, ..with_timeout(limit) });
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let stalled = handle.query("select range, repeat('x', 100) from range(10000000)".to_owned(), Format::Csv, None).await.unwrap();
    tokio::time::sleep(limit + Duration::from_millis(900)).await;
    assert_eq!(numbers(&handle, "select 1").await, [1]);
    assert_eq!(stalled.bytes().await, Err(QueryError::TimedOut { limit }));
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_vanished_or_changed_is_named_and_left_out() {
    let (bench, handle) = Bench::started();
    for round in 0..3 {
        bench.commit(round * 100..(round + 1) * 100).await;
        bench.seal().await;
    }
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [300]);
    assert!(handle.state().complete());
    let segments = bench.dir.list().unwrap().segments;
    let path = |place: usize| bench.dir.path(&segments[place]);
    let vanish = || fs::remove_file(path(1)).unwrap();
    let change = || fs::write(path(2), "no Parquet").unwrap();
    for (place, damage, left) in [(1, &vanish as &dyn Fn(), 200), (2, &change, 100)] {
        damage();
        let error = ask(&handle, "select sum(value) from readings", Format::Csv).await.unwrap_err();
        assert!(matches!(&error, QueryError::Segment(message) if message.contains(&segments[place].to_string())), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(numbers(&handle, "select count(*) from readings").await, [left]);
        assert!(handle.query("select 1".to_owned(), Format::Csv, None).await.unwrap().incomplete);
    }
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_has_no_environment_and_no_descriptors_of_ours_and_goes_when_it_is_told() {
    let (bench, handle) = Bench::started();
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let pid = engine_of(&bench);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/environ")).unwrap(), "MALLOC_ARENA_MAX=2\0");
    // Its complaints go where ours go, wherever that is.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().filter(|fd| fd.file_name() != "2");
    for target in open.filter_map(|fd| fs::read_link(fd.path()).ok()) {
        let path = target.display().to_string();
        assert!(["socket:", "/dev/null", "pipe:", "anon_inode:"].iter().any(|own| path.starts_with(own)), "{path}");
    }
    bench.stop.cancel();
    until("its end", || !fs::exists(format!("/proc/{pid}")).unwrap()).await;
    assert_eq!(handle.state().phase(), Phase::Off);
    assert_eq!(ask(&handle, "select 1", Format::Csv).await, Err(QueryError::NotReady));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_switched_off_says_so() {
    let bench = Bench::new();
    let handle = bench.start(&config::Engine { enabled: false, ..config::Engine::default() });
    let error = ask(&handle, "select 1", Format::Csv).await.unwrap_err();
    assert!(error.to_string().contains("engine.enabled"), "{error}");
    assert_eq!(handle.state().phase(), Phase::Off);
}
