//! Over TLS: sensors to the listener, the client to a broker, HTTP; with real programs at the other end.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::certificates::{Authority, Pair};
use crate::support::{Gateway, Mosquitto, PATIENCE, PROGRAM, free_port};

/// The versions of MQTT that sensors speak to the listener, as paho and `mosquitto_pub` name them.
pub const PROTOCOLS: &[(&str, &str)] = &[("311", "mqttv311")];

const QUIET: &str = "[engine]\nenabled = false\n[journal]\ncommit_interval = \"50ms\"\n";

/// What paho says of itself.
pub fn paho(port: u16, more: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/secure_publish.py");
    let output = Command::new("python3").arg(script).args(["--port", &port.to_string()]).args(more).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text:?} {}", String::from_utf8_lossy(&output.stderr)))
}

pub fn mosquitto_pub(port: u16, more: &[&str]) -> Output {
    let message = ["-h", "127.0.0.1", "-q", "1", "-t", "plant/press-2", "-m", "{\"temperature\": 20.5}", "-p"];
    let mut command = Command::new("mosquitto_pub");
    command.args(message).arg(port.to_string()).args(more).output().expect("mosquitto_pub is installed (apt install mosquitto-clients)")
}

/// The same flags for both programs, but for their names.
fn flags<'a>(names: [&'a str; 3], ca: &'a Pair, own: Option<&'a Pair>) -> Vec<&'a str> {
    let mut flags = vec![names[0], ca.cert.to_str().unwrap()];
    flags.extend(own.iter().flat_map(|own| [names[1], own.cert.to_str().unwrap(), names[2], own.key.to_str().unwrap()]));
    flags
}

fn paho_flags<'a>(ca: &'a Pair, own: Option<&'a Pair>) -> Vec<&'a str> {
    flags(["--ca-file", "--cert-file", "--key-file"], ca, own)
}

fn mosquitto_flags<'a>(ca: &'a Pair, own: Option<&'a Pair>) -> Vec<&'a str> {
    flags(["--cafile", "--cert", "--key"], ca, own)
}

/// `tls_cert` and `tls_key` in TOML.
fn identity(pair: &Pair) -> String {
    format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", pair.cert.display(), pair.key.display())
}

fn reason(gateway: &Gateway, code: &str) -> String {
    let status = gateway.status();
    let reasons = status["reasons"].as_array().unwrap().iter().filter(|reason| reason["code"] == code);
    reasons.map(|reason| reason["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn sensors_publish_with_and_without_client_certificates() {
    for asked in [false, true] {
        let mut gateway = Gateway::new("");
        let (authority, other) = (Authority::new(gateway.folder.path(), "ca"), Authority::new(gateway.folder.path(), "other"));
        let ca = if asked { format!("tls_client_ca = \"{}\"\n", authority.pair.cert.display()) } else { String::new() };
        gateway.configure(&format!("[listener]\nbind = [\"127.0.0.1:0\"]\n{}{ca}{QUIET}", identity(&authority.sign("server"))));
        gateway.start();
        let (port, client) = (gateway.listener_port(), authority.sign("client"));
        let own = asked.then_some(&client);
        let mut accepted = 0;
        for (paho_version, mosquitto_version) in PROTOCOLS {
            let more = ["--protocol", paho_version, "--messages", "500"];
            let outcome = paho(port, &[&more[..], &paho_flags(&authority.pair, own)].concat());
            assert_eq!((&outcome["code"], &outcome["acknowledged"]), (&Value::from(0), &Value::from(500)), "{outcome}");
            let output = mosquitto_pub(port, &[&["-V", mosquitto_version][..], &mosquitto_flags(&authority.pair, own)].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            accepted += 2 * 500 + 1;
        }
        assert_eq!(gateway.books()["accepted"], accepted);
        if asked {
            let stranger = other.sign("stranger");
            for own in [None, Some(&stranger)] {
                assert_ne!(paho(port, &paho_flags(&authority.pair, own))["code"], 0);
                assert!(!mosquitto_pub(port, &mosquitto_flags(&authority.pair, own)).status.success());
            }
            let shown = reason(&gateway, "listener_access");
            assert!(shown.contains("4 TLS handshakes of the listener failed"), "{shown}");
            assert_eq!(gateway.status()["ingest"]["handshakes_failed"], 4);
            assert_eq!(gateway.books()["accepted"], accepted);
        }
        gateway.stop();
    }
}

/// A broker that speaks TLS, asks for a certificate and a password, and a gateway that has both.
fn broker(authority: &Authority, server: &Pair, more: &str) -> Mosquitto {
    let (ca, cert, key) = (authority.pair.cert.display(), server.cert.display(), server.key.display());
    Mosquitto::with(&format!("cafile {ca}\ncertfile {cert}\nkeyfile {key}\n{more}"))
}

#[test]
fn the_client_takes_from_a_broker_that_asks_for_certificate_and_password() {
    let mut gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    let (server, own) = (authority.sign("server"), authority.sign("gateway"));
    let passwords = gateway.secret("passwords", "");
    let made = Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args(["gw", "s3cret"]).status();
    assert!(made.expect("mosquitto_passwd is installed (apt install mosquitto)").success());
    let password = gateway.secret("password", "s3cret\n");
    let broker = broker(&authority, &server, &format!("require_certificate true\npassword_file {}\n", passwords.display()));
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let (ca, cert, key) = (authority.pair.cert.display(), own.cert.display(), own.key.display());
    let account = format!("username = \"gw\"\npassword_file = \"{}\"", password.display());
    let files = format!("ca_file = \"{ca}\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"");
    gateway.configure(&format!("[mqtt]\nurl = \"{url}\"\n{account}\n{files}\n{QUIET}"));
    gateway.start();
    gateway.wait_for("the subscription", |gateway| gateway.log().contains("subscribed"));
    let simulate = |messages: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["sim", "--mqtt", &url, "--rate", messages, "--for", "2s", "--json", "--username", "gw", "--password-file"]);
        command.arg(&password).arg("--ca-file").arg(&authority.pair.cert);
        let output = command.arg("--cert-file").arg(&own.cert).arg("--key-file").arg(&own.key).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["acknowledged"], outcome["sent"], "{outcome}");
        outcome["readings_sent"].as_u64().unwrap()
    };
    let mut sent = simulate("1000");
    gateway.wait_for("all readings", |gateway| gateway.books()["accepted"].as_u64() >= Some(sent));
    // What comes while it is dead waits in its session, and comes as fast as the window allows.
    gateway.kill();
    sent += simulate("2000");
    gateway.start();
    gateway.wait_for("all readings", |gateway| gateway.books()["accepted"].as_u64() >= Some(sent));
    assert_eq!(gateway.books()["accepted"], sent);
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_broker_that_can_not_be_believed_is_a_reason_and_tried_again_until_it_can() {
    let mut gateway = Gateway::new("");
    let folder = gateway.folder.path().to_owned();
    let (ours, theirs) = (Authority::new(&folder, "ours"), Authority::new(&folder, "theirs"));
    let local = &["127.0.0.1"];
    let served = ours.sign("served");
    let serve = |next: &Pair| {
        fs::copy(&next.cert, &served.cert).unwrap();
        fs::copy(&next.key, &served.key).unwrap();
    };
    let mut broker = broker(&ours, &served, "allow_anonymous true\n");
    let trusted = folder.join("trusted.pem");
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    gateway.configure(&format!("[mqtt]\nurl = \"{url}\"\nca_file = \"{}\"\n{QUIET}", trusted.display()));
    for (authority, server, fault) in [
        (&ours, ours.sign_for("old", (2000, 2001), local), "expired on 2001-01-01"),
        // As with a clock that was set back.
        (&ours, ours.sign_for("young", (4000, 4001), local), "not valid before 4000-01-01"),
        (&ours, ours.sign_for("elsewhere", (2020, 4096), &["broker.example"]), "broker.example"),
        (&theirs, ours.sign("good"), "signed by no authority that is trusted here"),
    ] {
        fs::copy(&authority.pair.cert, &trusted).unwrap();
        serve(&server);
        broker.restart();
        gateway.start();
        gateway.wait_for(fault, |gateway| reason(gateway, "broker").contains(fault));
        if fault.starts_with("signed") {
            // The right authority is found without a restart.
            fs::copy(&ours.pair.cert, &trusted).unwrap();
        } else {
            serve(&ours.sign("good"));
            broker.restart();
        }
        gateway.wait_for("a connection", |gateway| reason(gateway, "broker").is_empty());
        gateway.kill();
    }
}

#[test]
fn tls_and_plain_at_the_wrong_port_are_told_apart() {
    let mut gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    let (plain, secure) = (Mosquitto::start(), broker(&authority, &authority.sign("server"), "allow_anonymous true\n"));
    let ca = format!("ca_file = \"{}\"\n", authority.pair.cert.display());
    for (url, ca, fault) in [
        (format!("mqtts://127.0.0.1:{}", plain.port), ca.as_str(), "no TLS with the broker: it closed the connection"),
        (format!("mqtt://127.0.0.1:{}", secure.port), "", "does it ask for TLS (mqtts://) on this port?"),
    ] {
        gateway.configure(&format!("[mqtt]\nurl = \"{url}\"\n{ca}{QUIET}"));
        gateway.start();
        gateway.wait_for(fault, |gateway| reason(gateway, "broker").contains(fault));
        gateway.stop();
    }
}

#[test]
fn http_is_served_over_tls_with_the_token() {
    let mut gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    let (port, token) = (free_port(), gateway.secret("token", "t0ken\n"));
    let api = format!("http = [\"127.0.0.1:{port}\"]\ntoken_file = \"{}\"\n{}", token.display(), identity(&authority.sign("server")));
    gateway.configure(&format!("{api}[listener]\nbind = [\"127.0.0.1:0\"]\n{QUIET}"));
    gateway.start();
    let curl = |more: &[&str]| {
        let output = Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30"]).args(more).output();
        let output = output.expect("curl is installed");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (ca, url) = (authority.pair.cert.to_str().unwrap(), format!("https://127.0.0.1:{port}/api/v1/status"));
    let right = "Authorization: Bearer t0ken";
    assert_eq!(curl(&["--cacert", ca, "-H", right, &url]), (Some(0), "200".to_owned()));
    assert_eq!(curl(&["--cacert", ca, "--http2", "-H", right, &url]), (Some(0), "200".to_owned()));
    assert_eq!(curl(&["--cacert", ca, "-H", "Authorization: Bearer t0kem", &url]), (Some(0), "401".to_owned()));
    assert_eq!(curl(&["--cacert", ca, &url]), (Some(0), "401".to_owned()));
    assert_eq!(curl(&[&url]).0, Some(60), "an authority that the system does not know");
    assert_ne!(curl(&["-H", right, &url.replace("https", "http")]).0, Some(0), "plain HTTP is not answered");
    let shown = reason(&gateway, "http_tls");
    assert!(shown.contains("TLS handshakes of HTTP failed") && shown.contains("127.0.0.1"), "{shown}");
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn certificates_and_keys_that_can_not_be_used_end_with_78_and_are_named() {
    let gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    let (one, two) = (authority.sign("one"), authority.sign("two"));
    let mismatch = identity(&Pair { cert: one.cert.clone(), key: two.key.clone() });
    let no_certificate = identity(&Pair { cert: gateway.secret("empty.pem", ""), key: one.key.clone() });
    let absent = identity(&Pair { cert: one.cert.clone(), key: "/nonexistent/key.pem".into() });
    for (settings, fault) in [
        (format!("[listener]\n{mismatch}"), "two-key.pem does not fit the certificate in"),
        (mismatch, "two-key.pem does not fit the certificate in"),
        (format!("[listener]\n{no_certificate}"), "empty.pem: there is no certificate in it"),
        (format!("[listener]\n{absent}"), "/nonexistent/key.pem can't be read"),
        ("[mqtt]\nurl = \"mqtts://127.0.0.1\"\nca_file = \"/nonexistent/ca.pem\"\n".to_owned(), "/nonexistent/ca.pem can't be read"),
        ("[listener]\nusers_file = \"/nonexistent/users\"\n".to_owned(), "/nonexistent/users can't be read"),
    ] {
        gateway.configure(&settings);
        for args in [vec!["run"], vec!["config", "check"]] {
            let output = Command::new(PROGRAM).args(&args).arg("--config").arg(gateway.config()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(78) && text.contains(fault), "{args:?} {fault}: {text}");
        }
    }
}

/// As many connections as asked for, or as this machine lets us have.
fn flood(port: u16, count: usize) -> Vec<TcpStream> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let room = maximum.map_or(count, |maximum| usize::try_from(maximum).unwrap_or(count).saturating_sub(200));
    (0..count.min(room)).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect()
}

#[test]
fn thousands_of_half_open_handshakes_hold_neither_memory_nor_the_door() {
    let mut gateway = Gateway::new("");
    let authority = Authority::new(gateway.folder.path(), "ca");
    gateway.configure(&format!("[listener]\nbind = [\"127.0.0.1:0\"]\n{}{QUIET}", identity(&authority.sign("server"))));
    gateway.start();
    let port = gateway.listener_port();
    let before = gateway.status()["process"]["rss_bytes"].as_u64().unwrap();
    let mut crowd = flood(port, 5_000);
    // Some begin a handshake, and end it nowhere.
    crowd.iter_mut().step_by(3).for_each(|stream| drop(stream.write_all(&[0x16, 3, 1, 2, 0, 1])));
    let page = gateway.status();
    let taken = page["process"]["rss_bytes"].as_u64().unwrap().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes for {} connections", crowd.len());
    // The places are free again when the time of a handshake is up, although nobody has gone.
    let end = Instant::now() + PATIENCE;
    while paho(port, &paho_flags(&authority.pair, None))["acknowledged"] != 1 {
        assert!(Instant::now() < end, "the listener stays closed\n{}", gateway.last_lines());
        std::thread::sleep(Duration::from_millis(500));
    }
    // Each was turned away, or let go when its time was up.
    gateway.wait_for("everybody to be counted", |gateway| {
        let ingest = gateway.status()["ingest"].clone();
        let [refused, failed] = ["connections_refused", "handshakes_failed"].map(|counter| ingest[counter].as_u64().unwrap());
        failed >= 1_000 && refused + failed >= crowd.len() as u64
    });
    assert!(gateway.log().lines().count() < 200, "the log is not flooded");
    assert_eq!(gateway.books()["accepted"], 2);
}
