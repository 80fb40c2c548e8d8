//! Whether a sender waits for its acknowledgements, so that a commit need not wait for its interval.
//!
//! A sender may have only so many messages unacknowledged: its window. Once the window is full it is silent until we
//! acknowledge, and every millisecond the commit waits is lost to it. A sensor that publishes at its own pace gains
//! nothing from a hurried commit, and the flash pays for it.
//!
//! At QoS 2 a message counts until it is complete, and twice it is the sender that waits: for our receipt (PUBREC), and,
//! when it has released all that we asked it to release (PUBREL), for its end (PUBCOMP). Both wait for a commit.
//!
//! A broker's window is configured. A sensor's is learned: when it was silent with `n` messages unacknowledged, and the next
//! one follows at once when all are acknowledged, it had been waiting, and `n` is its window. From then on commits come at
//! once, and a sender that waits can no longer be told from one that publishes every few milliseconds at its own pace. So
//! now and then a commit is held for a moment: a sender that waits is silent, and one that publishes on does not wait.

use std::time::Duration;

use tokio::time::Instant;

use super::delivery::Hurry;

/// How soon after its acknowledgement a sender that waited publishes again: a round trip on a poor Wi-Fi and a little
/// work. It is less than [`Hurry::LOOK`], so that no even pace looks like waiting twice.
const FOLLOWS_AT_ONCE: Duration = Duration::from_millis(20);

/// How long commits are hurried for a sender before one is held, to see whether it still waits: that costs one that does a
/// thirtieth of its speed.
const TRUSTED: Duration = Duration::from_secs(2);

/// What is known of a sender's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Set by configuration.
    Fixed(usize),
    /// Seen at work, when it was silent for long enough to prove it.
    Learned { size: usize, proven: Instant },
    /// Not known, or the sender does not wait.
    Unknown,
}

/// One sender's window, and how full it is. Pure: the caller brings the time.
#[derive(Debug, Clone)]
pub struct Window {
    size: Size,
    unacknowledged: usize,
    /// The most that was unacknowledged since everything was acknowledged last.
    outstanding: usize,
    /// When the sender did something last.
    heard: Option<Instant>,
    /// When everything was acknowledged, if nothing was published since.
    emptied: Option<Instant>,
    /// Messages that the sender was asked to release, and did not yet.
    asked: usize,
}

impl Window {
    /// Of a sender of which nothing is known yet.
    pub fn learning() -> Self {
        Self::of(Size::Unknown)
    }

    /// Of a broker that keeps at most `inflight` messages unacknowledged; 0 means no limit.
    pub fn fixed(inflight: usize) -> Self {
        Self::of(Size::Fixed(if inflight == 0 { usize::MAX } else { inflight }))
    }

    fn of(size: Size) -> Self {
        Self { size, unacknowledged: 0, outstanding: 0, heard: None, emptied: None, asked: 0 }
    }

    /// Messages that wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// A message that wants an acknowledgement came; whether its commit should hurry.
    pub fn published(&mut self, now: Instant) -> Hurry {
        if let (Some(emptied), Some(heard)) = (self.emptied.take(), self.heard) {
            self.learn(emptied, emptied.duration_since(heard), now.duration_since(emptied));
            self.outstanding = 0;
        }
        self.heard = Some(now);
        if matches!(self.size, Size::Learned { size, .. } if self.unacknowledged >= size) {
            // It publishes on: this is not where it waits, if it does.
            self.size = Size::Unknown;
        }
        self.unacknowledged += 1;
        self.outstanding = self.outstanding.max(self.unacknowledged);
        self.hurry(now)
    }

    fn hurry(&self, now: Instant) -> Hurry {
        match self.size {
            Size::Fixed(size) if self.unacknowledged >= size => Hurry::Now,
            Size::Learned { size, proven } if self.unacknowledged >= size => {
                if now.duration_since(proven) < TRUSTED {
                    Hurry::Now
                } else {
                    Hurry::Soon
                }
            }
            _ => Hurry::No,
        }
    }

    /// From a round that is over: the sender was silent before everything was acknowledged, and then paused until it published
    /// again.
    fn learn(&mut self, emptied: Instant, silence: Duration, pause: Duration) {
        self.size = match self.size {
            Size::Fixed(_) => return,
            _ if pause > FOLLOWS_AT_ONCE => Size::Unknown,
            _ if silence >= Hurry::LOOK => Size::Learned { size: self.outstanding, proven: emptied },
            // Hurried, or for others' sake: nothing is learned from that.
            known => known,
        };
    }

    /// The sender was asked to release `count` messages: it is its turn.
    pub fn asked(&mut self, count: usize) {
        self.asked += count;
    }

    /// The sender released a message; whether the commit of that should hurry: there is nothing left for it to do.
    pub fn released(&mut self, now: Instant) -> Hurry {
        self.heard = Some(now);
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 { self.hurry(now) } else { Hurry::No }
    }

    /// The oldest `count` messages were acknowledged. A batch's may come one by one: what counts is the peak before.
    pub fn acknowledged(&mut self, count: usize, now: Instant) {
        let before = self.unacknowledged;
        self.unacknowledged = before.saturating_sub(count);
        if self.unacknowledged == 0 && before > 0 {
            self.emptied = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_millis(5);
    const INTERVAL: Duration = Duration::from_secs(1);
    const ROUND_TRIP: Duration = Duration::from_millis(3);

    /// Plays senders against a pump that commits at once when hurried and after the interval otherwise.
    struct Play {
        window: Window,
        now: Instant,
        oldest: Option<Instant>,
        commits: usize,
    }

    impl Play {
        fn new(window: Window) -> Self {
            Self { window, now: Instant::now(), oldest: None, commits: 0 }
        }

        fn publish(&mut self) -> Hurry {
            self.oldest.get_or_insert(self.now);
            self.window.published(self.now)
        }

        fn commit(&mut self) {
            self.now += COMMIT;
            self.commits += 1;
            self.oldest = None;
            self.window.acknowledged(self.window.unacknowledged(), self.now);
        }

        /// A sender that waits whenever `size` messages are unacknowledged; returns the time `messages` take.
        fn waiting_sender(&mut self, size: usize, messages: usize) -> Duration {
            let begun = self.now;
            for _ in 0..messages / size {
                let hurry = (0..size).map(|_| self.publish()).last().unwrap();
                self.now += hurry.patience().unwrap_or(INTERVAL);
                self.commit();
                self.now += ROUND_TRIP;
            }
            self.now - begun
        }

        /// The same at QoS 2: each message takes two commits.
        fn waiting_sender_at_qos_2(&mut self, size: usize, messages: usize) -> Duration {
            let begun = self.now;
            for _ in 0..messages / size {
                let published = (0..size).map(|_| self.publish()).last().unwrap();
                self.now += COMMIT + published.patience().unwrap_or(INTERVAL);
                self.window.asked(size);
                self.now += ROUND_TRIP;
                let hurried: Vec<Hurry> = (0..size).map(|_| self.window.released(self.now)).collect();
                let (last, before) = hurried.split_last().unwrap();
                assert!(before.iter().all(|hurry| *hurry == Hurry::No), "it has more to release");
                self.now += last.patience().unwrap_or(INTERVAL);
                self.commit();
                self.now += ROUND_TRIP;
            }
            self.now - begun
        }

        /// A sender that publishes every `pace` whatever we do.
        fn paced_sender(&mut self, pace: Duration, messages: usize) {
            for _ in 0..messages {
                let hurry = self.publish();
                let due = self.oldest.is_some_and(|oldest| self.now - oldest >= INTERVAL);
                let next = self.now + pace;
                if due || hurry.patience().is_some_and(|patience| patience < pace) {
                    self.commit();
                }
                self.now = self.now.max(next);
            }
        }
    }

    /// Commits in a minute of ten sensors that publish every `pace_ms` and share their commits. Each loses the network for
    /// 80 ms every 7 s, and then sends what has waited.
    fn commits_of_ten(pace_ms: u64) -> usize {
        let begun = Instant::now();
        let mut windows = vec![Window::learning(); 10];
        let (mut due, mut under_way, mut commits) = (None::<Instant>, None::<(Instant, Vec<usize>)>, 0);
        for millis in 0..60_000 {
            let now = begun + Duration::from_millis(millis);
            if let Some((_, counts)) = under_way.take_if(|(done, _)| *done <= now) {
                windows.iter_mut().zip(counts).for_each(|(window, count)| window.acknowledged(count, now));
            }
            for (place, window) in (0..).zip(&mut windows) {
                let offline = |millis: u64| (millis + 700 * place) % 7000 < 80;
                let messages = match (offline(millis), millis > 0 && offline(millis - 1)) {
                    (true, _) => 0,
                    (false, true) => 80 / pace_ms,
                    (false, false) => u64::from((millis + place).is_multiple_of(pace_ms)),
                };
                for _ in 0..messages {
                    let wanted = now + window.published(now).patience().unwrap_or(INTERVAL);
                    due = Some(due.map_or(wanted, |due| due.min(wanted)));
                }
            }
            if under_way.is_none() && due.take_if(|due| *due <= now).is_some() {
                under_way = Some((now + COMMIT, windows.iter().map(Window::unacknowledged).collect()));
                commits += 1;
            }
        }
        commits
    }

    #[test]
    fn busy_sensors_that_share_commits_do_not_hurry_each_other() {
        for pace_ms in [5, 10, 20, 25, 50, 100] {
            let commits = commits_of_ten(pace_ms);
            assert!(commits <= 90, "every {pace_ms} ms: {commits} commits in 60 s");
        }
    }

    #[test]
    fn a_sender_taken_for_waiting_by_mistake_is_found_out() {
        let mut play = Play::new(Window::learning());
        play.window.size = Size::Learned { size: 2, proven: play.now };
        play.paced_sender(Duration::from_millis(10), 20_000);
        assert!(play.commits < 350, "{} commits in 200 s", play.commits);
    }

    #[test]
    fn looking_whether_a_sender_still_waits_costs_it_little() {
        let mut play = Play::new(Window::learning());
        let took = play.waiting_sender(1, 1000);
        assert!(took < INTERVAL + 1000 * (COMMIT + ROUND_TRIP) + Hurry::LOOK * 5, "{took:?}");
    }

    #[test]
    fn a_waiting_sender_waits_for_one_interval_and_never_again() {
        for size in [1, 2, 20, 1000] {
            let mut play = Play::new(Window::learning());
            let took = play.waiting_sender(size, size * 50);
            assert!(took < INTERVAL + 50 * (COMMIT + ROUND_TRIP) + COMMIT, "window {size} took {took:?}");
        }
    }

    #[test]
    fn at_qos_2_a_waiting_sender_waits_for_two_intervals_and_never_again() {
        for size in [1, 20] {
            let mut play = Play::new(Window::learning());
            let took = play.waiting_sender_at_qos_2(size, size * 50);
            assert!(took < 2 * INTERVAL + 100 * (COMMIT + ROUND_TRIP) + COMMIT, "window {size} took {took:?}");
        }
        let mut paced = Window::learning();
        paced.published(Instant::now());
        paced.asked(1);
        assert_eq!(paced.released(Instant::now()), Hurry::No, "of a sender that may not wait nothing is hurried");
    }

    #[test]
    fn a_paced_sender_gets_about_one_commit_an_interval() {
        for (pace_ms, messages, most) in [(100, 1000, 110), (1000, 100, 100), (50, 1000, 60), (25, 4000, 110)] {
            let mut play = Play::new(Window::learning());
            play.paced_sender(Duration::from_millis(pace_ms), messages);
            assert!(play.commits <= most, "every {pace_ms} ms: {} commits for {messages} messages", play.commits);
        }
    }

    #[test]
    fn a_sender_that_stops_waiting_is_no_longer_hurried_for() {
        let mut play = Play::new(Window::learning());
        play.waiting_sender(1, 100);
        let before = play.commits;
        play.paced_sender(Duration::from_millis(100), 100);
        assert!(play.commits - before <= 12, "{} commits in 10 s", play.commits - before);
    }

    #[test]
    fn a_window_that_grows_is_found_and_one_that_shrinks_too() {
        let mut play = Play::new(Window::learning());
        play.waiting_sender(4, 400);
        for size in [16, 3] {
            let took = play.waiting_sender(size, size * 100);
            assert!(took < 3 * INTERVAL + 100 * (COMMIT + ROUND_TRIP), "window {size} took {took:?}");
        }
    }

    #[test]
    fn who_publishes_on_while_the_window_counts_as_full_does_not_wait_there() {
        let mut play = Play::new(Window::learning());
        play.waiting_sender(2, 10);
        assert_eq!([play.publish(), play.publish(), play.publish()], [Hurry::No, Hurry::Now, Hurry::No]);
        assert_eq!(play.window.size, Size::Unknown);
    }

    #[test]
    fn acknowledgements_one_by_one_teach_the_same_as_all_at_once() {
        let mut window = Window::learning();
        let now = Instant::now();
        for _ in 0..5 {
            window.published(now);
        }
        for _ in 0..5 {
            window.acknowledged(1, now + INTERVAL);
        }
        window.published(now + INTERVAL + ROUND_TRIP);
        assert_eq!(window.size, Size::Learned { size: 5, proven: now + INTERVAL });
    }

    #[test]
    fn a_message_during_the_commit_means_that_nobody_waited() {
        let mut window = Window::learning();
        let now = Instant::now();
        for _ in 0..3 {
            window.published(now);
        }
        window.acknowledged(2, now + INTERVAL);
        window.published(now + INTERVAL);
        assert_eq!(window.size, Size::Unknown);
        assert_eq!(window.unacknowledged(), 2);
    }

    #[test]
    fn a_known_window_hurries_exactly_when_it_is_full() {
        let mut window = Window::fixed(3);
        let now = Instant::now();
        let hurry = [window.published(now), window.published(now), window.published(now)];
        assert_eq!(hurry, [Hurry::No, Hurry::No, Hurry::Now]);
        window.acknowledged(1, now);
        assert_eq!(window.published(now), Hurry::Now, "it is full again");
        let mut endless = Window::fixed(0);
        assert!((0..100_000).all(|_| endless.published(now) == Hurry::No));
    }
}
