//! What keeps the child in its place.
//!
//! Its environment is empty and it inherits one socket. Here: it ends with the daemon, yields to it, and can't take more
//! address space than it needs.

use std::os::fd::AsFd;
use std::{fs, io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setpriority_process, setrlimit};

use crate::engine::process::memory_line;

/// Address space beside DuckDB's memory: stacks of query threads, answers on their way, the allocator's own.
const SPACE_BESIDE: u64 = 192 << 20;

/// The daemon goes first: a query is never worth a reading.
const NICENESS: i32 = 5;

/// It calls poll and kill.
const LIFELINE_STACK_BYTES: usize = 128 << 10;

/// Ends this process when the daemon is gone, whatever the other threads are doing: a thread waits for nothing but the
/// end of the control socket. A parent-death signal would come when the daemon's *thread* that started this process ends,
/// which with an asynchronous runtime can be any time.
///
/// # Errors
/// No thread or descriptor is left.
pub fn end_with_the_daemon(control: &impl AsFd) -> io::Result<()> {
    let socket = control.as_fd().try_clone_to_owned()?;
    thread::Builder::new().name("lifeline".to_owned()).stack_size(LIFELINE_STACK_BYTES).spawn(move || {
        loop {
            let mut ends = [PollFd::new(&socket, PollFlags::RDHUP)];
            if poll(&mut ends, None).is_ok_and(|ready| ready > 0) {
                // There is nothing to put in order, and exit handlers must not run beside DuckDB's threads.
                let _ = kill_process(getpid(), Signal::KILL);
            }
        }
    })?;
    Ok(())
}

/// Leaves it to the daemon when this process ends: a terminal's Ctrl-C and a service manager's stop reach both, and queries
/// are answered until the doors close.
pub fn leave_the_end_to_the_daemon() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        #[expect(unsafe_code, reason = "signal has no safe wrapper")]
        // SAFETY: to ignore a signal installs no handler, and no other thread runs yet.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

/// Closes what whoever started the daemon left open in it, but for the standard streams: a descriptor is a way out that no
/// later layer takes away.
pub fn close_what_was_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    // Collected first: the listing itself is a descriptor, which is closed with it.
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > libc::STDERR_FILENO) {
        #[expect(unsafe_code, reason = "a descriptor that nothing here owns can only be closed by its number")]
        // SAFETY: called first in the process, before anything of it owns a descriptor. One that is gone is no harm.
        unsafe {
            libc::close(descriptor);
        }
    }
}

/// Limits this process, whose DuckDB is open; says which layers hold. A layer that the system does not grant is left out.
///
/// # Errors
/// The process can't read its own status.
pub fn limit(memory_bytes: u64) -> io::Result<Vec<String>> {
    let mut layers = Vec::new();
    // Neither is a layer: where they are refused, nothing gets out.
    let _ = setpriority_process(None, NICENESS);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Below what it has already, every query would fail: the limit is on top of it.
    let status = fs::read_to_string("/proc/self/status")?;
    if let Some(space) = memory_line(&status, "VmSize:") {
        let bytes = Some(space.saturating_add(memory_bytes).saturating_add(SPACE_BESIDE));
        if setrlimit(Resource::As, Rlimit { current: bytes, maximum: bytes }).is_ok() {
            layers.push("rlimit".to_owned());
        }
    }
    Ok(layers)
}
