//! HTTP as a user asks it: curl on the Unix socket of the real program.
#![cfg_attr(not(feature = "engine"), expect(unused_imports, dead_code, reason = "most of it asks SQL"))]

use std::io::Cursor;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Gateway, PATIENCE};

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// The lines before the body.
    head: String,
    body: Vec<u8>,
    /// Whether it came whole.
    is_whole: bool,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn error(&self, member: &str) -> String {
        self.json()["error"][member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}")).to_owned()
    }

    /// It says when to come again.
    fn retry_after(&self) -> bool {
        self.head.to_lowercase().contains("\r\nretry-after: ")
    }
}

fn curl(gateway: &Gateway, path: &str, more: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--include", "--max-time", "60", "--unix-socket"]).arg(gateway.folder.path().join("forebay.sock"));
    command.arg(format!("http://localhost{path}")).args(more).stdout(Stdio::piped());
    command
}

fn ask(gateway: &Gateway, path: &str, more: &[&str]) -> Answer {
    let output = curl(gateway, path, more).output().expect("curl is installed");
    let end = output.stdout.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or_else(|| panic!("{path} {more:?}: {output:?}"));
    let head = String::from_utf8(output.stdout[..end + 2].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: output.stdout[end + 4..].to_vec(), is_whole: output.status.success() }
}

fn query(gateway: &Gateway, body: &Value, more: &[&str]) -> Answer {
    let body = body.to_string();
    ask(gateway, "/api/v1/query", &[&["--data", &body], more].concat())
}

fn sql(gateway: &Gateway, sql: &str) -> Answer {
    query(gateway, &json!({ "sql": sql }), &[])
}

#[cfg(feature = "engine")]
fn with_engine(settings: &str) -> Gateway {
    let mut gateway = Gateway::new(settings);
    gateway.start();
    gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    gateway
}

#[cfg(feature = "engine")]
#[test]
fn the_same_rows_come_in_each_format_by_the_body_and_by_accept() {
    let gateway = with_engine("");
    let readings = r#"[{"sensor":"a","metric":"t","value":1.5,"unit":"°C"},{"sensor":"b","metric":"door","text":"a, \"b\""}]"#;
    assert_eq!(ask(&gateway, "/api/v1/readings", &["--data", readings]).status, 200);
    let select = "select sensor, value, text from readings order by sensor";
    for (word, kind) in [
        ("json", "application/json"),
        ("jsonl", "application/x-ndjson"),
        ("csv", "text/csv"),
        ("arrow", "application/vnd.apache.arrow.stream"),
        ("parquet", "application/vnd.apache.parquet"),
    ] {
        let by_body = query(&gateway, &json!({"sql": select, "format": word}), &[]);
        let by_accept = query(&gateway, &json!({ "sql": select }), &["--header", &format!("Accept: {kind}")]);
        assert!(by_body.head.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{by_body:?}");
        assert_eq!((by_body.status, &by_body.body), (by_accept.status, &by_accept.body), "{word}");
        match word {
            "json" => assert_eq!(
                by_body.json(),
                json!([{"sensor": "a", "value": 1.5, "text": null}, {"sensor": "b", "value": null, "text": "a, \"b\""}])
            ),
            "jsonl" => assert_eq!(
                by_body.text(),
                "{\"sensor\":\"a\",\"value\":1.5,\"text\":null}\n{\"sensor\":\"b\",\"value\":null,\"text\":\"a, \\\"b\\\"\"}\n"
            ),
            "csv" => assert_eq!(by_body.text(), "sensor,value,text\na,1.5,\nb,,\"a, \"\"b\"\"\"\n"),
            "arrow" => {
                let reader = arrow::ipc::reader::StreamReader::try_new(Cursor::new(&by_body.body), None).unwrap();
                assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
            }
            _ => assert!(by_body.body.starts_with(b"PAR1") && by_body.body.ends_with(b"PAR1")),
        }
    }
}

#[cfg(feature = "engine")]
#[test]
fn a_fault_in_sql_is_told_with_its_place_and_the_nearest_name() {
    let gateway = with_engine("");
    for (wrong, status, told) in [
        ("select 1,\n  frm readings", 400, "LINE 2"),
        ("selekt 1", 400, "(line 1, column 1)"),
        ("select *\nfrom readings\nwhere valeu > 1", 400, "LINE 3: where valeu > 1\n              ^"),
        ("select * from reading", 400, "Did you mean \"readings\"?"),
        ("select 1; select 2", 403, "one statement at a time"),
    ] {
        let answer = sql(&gateway, wrong);
        assert_eq!(answer.status, status, "{wrong}: {answer:?}");
        assert!(answer.error("message").contains(told), "{wrong}: {}", answer.error("message"));
        assert!(!answer.error("hint").is_empty() && !answer.retry_after());
    }
    assert_eq!(sql(&gateway, "select 1 as one; -- that is all").json(), json!([{"one": 1}]));
    assert_eq!(query(&gateway, &json!({"sql": "from range(5)", "max_rows": 2}), &[]).json().as_array().unwrap().len(), 2);
}

/// Counts for longer than any limit here.
#[cfg(feature = "engine")]
const ENDLESS: &str = "select count(*) from range(1000000000000) t(a) where hash(a) % 7 = 8";

#[cfg(feature = "engine")]
#[test]
fn what_is_too_much_is_told_with_the_time_to_come_again() {
    let limits = "query_timeout = \"4s\"\nmax_concurrent_queries = 1\nmax_answer = \"1MiB\"\n";
    let gateway = with_engine(&format!("[engine]\n{limits}"));
    let mut endless = curl(&gateway, "/api/v1/query", &["--data", &json!({ "sql": ENDLESS }).to_string()]).spawn().unwrap();
    let end = Instant::now() + PATIENCE;
    let busy = loop {
        let answer = sql(&gateway, "select 1");
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < end && endless.try_wait().unwrap().is_none(), "the limit of queries was never met");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((busy.status, busy.error("code").as_str(), busy.retry_after()), (429, "busy", true), "{busy:?}");
    let late = endless.wait_with_output().unwrap();
    let late = String::from_utf8_lossy(&late.stdout).to_lowercase();
    assert!(late.starts_with("http/1.1 503") && late.contains("query_timeout") && late.contains("\r\nretry-after: "), "{late}");

    let long = sql(&gateway, "select a, a, a, a from range(10000000) t(a)");
    assert!(long.status == 413 || !long.is_whole, "{} bytes with {}", long.body.len(), long.status);
    assert!(long.body.len() < 2 << 20);
    assert_eq!(sql(&gateway, "select 1").status, 200);
}

#[test]
fn without_the_engine_range_latest_and_series_answer_and_sql_says_why_not() {
    let mut gateway = Gateway::new("[engine]\nenabled = false\n");
    gateway.start();
    let readings = r#"[{"sensor":"a","metric":"t","value":1,"time":"2026-01-01T00:00:00Z"},{"sensor":"a","metric":"t","value":2}]"#;
    assert_eq!(ask(&gateway, "/api/v1/readings", &["--data", readings]).status, 200);
    assert_eq!(ask(&gateway, "/api/v1/latest?sensor=a&metric=t", &[]).json()["latest"][0]["value"], 2.0);
    assert_eq!(ask(&gateway, "/api/v1/series", &[]).json()["series"][0]["readings"], 2);
    let range = ask(&gateway, "/api/v1/range?sensor=a&metric=t&to=2026-01-02T00:00:00%2B01:00", &[]).json();
    assert_eq!((&range["readings"][0]["value"], range["readings"].as_array().unwrap().len()), (&json!(1.0), 1));
    let off = sql(&gateway, "select 1");
    assert_eq!((off.status, off.error("code").as_str(), off.retry_after()), (503, "engine_off", false));
}
