//! The attack list and the bombs, once with the SQL layer and once with the system's own layers alone.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::ByteSize;

const ATTACKS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sql/attacks.sql"));
const BOMBS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sql/bombs.sql"));

/// What must not turn up in an answer: the file beside the segments, the ledger, the system's accounts, an environment.
const GIVEAWAYS: [&str; 5] = ["treasure", "SQLite format", "root:x:", "CARGO_MANIFEST_DIR=", "PATH="];

fn statements(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with("--"))
}

/// Every file below `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Something to steal, a gate to knock at, and an engine.
struct Target {
    bench: Bench,
    handle: EngineHandle,
    gate: TcpListener,
}

impl Target {
    async fn new(child: &str) -> Self {
        let bench = Bench::new();
        fs::write(bench.folder.path().join("secret.csv"), "what\ntreasure\n").unwrap();
        bench.commit(0..100).await;
        bench.seal().await;
        let gate = TcpListener::bind("127.0.0.1:0").unwrap();
        gate.set_nonblocking(true).unwrap();
        let settings = config::Engine { query_timeout: Period(LIMIT), memory: ByteSize(96 << 20), ..config::Engine::default() };
        let handle = bench.start_program(&settings, program(child));
        until("ready", || handle.state().phase() == Phase::Ready).await;
        Self { bench, handle, gate }
    }

    fn fill_in(&self, statement: &str) -> String {
        let path = |name: &str| self.bench.folder.path().join(name).display().to_string();
        statement
            .replace("{secret}", &path("secret.csv"))
            .replace("{ledger}", &path("forebay.db"))
            .replace("{outside}", &path("evil"))
            .replace("{inside}", "readings/evil.parquet")
            .replace("{segment}", &self.bench.dir.list().unwrap().segments[0].to_string())
            .replace("{port}", &self.gate.local_addr().unwrap().port().to_string())
            .replace("\\n", "\n")
    }

    fn nobody_knocked(&self) -> bool {
        self.gate.accept().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// The engine answers, or another one in its place: without the SQL layer a query can spoil its own.
    async fn answers(&self, after: &str) {
        let begun = Instant::now();
        while ask(&self.handle, "select count(*) from readings", Format::Csv).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer any more after {after}");
            if begun.elapsed() > Duration::from_secs(5) && self.handle.state().phase() == Phase::Ready {
                faults::kill(faults::engine_of(&self.bench));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Of time, for one statement.
const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_passes_the_sql_layer() {
    let target = Target::new("engine::tests::child").await;
    let before = files(target.bench.folder.path());
    for statement in statements(ATTACKS) {
        let sql = target.fill_in(statement);
        let error = ask(&target.handle, &sql, Format::Json).await.expect_err(&sql);
        assert!(matches!(error, QueryError::Denied(_) | QueryError::Sql(_)), "{sql}: {error:?}");
        let told = error.to_string();
        assert!(GIVEAWAYS.iter().all(|giveaway| !told.contains(giveaway)), "{sql}: {told}");
    }
    assert!(files(target.bench.folder.path()) == before, "a file changed");
    assert!(target.nobody_knocked());
    assert_eq!(numbers(&target.handle, "select count(*), kept from readings, books group by kept").await, [100, 100]);
    assert_eq!(target.handle.state().report().restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_reaches_anything_without_the_sql_layer_either() {
    let target = Target::new("engine::tests::child_without_sql_layer").await;
    let layers = target.handle.state().report().isolation;
    if !["seccomp", "landlock"].iter().all(|layer| layers.iter().any(|held| held == layer)) {
        tracing::warn!(?layers, "this kernel does not grant every layer");
        return;
    }
    let before = files(target.bench.folder.path());
    let mut ran = 0;
    for statement in statements(ATTACKS) {
        let sql = target.fill_in(statement);
        let answer = ask(&target.handle, &sql, Format::Json).await;
        ran += usize::from(answer.is_ok());
        let told = format!("{answer:?}");
        assert!(GIVEAWAYS.iter().all(|giveaway| !told.contains(giveaway)), "{sql}: {told}");
        target.answers(&sql).await;
    }
    assert!(files(target.bench.folder.path()) == before, "a file changed");
    assert!(target.nobody_knocked());
    // Otherwise the layer was there after all.
    assert!(ran > 10, "only {ran} statements ran");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_at_its_limit_with_the_sql_layer_and_without() {
    for child in ["engine::tests::child", "engine::tests::child_without_sql_layer"] {
        let target = Target::new(child).await;
        for statement in statements(BOMBS) {
            let wide: Vec<_> = (0..20_000).map(|column| format!("{column} as c{column}")).collect();
            let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
            let sql = statement.replace("{deep}", &deep).replace("{wide}", &wide.join(", "));
            let begun = Instant::now();
            let outcome = ask(&target.handle, &sql, Format::Csv).await;
            let took = begun.elapsed();
            tracing::info!(child, ?took, statement, outcome = ?outcome.as_ref().map(String::len));
            // A second for its engine to say so or be killed, and some for a machine that does other things.
            assert!(took < LIMIT + Duration::from_secs(4), "{statement}: {took:?}");
            target.answers(statement).await;
            let rss = target.handle.state().report().rss_bytes;
            assert!(rss < 384 << 20, "{statement}: {rss} bytes");
        }
    }
}
