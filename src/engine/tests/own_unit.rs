//! An engine that is no child: something else starts one for each connection to a socket, as a service manager does.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::faults::{engine_of, kill};
use super::*;
use crate::config::ByteSize;
use crate::error::ErrorKind;

/// Starts an engine for each connection to `socket`, in `folder`.
fn serve(socket: &Path, folder: &Path) {
    let (listener, folder) = (UnixListener::bind(socket).unwrap(), folder.to_owned());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Program { path, args } = program("engine::tests::child");
            let mut command = Command::new(path);
            command.args(args).current_dir(&folder).stdin(Stdio::from(OwnedFd::from(connection.unwrap()))).stdout(Stdio::null());
            let mut engine = command.spawn().unwrap();
            std::thread::spawn(move || engine.wait());
        }
    });
}

fn socket_of(bench: &Bench) -> PathBuf {
    bench.folder.path().join("engine.sock")
}

fn settings(bench: &Bench) -> config::Engine {
    config::Engine { socket: Some(socket_of(bench)), ..config::Engine::default() }
}

fn is_gone(pid: u32) -> bool {
    !std::fs::exists(format!("/proc/{pid}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_answers_tells_its_memory_and_is_replaced_when_it_is_killed() {
    let bench = Bench::new();
    serve(&socket_of(&bench), bench.dir.root());
    let handle = bench.start(&settings(&bench));
    bench.commit(0..100).await;
    bench.seal().await;
    bench.commit(100..150).await;
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [150]);
    until("its memory", || handle.state().report().rss_bytes > 1 << 20).await;
    assert!(handle.state().report().own_unit);
    let pid = engine_of(&bench);
    kill(pid);
    until("another", || handle.state().report().restarts == 1 && handle.state().phase() == Phase::Ready).await;
    assert_eq!(numbers(&handle, "select count(*) from readings").await, [150]);
    until("its end", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_stuck_ends_with_its_socket() {
    let bench = Bench::new();
    serve(&socket_of(&bench), bench.dir.root());
    let limit = Duration::from_millis(400);
    let handle = bench.start(&config::Engine { memory: ByteSize(2 << 30), query_timeout: Period(limit), ..settings(&bench) });
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let pid = engine_of(&bench);
    let bomb = ask(&handle, "select len(list_sort(range(20000000)))", Format::Csv).await;
    assert_eq!(bomb, Err(QueryError::TimedOut { limit }));
    until("its end", || is_gone(pid)).await;
    until("another", || handle.state().report().restarts == 1 && handle.state().phase() == Phase::Ready).await;
    let pid = engine_of(&bench);
    bench.stop.cancel();
    until("the end of that one", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_while_nothing_answers_at_the_socket_is_told_so_at_once() {
    let bench = Bench::new();
    let handle = bench.start(&settings(&bench));
    let begun = Instant::now();
    let error = ask(&handle, "select 1", Format::Csv).await.unwrap_err();
    assert!(matches!(&error, QueryError::Absent(why) if why.contains("engine.sock")), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(begun.elapsed() < config::Engine::default().query_timeout.0 / 2, "{:?}", begun.elapsed());
    serve(&socket_of(&bench), bench.dir.root());
    until("ready", || handle.state().phase() == Phase::Ready).await;
    assert_eq!(numbers(&handle, "select 1").await, [1]);
    assert_eq!(handle.state().absence(), None);
}
