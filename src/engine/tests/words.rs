//! What is answered, what is refused, and with which words.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_can_be_asked_by_its_name() {
    let (bench, handle) = Bench::started();
    bench.commit(0..100).await;
    bench.seal().await;
    let own = format!("select count(*) from '{}'", bench.dir.list().unwrap().segments[0]);
    assert_eq!(numbers(&handle, &own).await, [100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_speak_of_the_users_own_text() {
    let (_bench, handle) = Bench::started();
    for (sql, told) in [
        ("selec 1", "syntax error at or near \"selec\" (line 1, column 1)"),
        ("select 1\nfrom readings wher seq > 1", "(line 2, column 20)"),
        ("select *\nfrom readigns", "LINE 2: from readigns"),
        ("select valeu from readings", "\"value\""),
        ("select 'x'::int", "Could not convert string 'x'"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("select '\0'", ""),
        ("explain analyze select 1", "EXPLAIN shows the plan without running it"),
        ("explain drop view readings", "one SELECT"),
        ("explain\nselec 1", "(line 2, column 1)"),
        ("pivot readings on sensor using avg(value)", "IN (1, 2)"),
        ("select 1 where", "line 1"),
    ] {
        let error = ask(&handle, sql, Format::Json).await.expect_err(sql);
        assert!(matches!(error, QueryError::Sql(_) | QueryError::Denied(_)), "{sql}: {error:?}");
        assert!(error.to_string().contains(told), "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_select_is_answered() {
    let (bench, handle) = Bench::started();
    bench.commit(0..10).await;
    for (sql, first) in [
        ("from readings select count(*)", "10"),
        ("values (7)", "7"),
        ("with n as (select 3 as n) select n from n", "3"),
        ("with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select max(n) from r", "5"),
        ("select name from (show tables) order by name limit 1", "books"),
        ("describe books", "accepted"),
        ("summarize select value from readings", "value"),
        ("select count(*) from (pivot readings on sensor in ('s1', 's2') using avg(value) group by metric)", "1"),
        ("select 5 -- and no more", "5"),
        ("/* five */ select 5;;", "5"),
        ("select ';' || 'x';", ";x"),
        ("select sum(seq) from readings", "55"),
        ("select [1, 2]", "\"[1"),
    ] {
        assert_eq!(row(&handle, sql).await[0], first, "{sql}");
    }
    let json = ask(&handle, "select 1 as a, 2 as a, null as b, 'nan'::double as c, {'x': [1]} as d", Format::Json).await.unwrap();
    assert_eq!(json.trim_end(), r#"[{"a":1,"a_1":2,"b":null,"c":null,"d":{"x":[1]}}]"#);
    let plan = ask(&handle, "explain select avg(value) from readings where seq > 3", Format::Csv).await.unwrap();
    assert!(plan.contains("Filters: seq > 3"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_and_deep_texts_are_answered_or_refused_with_a_reason() {
    let (_bench, handle) = Bench::started();
    let chain = |links: usize, link: &str| format!("select 1{}", link.repeat(links));
    assert_eq!(row(&handle, &chain(900, " + 1")).await[0], "901");
    assert_eq!(row(&handle, &format!("select 1 where 1 = 1{}", " and 1 = 1".repeat(900))).await[0], "1");
    assert_eq!(row(&handle, &format!("select {}1{}", "(".repeat(900), ")".repeat(900))).await[0], "1");
    for (sql, told) in [
        (format!("select {}1{}", "(".repeat(20_000), ")".repeat(20_000)), "1000 levels deep (line 1, column 1008)"),
        (chain(5000, " + 1"), "1000 levels at most"),
        (format!("select '{}'", "x".repeat(10 << 20)), "the SQL has 10485769 bytes, 1048576 at most"),
    ] {
        let error = ask(&handle, &sql, Format::Json).await.expect_err(told);
        assert!(matches!(&error, QueryError::Sql(message) if message.contains(told)), "{told}: {error}");
    }
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_gets_too_long_is_cut_off_and_says_so() {
    let bench = Bench::new();
    let handle = bench.start(&config::Engine { max_answer: crate::config::ByteSize(1 << 20), ..config::Engine::default() });
    let sql = |rows: u64| format!("select repeat('x', 99) as x from range({rows})");
    assert_eq!(ask(&handle, &sql(10_000), Format::Csv).await.unwrap().len(), 1_000_002);
    for format in Format::ALL {
        let outcome = handle.query(sql(5_000_000).replace("'x', 99", "hash(range)::text, 10"), format, None).await;
        let outcome = match outcome {
            Ok(answer) => answer.bytes().await.map(|bytes| bytes.len()),
            Err(error) => Err(error),
        };
        assert!(matches!(&outcome, Err(QueryError::TooLong(message)) if message.contains("1MiB")), "{format:?}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_written_in_every_format() {
    let (_bench, handle) = Bench::started();
    let sql = "select 1::tinyint as a, 2::uhugeint as b, 1.5::decimal(9, 3) as c, 'x'::blob as d, date '2026-01-02' as e, \
               time '03:04:05' as f, interval 1 day as g, timestamptz '2026-01-02 03:04:05Z' as h, uuid() as i, 'k'::enum('k') as j, \
               [1, null] as k, {'x': [true]} as l, map {'m': 1} as m, null as n, timestamp_ns '2026-01-02 03:04:05.000000006' as o, \
               '101'::bit as p, 3::hugeint as q, time_bucket(interval 1 hour, now()) as r";
    for format in Format::ALL {
        let answer = handle.query(sql.to_owned(), format, None).await.unwrap_or_else(|error| panic!("{format:?}: {error}"));
        let bytes = answer.bytes().await.unwrap_or_else(|error| panic!("{format:?}: {error}"));
        assert!(bytes.len() > 100, "{format:?}");
    }
}
