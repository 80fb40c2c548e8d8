//! S3 and collectors: what each answer means, and that nothing is stored twice, in part, or in silence.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::{Gateway, until};
use super::server::{Conditional, Server, Shows, Trouble};
use super::shipments::is_whole;
use crate::config::{self, ByteSize};
use crate::model::Digest;
use crate::upload::{Body, Put, Upstream, UpstreamError, open};

const KEY: &str = "readings/gateway=gw-1/date=2026-11-20/0123456789abcdef-0000000001.parquet";

/// Longer than anything here takes, and shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(30);

type Dialect = fn(&Server) -> config::Upstream;

/// Both ways to speak with the server.
const DIALECTS: [Dialect; 2] = [Server::as_collector, Server::as_s3];

fn upstream(server: &Server, dialect: Dialect) -> Arc<dyn Upstream> {
    open(&dialect(server)).unwrap()
}

async fn put(upstream: &dyn Upstream, text: &'static str) -> Result<Put, UpstreamError> {
    tokio::time::timeout(PATIENCE, upstream.put_new(KEY, Body::memory(text))).await.expect("an answer")
}

fn kind(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Transient(_) => "transient",
        UpstreamError::Busy { .. } => "busy",
        UpstreamError::Ambiguous(_) => "ambiguous",
        UpstreamError::Permanent(_) => "permanent",
        UpstreamError::Denied(_) => "denied",
        UpstreamError::Conflict { .. } => "conflict",
        UpstreamError::Unmarked(_) | UpstreamError::Source { .. } => "else",
    }
}

#[tokio::test]
async fn each_trouble_has_its_meaning_and_another_put_settles_it() {
    for (trouble, meaning) in [
        (Trouble::Refuse(400, ""), "permanent"),
        (Trouble::Refuse(401, ""), "denied"),
        (Trouble::Refuse(403, ""), "denied"),
        (Trouble::Refuse(404, ""), "permanent"),
        (Trouble::Refuse(413, ""), "permanent"),
        (Trouble::RefuseEarly(413), "permanent"),
        (Trouble::Refuse(409, ""), "transient"),
        (Trouble::Refuse(302, "location: http://127.0.0.1:9/\r\n"), "transient"),
        (Trouble::Refuse(429, "retry-after: 7\r\n"), "busy"),
        (Trouble::Refuse(503, ""), "busy"),
        (Trouble::Refuse(500, ""), "ambiguous"),
        (Trouble::Refuse(412, ""), "ambiguous"),
        (Trouble::StoreAndFail(500), "ambiguous"),
        (Trouble::DropReply, "ambiguous"),
        (Trouble::Reset, "ambiguous"),
        (Trouble::Pretend, "ambiguous"),
        (Trouble::Html, "ambiguous"),
        (Trouble::EndlessReply(200), "ambiguous"),
        (Trouble::EndlessReply(400), "permanent"),
        (Trouble::EndlessHead, "ambiguous"),
    ] {
        for dialect in DIALECTS {
            let server = Server::tls(Shows::Good).await;
            let upstream = upstream(&server, dialect);
            server.script([trouble.clone()]);
            let error = put(&*upstream, "one").await.unwrap_err();
            assert_eq!(kind(&error), meaning, "{trouble:?}: {error}");
            assert!(error.to_string().len() < 600, "{error}");
            let stored = matches!(trouble, Trouble::StoreAndFail(_) | Trouble::DropReply);
            assert_eq!(put(&*upstream, "one").await, Ok(if stored { Put::SameAlready } else { Put::Stored }), "{trouble:?}");
            assert_eq!(server.objects()[KEY], b"one");
        }
    }
}

#[tokio::test]
async fn patience_that_is_asked_for_is_told() {
    let server = Server::plain().await;
    server.script([Trouble::Refuse(429, "retry-after: 7\r\n")]);
    let error = put(&*upstream(&server, Server::as_collector), "one").await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy { retry_after, .. } if retry_after == Duration::from_secs(7)));
}

#[tokio::test]
async fn a_put_that_is_there_already_costs_no_body() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = upstream(&server, dialect);
        let body = || Body::memory(vec![7_u8; 100_000]);
        server.script([Trouble::DropReply]);
        assert!(upstream.put_new(KEY, body()).await.is_err());
        assert_eq!(upstream.put_new(KEY, body()).await, Ok(Put::SameAlready));
        assert_eq!(server.state().received, 100_000);
    }
}

#[tokio::test]
async fn a_success_that_confirms_another_digest_is_asked_about() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = upstream(&server, dialect);
        server.script([Trouble::ConfirmOther]);
        assert_eq!(put(&*upstream, "one").await, Ok(Put::Stored));
    }
}

#[tokio::test]
async fn half_of_it_under_our_name_is_a_conflict_and_no_success() {
    for (dialect, digests) in [(DIALECTS[0], true), (DIALECTS[0], false), (DIALECTS[1], true), (DIALECTS[1], false)] {
        let server = Server::plain().await;
        server.state().digests = digests;
        let upstream = upstream(&server, dialect);
        server.script([Trouble::StoreHalf]);
        let conflict = UpstreamError::Conflict { key: KEY.to_owned(), found: Digest::of(b"on") };
        assert_eq!(put(&*upstream, "one.").await, Err(conflict));
    }
}

#[tokio::test]
async fn who_was_quicker_with_the_same_bytes_did_our_work_and_with_others_is_in_the_way() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = upstream(&server, dialect);
        server.script([Trouble::Race("one")]);
        assert_eq!(put(&*upstream, "one").await, Ok(Put::SameAlready));
        server.state().objects.clear();
        server.script([Trouble::Race("two")]);
        assert_eq!(kind(&put(&*upstream, "one").await.unwrap_err()), "conflict");
        assert_eq!(server.objects()[KEY], b"two");
    }
}

#[tokio::test]
async fn a_captive_portal_is_neither_a_lake_nor_in_the_way() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = upstream(&server, dialect);
        upstream.probe().await.unwrap();
        server.state().portal = true;
        let answers = [put(&*upstream, "one").await.map(drop), upstream.find(KEY).await.map(drop)];
        let says_so = |answer: &Result<(), UpstreamError>| matches!(answer, Err(UpstreamError::Transient(_)));
        assert!(answers.iter().all(says_so), "{answers:?}");
        server.state().portal = false;
        assert_eq!(put(&*upstream, "one").await, Ok(Put::Stored));
    }
    let server = Server::plain().await;
    server.state().portal = true;
    let error = upstream(&server, Server::as_collector).probe().await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Transient(text) if text.contains("captive portal")), "{error}");
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_token_goes_elsewhere() {
    let (server, elsewhere) = (Server::plain().await, Server::plain().await);
    let to = format!("location: http://127.0.0.1:{}/farm/x\r\n", elsewhere.port).leak();
    for status in [301, 302, 303, 307, 308] {
        server.script([Trouble::Refuse(status, to)]);
        let error = put(&*upstream(&server, Server::as_collector), "one").await.unwrap_err();
        assert!(error.to_string().contains("not followed") && !error.to_string().contains("sesame"), "{error}");
    }
    assert_eq!(elsewhere.state().requests, Vec::<String>::new());
    assert!(server.state().tokens.iter().all(|token| token == "Bearer open-sesame"));
}

#[tokio::test]
async fn a_certificate_that_is_not_good_now_ends_it_before_anything_is_sent() {
    for (shows, why) in [(Shows::Foreign, "no authority that is trusted"), (Shows::Expired, "expired on"), (Shows::Early, "is it right?")] {
        for dialect in DIALECTS {
            let server = Server::tls(shows).await;
            let upstream = upstream(&server, dialect);
            for error in [upstream.probe().await.unwrap_err(), put(&*upstream, "one").await.unwrap_err()] {
                assert!(matches!(&error, UpstreamError::Transient(text) if text.contains(why)), "{shows:?}: {error}");
            }
            assert_eq!(server.state().requests, Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn nobody_there_is_transient() {
    let server = Server::plain().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for dialect in DIALECTS {
        let mut gone = server.clone();
        gone.port = free;
        assert_eq!(kind(&put(&*upstream(&gone, dialect), "one").await.unwrap_err()), "transient");
    }
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_named() {
    let server = Server::plain().await;
    server.state().refuse_all = Some((404, "<Error><Code>NoSuchBucket</Code></Error>".to_owned()));
    let upstream = upstream(&server, Server::as_s3);
    for answer in [upstream.probe().await, put(&*upstream, "one").await.map(drop)] {
        assert!(matches!(&answer, Err(UpstreamError::Denied(text)) if text.contains("the bucket \"lake\" is gone")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_probe_says_why_it_was_refused() {
    let server = Server::plain().await;
    let said = "<Error><Code>SignatureDoesNotMatch</Code><Message>the keys are wrong</Message></Error>";
    server.state().refuse_all = Some((403, said.to_owned()));
    for dialect in DIALECTS {
        let error = upstream(&server, dialect).probe().await.unwrap_err();
        assert!(matches!(&error, UpstreamError::Denied(text) if text.contains("403")), "{error}");
    }
    let error = upstream(&server, Server::as_s3).probe().await.unwrap_err().to_string();
    assert!(error.contains("SignatureDoesNotMatch: the keys are wrong"), "{error}");
}

#[tokio::test]
async fn an_s3_server_that_replaces_is_found_out_and_looked_at_before_each_put() {
    for conditional in [Conditional::Honoured, Conditional::Ignored, Conditional::Unknown] {
        let server = Server::plain().await;
        server.state().conditional = conditional;
        let upstream = upstream(&server, Server::as_s3);
        upstream.probe().await.unwrap();
        let marks = || server.state().requests.iter().filter(|asked| asked.ends_with("/.forebay-lake")).count();
        assert!((1..=2).contains(&marks()), "{conditional:?}");
        let before = marks();
        upstream.probe().await.unwrap();
        assert_eq!(marks(), before, "it is found out once");
        assert_eq!(put(&*upstream, "one").await, Ok(Put::Stored), "{conditional:?}");
        assert_eq!(put(&*upstream, "one").await, Ok(Put::SameAlready));
        assert_eq!(kind(&put(&*upstream, "two").await.unwrap_err()), "conflict");
        assert_eq!(server.objects()[KEY], b"one");
    }
}

#[tokio::test]
async fn reading_back_is_bounded() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = upstream(&server, dialect);
        assert_eq!(upstream.get(KEY, 10).await, Ok(None));
        put(&*upstream, "one").await.unwrap();
        assert_eq!(upstream.get(KEY, 3).await.unwrap().unwrap(), "one");
        assert_eq!(kind(&upstream.get(KEY, 2).await.unwrap_err()), "permanent");
    }
}

#[tokio::test]
async fn the_rate_limit_holds_within_a_body() {
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let upstream = open(&config::Upstream { rate_limit: ByteSize(64 << 10), ..dialect(&server) }).unwrap();
        let begun = Instant::now();
        assert_eq!(upstream.put_new(KEY, Body::memory(vec![7_u8; 64 << 10])).await, Ok(Put::Stored));
        // The first chunk goes at once.
        assert!(begun.elapsed() >= Duration::from_millis(740), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn each_trouble_at_each_step_of_a_shipment_costs_a_retry_and_nothing_else() {
    let troubles = [Trouble::Refuse(503, ""), Trouble::StoreAndFail(500), Trouble::Reset, Trouble::DropReply, Trouble::Hang];
    for dialect in DIALECTS {
        for trouble in &troubles {
            // Two files and the manifest.
            for step in 0..3 {
                let server = Server::tls(Shows::Good).await;
                let gateway = Gateway::new();
                gateway.seal(10).await;
                server.script((0..step).map(|_| Trouble::None).chain([trouble.clone()]));
                let link = gateway.drain(upstream(&server, dialect)).await;
                is_whole(&server.objects().into_iter().map(|(key, bytes)| (key, bytes.into())).collect(), 1);
                assert_eq!((gateway.books().delivered, link.status().delivered_readings), (10, 10), "{trouble:?} at {step}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_down_at_first_gets_everything_once() {
    let server = Server::plain().await;
    server.state().refuse_all = Some((500, String::new()));
    let gateway = Gateway::new();
    let running = gateway.start(upstream(&server, Server::as_s3));
    for _ in 0..3 {
        gateway.seal(10).await;
    }
    until("it is noticed", || running.link.status().last_error.is_some()).await;
    server.state().refuse_all = None;
    until("all is there", || gateway.books().delivered == 30).await;
    running.stop().await;
    is_whole(&server.objects().into_iter().map(|(key, bytes)| (key, bytes.into())).collect(), 3);
}

#[tokio::test]
async fn a_damaged_file_is_never_stored_and_never_sent_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment");
    fs::write(&path, vec![7_u8; 100_000]).unwrap();
    for dialect in DIALECTS {
        let server = Server::plain().await;
        let body = Body::file(path.clone(), 100_000, Digest::of(b"else"));
        assert!(matches!(upstream(&server, dialect).put_new(KEY, body).await, Err(UpstreamError::Source { .. })));
        assert!(server.objects().is_empty());
    }
}
