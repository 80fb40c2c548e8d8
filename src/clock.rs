//! The clock: wall time, and whether to believe it.

use std::sync::Arc;

use crate::model::{TimeSource, Timestamp};

/// Where the time comes from; tests bring their own.
pub trait Clock: Send + Sync {
    /// Wall time, UTC.
    fn now(&self) -> Timestamp;

    /// Whether the kernel says that something disciplines it.
    fn synchronised(&self) -> bool;

    /// How a reading without a time of its own is marked now.
    fn arrival_source(&self) -> TimeSource {
        if self.synchronised() { TimeSource::Gateway } else { TimeSource::Unsynchronised }
    }
}

/// A clock that rooms share.
pub type SharedClock = Arc<dyn Clock>;

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now();
        let micros = match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Timestamp(micros)
    }

    /// timesyncd's and chrony's flag file, or the kernel's own state. Unknown counts as not synchronised.
    fn synchronised(&self) -> bool {
        std::path::Path::new("/run/systemd/timesync/synchronized").exists() || kernel_synchronised()
    }
}

/// adjtimex(2), asked through its read-only form; `false` where the service manager forbids it.
#[cfg(target_os = "linux")]
fn kernel_synchronised() -> bool {
    #[expect(unsafe_code, reason = "adjtimex has no safe wrapper; an all-zero timex asks and changes nothing")]
    // SAFETY: `timex` is plain integers, valid when zero, and outlives the call.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    state >= 0 && state != libc::TIME_ERROR
}
