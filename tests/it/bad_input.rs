//! Bad input gets a clear error or a counted rejection, and costs nothing else.

use std::process::Command;

use crate::support::{Gateway, PROGRAM};

const SETTINGS: &str = "[listener]\nbind = [\"127.0.0.1:0\"]\n";

fn publish(port: u16, topic: &str, payload: &[u8]) {
    use std::io::Write as _;
    let port = port.to_string();
    let mut child = Command::new("mosquitto_pub")
        .args(["-p", &port, "-q", "1", "-t", topic, "-s"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is installed (apt install mosquitto-clients)");
    child.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(child.wait().unwrap().success(), "{topic} was not acknowledged");
}

#[test]
fn what_cannot_be_decoded_is_acknowledged_counted_and_sampled() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let port = gateway.listener_port();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let bad: [&[u8]; 4] = [b"{\"temperature\": 21.", &[0xff, 0xfe, 0x00, 0x80], deep.as_bytes(), b"\x00\x01\x02"];
    for payload in bad {
        publish(port, "bad/sensor", payload);
    }
    publish(port, "good/sensor", b"{\"temperature\": 21.5}");
    let status = gateway.status();
    assert_eq!(status["ingest"]["rejected"], 4, "{status}");
    assert_eq!(status["books"]["accepted"], 1);
    let samples = std::fs::read_to_string(gateway.data().join("quarantine/rejected.jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 4, "{samples}");
}

#[test]
fn a_message_too_long_is_refused_once_and_the_sender_goes_on() {
    let mut gateway = Gateway::new(&format!("{SETTINGS}[ingest]\nmax_message_bytes = \"64KiB\"\n"));
    gateway.start();
    let port = gateway.listener_port();
    publish(port, "big/sensor", &vec![b'1'; 1 << 20]);
    publish(port, "big/sensor", b"{\"v\": 1}");
    let status = gateway.status();
    assert_eq!((status["ingest"]["rejected"].as_u64(), status["books"]["accepted"].as_u64()), (Some(1), Some(1)), "{status}");
}

#[cfg(feature = "engine")]
#[test]
fn odd_numbers_and_times_keep_the_rest_of_their_message() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let port = gateway.listener_port();
    publish(port, "odd/sensor", br#"{"a": NaN, "b": null, "c": 1e400, "d": "52.6", "e": true, "f": 1}"#);
    publish(port, "odd/sensor", br#"{"time": 1000, "old": 1}"#);
    publish(port, "odd/sensor", br#"{"time": "2100-01-01T00:00:00Z", "future": 1}"#);
    let numbers = gateway.query_numbers("select count(*), sum(value) from readings where metric in ('d', 'e', 'f')");
    assert_eq!(numbers, [3.0, 54.6]);
    let status = gateway.status();
    assert_eq!(status["books"]["accepted"], 5, "{status}");
    let replaced = gateway.query_numbers("select count(*) from readings where metric in ('old', 'future') and time = arrived");
    assert_eq!(replaced, [2.0]);
}

#[test]
fn topics_of_any_shape_are_taken_or_refused_but_never_end_the_daemon() {
    let mut gateway = Gateway::new(SETTINGS);
    gateway.start();
    let port = gateway.listener_port();
    for topic in ["/", "//", "a//b", " a / b ", &"t".repeat(60_000), "\u{1F33E}/\u{fffd}"] {
        publish(port, topic, b"1");
    }
    let status = gateway.status();
    assert_eq!(status["ingest"]["messages"], 6, "{status}");
    let (rejected, accepted) = (status["ingest"]["rejected"].as_u64().unwrap(), status["books"]["accepted"].as_u64().unwrap());
    assert_eq!(rejected + accepted, 6, "{status}");
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_everything_at_once() {
    let gateway = Gateway::new("[journal]\ncomit_interval = \"1s\"\n[segment]\nseal_readings = \"many\"\n");
    for args in [vec!["run"], vec!["config", "check"]] {
        let output = Command::new(PROGRAM).args(&args).arg("--config").arg(gateway.config()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("journal.commit_interval") && text.contains("segment.seal_readings") && text.contains("many"), "{text}");
    }
}

#[test]
fn what_run_refuses_of_a_configuration_check_names_beforehand() {
    for settings in [
        "[[route]]\ntopic = \"a/#/b\"\n",
        "[mqtt]\ntopics = [\"a/#/b\"]\n",
        "[mqtt]\nusername = \"u\"\npassword_file = \"nowhere\"\n",
        "[upstream]\nurl = \"ftp://x\"\n",
        "[ingest]\ntimezone = \"Mars/Olympus\"\n",
        "[listener]\nbind = [\"0.0.0.0:0\"]\n",
        "[log]\nlevel = \"warning\"\n",
    ] {
        let gateway = Gateway::new(settings);
        for args in [vec!["run"], vec!["config", "check"]] {
            let output = Command::new(PROGRAM).args(&args).arg("--config").arg(gateway.config()).output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{args:?} of {settings}");
        }
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(PROGRAM).args(["config", "default"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn wrong_use_and_an_absent_daemon_have_codes_of_their_own() {
    let code = |args: &[&str]| Command::new(PROGRAM).args(args).output().unwrap().status.code();
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["status", "--socket", "/nonexistent/forebay.sock"]), Some(69));
    assert_eq!(code(&["verify", "/nonexistent/lake"]), Some(1));
}
