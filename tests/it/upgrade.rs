//! Upgrades in place: a data folder that an earlier version left is taken up with all it holds.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Gateway, Publisher, assert_each_once};

/// Unpacks what an earlier version left: `data` and `lake` of the gateway "gw-test".
fn unpack(name: &str, gateway: &Gateway) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(gateway.folder.path()).status().unwrap();
    assert!(done.success());
}

/// `data-folder-0001.tar.gz` has the ledger's first schema. It was written by the first version that did the main job, which
/// was killed with -9: of 40 messages with the readings "seq" and "temperature" 20 were delivered, 10 sealed and not
/// delivered, and 10 hot, in the WAL. Its machine is another, so that a new instance begins.
#[test]
fn the_folder_of_the_first_version_is_taken_up_with_all_it_holds() {
    let mut gateway = Gateway::new("");
    gateway.configure(&format!(
        "[listener]\nbind = [\"127.0.0.1:0\"]\n[engine]\nenabled = false\n[upstream]\nurl = \"file://{}\"\n",
        gateway.lake().display()
    ));
    unpack("data-folder-0001.tar.gz", &gateway);
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
}
