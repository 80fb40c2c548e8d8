//! When to cut: pure. Time is what has passed since the sealer began, so a jump of the wall clock changes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Segment as Settings;
use crate::model::Seq;

/// How finely ages are known, as a part of the interval: a reading is sealed at most this much early.
const GRAIN: u32 = 16;

/// Observations kept: twice what one interval fills. When full (sealing fails for long) the newest one stretches.
const MAX_SEEN: usize = 2 * GRAIN as usize;

/// Cuts at reconnects, on average: a link that flaps for days must not make small files without end.
const RECONNECT_PAUSE: Duration = Duration::from_secs(60);

/// Cuts at reconnects that may be made in advance of that: a link that flaps for a while gets one each time.
const RECONNECT_BURST: u32 = 20;

/// Longest time without looking, however quiet the ledger is.
const MAX_TICK: Duration = Duration::from_secs(30);

/// Who wants a cut now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A person or a program: always.
    Flush,
    /// The engine, which can't hold what is hot: always.
    Engine,
    /// Retention, which has nothing else to let go of: always, and without waiting for room.
    Room,
    /// The link came back: at once, but on average at most once a minute; beyond that as soon as it is due.
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
    /// When all cuts at reconnects so far are paid for, at one a minute.
    reconnects_paid: Duration,
    /// A reconnect whose cut has to wait: what was hot then, and until when.
    postponed: Option<Seen>,
    hot: Hot,
}

impl Policy {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, seen: VecDeque::new(), records_since: None, reconnects_paid: Duration::ZERO, postponed: None, hot: Hot::default() }
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
        // After a fork too: what was hot then is numbered anew, and is sealed by its age.
        self.postponed = self.postponed.filter(|wish| hot.mark < wish.through && wish.through <= hot.last_seq);
    }

    fn oldest(&self) -> Option<Duration> {
        [self.seen.front().map(|seen| seen.at), self.records_since].into_iter().flatten().min()
    }

    /// Why a cut is due at `now`, if one is.
    pub(super) fn due(&self, now: Duration) -> Option<Why> {
        if self.hot.readings() >= self.settings.seal_readings.max(1) {
            return Some(Why::Readings);
        }
        if self.postponed.is_some_and(|wish| now >= wish.at) {
            return Some(Why::Demand);
        }
        self.oldest().filter(|oldest| now.saturating_sub(*oldest) >= self.interval()).map(|_| Why::Age)
    }

    /// Whether `demand` is to be met at `now`; counts it as met, or remembers it until it is due.
    pub(super) fn admit(&mut self, demand: Demand, now: Duration) -> bool {
        if demand != Demand::Reconnect {
            return true;
        }
        let at = self.reconnects_paid.saturating_sub(RECONNECT_PAUSE * (RECONNECT_BURST - 1));
        if now < at {
            self.postponed = Some(Seen { through: self.hot.last_seq, at }).filter(|wish| wish.through > self.hot.mark);
            return false;
        }
        self.postponed = None;
        self.reconnects_paid = self.reconnects_paid.max(now) + RECONNECT_PAUSE;
        true
    }

    /// How long nothing can become due by age alone; records are looked for at least this often.
    pub(super) fn tick(&self, now: Duration) -> Duration {
        let wish = self.postponed.map_or(MAX_TICK, |wish| wish.at.saturating_sub(now));
        let left = self.oldest().map_or(self.interval(), |oldest| self.interval().saturating_sub(now.saturating_sub(oldest)));
        left.min(wish).clamp(Duration::from_millis(10), MAX_TICK.min(self.interval()).max(Duration::from_millis(10)))
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
    fn a_link_that_flaps_every_20_seconds_gets_its_cuts_for_minutes_and_then_one_a_minute() {
        let mut policy = policy();
        let at_once = |policy: &mut Policy, seconds: std::ops::Range<u64>| {
            seconds
                .step_by(20)
                .filter(|second| {
                    policy.observe(secs(*second), hot(0, 10 + second), Duration::ZERO);
                    policy.admit(Demand::Reconnect, secs(*second))
                })
                .count()
        };
        assert_eq!(at_once(&mut policy, 1000..1000 + 29 * 20), 29, "one each time");
        assert_eq!(at_once(&mut policy, 2000..3200), 7 + 20, "then what is left, and one a minute");
        assert_eq!(at_once(&mut policy, 3200..3800), 10);
        assert!(policy.admit(Demand::Flush, secs(3800)), "a flush always");
    }

    #[test]
    fn a_reconnect_beyond_the_limit_gets_its_cut_when_it_is_due() {
        let mut policy = policy();
        policy.observe(secs(100), hot(0, 10), Duration::ZERO);
        for _ in 0..RECONNECT_BURST {
            assert!(policy.admit(Demand::Reconnect, secs(100)));
        }
        assert!(!policy.admit(Demand::Reconnect, secs(110)));
        assert_eq!((policy.due(secs(159)), policy.tick(secs(150))), (None, secs(10)));
        assert_eq!(policy.due(secs(160)), Some(Why::Demand));
        assert!(policy.admit(Demand::Reconnect, secs(160)), "whoever makes the cut counts it");
        assert_eq!(policy.due(secs(160)), None);
        // What a seal meanwhile took is not wanted any more.
        assert!(!policy.admit(Demand::Reconnect, secs(170)));
        policy.observe(secs(180), hot(10, 15), Duration::ZERO);
        assert_eq!(policy.due(secs(250)), None);
        // Nor is anything where nothing was hot.
        policy.observe(secs(185), hot(15, 15), Duration::ZERO);
        assert!(!policy.admit(Demand::Reconnect, secs(190)));
        policy.observe(secs(195), hot(15, 16), Duration::ZERO);
        assert_eq!(policy.due(secs(260)), None);
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
