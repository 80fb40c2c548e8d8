//! What every upstream promises; each runs the same suite.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::memory::Memory;
use super::processes::{Moto, ReferenceCollector};
use super::server::{Conditional, Server, Shows};
use crate::config;
use crate::model::Digest;
use crate::upload::{Body, FileUpstream, MARK, Put, Upstream, UpstreamError, open};

const KEY: &str = "readings/gateway=gw-1/date=2026-11-20/0123456789abcdef-0000000001.parquet";

/// A place that knows who is at home there, and that nobody has used.
async fn is_marked(upstream: &dyn Upstream) {
    assert!(matches!(upstream.probe().await, Err(UpstreamError::Unmarked(_))));
    assert!(matches!(upstream.put_new(KEY, Body::memory("x")).await, Err(UpstreamError::Unmarked(_))));
    upstream.establish().await.unwrap();
}

/// The suite, for an upstream in which there is nothing.
async fn conforms(upstream: &dyn Upstream) {
    upstream.establish().await.unwrap();
    upstream.probe().await.unwrap();
    assert_eq!(upstream.find(KEY).await.unwrap(), None);

    assert_eq!(upstream.put_new(KEY, Body::memory("one")).await.unwrap(), Put::Stored);
    assert_eq!(upstream.put_new(KEY, Body::memory("one")).await.unwrap(), Put::SameAlready);
    let conflict = UpstreamError::Conflict { key: KEY.to_owned(), found: Digest::of(b"one") };
    assert_eq!(upstream.put_new(KEY, Body::memory("two")).await.unwrap_err(), conflict);
    assert_eq!(upstream.find(KEY).await.unwrap(), Some(Digest::of(b"one")), "a conflict replaces nothing");
    assert_eq!(upstream.get(KEY, 3).await.unwrap().unwrap(), "one");
    assert_eq!(upstream.get("manifests/none", 3).await.unwrap(), None);

    bodies_in_files(upstream).await;
    assert_eq!(upstream.put_new("empty", Body::memory("")).await.unwrap(), Put::Stored);
    assert_eq!(upstream.find("empty").await.unwrap(), Some(Digest::of(b"")));
    assert!(!upstream.describe().is_empty());
}

async fn bodies_in_files(upstream: &dyn Upstream) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment");
    // Larger than what is read at a time.
    let bytes: Vec<u8> = (0..700_000_u32).map(|place| (place % 251) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    let body = |digest| Body::file(path.clone(), bytes.len() as u64, digest);
    assert_eq!(upstream.put_new("manifests/large", body(Digest::of(&bytes))).await.unwrap(), Put::Stored);
    assert_eq!(upstream.find("manifests/large").await.unwrap(), Some(Digest::of(&bytes)));

    assert!(matches!(upstream.put_new("a/wrong", body(Digest::of(b"another"))).await, Err(UpstreamError::Source { .. })));
    assert_eq!(upstream.find("a/wrong").await.unwrap(), None, "bytes that fail their digest are not stored");
    fs::remove_file(&path).unwrap();
    assert!(matches!(upstream.put_new("a/gone", body(Digest::of(&bytes))).await, Err(UpstreamError::Source { .. })));
    assert_eq!(upstream.find("a/gone").await.unwrap(), None);
}

#[tokio::test]
async fn memory_conforms() {
    let memory = Memory::default();
    is_marked(&memory).await;
    conforms(&memory).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lake");
    let upstream = FileUpstream::new(root.clone(), Arc::default());
    is_marked(&upstream).await;
    conforms(&upstream).await;
    assert_eq!(fs::read(root.join(KEY)).unwrap(), b"one");
    assert_eq!(leftovers(&root), Vec::<String>::new());
}

#[tokio::test]
async fn a_collector_conforms() {
    // With what a collector should do, and with the least that it must do.
    for (digests, head) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = Server::tls(Shows::Good).await;
        server.state().digests = digests;
        server.state().head = head;
        conforms(&*open(&server.as_collector()).unwrap()).await;
        assert_eq!(server.objects()[KEY], b"one");
    }
}

#[tokio::test]
async fn s3_conforms() {
    for (digests, conditional) in [(true, Conditional::Honoured), (false, Conditional::Honoured), (true, Conditional::Unknown)] {
        let server = Server::tls(Shows::Good).await;
        server.state().digests = digests;
        server.state().conditional = conditional;
        conforms(&*open(&server.as_s3()).unwrap()).await;
        assert_eq!(server.objects()[KEY], b"one");
    }
}

#[tokio::test]
async fn a_real_s3_server_conforms() {
    let moto = tokio::task::spawn_blocking(|| Moto::start("lake")).await.unwrap();
    conforms(&*open(&moto.settings("s3://lake/farm")).unwrap()).await;
}

#[tokio::test]
async fn the_reference_collector_conforms_and_what_it_keeps_is_a_lake() {
    let folder = tempfile::tempdir().unwrap();
    let collector = tokio::task::spawn_blocking({
        let folder = folder.path().to_owned();
        move || ReferenceCollector::start(&folder)
    });
    let collector = collector.await.unwrap();
    conforms(&*open(&collector.settings).unwrap()).await;
    assert_eq!(fs::read(folder.path().join("lake").join(KEY)).unwrap(), b"one");
    let stranger = config::Upstream { token_file: None, ..collector.settings.clone() };
    assert!(matches!(open(&stranger).unwrap().probe().await, Err(UpstreamError::Denied(text)) if text.contains("401")));
}

/// Files that are not complete.
fn leftovers(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        } else if name.ends_with(".part") {
            found.push(name);
        }
    }
    found
}

async fn lake() -> (tempfile::TempDir, FileUpstream) {
    let folder = tempfile::tempdir().unwrap();
    let upstream = FileUpstream::new(folder.path().join("lake"), Arc::default());
    upstream.establish().await.unwrap();
    (folder, upstream)
}

#[tokio::test]
async fn a_folder_is_not_made_where_its_parent_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = FileUpstream::new(folder.path().join("not/there/lake"), Arc::default());
    let error = upstream.establish().await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Transient(text) if text.contains("not/there/lake")), "{error}");
    assert!(!folder.path().join("not").exists());
}

#[tokio::test]
async fn nothing_is_written_into_an_empty_mount_point() {
    let (folder, upstream) = lake().await;
    let (root, away) = (folder.path().join("lake"), folder.path().join("away"));
    fs::rename(&root, &away).unwrap();
    assert!(matches!(upstream.put_new(KEY, Body::memory("one")).await, Err(UpstreamError::Unmarked(_))));
    assert!(!root.exists());
    fs::create_dir(&root).unwrap();
    for answer in [upstream.probe().await, upstream.put_new(KEY, Body::memory("one")).await.map(drop)] {
        assert!(matches!(answer, Err(UpstreamError::Unmarked(_))), "{answer:?}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert_eq!(upstream.put_new(KEY, Body::memory("one")).await.unwrap(), Put::Stored);
    assert!(root.join(MARK).exists());
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_written_anew() {
    let (folder, upstream) = lake().await;
    let part = folder.path().join("lake/a/.b.json.part");
    fs::create_dir(part.parent().unwrap()).unwrap();
    fs::write(&part, "a longer text than what comes").unwrap();
    assert_eq!(upstream.put_new("a/b.json", Body::memory("short")).await.unwrap(), Put::Stored);
    assert_eq!(fs::read(folder.path().join("lake/a/b.json")).unwrap(), b"short");
    assert!(!part.exists());
}

#[tokio::test]
async fn keys_that_lead_elsewhere_are_refused() {
    let (folder, upstream) = lake().await;
    for key in ["", "/etc/x", "../x", "a/../../x", "a/./../x"] {
        assert!(matches!(upstream.put_new(key, Body::memory("x")).await, Err(UpstreamError::Permanent(_))), "{key}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_where_a_folder_should_be_is_an_error_that_names_it() {
    let (folder, upstream) = lake().await;
    fs::write(folder.path().join("lake/readings"), "").unwrap();
    let error = upstream.put_new(KEY, Body::memory("x")).await.unwrap_err();
    assert!(error.to_string().contains("lake/readings"), "{error}");
}

#[tokio::test]
async fn an_access_that_hangs_lets_no_other_pile_up_behind_it() {
    let (folder, upstream) = lake().await;
    // Opening a pipe for reading hangs until someone opens it for writing, as a dead mount would.
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let body = Body::file(pipe.clone(), 3, Digest::of(b"one"));
    assert!(tokio::time::timeout(Duration::from_millis(100), upstream.put_new(KEY, body)).await.is_err());
    for _ in 0..3 {
        assert!(matches!(upstream.probe().await, Err(UpstreamError::Transient(text)) if text.contains("hangs")));
    }
    tokio::task::spawn_blocking(move || fs::write(pipe, "one")).await.unwrap().unwrap();
    super::fixture::until("it is done", || folder.path().join("lake").join(KEY).exists()).await;
}
