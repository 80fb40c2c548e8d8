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
