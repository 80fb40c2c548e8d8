//! Killed at every step: the daemon dies with SIGKILL at a named place, starts again, and nothing is lost or doubled.

use crate::support::{Gateway, Publisher, assert_each_once};

/// Every place at which a power cut could find the daemon between a message and its delivery.
const POINTS: [&str; 17] = [
    "ledger.before_commit:3",
    "ledger.after_commit:3",
    "pump.before_ack:3",
    "listener.before_puback:3",
    "seal.after_tmp",
    "seal.after_verify",
    "seal.after_rename",
    "seal.after_dirsync",
    "ledger.before_seal",
    "ledger.after_seal",
    "seal.after_ledger",
    "upload.after_begin",
    "upload.after_part",
    "upload.after_manifest",
    "upload.after_finish",
    "seal.after_rename:2",
    "upload.after_part:2",
];

#[test]
fn killed_at_any_step_nothing_is_lost_or_doubled() {
    for point in POINTS {
        let mut gateway = Gateway::new("");
        let (lake, port) = (gateway.lake(), crate::support::free_port());
        let lake_url = lake.display();
        gateway.configure(&format!(
            "[listener]\nbind = [\"127.0.0.1:{port}\"]\n[segment]\nseal_interval = \"1s\"\n[engine]\nenabled = false\n\
             [upstream]\nurl = \"file://{lake_url}\"\nretry_min = \"100ms\"\nretry_max = \"1s\"\nprobe_interval = \"200ms\"\n"
        ));
        gateway.environment.insert("FOREBAY_KILL_AT".to_owned(), point.to_owned());
        gateway.spawn();
        let publisher = Publisher::start(port, 4_000, &["--rate", "1000", "--window", "50"]);
        assert_eq!(gateway.wait_for_end(), None, "{point} was never passed\n{}", gateway.last_lines());
        gateway.environment.clear();
        gateway.start();
        publisher.finish();
        gateway.flush();
        assert_each_once(&lake, 4_000);
        assert_eq!(gateway.books()["accepted"], 8_000, "{point}");
        gateway.verify();
    }
}
