//! SIGHUP: new routes and limits without a restart, and without losing a connection.

use std::process::Command;

use super::support::{Gateway, Mosquitto};

const MIB: u64 = 1 << 20;

fn reload(gateway: &Gateway) {
    let told = |gateway: &Gateway| gateway.log().matches("read again").count();
    let before = told(gateway);
    assert!(Command::new("kill").arg("-HUP").arg(gateway.pid().to_string()).status().unwrap().success());
    gateway.wait_for("the configuration to be read again", |gateway| told(gateway) > before);
}

fn publish(port: u16, payload: &str) {
    let published = Command::new("mosquitto_pub").args(["-p", &port.to_string(), "-q", "1", "-t", "farm/pump", "-m", payload]).status();
    assert!(published.unwrap().success());
}

/// All series.
fn series(gateway: &Gateway) -> String {
    let socket = gateway.folder.path().join("forebay.sock");
    let output = Command::new("curl").args(["-s", "http://localhost/api/v1/series", "--unix-socket"]).arg(socket).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_reload_changes_routes_limits_and_log_and_touches_no_connection() {
    let broker = Mosquitto::start();
    let mqtt = format!("[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\ntopics = [\"farm/#\"]\n", broker.port);
    let mut gateway = Gateway::new("");
    gateway.configure(&mqtt);
    gateway.start();
    // Until the broker has our subscription nothing arrives.
    gateway.wait_for("the first reading", |gateway| {
        publish(broker.port, "{\"level\": 1}");
        series(gateway).contains("level")
    });

    let route = "[[route]]\ntopic = \"farm/{sensor}\"\ndrop = [\"height\"]\n";
    gateway.configure(&format!("{mqtt}{route}[retention]\ncap = \"64MiB\"\n[log]\nlevel = \"debug\"\n"));
    reload(&gateway);
    publish(broker.port, "{\"height\": 2, \"flow\": 3}");
    gateway.wait_for("the reading", |gateway| series(gateway).contains("flow"));
    assert!(!series(&gateway).contains("height"), "the new route drops it");
    assert_eq!(gateway.status()["buffer"]["cap_bytes"], 64 * MIB);

    gateway.configure(&format!("{mqtt}[[route]]\ntopic = \"\"\n"));
    reload(&gateway);
    assert_eq!(gateway.status()["buffer"]["cap_bytes"], 64 * MIB, "what is wrong changes nothing");
    gateway.configure(&format!("{mqtt}[segment]\nseal_interval = \"1m\"\n"));
    reload(&gateway);
    gateway.wait_for("the word of what waits", |gateway| gateway.log().contains("waits for the next start"));
    assert_eq!(gateway.log().matches("connected to the broker").count(), 1, "one connection all the time\n{}", gateway.log());
    assert_eq!(gateway.stop(), Some(0));
}
