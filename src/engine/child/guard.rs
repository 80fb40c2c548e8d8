//! The guard of a query: interrupts it at its limit, and when its asker is gone.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duckdb::InterruptHandle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// It polls and interrupts.
const STACK_BYTES: usize = 128 << 10;

/// Between two interrupts: one that comes between two statements is forgotten.
const INTERRUPT_GAP: Duration = Duration::from_millis(50);

/// After its limit a query has this long to say so; then its socket is closed, which ends a write to a slow reader.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A guard on duty.
pub struct Guard {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    ended: AtomicBool,
    expired: AtomicBool,
}

impl Guard {
    /// Sets a guard for a query that answers on `socket`.
    ///
    /// # Errors
    /// No thread or descriptor is left.
    pub fn set(interrupt: Arc<InterruptHandle>, socket: &UnixStream, limit: Duration) -> io::Result<Self> {
        let (guard, socket) = (Self { seen: Arc::default() }, socket.try_clone()?);
        let seen = Arc::clone(&guard.seen);
        let watch = move || watch(&interrupt, &socket, limit, &seen);
        thread::Builder::new().name("guard".to_owned()).stack_size(STACK_BYTES).spawn(watch)?;
        Ok(guard)
    }

    /// Whether the limit was reached.
    pub fn expired(&self) -> bool {
        self.seen.expired.load(Ordering::Acquire)
    }

    /// The query has ended: the end of its socket wakes the guard.
    pub fn lift(self, socket: &UnixStream) {
        self.seen.ended.store(true, Ordering::Release);
        // The other end may have done so before.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn watch(interrupt: &InterruptHandle, socket: &UnixStream, limit: Duration, seen: &Seen) {
    if !hangs_up_within(socket, limit) {
        seen.expired.store(true, Ordering::Release);
    }
    let close = Instant::now() + LAST_WORDS;
    while !seen.ended.load(Ordering::Acquire) {
        interrupt.interrupt();
        if Instant::now() >= close {
            // As above.
            let _ = socket.shutdown(Shutdown::Both);
        }
        thread::sleep(INTERRUPT_GAP);
    }
}

/// Whether the other end is closed, or ours shut down, before `limit` has passed.
fn hangs_up_within(socket: &UnixStream, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut ends = [PollFd::new(socket, PollFlags::RDHUP)];
        if poll(&mut ends, Some(&timeout)).is_ok_and(|ready| ready > 0) {
            return true;
        }
    }
}
