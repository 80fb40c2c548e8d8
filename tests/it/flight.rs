//! Flight SQL as the drivers of others speak it: ADBC's and pyarrow's.
#![cfg(feature = "engine")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Gateway;

fn filled(api: &str) -> Gateway {
    let mut gateway = Gateway::new("");
    // `configure` ends with the section [api].
    gateway.configure(&format!("flight = [\"127.0.0.1:0\"]\n{api}[listener]\nbind = [\"127.0.0.1:0\"]\n"));
    fs::write(gateway.folder.path().join("api-token"), "secret").unwrap();
    fs::set_permissions(gateway.folder.path().join("api-token"), fs::Permissions::from_mode(0o600)).unwrap();
    gateway.start();
    let path = gateway.folder.path().join("in.csv");
    let rows: String = (0..1000).map(|row| format!("{},s,t,{row}\n", 1_700_000_000 + row)).collect();
    fs::write(&path, format!("time,sensor,metric,value\n{rows}")).unwrap();
    gateway.ok(&["import", path.to_str().unwrap()]);
    gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    gateway
}

fn driver(gateway: &Gateway, token: &[&str]) -> Value {
    let address = gateway.status()["listeners"]["flight"][0].as_str().expect("a door of Flight SQL").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/flight.py");
    let uri = format!("grpc://{address}");
    let output = Command::new("python3").arg(script).args(["--uri", &uri]).args(token).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gateway.last_lines());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(found: &Value) {
    assert_eq!(found["plain"], json!([[1000, 999.0], ["n", "top"]]));
    assert_eq!((&found["bound"], &found["bound_time"]), (&json!(10), &json!(10)));
    assert_eq!(found["arrow"], json!([1000, ["timestamp[us]", "string", "string", "double"]]));
    assert!(found["wrong"].as_str().unwrap().contains("nowhere"), "{found}");
    assert!(found["unbound"].as_str().unwrap().contains("parameters"), "{found}");
    let objects = found["objects"].as_array().unwrap();
    assert!(objects.contains(&json!(["memory", "main", "readings", 10])), "{found}");
    assert_eq!((&found["table_types"], &found["vendor"]), (&json!(["BASE TABLE"]), &json!("forebay")));
    assert_eq!(found["table_schema"][0], "time");
    assert_eq!(found["qualified"], 1000);
    assert_eq!(found["flight"], json!([1, 0, ["value"]]));
    assert_eq!((&found["flight_rows"], &found["flight_schema"]), (&json!([0.0, 1.0, 2.0]), &json!(["value"])));
}

#[test]
fn adbc_and_pyarrow_find_what_they_look_for() {
    let gateway = filled("");
    let found = driver(&gateway, &[]);
    check(&found);
    assert_eq!(found["without_token"], "answered");
}

#[test]
fn with_a_token_drivers_log_in_and_others_are_refused() {
    let gateway = filled("token_file = \"api-token\"\n");
    let found = driver(&gateway, &["--token", "secret"]);
    check(&found);
    assert_eq!(found["without_token"], "refused");
}
