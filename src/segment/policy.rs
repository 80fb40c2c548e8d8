//! When to cut: pure. Time is what has passed since the sealer began, so a jump of the wall clock changes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Segment as Settings;
use crate::model::Seq;

/// How finely ages are known, as a part of the interval: a reading is sealed at most this much early.
const GRAIN: u32 = 16;

/// Observations kept: twice what one interval fills. When full (sealing fails for long) the newest one stretches.
const MAX_SEEN: usize = 2 * GRAIN as usize;

/// On-demand cuts at reconnects are at least this far apart, so that a flapping link does not make small files.
const RECONNECT_PAUSE: Duration = Duration::from_secs(60);

/// Longest time without looking, however quiet the ledger is.
const MAX_TICK: Duration = Duration::from_secs(30);

/// Who wants a cut now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A person or a program: always.
    Flush,
    /// The link came back: at most once a minute.
    Reconnect,
}

/// Why a cut is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Enough readings are hot.
    Readings,
    /// The oldest hot reading, or a record not exported, is old enough.
    Age,
    /// Someone asked.
    Demand,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Age => "age",
            Self::Demand => "demand",
        }
    }
}

/// What is not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Hot {
    /// Highest sealed seq.
    pub(super) mark: Seq,
    /// Highest committed seq.
    pub(super) last_seq: Seq,
    /// Whether a record waits for its export.
    pub(super) records: bool,
}

impl Hot {
    pub(super) fn readings(self) -> u64 {
        self.last_seq.saturating_sub(self.mark)
    }
}

/// All readings through this seq were there at this time.
#[derive(Debug, Clone, Copy)]
struct Seen {
    through: Seq,
    at: Duration,
}

/// Remembers since when readings and records wait.
#[derive(Debug)]
pub(super) struct Policy {
    settings: Settings,
    seen: VecDeque<Seen>,
    records_since: Option<Duration>,
    last_reconnect: Option<Duration>,
    hot: Hot,
}

impl Policy {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, seen: VecDeque::new(), records_since: None, last_reconnect: None, hot: Hot::default() }
    }

    fn interval(&self) -> Duration {
        self.settings.seal_interval.0
    }

    /// Takes note of what is hot at `now`; what is new counts as `age` old.
    pub(super) fn observe(&mut self, now: Duration, hot: Hot, age: Duration) {
        let at = now.saturating_sub(age.min(self.interval()));
        self.hot = hot;
        // After a fork the seqs begin anew.
        if self.seen.back().is_some_and(|seen| seen.through > hot.last_seq) {
            self.seen.clear();
        }
        while self.seen.front().is_some_and(|seen| seen.through <= hot.mark) {
            self.seen.pop_front();
        }
        let grain = self.interval() / GRAIN;
        let full = self.seen.len() >= MAX_SEEN;
        match self.seen.back_mut() {
            _ if hot.readings() == 0 => {}
            Some(last) if last.through == hot.last_seq => {}
            Some(last) if full || now.saturating_sub(last.at) < grain => last.through = hot.last_seq,
            _ => self.seen.push_back(Seen { through: hot.last_seq, at }),
        }
        self.records_since = if hot.records { self.records_since.or(Some(at)) } else { None };
    }

    fn oldest(&self) -> Option<Duration> {
        [self.seen.front().map(|seen| seen.at), self.records_since].into_iter().flatten().min()
    }

    /// Why a cut is due at `now`, if one is.
    pub(super) fn due(&self, now: Duration) -> Option<Why> {
        if self.hot.readings() >= self.settings.seal_readings.max(1) {
            return Some(Why::Readings);
        }
        self.oldest().filter(|oldest| now.saturating_sub(*oldest) >= self.interval()).map(|_| Why::Age)
    }

    /// Whether `demand` is to be met at `now`; counts it as met.
    pub(super) fn admit(&mut self, demand: Demand, now: Duration) -> bool {
        if demand == Demand::Flush {
            return true;
        }
        let due = self.last_reconnect.is_none_or(|last| now.saturating_sub(last) >= RECONNECT_PAUSE);
        if due {
            self.last_reconnect = Some(now);
        }
        due
    }

    /// How long nothing can become due by age alone; records are looked for at least this often.
    pub(super) fn tick(&self, now: Duration) -> Duration {
        let left = self.oldest().map_or(self.interval(), |oldest| self.interval().saturating_sub(now.saturating_sub(oldest)));
        left.clamp(Duration::from_millis(10), MAX_TICK.min(self.interval()).max(Duration::from_millis(10)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Period;

    const INTERVAL: u64 = 300;

    fn policy() -> Policy {
        Policy::new(Settings { seal_interval: Period(secs(INTERVAL)), seal_readings: 1000 })
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hot(mark: Seq, last_seq: Seq) -> Hot {
        Hot { mark, last_seq, records: false }
    }

    #[test]
    fn nothing_hot_is_never_due() {
        let mut policy = policy();
        for hour in 0..100 {
            policy.observe(secs(hour * 3600), hot(50, 50), Duration::ZERO);
            assert_eq!(policy.due(secs(hour * 3600)), None);
        }
    }

    #[test]
    fn enough_readings_are_due_at_once() {
        let mut policy = policy();
        policy.observe(secs(1), hot(0, 999), Duration::ZERO);
        assert_eq!(policy.due(secs(1)), None);
        policy.observe(secs(1), hot(0, 1000), Duration::ZERO);
        assert_eq!(policy.due(secs(1)), Some(Why::Readings));
    }

    #[test]
    fn the_oldest_reading_is_sealed_at_its_age_and_at_most_a_grain_early() {
        let mut policy = policy();
        for second in 1..=INTERVAL {
            policy.observe(secs(second), hot(0, second), Duration::ZERO);
            assert_eq!(policy.due(secs(second)), None, "at {second} s");
        }
        assert_eq!(policy.due(secs(INTERVAL + 1)), Some(Why::Age));
        // A cut through seq 100 leaves readings that were committed from second 101 on.
        policy.observe(secs(INTERVAL + 1), hot(100, INTERVAL + 1), Duration::ZERO);
        let grain = INTERVAL / u64::from(GRAIN) + 1;
        assert_eq!(policy.due(secs(INTERVAL + 101 - grain)), None);
        assert_eq!(policy.due(secs(INTERVAL + 101)), Some(Why::Age));
    }

    #[test]
    fn the_age_known_at_the_start_counts_but_never_beyond_the_interval() {
        let mut young = policy();
        young.observe(secs(INTERVAL), hot(0, 10), secs(100));
        assert_eq!(young.due(secs(INTERVAL + 199)), None);
        assert_eq!(young.due(secs(INTERVAL + 200)), Some(Why::Age));
        let mut jumped = policy();
        jumped.observe(secs(INTERVAL), hot(0, 10), secs(10 * 365 * 86_400));
        assert_eq!(jumped.due(secs(INTERVAL)), Some(Why::Age));
        jumped.observe(secs(INTERVAL), hot(10, 10), Duration::ZERO);
        assert_eq!(jumped.due(secs(INTERVAL)), None);
    }

    #[test]
    fn records_alone_are_due_by_age() {
        let mut policy = policy();
        let waiting = Hot { mark: 5, last_seq: 5, records: true };
        policy.observe(secs(10), waiting, Duration::ZERO);
        policy.observe(secs(200), waiting, Duration::ZERO);
        assert_eq!(policy.due(secs(309)), None);
        assert_eq!(policy.due(secs(310)), Some(Why::Age));
        policy.observe(secs(311), hot(5, 5), Duration::ZERO);
        assert_eq!(policy.due(secs(2000)), None);
    }

    #[test]
    fn reconnects_cut_once_a_minute_and_a_flush_always() {
        let mut policy = policy();
        assert!(policy.admit(Demand::Reconnect, secs(5)));
        assert!(!policy.admit(Demand::Reconnect, secs(64)));
        assert!(policy.admit(Demand::Flush, secs(64)));
        assert!(policy.admit(Demand::Reconnect, secs(65)));
    }

    #[test]
    fn a_fork_begins_the_ages_anew() {
        let mut policy = policy();
        policy.observe(secs(1), hot(500, 900), Duration::ZERO);
        policy.observe(secs(100), hot(0, 400), Duration::ZERO);
        assert_eq!(policy.due(secs(1 + INTERVAL)), None);
        assert_eq!(policy.due(secs(100 + INTERVAL)), Some(Why::Age));
    }

    #[test]
    fn memory_stays_bounded_while_sealing_fails() {
        let mut policy = policy();
        for second in 1..100_000 {
            policy.observe(secs(second), hot(0, second), Duration::ZERO);
        }
        assert!(policy.seen.len() <= MAX_SEEN);
        assert_eq!(policy.seen.back().unwrap().through, 99_999);
    }

    #[test]
    fn the_tick_ends_when_the_oldest_is_due() {
        let mut policy = policy();
        policy.observe(secs(1), hot(0, 1), Duration::ZERO);
        assert_eq!(policy.tick(secs(2)), MAX_TICK);
        assert_eq!(policy.tick(secs(INTERVAL)), secs(1));
        assert_eq!(policy.tick(secs(10 * INTERVAL)), Duration::from_millis(10));
    }
}
