//! Which segments a query opens.

use std::fs;

use futures::StreamExt;
use tokio_util::codec::FramedRead;

use super::*;
use crate::engine::frame::{FROM_ENGINE, FrameReader};
use crate::engine::orders::Orders;
use crate::engine::process::{Origin, socket_pair};
use crate::engine::protocol::{Ask, Failure, FailureKind, Moment, Opening, Piece, SmallTable, ToEngine, monotonic_ms};
use crate::model::{Books, Digest, Segment};

/// Readings whose times are an hour apart from those of the next; each hour a segment, but the last one hot.
const HOURS: i64 = 8;

async fn bench() -> (Bench, EngineHandle) {
    let (bench, handle) = Bench::started();
    for hour in 0..HOURS {
        bench.commit(hour * 3_600_000..hour * 3_600_000 + 100).await;
        if hour < HOURS - 1 {
            bench.seal().await;
        }
    }
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [100 * HOURS as u64]);
    (bench, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_other_times_are_not_opened_and_no_others_are_left_out() {
    let (bench, handle) = bench().await;
    for (bound, count) in [
        ("time < '2026-11-20 12:00:00'", 200),
        ("time is not null", 800),
        ("arrived > '2026-11-20 12:00:00'", 600),
        ("time > '2026-11-20 12:00:00' or value = 3", 600),
        ("time > (select min(time) from readings)", 799),
        ("time > '2026-11-20 12:00:00' and (select count(*) from readings) = 800", 599),
    ] {
        let sql = format!("select count(*) from readings where {bound}");
        assert_eq!(numbers(&handle, &sql).await, [count], "{sql}");
    }
    // From ten to eleven.
    let oldest = bench.ledger.reader().unwrap().segments().unwrap().pop().unwrap();
    fs::remove_file(bench.dir.path(&oldest.name)).unwrap();
    for (bound, count) in [
        ("time > '2026-11-20 12:00:00'", 599),
        ("time >= timestamp '2026-11-20 12:00:00' and value > 0", 600),
        ("'2026-11-20 12:00:00' <= time", 600),
        ("time between '2026-11-20 11:00:00' and '2026-11-20 12:30:00'", 200),
        ("time = '2026-11-20 11:00:00'", 1),
        ("time in ('2026-11-20 11:00:00', '2026-11-20 12:00:00')", 2),
        ("time > '2026-11-20 16:00:00' or time < '2026-11-20 17:00:00' and time > '2026-11-20 15:00:00'", 299),
        ("date_trunc('hour', time) = '2026-11-20 13:00:00'", 100),
        ("time::date = '2026-11-19'", 0),
        ("time > now() - interval 1 hour and time < '2020-01-01'", 0),
        ("sensor = 's1' and time >= timestamp '2026-11-20 11:00:00' + interval 1 hour", 12),
    ] {
        for sql in [
            format!("select count(*) from readings where {bound}"),
            format!("with r as (select * from readings where {bound}) select count(*) from r"),
            format!("select count(*) from (select time, sensor, value, metric from readings) where {bound};"),
            format!("select count(*) from readings r join series s using (sensor, metric) where {bound}"),
            format!("select (select count(*) from readings where {bound})"),
        ] {
            assert_eq!(numbers(&handle, &sql).await, [count], "{sql}");
        }
    }
    let plan = ask(&handle, "explain select * from readings where time > '2026-11-20 16:10:00'", Format::Csv).await.unwrap();
    assert!(!plan.contains(".parquet") && !plan.to_lowercase().contains("parquet"), "{plan}");
}

/// Statements of every kind that sees readings at several times; `{r}` is the table.
const STATEMENTS: [&str; 24] = [
    "select count(*), sum(seq) from {r} where time > '2026-11-20 12:00:00'",
    "select count(*), sum(seq) from {r} where not time > '2026-11-20 12:00:00'",
    "select count(*), sum(seq) from {r} where time > '2026-11-20 12:00:00' is not true",
    "select count(*), sum(seq) from {r} where case when value > 50 then time > '2026-11-20 12:00:00' else true end",
    "select count(*), sum(seq) from {r} where coalesce(time, now()) > '2026-11-20 12:00:00'",
    "select count(*) from (select arrived as time from {r}) where time > '2026-11-20 12:00:00'",
    "select count(*) from (select time + interval 3 hour as time from {r}) where time > '2026-11-20 12:00:00'",
    "select count(*) from {r} a left join {r} b on a.seq = b.seq and b.time > '2026-11-20 12:00:00' where b.seq is null",
    "select count(*) from {r} a left join {r} b on a.seq = b.seq where b.time > '2026-11-20 12:00:00' or b.seq is null",
    "select count(*) from {r} a full join {r} b on a.seq = b.seq + 100 where a.time > '2026-11-20 12:00:00'",
    "select count(*) from {r} a where not exists (from {r} b where b.seq = a.seq + 100 and b.time > '2026-11-20 12:00:00')",
    "select count(*) from {r} where seq not in (select seq from {r} where time > '2026-11-20 12:00:00')",
    "select count(b.seq), sum(b.seq) from {r} a asof join {r} b on a.sensor = b.sensor and a.time > b.time \
     where b.time < '2026-11-20 12:00:00'",
    "select count(*) from (select *, row_number() over (order by time) as n from {r}) where time > '2026-11-20 12:00:00' and n > 350",
    "select count(*) from (select *, max(time) over () as newest from {r}) \
     where time < '2026-11-20 12:00:00' and newest > '2026-11-20 16:00:00'",
    "select sum(seq) from (select seq, time from {r} order by time limit 250) where time > '2026-11-20 11:00:00'",
    "select max(n) from (select count(*) as n, max(time) as newest from {r} group by sensor having newest > '2026-11-20 12:00:00')",
    "select count(*) filter (where time > '2026-11-20 12:00:00'), count(*) from {r}",
    "(select seq from {r} where time > '2026-11-20 16:00:00') except (select seq from {r} where time > '2026-11-20 15:00:00')",
    "select count(*) from (from {r} where time > '2026-11-20 16:00:00' union all from {r} where time < '2026-11-20 11:00:00')",
    "with r as materialized (from {r}) select (select count(*) from r where time > '2026-11-20 16:00:00'), (select count(*) from r)",
    "with recursive w(t) as (select min(time) from {r} union all select t + interval 1 hour from w where t < '2026-11-20 15:00:00') \
     select count(*) from w, {r} where time > t",
    "select count(*) from {r} where time > '2026-11-20 12:00:00' and time < '2026-11-20 11:00:00'",
    "select count(distinct b.seq) from {r} a positional join {r} b where a.time > '2026-11-20 12:00:00'",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_that_of_all_segments() {
    let (_bench, handle) = bench().await;
    for statement in STATEMENTS {
        let answer = |table: &str| {
            let (handle, sql) = (handle.clone(), statement.replace("{r}", table));
            async move { ask(&handle, &sql, Format::Csv).await.unwrap_or_else(|error| panic!("{sql}: {error}")) }
        };
        // No bound is pushed below a limit.
        assert_eq!(answer("readings").await, answer("(from readings limit 1000000)").await, "{statement}");
    }
}

/// Made by us, so that the planner knows the same time.
const OF_THE_CLOCK: [&str; 7] =
    ["now", "current_timestamp", "current_localtimestamp", "get_current_timestamp", "transaction_timestamp", "current_date", "today"];

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_depends_on_who_is_asked_is_known() {
    let (_bench, handle) = Bench::started();
    let sql = "select distinct function_name from duckdb_functions() where stability = 'CONSISTENT_WITHIN_QUERY'";
    let direct = ask(&handle, sql, Format::Csv).await.unwrap();
    let direct: Vec<_> = direct.lines().skip(1).collect();
    assert!(direct.contains(&"now") && direct.len() > 8, "{direct:?}");
    let pattern = direct.join("|");
    let macros = format!(
        "select distinct function_name from duckdb_functions() where function_type in ('macro', 'table_macro') and database_name = 'system'
         and regexp_matches(macro_definition, '\\b({pattern})\\b')"
    );
    let macros = ask(&handle, &macros, Format::Csv).await.unwrap();
    let unknown = |function: &&str| gate::same_everywhere(&format!(r#"{{"function_name":"{function}"}}"#));
    let found = direct.into_iter().chain(macros.lines().skip(1)).filter(|function| !OF_THE_CLOCK.contains(function));
    assert_eq!(found.filter(unknown).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_who_is_asked_sees_all_segments() {
    let (_bench, handle) = bench().await;
    for bound in [
        "time > coalesce(getvariable('segments')[1]::timestamp, '2026-11-20 09:00:00')",
        "time > make_timestamp(current_setting('threads')::bigint)",
        "time < system.main.now()::timestamp",
        "time > ago('100 years')::timestamp",
    ] {
        let sql = format!("select count(*) from readings where {bound}");
        match ask(&handle, &sql, Format::Csv).await {
            Ok(count) => assert_eq!(count, format!("count_star()\n{}\n", 100 * HOURS), "{sql}"),
            Err(error) => assert!(matches!(error, QueryError::Sql(_)), "{sql}: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_full_is_the_same_table() {
    let (_bench, handle) = bench().await;
    for name in ["readings", "main.readings", "memory.readings", "memory.main.readings"] {
        for (bound, count) in [("true", 800), ("time > '2026-11-20 12:00:00'", 599)] {
            let sql = format!("select count(*) from {name} where {bound}");
            assert_eq!(numbers(&handle, &sql).await, [count], "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_bound_narrows_the_segments_as_if_it_were_written() {
    let (bench, handle) = bench().await;
    let at = |hour: i64| Param::Time(Timestamp(TEN_O_CLOCK + hour * 3_600_000_000));
    let text = |text: &str| Param::Text(text.to_owned());
    let oldest = bench.ledger.reader().unwrap().segments().unwrap().pop().unwrap();
    let path = bench.dir.path(&oldest.name);
    let aside = path.with_extension("aside");
    for (bound, values, count, narrows) in [
        ("time >= ?", vec![at(2)], 600, true),
        ("time >= $1 and time < $2", vec![at(2), at(3)], 100, true),
        ("time between $2 and $1 and value >= $3", vec![at(3), at(2), Param::Real(0.5)], 101, true),
        ("sensor = ? and time >= ?", vec![text("s1"), at(2)], 12, true),
        ("time in (?, ?)", vec![at(1), at(2)], 2, true),
        ("time >= ? + interval 1 hour", vec![at(1)], 600, true),
        ("time >= make_timestamp(?)", vec![Param::Int(TEN_O_CLOCK + 7_200_000_000)], 600, true),
        ("time >= ?::timestamp", vec![text("2026-11-20 12:00:00")], 600, true),
        ("time >= ? and ?", vec![at(2), Param::Bool(true)], 600, true),
        ("time >= ? or ? = 'it''s?'", vec![at(2), text("it's?")], 800, false),
        ("time >= ? or value = ?", vec![at(2), Param::Int(3)], 601, false),
        ("time >= ? or ?", vec![at(2), Param::Bool(true)], 800, false),
        ("time >= coalesce(?, ?)", vec![Param::Null, at(0)], 800, false),
        ("time > ?", vec![Param::Null], 0, false),
        ("true or ?", vec![Param::Bool(true)], 800, false),
    ] {
        let sql = format!("select count(*) as \"how many?\" from readings where {bound}");
        let ask = || async {
            let answer = handle.query_bound(sql.clone(), Binding::Values(values.clone()), Format::Csv, None).await?;
            Ok::<_, QueryError>(String::from_utf8(answer.bytes().await?).unwrap())
        };
        assert_eq!(ask().await.unwrap().lines().nth(1), Some(&*count.to_string()), "{sql} of {values:?}");
        if narrows {
            fs::rename(&path, &aside).unwrap();
            assert_eq!(ask().await.unwrap().lines().nth(1), Some(&*count.to_string()), "{sql} of {values:?}, without the oldest");
            fs::rename(&aside, &path).unwrap();
        }
    }
    // To say what an answer would look like opens none.
    fs::rename(&path, &aside).unwrap();
    let (_, parameters) = handle.describe("select max(value) from readings where seq > ?".to_owned(), Binding::Unknown).await.unwrap();
    assert_eq!((parameters, handle.state().complete()), (1, true));
}

/// What a child without a daemon, with `memory_bytes`, that was told of `segments`, ends the answer to `sql` with.
async fn told_of(segments: &[Segment], memory_bytes: u64, sql: &str) -> Piece {
    let folder = tempfile::tempdir().unwrap();
    let (process, control) = Origin::Child(program("engine::tests::child")).start(folder.path()).await.unwrap();
    let mut orders = Orders::new(control.into_split().1);
    orders.send(&ToEngine::Open(Opening { memory_bytes, threads: 1, tells_memory: false }), &[]).await.unwrap();
    orders.send(&ToEngine::Table(SmallTable::Segments), &tables::segments(segments).unwrap()).await.unwrap();
    orders.send(&ToEngine::Commit(Moment { last_seq: 0, mark: 0, books: Books::default() }), &[]).await.unwrap();
    let (answer, theirs) = socket_pair().unwrap();
    let (sql, deadline_ms) = (sql.to_owned(), monotonic_ms() + 60_000);
    let ask = Ask { id: 1, sql, binding: Binding::default(), format: Format::Csv, max_rows: None, max_bytes: 1 << 20, deadline_ms };
    orders.ask(ask, theirs).await.unwrap();
    let pieces: Vec<_> = FramedRead::new(answer, FrameReader::<Piece>::new(FROM_ENGINE)).collect().await;
    process.end().await;
    pieces.into_iter().last().unwrap().unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_would_open_more_segments_than_memory_allows_is_refused_alone() {
    const MOST: i64 = (32 << 20) / 4096;
    let segment = |hour: i64| Segment {
        name: format!("readings/date=2026-11-20/00000000000000aa-{:010}.parquet", hour + 1).parse().unwrap(),
        bytes: 1000,
        sha256: Digest::of(b""),
        rows: 1,
        first_seq: 1,
        last_seq: 1,
        min_time: Timestamp(TEN_O_CLOCK + hour * 3_600_000_000),
        max_time: Timestamp(TEN_O_CLOCK + hour * 3_600_000_000),
    };
    let segments: Vec<_> = (0..=MOST).map(segment).collect();
    let answer = told_of(&segments, 32 << 20, "select count(*) from readings").await;
    let Piece::Failed(Failure { kind: FailureKind::Memory, message }) = answer else { panic!("{answer:?}") };
    assert!(message.contains(&format!("{} segments", MOST + 1)), "{message}");
    // Without the one that is too many it gets further: to find that there are no such files.
    let answer = told_of(&segments, 32 << 20, "select count(*) from readings where time > '2026-11-20 10:30:00'").await;
    assert!(matches!(answer, Piece::Failed(Failure { kind: FailureKind::Segment, .. })), "{answer:?}");
}
