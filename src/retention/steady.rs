//! Whether the wall clock may be believed when it says that something is old. Pure.

use std::time::Duration;

use crate::model::Timestamp;

/// A step of the wall clock against the monotonic one, between two looks, that is a jump and no slew.
const JUMP: Duration = Duration::from_secs(60);

/// Watches the wall clock.
#[derive(Debug, Default)]
pub struct Steady {
    /// Since when it ran evenly, and how it was at the last look.
    run: Option<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    since: Duration,
    wall: Timestamp,
    seen: Duration,
}

impl Steady {
    /// Takes a look at `now` on the monotonic clock; how long the wall clock has been synchronised and without a jump.
    pub fn look(&mut self, wall: Timestamp, now: Duration, synchronised: bool) -> Duration {
        if !synchronised {
            self.run = None;
            return Duration::ZERO;
        }
        let before = self.run.filter(|run| {
            let passed = i128::from(wall.0) - i128::from(run.wall.0);
            (passed - now.saturating_sub(run.seen).as_micros().cast_signed()).unsigned_abs() <= JUMP.as_micros()
        });
        let since = before.map_or(now, |run| run.since);
        self.run = Some(Run { since, wall, seen: now });
        now.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * 86_400;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wall(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    #[test]
    fn a_clock_is_steady_since_it_is_synchronised() {
        let mut steady = Steady::default();
        assert_eq!(steady.look(wall(100), secs(0), false), secs(0));
        assert_eq!(steady.look(wall(YEAR), secs(30), true), secs(0));
        assert_eq!(steady.look(wall(YEAR + 31), secs(60), true), secs(30));
        assert_eq!(steady.look(wall(YEAR + 61), secs(90), false), secs(0));
        assert_eq!(steady.look(wall(YEAR + 91), secs(120), true), secs(0));
    }

    #[test]
    fn a_jump_either_way_begins_anew_and_a_slew_does_not() {
        let mut steady = Steady::default();
        for minute in 0..100 {
            // Half a second fast each half minute.
            let now = secs(30 * minute);
            assert_eq!(steady.look(Timestamp(30_500_000 * minute as i64), now, true), now);
        }
        assert_eq!(steady.look(wall(10 * YEAR), secs(3_000), true), secs(0));
        assert_eq!(steady.look(wall(10 * YEAR + 30), secs(3_030), true), secs(30));
        assert_eq!(steady.look(wall(YEAR), secs(3_060), true), secs(0));
    }
}
