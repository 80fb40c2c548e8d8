//! `forebay doctor` on this machine, with a daemon and without one.

use serde_json::Value;

use super::support::{Gateway, Mosquitto};

/// The exit code and the findings.
fn doctor(gateway: &Gateway) -> (i32, Value) {
    let output = gateway.command(&["doctor", "--json", "--config", gateway.config().to_str().unwrap()]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let is_fault = answer["verdict"] == "fault";
    let code = output.status.code().unwrap();
    assert_eq!(code, i32::from(is_fault), "{answer:#}");
    (code, answer["findings"].clone())
}

/// The only finding of a check.
fn finding<'a>(findings: &'a Value, check: &str) -> &'a Value {
    let found: Vec<_> = findings.as_array().unwrap().iter().filter(|finding| finding["check"] == check).collect();
    assert_eq!(found.len(), 1, "{check}: {findings:#}");
    found[0]
}

#[test]
fn doctor_asks_daemon_broker_and_upstream_and_disturbs_nobody() {
    let broker = Mosquitto::start();
    let mut gateway = Gateway::new("");
    let lake = gateway.lake();
    gateway.configure(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[upstream]\nurl = \"file://{}\"\n", broker.port, lake.display()));
    let (_, before) = doctor(&gateway);
    assert_eq!(finding(&before, "daemon")["verdict"], "warning");
    assert_eq!(finding(&before, "broker")["verdict"], "ok");
    assert_eq!(finding(&before, "upstream")["verdict"], "warning", "it is no lake yet");
    assert!(!gateway.data().exists() && !lake.exists(), "it only looks");

    gateway.start();
    gateway.wait_for("the lake to be made", |_| lake.join(".forebay-lake").exists());
    gateway.wait_for("the broker", |gateway| gateway.log().contains("connected to the broker"));
    let (_, findings) = doctor(&gateway);
    for check in ["daemon", "socket", "broker", "upstream", "configuration", "quarantine", "page_size"] {
        assert_eq!(finding(&findings, check)["verdict"], "ok", "{check}: {findings:#}");
    }
    assert!(!gateway.log().contains("no connection to the broker"), "the daemon keeps its own\n{}", gateway.log());
}

#[test]
fn doctor_finds_a_broker_that_refuses_and_a_secret_that_everyone_may_read() {
    let mut broker = Mosquitto::with("allow_anonymous false\n");
    let gateway = Gateway::new("");
    gateway.configure(&format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n", broker.port));
    let (code, findings) = doctor(&gateway);
    let refused = finding(&findings, "broker");
    assert_eq!((code, &refused["verdict"]), (1, &Value::from("fault")));
    assert!(refused["message"].as_str().unwrap().contains("not authorised") && refused["advice"].is_string(), "{refused}");
    broker.stop();

    let password = gateway.secret("password", "secret");
    std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    gateway.configure(&format!("[mqtt]\nusername = \"gw\"\npassword_file = \"{}\"\n", password.display()));
    let (code, findings) = doctor(&gateway);
    assert_eq!((code, &finding(&findings, "configuration")["verdict"]), (1, &Value::from("fault")));
}

#[test]
fn without_a_configuration_that_can_be_read_there_is_nothing_to_look_at() {
    let gateway = Gateway::new("[no_such_section]\n");
    let output = gateway.command(&["doctor", "--config", gateway.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
}
