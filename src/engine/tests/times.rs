//! Which segments a query opens.

use std::fs;

use super::*;

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
