//! Requests through real doors, against a real ledger, with a pump and an engine of the test's own.

mod ask;
mod described;
mod house;

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use ask::Answered;
use house::House;

const ONE: &str = r#"[{"sensor":"tank-1","metric":"level","value":1.25,"unit":"m"}]"#;

fn fault(answer: &Answered) -> (u16, String) {
    let body = answer.json();
    let error = &body["error"];
    for member in ["code", "message", "hint"] {
        assert!(error[member].is_string(), "{member} in {body}");
    }
    (answer.status.as_u16(), error["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_is_not_there_and_what_is_asked_wrongly_have_one_shape_of_error() {
    let house = House::open().await;
    assert_eq!(fault(&house.get("/nowhere").await), (404, "not_found".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/flush").await), (405, "method_not_allowed".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/latest?sensr=a").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/losses?limit=0").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/range?sensor=a").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/range?sensor=a&metric=b&from=yesterday").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.post("/api/v1/query", "{").await), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn readings_are_answered_only_when_they_are_settled() {
    let house = House::open().await;
    house.hold_commits();
    let socket = house.socket.clone();
    let asked = tokio::spawn(async move { ask::unix(&socket, "POST", "/api/v1/readings", &[], ONE).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    house.release_commits();
    let answer = asked.await.unwrap();
    assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"readings": 1})));

    let status = house.get("/api/v1/status").await.json();
    assert_eq!((&status["books"]["accepted"], &status["books"]["balanced"]), (&json!(1), &json!(true)));
    assert_eq!(status["ingest"]["messages_http"], 1);
}

#[tokio::test]
async fn bad_readings_are_refused_whole_with_the_place_of_the_fault() {
    let house = House::open().await;
    let bad = "{\"sensor\":\"a\",\"metric\":\"t\",\"value\":1}\n{\"sensor\":\"a\",\"metric\":\"t\",\"value\":\"x\"}\n";
    let answer = house.post("/api/v1/readings", bad).await;
    assert_eq!(fault(&answer), (400, "invalid_request".to_owned()));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("reading 2, line 2, column "), "{message}");

    let large = format!("[{}]", " ".repeat(5 << 20));
    assert_eq!(fault(&house.post("/api/v1/readings", &large).await), (413, "too_large".to_owned()));
    assert_eq!(house.get("/api/v1/status").await.json()["books"]["accepted"], 0);
}

#[tokio::test]
async fn readings_that_are_not_taken_are_told_with_the_time_to_come_again() {
    let mut house = House::open().await;
    house.refuse_commits();
    let answer = house.post("/api/v1/readings", ONE).await;
    assert_eq!(fault(&answer), (503, "refused".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
    house.end_pump().await;
    let answer = house.post("/api/v1/readings", ONE).await;
    assert_eq!(fault(&answer), (503, "stopping".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_repeat_with_an_idempotency_key_is_stored_once() {
    let house = House::open().await;
    let key = [("idempotency-key", "k-1")];
    for _ in 0..3 {
        let answer = ask::unix(&house.socket, "POST", "/api/v1/readings", &key, ONE).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({"readings": 1})));
    }
    assert_eq!(house.get("/api/v1/status").await.json()["books"]["accepted"], 1);
    let other = ONE.replace("1.25", "1.5");
    ask::unix(&house.socket, "POST", "/api/v1/readings", &key, &other).await;
    assert_eq!(house.get("/api/v1/status").await.json()["books"]["accepted"], 2, "other readings under the same key are kept");
}

#[tokio::test]
async fn what_was_stored_is_listed_and_ranged_without_the_engine() {
    let house = House::open().await;
    house.post("/api/v1/readings", ONE).await;
    let latest = house.get("/api/v1/latest?sensor=tank-1").await.json();
    assert_eq!((&latest["latest"][0]["value"], &latest["latest"][0]["unit"]), (&json!(1.25), &json!("m")));
    assert_eq!(house.get("/api/v1/latest?sensor=other").await.json(), json!({"latest": []}));
    assert_eq!(house.get("/api/v1/series").await.json()["series"][0]["readings"], 1);

    let range = house.get("/api/v1/range?sensor=tank-1&metric=level&from=2020-01-01T00:00:00Z").await.json();
    assert_eq!((&range["readings"][0]["value"], &range["more"]), (&json!(1.25), &json!(false)));
    let buckets = house.get("/api/v1/range?sensor=tank-1&metric=level&step=1h&agg=count").await.json();
    assert_eq!((&buckets["buckets"][0]["value"], &buckets["agg"], &buckets["step"]), (&json!(1.0), &json!("count"), &json!("1h")));

    for (path, member) in [("records", "records"), ("segments", "segments"), ("losses", "losses")] {
        assert_eq!(house.get(&format!("/api/v1/{path}")).await.json()[member], json!([]), "{path}");
    }
}

#[tokio::test]
async fn a_flush_seals_and_waits_for_the_delivery() {
    let house = House::open().await;
    house.post("/api/v1/readings", ONE).await;
    let answer = house.post("/api/v1/flush", r#"{"wait":"300ms"}"#).await.json();
    assert_eq!((&answer["delivered"], &answer["undelivered_readings"], &answer["link"]), (&json!(false), &json!(1), &json!("offline")));
    let status = house.get("/api/v1/status").await.json();
    assert_eq!((&status["buffer"]["undelivered_readings"], &status["buffer"]["segments"]), (&json!(1), &json!(1)));
    assert!(status["buffer"]["undelivered_bytes"].as_u64() > Some(100) && status["buffer"]["oldest_undelivered"].is_string(), "{status}");
    let segments = house.get("/api/v1/segments").await.json();
    assert_eq!((&segments["total"], &segments["segments"][0]["state"]), (&json!(1), &json!("sealed")));

    let socket = house.socket.clone();
    let asked = tokio::spawn(async move { ask::unix(&socket, "POST", "/api/v1/flush", &[], r#"{"wait":"30s"}"#).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!asked.is_finished());
    house.deliver(1).await;
    assert_eq!(asked.await.unwrap().json()["delivered"], true);
    let buffer = house.get("/api/v1/status").await.json()["buffer"].clone();
    assert_eq!(
        (&buffer["undelivered_readings"], &buffer["undelivered_bytes"], &buffer["oldest_undelivered"]),
        (&json!(0), &json!(0), &json!(null))
    );

    assert_eq!(fault(&house.post("/api/v1/flush", r#"{"wait":"soon"}"#).await), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn without_an_upstream_a_flush_does_not_wait() {
    let house = House::open().await;
    house.now(|now| now.link.state = crate::status::LinkState::Off);
    house.post("/api/v1/readings", ONE).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), house.post("/api/v1/flush", "")).await.unwrap().json();
    assert_eq!((&answer["delivered"], &answer["link"]), (&json!(false), &json!("off")));
}

#[tokio::test]
async fn sql_is_answered_in_the_format_asked_for_and_its_errors_have_our_shape() {
    let house = House::open().await;
    let csv = house.post("/api/v1/query", r#"{"sql":"select 1","format":"csv"}"#).await;
    assert_eq!((csv.headers["content-type"].to_str().unwrap(), csv.text()), ("text/csv", "csv: select 1\n".to_owned()));
    assert!(!csv.headers.contains_key("forebay-incomplete"));
    let json = ask::unix(&house.socket, "POST", "/api/v1/query", &[("accept", "application/json")], r#"{"sql":"incomplete"}"#).await;
    assert_eq!(
        (json.headers["content-type"].to_str().unwrap(), json.headers.contains_key("forebay-incomplete")),
        ("application/json", true)
    );

    assert_eq!(fault(&house.post("/api/v1/query", r#"{"sql":"x","format":"xml"}"#).await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.post("/api/v1/query", r#"{"sql":"wrong"}"#).await), (400, "sql".to_owned()));
    let busy = house.post("/api/v1/query", r#"{"sql":"busy"}"#).await;
    assert_eq!((fault(&busy), busy.headers.contains_key("retry-after")), ((429, "busy".to_owned()), true));
}

#[tokio::test]
async fn an_answer_that_fails_halfway_does_not_end_like_a_whole_one() {
    let house = House::open().await;
    let body = ask::unix_body(&house.socket, "/api/v1/query", r#"{"sql":"halfway"}"#).await;
    assert!(body.is_err(), "{body:?}");
}

#[tokio::test]
async fn health_tells_progress_and_readiness_apart() {
    let house = House::open().await;
    assert_eq!(house.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(house.get("/readyz").await.status, StatusCode::OK);
    house.now(|now| now.ready = false);
    assert_eq!(house.get("/healthz").await.status, StatusCode::OK);
    let answer = house.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["reasons"][0]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("not_ready")));
    house.now(|now| now.troubles.push(crate::status::Reason::failing("disk_full", "the disk is full")));
    let answer = house.get("/healthz").await;
    assert_eq!((answer.status, &answer.json()["reasons"][0]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("disk_full")));
    assert_eq!(house.get("/api/v1/status").await.json()["state"], "failing");
}

#[tokio::test]
async fn metrics_and_the_description_are_served() {
    let house = House::open().await;
    let metrics = house.get("/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("\nforebay_books_balanced 1\n"));
    assert_eq!(house.get("/api/v1/openapi.json").await.json(), *described::DESCRIPTION);
    described::check_references(&described::DESCRIPTION);
    assert!(house.get("/docs").await.text().contains("<h1>forebay</h1>"));
}

#[tokio::test]
async fn each_route_takes_the_methods_that_are_described_and_no_other() {
    let house = House::open().await;
    for (path, item) in described::DESCRIPTION["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answer = ask::unix(&house.socket, method, path, &[], "").await;
            let is_described = item.get(method.to_lowercase()).is_some();
            assert_eq!(answer.status != StatusCode::METHOD_NOT_ALLOWED, is_described, "{method} {path}: {}", answer.status);
            if !is_described {
                let allowed = answer.headers["allow"].to_str().unwrap();
                let takes = allowed.split(',').filter(|allowed| *allowed != "HEAD").map(str::to_lowercase).collect::<Vec<_>>();
                assert_eq!(takes, item.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), "{path}");
            }
        }
    }
    assert!(!include_str!("routes.rs").contains(".route("), "a route that is not described by its handler");
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// The names that `refused` says it knows, in order.
fn known_names(refused: &Answered) -> Vec<String> {
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let names = message.split_once("expected ").map_or("", |(_, names)| names).split('`').skip(1).step_by(2);
    sorted(names)
}

#[tokio::test]
async fn each_route_takes_the_parameters_and_members_that_are_described_and_no_other() {
    let house = House::open().await;
    for (path, item) in described::DESCRIPTION["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "query");
            let parameters = sorted(parameters.map(|parameter| parameter["name"].as_str().unwrap()));
            let members = described::members_of_body(operation);
            let answer = match members.is_empty() {
                true => ask::unix(&house.socket, &method.to_uppercase(), &format!("{path}?nonsense=1"), &[], "").await,
                false => house.post(path, r#"{"nonsense":1}"#).await,
            };
            let known = if answer.status == StatusCode::BAD_REQUEST { known_names(&answer) } else { Vec::new() };
            assert_eq!(known, [parameters, members].concat(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn on_tcp_host_token_and_content_type_are_asked_for() {
    let house = House::open_with_token("secret").await;
    let own = ("authorization", "Bearer secret");
    let get = async |headers: &[(&str, &str)]| ask::tcp(house.address, "GET", "/healthz", headers, "").await;
    assert_eq!(get(&[("host", "localhost"), own]).await.status, StatusCode::OK);
    assert_eq!(fault(&get(&[("host", "evil.example"), own]).await), (403, "forbidden".to_owned()));
    assert_eq!(fault(&get(&[("host", "localhost")]).await), (401, "unauthorized".to_owned()));
    assert_eq!(fault(&get(&[("host", "localhost"), ("authorization", "Bearer secre")]).await), (401, "unauthorized".to_owned()));

    let post = async |kind: &str| {
        let headers = [("host", "127.0.0.1"), own, ("content-type", kind)];
        ask::tcp(house.address, "POST", "/api/v1/readings", &headers, ONE).await
    };
    assert_eq!(fault(&post("text/plain").await), (415, "content_type".to_owned()));
    let elsewhere = ask::tcp(house.address, "POST", "/healthz", &[("host", "127.0.0.1"), own], "").await;
    assert_eq!(fault(&elsewhere), (405, "method_not_allowed".to_owned()));
    assert_eq!(post("application/json").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_doors_close() {
    let mut house = House::open().await;
    house.hold_commits();
    let socket = house.socket.clone();
    let asked = tokio::spawn(async move { ask::unix(&socket, "POST", "/api/v1/readings", &[], ONE).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    house.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    house.release_commits();
    assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    house.closed().await;
    assert!(!house.socket.exists());
}

#[tokio::test]
async fn the_books_balance_in_every_answer_while_readings_come_in() {
    let house = House::open().await;
    let socket = house.socket.clone();
    let sends = tokio::spawn(async move {
        for _ in 0..50 {
            assert_eq!(ask::unix(&socket, "POST", "/api/v1/readings", &[], ONE).await.status, StatusCode::OK);
        }
    });
    while !sends.is_finished() {
        let status: Value = house.get("/api/v1/status").await.json();
        assert_eq!((&status["books"]["balanced"], &status["state"]), (&json!(true), &json!("ok")), "{status}");
        assert_eq!(status["books"]["accepted"], status["ingest"]["readings"], "{status}");
    }
    sends.await.unwrap();
}

const FILE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn what_is_no_piece_of_a_file_is_refused_and_nothing_is_known_of_it() {
    let house = House::open().await;
    let path = format!("/api/v1/import?file={FILE}&row=0");
    assert_eq!(fault(&house.post(&path, "no Arrow").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.post(&path, "").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.post("/api/v1/import?file=x&row=0", "").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.post(&format!("/api/v1/import?file={FILE}"), "").await), (400, "invalid_request".to_owned()));
    let known = house.get(&format!("/api/v1/import?file={FILE}")).await;
    assert_eq!((known.status, known.json()), (StatusCode::OK, json!({"rows": 0})));
    assert_eq!(fault(&house.get("/api/v1/import").await), (400, "invalid_request".to_owned()));
}

#[tokio::test]
async fn an_export_is_an_arrow_stream_also_where_there_is_nothing() {
    let house = House::open().await;
    house.post("/api/v1/readings", ONE).await;
    for (query, readings) in [("", 1), ("?sensor=nobody", 0), ("?sensor=tank-1&metric=level&from=0", 1)] {
        let answer = house.get(&format!("/api/v1/export{query}")).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].to_str().unwrap()),
            (StatusCode::OK, "application/vnd.apache.arrow.stream")
        );
        let stream = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(answer.bytes()), None).unwrap();
        assert_eq!(stream.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), readings, "{query}");
    }
    assert_eq!(fault(&house.get("/api/v1/export?from=2&to=1").await), (400, "invalid_request".to_owned()));
    assert_eq!(fault(&house.get("/api/v1/export?sensr=a").await), (400, "invalid_request".to_owned()));
}
