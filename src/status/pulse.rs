//! Progress: whether what came in gets committed. Being alive is not enough to feed a watchdog.

use std::time::{Duration, Instant};

/// How long work may lie without a step before the daemon counts as stuck. A card may stall a write for more than ten
/// seconds, and a restart during such a stall only begins the next one.
pub const STALL_LIMIT: Duration = Duration::from_secs(90);

/// How far the commits have come, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pulse {
    /// Grows with every step: a commit, another attempt on a full disk (a restart would not make room).
    pub steps: u64,
    /// Whether something waits for the next step.
    pub waiting: bool,
}

/// Remembers since when no step was made although something waits.
#[derive(Debug, Clone, Copy)]
pub struct PulseWatch {
    steps: u64,
    since: Instant,
}

impl PulseWatch {
    /// Begins to watch.
    pub fn new(now: Instant) -> Self {
        Self { steps: 0, since: now }
    }

    /// Looks at the pulse; answers how long work has been waiting without a step.
    pub fn look(&mut self, pulse: Pulse, now: Instant) -> Duration {
        if !pulse.waiting || pulse.steps != self.steps {
            *self = Self { steps: pulse.steps, since: now };
        }
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waiting_work_without_a_step_counts_from_the_last_step() {
        let start = Instant::now();
        let mut watch = PulseWatch::new(start);
        assert_eq!(watch.look(Pulse { steps: 5, waiting: true }, start + SECOND), Duration::ZERO);
        assert_eq!(watch.look(Pulse { steps: 5, waiting: true }, start + 4 * SECOND), 3 * SECOND);
        assert_eq!(watch.look(Pulse { steps: 6, waiting: true }, start + 5 * SECOND), Duration::ZERO);
    }

    #[test]
    fn nothing_to_do_is_not_a_stall() {
        let start = Instant::now();
        let mut watch = PulseWatch::new(start);
        watch.look(Pulse { steps: 1, waiting: false }, start);
        assert_eq!(watch.look(Pulse { steps: 1, waiting: false }, start + 1000 * SECOND), Duration::ZERO);
        assert_eq!(watch.look(Pulse { steps: 1, waiting: true }, start + 1001 * SECOND), SECOND);
    }
}
