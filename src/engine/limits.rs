//! What the engine may take: the settings, with the machine's answer where they leave it open.

use std::time::Duration;

use super::hot::HotLimits;
use crate::config;

/// DuckDB's memory where the settings name none: a fifth of the machine's, at most this.
const MAX_DEFAULT_MEMORY: u64 = 192 << 20;

/// Below this DuckDB can't even open a hundred segments.
const MIN_MEMORY: u64 = 32 << 20;

/// From this much memory on, two threads.
const TWO_THREADS: u64 = 1 << 30;

/// The limits of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// DuckDB's memory.
    pub memory_bytes: u64,
    /// DuckDB's threads.
    pub threads: usize,
    /// Longest query.
    pub query_timeout: Duration,
    /// Most queries at a time.
    pub max_queries: usize,
    /// Longest answer.
    pub max_answer_bytes: u64,
}

/// Parts of DuckDB's memory: from the one on what is hot should be sealed, beyond the other it is not fed. Until DuckDB tidies
/// up, what was sealed stands in the table beside it, and queries need the rest.
const HOT_SHARES: (u64, u64) = (4, 3);

impl Limits {
    /// The limits of `settings` on a machine with `machine_bytes` of memory.
    pub fn of(settings: &config::Engine, machine_bytes: u64) -> Self {
        let memory_bytes = match settings.memory.0 {
            0 => (machine_bytes / 5).min(MAX_DEFAULT_MEMORY),
            bytes => bytes,
        };
        let threads = match settings.threads {
            // A machine that calls itself 1 GiB shows some less.
            0 if machine_bytes < TWO_THREADS / 10 * 9 => 1,
            0 => 2,
            threads => threads,
        };
        Self {
            memory_bytes: memory_bytes.max(MIN_MEMORY),
            threads,
            query_timeout: settings.query_timeout.0,
            max_queries: settings.max_concurrent_queries.max(1),
            max_answer_bytes: if settings.max_answer.0 == 0 { u64::MAX } else { settings.max_answer.0 },
        }
    }

    /// How much of what is hot DuckDB holds.
    pub fn hot(&self) -> HotLimits {
        HotLimits { heavy: self.memory_bytes / HOT_SHARES.0, most: self.memory_bytes / HOT_SHARES.1 }
    }
}

/// Bytes of memory that this machine has.
pub fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    #[cfg_attr(target_pointer_width = "64", expect(clippy::useless_conversion, reason = "32 bits wide on 32-bit machines"))]
    let total = u64::from(info.totalram);
    total.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    const MIB: u64 = 1 << 20;

    #[test]
    fn open_settings_are_answered_by_the_machine() {
        for (machine, memory, threads) in [(64, 32, 1), (512, 102, 1), (900, 180, 1), (1000, 192, 2), (8192, 192, 2)] {
            let limits = Limits::of(&config::Engine::default(), machine * MIB);
            assert_eq!((limits.memory_bytes / MIB, limits.threads), (memory, threads), "{machine} MiB");
        }
    }

    #[test]
    fn settings_that_say_something_hold() {
        let settings = config::Engine { memory: ByteSize(1024 * MIB), threads: 3, ..config::Engine::default() };
        let limits = Limits::of(&settings, 512 * MIB);
        assert_eq!((limits.memory_bytes, limits.threads), (1024 * MIB, 3));
        assert!(machine_memory() > 64 * MIB);
    }
}
