//! QoS 2 and MQTT 5 straight from sensors: exactly once, whoever was killed on the way.
//!
//! The story of each test is that of `redelivery`: a client of its own believes only acknowledgements, forebay is killed with
//! SIGKILL, and in the end the lake holds each message once.

use std::process::Command;

use crate::redelivery::{SEAL_OFTEN, kill_on_the_way};
use crate::support::{Gateway, Publisher, assert_each_once, free_port};

/// A gateway with a listener on the port, and a lake. It commits often: each message takes two commits, and a kill a second;
/// and it dawdles between commit and answer, which is where a kill tells.
fn gateway() -> (Gateway, u16) {
    let (mut gateway, port) = (Gateway::new(""), free_port());
    let lake = gateway.lake();
    let settings = format!("[listener]\nbind = [\"127.0.0.1:{port}\"]\n[journal]\ncommit_interval = \"100ms\"\n{SEAL_OFTEN}");
    gateway.configure(&format!("{settings}url = \"file://{}\"\n", lake.display()));
    gateway.environment.insert("FAILPOINTS".to_owned(), "pump.before_ack=sleep(40)".to_owned());
    gateway.start();
    (gateway, port)
}

/// Each of `messages` messages at `qos`, with its two readings, is in the lake once, and the counters say so.
fn check(gateway: &Gateway, qos: u8, messages: u64) {
    gateway.flush();
    assert_each_once(&gateway.lake(), messages as i64);
    assert_eq!(gateway.books()["accepted"], 2 * messages);
    let ingest = gateway.status()["ingest"].clone();
    let came = ingest[format!("messages_qos{qos}")].as_u64().unwrap();
    assert_eq!(came - ingest["duplicates"].as_u64().unwrap(), messages, "{ingest}");
    gateway.verify();
}

#[test]
fn at_qos_2_ten_kills_cost_and_double_nothing() {
    const MESSAGES: u64 = 20_000;
    let (mut gateway, port) = gateway();
    let mut publisher = Publisher::start(port, MESSAGES, &["--qos", "2", "--rate", "700", "--window", "300"]);
    kill_on_the_way(&mut gateway, &mut publisher, 10);
    publisher.finish();
    check(&gateway, 2, MESSAGES);
}

#[test]
fn by_mqtt_5_at_qos_2_kills_cost_and_double_nothing() {
    const MESSAGES: u64 = 6_000;
    let (mut gateway, port) = gateway();
    let mut publisher = Publisher::start(port, MESSAGES, &["--mqtt-version", "5", "--qos", "2", "--rate", "500", "--window", "200"]);
    kill_on_the_way(&mut gateway, &mut publisher, 4);
    publisher.finish();
    check(&gateway, 2, MESSAGES);
}

#[test]
fn by_mqtt_5_at_qos_1_kills_cost_and_double_nothing() {
    const MESSAGES: u64 = 20_000;
    let (mut gateway, port) = gateway();
    let mut publisher = Publisher::start(port, MESSAGES, &["--mqtt-version", "5", "--rate", "1500", "--window", "500"]);
    kill_on_the_way(&mut gateway, &mut publisher, 5);
    publisher.finish();
    check(&gateway, 1, MESSAGES);
}

/// What `mosquitto_pub` says, and whether it succeeds.
fn mosquitto_pub(port: u16, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-p", &port.to_string(), "-t", "plant/m"]).args(args);
    let output = command.output().expect("mosquitto-clients are installed");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn mosquitto_pub_publishes_by_every_version_and_at_every_qos() {
    let (gateway, port) = gateway();
    let mut number = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["1", "2"] {
            number += 1;
            let payload = format!("{{\"seq\":{number}}}");
            let told = mosquitto_pub(port, &["-V", version, "-q", qos, "-m", &payload]);
            assert_eq!(told, (true, String::new()), "{version} at QoS {qos}");
        }
    }
    let alias = ["-V", "mqttv5", "-q", "2", "-D", "publish", "topic-alias", "3", "-D", "publish", "message-expiry-interval", "1"];
    let (ok, told) = mosquitto_pub(port, &[&alias[..], &["-m", "{\"seq\":5}"]].concat());
    assert!(ok, "{told}");
    // What can't be decoded is said to be so.
    let (_, told) = mosquitto_pub(port, &["-V", "mqttv5", "-q", "1", "-m", "\u{1}no sense"]);
    assert!(told.contains("Payload format invalid"), "{told}");
    gateway.flush();
    assert_each_once(&gateway.lake(), 5);
    assert_eq!(gateway.status()["ingest"]["rejected"], 1);
    gateway.verify();
}

#[test]
fn simulated_sensors_publish_at_qos_2() {
    let (gateway, port) = gateway();
    let url = format!("mqtt://127.0.0.1:{port}");
    let told = Command::new(crate::support::PROGRAM)
        .args(["sim", "--mqtt", &url, "--sensors", "5", "--rate", "200", "--for", "3s", "--qos", "2", "--json"])
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let outcome: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(gateway.books()["accepted"], outcome["readings_acknowledged"], "{outcome}");
    assert_eq!(gateway.status()["ingest"]["messages_qos2"], outcome["sent"]);
}
