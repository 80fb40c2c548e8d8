//! Whether a sender waits for its acknowledgements, so that a commit need not wait for its interval.
//!
//! A sender may have only so many messages unacknowledged: its window. Once the window is full it is silent until we
//! acknowledge, and every millisecond the commit waits is lost to it. A sensor that publishes at its own pace gains
//! nothing from a hurried commit, and the flash pays for it.
//!
//! At QoS 2 a message counts until it is complete, and twice it is the sender that waits: for our receipt (PUBREC), and,
//! when it has released all that we asked it to release (PUBREL), for its end (PUBCOMP). Both wait for a commit.
//!
//! A broker's window is configured. A sensor's is learned: when everything was acknowledged with `n` messages
//! outstanding and the next one follows at once, the sender had been waiting, and `n` is its window. A message that
//! comes while the window counts as full proves it larger. A message that comes later shows a sender that does not wait.

use std::time::Duration;

use tokio::time::Instant;

/// How soon after its acknowledgement a sender that waited publishes again: a round trip on a poor Wi-Fi and a little
/// work. Twice this is still far from the pace of an ordinary sensor.
const FOLLOWS_AT_ONCE: Duration = Duration::from_millis(20);

/// What is known of a sender's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// Set by configuration.
    Fixed(usize),
    /// Seen at work.
    Learned(usize),
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
        Self { size, unacknowledged: 0, outstanding: 0, emptied: None, asked: 0 }
    }

    /// Messages that wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// A message that wants an acknowledgement came; whether its commit should hurry.
    pub fn published(&mut self, now: Instant) -> bool {
        if let Some(emptied) = self.emptied.take() {
            self.learn(now.duration_since(emptied));
            self.outstanding = 0;
        }
        let before = self.unacknowledged;
        self.unacknowledged += 1;
        self.outstanding = self.outstanding.max(self.unacknowledged);
        match self.size {
            Size::Unknown => false,
            Size::Fixed(size) => self.unacknowledged >= size,
            // It publishes on: this is not where it waits, and the commit that was hurried for it is under way.
            Size::Learned(size) if before >= size => {
                self.size = Size::Learned(self.unacknowledged);
                false
            }
            Size::Learned(size) => self.unacknowledged >= size,
        }
    }

    fn learn(&mut self, pause: Duration) {
        if !matches!(self.size, Size::Fixed(_)) {
            self.size = if pause <= FOLLOWS_AT_ONCE { Size::Learned(self.outstanding) } else { Size::Unknown };
        }
    }

    /// The sender was asked to release `count` messages: it is its turn.
    pub fn asked(&mut self, count: usize) {
        self.asked += count;
    }

    /// The sender released a message; whether the commit of that should hurry: there is nothing left for it to do.
    pub fn released(&mut self) -> bool {
        self.asked = self.asked.saturating_sub(1);
        let full = match self.size {
            Size::Unknown => false,
            Size::Fixed(size) | Size::Learned(size) => self.unacknowledged >= size,
        };
        full && self.asked == 0
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

        fn publish(&mut self) -> bool {
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
                let mut hurry = false;
                for _ in 0..size {
                    hurry = self.publish();
                }
                if !hurry {
                    self.now += INTERVAL;
                }
                self.commit();
                self.now += ROUND_TRIP;
            }
            self.now - begun
        }

        /// The same at QoS 2: each message takes two commits.
        fn waiting_sender_at_qos_2(&mut self, size: usize, messages: usize) -> Duration {
            let begun = self.now;
            for _ in 0..messages / size {
                let published = (0..size).fold(false, |_, _| self.publish());
                self.now += COMMIT + if published { Duration::ZERO } else { INTERVAL };
                self.window.asked(size);
                self.now += ROUND_TRIP;
                let hurried: Vec<bool> = (0..size).map(|_| self.window.released()).collect();
                let (last, before) = hurried.split_last().unwrap();
                assert!(!before.contains(&true), "it has more to release");
                self.now += if *last { Duration::ZERO } else { INTERVAL };
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
                if hurry || due {
                    self.commit();
                }
                self.now = self.now.max(next);
            }
        }
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
        assert!(!paced.released(), "of a sender that may not wait nothing is hurried");
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
    fn publishing_on_while_the_window_counts_as_full_raises_it_without_a_second_hurry() {
        let mut play = Play::new(Window::learning());
        play.waiting_sender(2, 10);
        assert!(!play.publish());
        assert!(play.publish());
        assert!(!play.publish(), "the commit is already hurried");
        play.commit();
        assert_eq!(play.window.size, Size::Learned(3));
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
        assert_eq!(window.size, Size::Learned(5));
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
        assert_eq!([window.published(now), window.published(now), window.published(now)], [false, false, true]);
        window.acknowledged(1, now);
        assert!(window.published(now), "it is full again");
        let mut endless = Window::fixed(0);
        assert!((0..100_000).all(|_| !endless.published(now)));
    }
}
