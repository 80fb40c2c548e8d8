//! What queries may not do.

use super::*;
use crate::error::ErrorKind;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_one_select_is_denied_and_changes_nothing() {
    let (bench, handle) = Bench::started();
    bench.commit(0..100).await;
    bench.seal().await;
    let segments = || bench.dir.list().unwrap().segments;
    let (before, outside) = (segments(), bench.folder.path().join("evil.csv"));
    let outside = outside.display();
    for sql in [
        "select 1; select 2",
        "select 1; drop table books",
        "; ; select 1 ; select 2",
        "insert into books values (1, 2, 3, 4, 5, 6, 7, 8)",
        "delete from internal.hot",
        "update books set kept = 0",
        "drop view readings",
        "create table t (a int)",
        "create temp table t (a int)",
        "create macro count() as 1",
        "with x as (insert into books values (1, 2, 3, 4, 5, 6, 7, 8)) select 1",
        "with x as (delete from internal.hot) select 1",
        "with x as (copy readings to 'readings/evil.parquet') select 1",
        &format!("copy readings to '{outside}'"),
        &format!("with x as (copy readings to '{outside}') select 1"),
        &format!("select * from (with x as (copy readings to '{outside}') select 1)"),
        &format!("attach '{outside}' as other"),
        "attach ':memory:' as other",
        "export database 'x'",
        "set lock_configuration = false",
        "set threads = 8",
        "reset threads",
        "pragma database_list",
        "begin transaction",
        "commit",
        "prepare p as select 1",
        "explain analyze select 1",
        "call checkpoint()",
        "install httpfs",
        "load icu",
        "vacuum",
        "checkpoint",
        "select * from checkpoint()",
        "select * from force_checkpoint()",
        "select sleep_ms(10000)",
        "select write_log('x')",
        "select getenv('PATH')",
        "select * from query('select 1')",
        "select * from query_table('books')",
        "select * from duckdb_settings()",
        "select * from glob('*')",
        "select content from read_text('../forebay.db')",
        "select * from read_blob('../forebay.db')",
    ] {
        let error = ask(&handle, sql, Format::Json).await.expect_err(sql);
        assert!(matches!(error, QueryError::Denied(_) | QueryError::Sql(_)), "{sql}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(numbers(&handle, "select count(*), kept from readings, books group by kept").await, [100, 100]);
    assert_eq!(segments(), before);
    assert!(!bench.folder.path().join("evil.csv").exists());
    assert_eq!(handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_but_segments_can_be_read() {
    let (bench, handle) = Bench::started();
    bench.commit(0..100).await;
    bench.seal().await;
    let ledger = bench.folder.path().join("forebay.db").display().to_string();
    for file in ["/etc/passwd", "../forebay.db", "readings/../../forebay.db", "/proc/self/environ", "http://127.0.0.1:1/x.csv", &ledger] {
        for sql in [
            format!("select * from '{file}'"),
            format!("select * from read_csv('{file}')"),
            format!("select * from read_csv_auto('{file}')"),
            format!("select * from sniff_csv('{file}')"),
            format!("select * from read_json('{file}')"),
            format!("select * from read_ndjson_objects('{file}')"),
            format!("select * from read_parquet('{file}')"),
            format!("select * from parquet_metadata('{file}')"),
            format!("describe '{file}'"),
            format!("summarize '{file}'"),
        ] {
            ask(&handle, &sql, Format::Json).await.expect_err(&sql);
        }
    }
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
        ("explain select 1", "EXPLAIN"),
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
    assert_eq!(json, r#"[{"a":1,"a_1":2,"b":null,"c":null,"d":{"x":[1]}}]"#);
}
