//! Flight SQL as the drivers of others speak it: ADBC's and pyarrow's.
#![cfg(feature = "engine")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::certificates::{Authority, Pair};
use crate::support::Gateway;

/// A gateway with 1,000 readings, with more settings of the section [api] and of others.
fn filled(api: &str, more: &str) -> Gateway {
    let mut gateway = Gateway::new("");
    gateway.configure(&format!("flight = [\"127.0.0.1:0\"]\n{api}[listener]\nbind = [\"127.0.0.1:0\"]\n{more}"));
    gateway.secret("api-token", "secret");
    gateway.start();
    // Most of them sealed, the others hot.
    for (name, rows) in [("sealed.csv", 0..600), ("hot.csv", 600..1000)] {
        let path = gateway.folder.path().join(name);
        let rows: String = rows.map(|row| format!("{},s,t,{row}\n", 1_700_000_000 + row)).collect();
        fs::write(&path, format!("time,sensor,metric,value\n{rows}")).unwrap();
        gateway.ok(&["import", path.to_str().unwrap()]);
        if name == "sealed.csv" {
            gateway.command(&["flush", "--wait", "1s"]);
        }
    }
    assert_eq!(gateway.books()["hot"], 400);
    gateway.wait_for("an answer", |gateway| gateway.command(&["query", "select 1"]).status.success());
    gateway
}

/// What the drivers found, at an address of `scheme`.
fn driver(gateway: &Gateway, scheme: &str, more: &[&str]) -> Value {
    let address = gateway.status()["listeners"]["flight"][0].as_str().expect("a door of Flight SQL").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/flight.py");
    let uri = format!("{scheme}://{address}");
    let daemon = gateway.pid().to_string();
    let output = Command::new("python3").arg(script).args(["--uri", &uri, "--daemon", &daemon]).args(more).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", gateway.last_lines());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(found: &Value) {
    assert_eq!(found["plain"], json!([[1000, 999.0], ["n", "top"]]));
    assert_eq!((&found["bound"], &found["bound_time"], &found["bound_text"]), (&json!(10), &json!(10), &json!(10)));
    assert_eq!(found["outlived"], 10, "{found}");
    assert_eq!(found["arrow"], json!([1000, ["timestamp[us]", "string", "string", "double"]]));
    assert!(found["wrong"].as_str().unwrap().contains("nowhere"), "{found}");
    assert!(found["unbound"].as_str().unwrap().contains("parameters"), "{found}");
    let objects = found["objects"].as_array().unwrap();
    assert!(objects.contains(&json!(["memory", "main", "readings", 10])), "{found}");
    assert_eq!((&found["table_types"], &found["vendor"]), (&json!(["BASE TABLE"]), &json!("forebay")));
    assert_eq!(found["table_schema"][0], "time");
    assert_eq!(found["qualified"], 1000);
    assert_eq!((&found["statement"], &found["schema"]), (&json!({"value": [0.0, 1.0, 2.0]}), &json!(["value"])));
    assert!(found["info"].as_array().unwrap().len() > 10, "{found}");
    assert_eq!(found["base_tables"], json!(["books", "losses", "readings", "records", "series"]));
    assert_eq!((&found["columns"][0], &found["columns"][9], &found["views"]), (&json!("time"), &json!("seq"), &json!(0)));
    assert_eq!(found["catalogs"], json!({"catalog_name": ["memory"]}));
    assert_eq!(found["schemas"], json!({"catalog_name": ["memory"], "db_schema_name": ["main"]}));
    assert!(found["types"].as_array().unwrap().contains(&json!("TIMESTAMP")), "{found}");
}

#[test]
fn adbc_and_pyarrow_find_what_they_look_for() {
    let gateway = filled("", "");
    let found = driver(&gateway, "grpc+tcp", &[]);
    check(&found);
    assert_eq!(found["without_token"], "answered");
}

#[test]
fn with_a_token_drivers_log_in_over_tls_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let (Pair { cert, key }, ca) = (authority.sign("gateway"), authority.pair.cert.to_str().unwrap());
    let api = format!("token_file = \"api-token\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n", cert.display(), key.display());
    let gateway = filled(&api, "");
    let found = driver(&gateway, "grpc+tls", &["--token", "secret", "--ca-file", ca]);
    check(&found);
    assert_eq!(found["without_token"], "refused");
}

#[test]
fn the_limits_of_a_query_hold_and_say_what_they_are() {
    let gateway = filled("", "[engine]\nquery_timeout = \"5s\"\nmax_answer = \"1MiB\"\n");
    let found = driver(&gateway, "grpc+tcp", &["--limits"]);
    for (what, said) in [("too_slow", "engine.query_timeout, 5s"), ("too_long", "engine.max_answer, 1MiB"), ("denied", "one SELECT")] {
        assert!(found[what].as_str().is_some_and(|text| text.contains(said)), "{what}: {found}");
    }
    assert_eq!(found["after"], 1);
}
