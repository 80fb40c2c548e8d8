//! What the system's own layers hold.

use std::fs::{self, File};
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::process::Command;

use super::*;
use crate::engine::child::Isolation;

/// Calls that no query has a use for; without their arguments, which the filter does not come to see.
const REFUSED: [(&str, libc::c_long); 45] = [
    ("socket", libc::SYS_socket),
    ("socketpair", libc::SYS_socketpair),
    ("connect", libc::SYS_connect),
    ("bind", libc::SYS_bind),
    ("listen", libc::SYS_listen),
    ("accept4", libc::SYS_accept4),
    ("sendmsg", libc::SYS_sendmsg),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("clone without CLONE_THREAD", libc::SYS_clone),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("chroot", libc::SYS_chroot),
    ("mount", libc::SYS_mount),
    ("ptrace", libc::SYS_ptrace),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("kill", libc::SYS_kill),
    ("tkill", libc::SYS_tkill),
    ("tgkill of another", libc::SYS_tgkill),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("memfd_create", libc::SYS_memfd_create),
    ("keyctl", libc::SYS_keyctl),
    ("openat2", libc::SYS_openat2),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("unlinkat", libc::SYS_unlinkat),
    ("renameat2", libc::SYS_renameat2),
    ("linkat", libc::SYS_linkat),
    ("symlinkat", libc::SYS_symlinkat),
    ("mkdirat", libc::SYS_mkdirat),
    ("ftruncate", libc::SYS_ftruncate),
    ("fallocate", libc::SYS_fallocate),
    ("fchmod", libc::SYS_fchmod),
    ("fchownat", libc::SYS_fchownat),
    ("setxattr", libc::SYS_setxattr),
    ("setuid", libc::SYS_setuid),
    ("prctl", libc::SYS_prctl),
    ("seccomp", libc::SYS_seccomp),
    ("ioctl", libc::SYS_ioctl),
    ("reboot", libc::SYS_reboot),
];

/// Tries everything from inside, and says what was possible.
#[test]
#[ignore = "the child process of the test below"]
fn prisoner() {
    let isolation = Isolation::begin().unwrap();
    let layers = isolation.complete(256 << 20).unwrap();
    eprintln!("layers {}", layers.join(","));
    let own = "readings/own.parquet";
    assert_eq!(fs::read_to_string(own).unwrap(), "own");
    std::thread::spawn(|| eprintln!("a thread runs")).join().unwrap();
    let tried: [(&str, io::Result<()>); 11] = [
        ("reads /etc/passwd", File::open("/etc/passwd").map(drop)),
        ("reads the ledger", File::open("../forebay.db").map(drop)),
        ("reads its environment", File::open("/proc/self/environ").map(drop)),
        ("lists the folder above", fs::read_dir("..").map(drop)),
        ("writes a segment", File::options().write(true).open(own).map(drop)),
        ("makes a file", File::create("readings/evil").map(drop)),
        ("makes a file elsewhere", File::create("/tmp/forebay-evil").map(drop)),
        ("removes a segment", fs::remove_file(own)),
        ("connects", TcpStream::connect("127.0.0.1:1").map(drop)),
        ("sends a datagram", UdpSocket::bind("127.0.0.1:0").map(drop)),
        ("starts a program", Command::new("/bin/true").status().map(drop)),
    ];
    for (what, outcome) in tried {
        let refused = outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        eprintln!("{} {what}: {outcome:?}", if refused { "refused" } else { "POSSIBLE" });
    }
    for (what, call) in REFUSED {
        #[expect(unsafe_code, reason = "there is no other way to make a call at random")]
        // SAFETY: without arguments none of these calls does anything.
        let answer = unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) };
        let error = io::Error::last_os_error();
        let refused = answer == -1 && error.raw_os_error() == Some(libc::EPERM);
        eprintln!("{} {what}: {error}", if refused { "refused" } else { "POSSIBLE" });
    }
    eprintln!("tried");
}

#[test]
fn the_system_refuses_what_a_query_has_no_use_for() {
    let folder = tempfile::tempdir().unwrap();
    let segments = folder.path().join("segments");
    fs::create_dir_all(segments.join("readings")).unwrap();
    fs::write(segments.join("readings/own.parquet"), "own").unwrap();
    fs::write(folder.path().join("forebay.db"), "secret").unwrap();
    let (path, args) = (std::env::current_exe().unwrap(), ["engine::tests::isolation::prisoner", "--exact", "--ignored", "--nocapture"]);
    let output = Command::new(path).args(args).current_dir(segments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let layers = said.lines().find_map(|line| line.split_once("layers ")).map(|(_, layers)| layers).unwrap_or_default();
    if !(layers.contains("seccomp") && layers.contains("landlock")) {
        eprintln!("this kernel grants only {layers:?}: {said}");
        return;
    }
    assert!(said.contains("\ntried\n") && said.contains("a thread runs"), "{said}");
    let possible: Vec<_> = said.lines().filter(|line| line.contains("POSSIBLE")).collect();
    assert!(possible.is_empty(), "{possible:#?}");
    assert_eq!(said.matches("refused").count(), REFUSED.len() + 11, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_layers_that_hold() {
    let (_bench, handle) = Bench::started();
    until("ready", || handle.state().phase() == Phase::Ready).await;
    let layers = handle.state().report().isolation;
    let known = ["seccomp", "landlock", "rlimit"];
    assert!(layers.iter().all(|layer| known.contains(&layer.as_str())), "{layers:?}");
    // Where tests run there is at least a system that limits.
    assert!(layers.iter().any(|layer| layer == "rlimit"), "{layers:?}");
    tracing::info!(?layers, "isolation");
}
