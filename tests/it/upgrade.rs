//! Upgrades in place: a data folder that an earlier version left is taken up with all it holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::Value;

use crate::support::{Gateway, Publisher, assert_each_once};

/// Unpacks what an earlier version left: `data` and `lake` of the gateway "gw-test".
fn unpack(name: &str, gateway: &Gateway) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(gateway.folder.path()).status().unwrap();
    assert!(done.success());
}

/// A gateway with what the first version left in it.
///
/// `data-folder-0001.tar.gz` has the ledger's first schema. It was written by the first version that did the main job, which
/// was killed with -9: of 40 messages with the readings "seq" and "temperature" 20 were delivered, 10 sealed and not
/// delivered, and 10 hot, in the WAL.
fn gateway_of_the_first_version() -> Gateway {
    let gateway = Gateway::new("");
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[engine]\nenabled = false\n[upstream]\nurl = \"file://{}\"\n",
        gateway.lake().display()
    ));
    unpack("data-folder-0001.tar.gz", &gateway);
    gateway
}

/// As if it had been written on this machine; what is in the WAL stays there.
fn move_here(ledger: &Path) {
    let connection = Connection::open(ledger).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let host = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    assert_eq!(connection.execute("update state set host_id = ?1", [host]).unwrap(), 1);
}

/// How many instances have shipped to the lake.
fn instances(lake: &Path) -> usize {
    let manifests = fs::read_dir(lake.join("manifests/gateway=gw-test")).unwrap();
    let names = manifests.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.split_once('-')?.0.to_owned())).collect::<BTreeSet<_>>().len()
}

/// Takes up the folder and 20 messages more, across a kill; everything is upstream once. Returns how many instances the lake has.
fn take_up(gateway: &mut Gateway) -> usize {
    gateway.start();
    Publisher::start(gateway.listener_port(), 20, &["--first", "41"]).finish();
    gateway.flush();
    assert_each_once(&gateway.lake(), 60);
    gateway.verify();
    // Nor is anything of it taken up twice.
    gateway.kill();
    gateway.start();
    gateway.flush();
    assert_each_once(&gateway.lake(), 60);
    gateway.verify();
    let books = gateway.books();
    assert_eq!((&books["dropped"], &books["damaged"]), (&Value::from(0), &Value::from(0)), "{books}");
    instances(&gateway.lake())
}

#[test]
fn the_folder_of_the_first_version_is_taken_up_with_all_it_holds() {
    let mut gateway = gateway_of_the_first_version();
    move_here(&gateway.data().join("forebay.db"));
    assert_eq!(take_up(&mut gateway), 1, "it goes on as the instance it was");
}

#[test]
fn on_another_machine_it_is_taken_up_as_a_new_instance() {
    let mut gateway = gateway_of_the_first_version();
    assert_eq!(take_up(&mut gateway), 2);
}
