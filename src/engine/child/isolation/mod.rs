//! What keeps the child in its place.
//!
//! Its environment is empty and it inherits one socket. Here: it ends with the daemon and yields to it, it can open the
//! segments for reading and no other file, it can make no socket, start no program and signal nobody, and it can't take
//! more address space than it needs. A unit of its own adds a user, and a file system with nothing else. A layer
//! that the system does not grant is left out, and status names those that hold.

mod calls;
mod files;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, geteuid, setpriority_process, setrlimit};

use crate::engine::child::control::Events;
use crate::engine::process::memory_line;
use crate::engine::protocol::Event;

/// Address space beside DuckDB's memory: stacks of query threads, answers on their way, the allocator's own.
const SPACE_BESIDE: u64 = 192 << 20;

/// The daemon goes first: a query is never worth a reading.
const NICENESS: i32 = 5;

/// For the threads that poll or sleep, and little else.
const STACK_BYTES: usize = 128 << 10;

/// How often it tells its memory.
const MEMORY_GAP: Duration = Duration::from_secs(5);

/// A process's status is shorter than this.
const STATUS_BYTES: usize = 8 << 10;

/// The layers that hold, one after the other.
pub struct Isolation {
    /// Opened while it can be.
    status: File,
    landlock: bool,
    /// The segments are another user's.
    user: bool,
}

impl Isolation {
    /// Lets this process read the current folder, and next to nothing else. No thread may run yet: those that do stay
    /// outside, and DuckDB reads on threads of its own.
    ///
    /// # Errors
    /// The process can't read its own status.
    pub fn begin() -> io::Result<Self> {
        let status = File::open("/proc/self/status")?;
        let landlock = files::restrict().unwrap_or_else(|error| {
            eprintln!("forebay engine: no Landlock: {error}");
            false
        });
        let user = fs::metadata("readings").is_ok_and(|folder| folder.uid() != geteuid().as_raw());
        Ok(Self { status, landlock, user })
    }

    /// Bounds what this process, whose DuckDB is open, can take and ask of the kernel; says which layers hold.
    ///
    /// # Errors
    /// The process can't read its own status.
    pub fn complete(&self, memory_bytes: u64) -> io::Result<Vec<String>> {
        // Neither is a layer: where they are refused, nothing gets out.
        let _ = setpriority_process(None, NICENESS);
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let rlimit = self.limit_space(memory_bytes)?;
        let seccomp = calls::restrict().inspect_err(|error| eprintln!("forebay engine: no seccomp: {error}")).is_ok();
        let layers = [("seccomp", seccomp), ("landlock", self.landlock), ("rlimit", rlimit), ("user", self.user)];
        Ok(layers.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name.to_owned()).collect())
    }

    /// Below the address space that it has already, every query would fail: the limit is on top of that.
    fn limit_space(&self, memory_bytes: u64) -> io::Result<bool> {
        let Some(space) = self.memory("VmSize:")? else { return Ok(false) };
        let limit = Some(space.saturating_add(memory_bytes).saturating_add(SPACE_BESIDE));
        Ok(setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).is_ok())
    }

    /// Tells the daemon now and then how much memory this process has.
    ///
    /// # Errors
    /// No thread is left.
    pub fn tell_memory(self, events: Events) -> io::Result<()> {
        thread::Builder::new().name("memory".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            while let Ok(Some(rss_bytes)) = self.memory("VmRSS:") {
                // Where the daemon is gone this process ends.
                let _ = events.send(&Event::Memory { rss_bytes });
                thread::sleep(MEMORY_GAP);
            }
        })?;
        Ok(())
    }

    /// The bytes that the line `name` of this process's status names.
    fn memory(&self, name: &str) -> io::Result<Option<u64>> {
        let mut bytes = [0; STATUS_BYTES];
        let length = self.status.read_at(&mut bytes, 0)?;
        Ok(memory_line(&String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()), name))
    }
}

/// Ends this process when the daemon is gone, whatever the other threads are doing: a thread waits for nothing but the
/// end of the control socket. A parent-death signal would come when the daemon's *thread* that started this process ends,
/// which with an asynchronous runtime can be any time.
///
/// # Errors
/// No thread or descriptor is left.
pub fn end_with_the_daemon(control: &impl AsFd) -> io::Result<()> {
    let socket = control.as_fd().try_clone_to_owned()?;
    thread::Builder::new().name("lifeline".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        loop {
            let mut ends = [PollFd::new(&socket, PollFlags::RDHUP)];
            if poll(&mut ends, None).is_ok_and(|ready| ready > 0) {
                #[expect(unsafe_code, reason = "_exit has no safe wrapper")]
                // SAFETY: it does not return and runs no exit handler, which must not run beside DuckDB's threads.
                unsafe {
                    libc::_exit(0)
                }
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
