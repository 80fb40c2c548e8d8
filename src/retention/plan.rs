//! What must go: pure.

use super::reserve;
use crate::config;
use crate::space::Allowance;

/// Room below the cap, and on the disk, for what comes in before the next look and for a segment being written: a
/// sixteenth of the cap within these bounds.
const HEADROOM: (u64, u64) = (1 << 20, 16 << 20);

/// Of the headroom, what is kept for those who claim nothing: what the ledger records when it seals, ships and drops.
const UNCLAIMED_SHARE: u64 = 4;

/// With this share of the headroom left it is time to look.
const LOW_SHARE: u64 = 2;

/// The largest claim, as a share of the cap: for this much room can always be made.
const LARGEST_SHARE: u64 = 4;

/// Free space that the ledger's file keeps for the next journal, and the newest exported records that it keeps: an eighth
/// of the cap, at most this.
const LEDGER_SHARE: u64 = 16 << 20;

/// The limits as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    cap: u64,
    cap_readings: u64,
    min_free: u64,
}

/// The data folder and its disk at one moment, in bytes unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Situation {
    /// What the data folder takes.
    pub used: u64,
    /// What is being written, some of which may be in `used` already, and the most that somebody waits to write.
    pub claimed: u64,
    /// Of it, files that were let go of and leave when nobody reads them any more.
    pub leaving: u64,
    /// Readings kept.
    pub kept: u64,
    /// Of the whole file system.
    pub disk_size: u64,
    /// Free there.
    pub disk_free: u64,
    /// The reserve is to be made again.
    pub without_reserve: bool,
    /// Somebody met a full disk, whatever the figures say: a quota, perhaps.
    pub met_full: bool,
}

/// What must go at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shortage {
    /// Bytes.
    pub bytes: u64,
    /// Readings.
    pub readings: u64,
}

impl Shortage {
    /// Whether nothing must go.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// How many of `items`, taken in their order, cover it; all of them where they do not. Each is its bytes and readings.
    pub fn covered_by(self, items: impl IntoIterator<Item = (u64, u64)>) -> usize {
        let mut left = self;
        let needed = items.into_iter().take_while(|(bytes, readings)| {
            let needed = !left.is_none();
            left = Self { bytes: left.bytes.saturating_sub(*bytes), readings: left.readings.saturating_sub(*readings) };
            needed
        });
        needed.count()
    }
}

impl Situation {
    /// The same with `bytes` less room.
    fn tighter(self, bytes: u64) -> Self {
        Self { used: self.used + bytes, disk_free: self.disk_free.saturating_sub(bytes), ..self }
    }

    /// As it will be when what leaves is gone, what is claimed is written and the reserve is there again.
    fn settled(self) -> Self {
        let used = self.used.saturating_sub(self.leaving).saturating_add(self.claimed);
        let settled = Self { used, disk_free: self.disk_free.saturating_add(self.leaving), ..self };
        if self.without_reserve { settled.tighter(reserve::BYTES) } else { settled }
    }
}

impl Limits {
    /// As `settings` say.
    pub fn new(settings: &config::Retention) -> Self {
        Self { cap: settings.cap.0, cap_readings: settings.cap_readings, min_free: settings.min_free.0 }
    }

    fn headroom(&self) -> u64 {
        (self.cap / 16).clamp(HEADROOM.0, HEADROOM.1)
    }

    /// See [`LEDGER_SHARE`].
    pub fn ledger_share(&self) -> u64 {
        (self.cap / 8).min(LEDGER_SHARE)
    }

    /// How full the ledger may be before what is in it is sealed, whatever the sealer's own rules say.
    pub fn ledger_limit(&self) -> u64 {
        self.cap / 4
    }

    /// What should stay free on the disk: on a small one half of it at most.
    pub fn wanted_free(&self, disk_size: u64) -> u64 {
        self.min_free.min(disk_size / 2)
    }

    /// How much may be written: what leaves is still here, and the reserve must find its room.
    pub fn allowance(&self, situation: &Situation) -> Allowance {
        let reserve = if situation.without_reserve { reserve::BYTES } else { 0 };
        let (cap, used) = (self.cap.saturating_sub(self.headroom() / UNCLAIMED_SHARE), situation.used.saturating_add(reserve));
        let bytes = i64::try_from(cap).unwrap_or(i64::MAX).saturating_sub_unsigned(used);
        Allowance { bytes, largest: self.cap / LARGEST_SHARE, low: self.headroom() / LOW_SHARE }
    }

    /// Whether the cap itself is reached, its headroom included.
    pub fn is_over_cap(&self, situation: &Situation) -> bool {
        situation.used.saturating_sub(situation.leaving) > self.cap
    }

    /// With the room that must be there before readings are taken again, so that they are not refused again at once.
    pub fn with_margin(&self, situation: &Situation) -> Situation {
        situation.tighter(self.headroom() / 4)
    }

    /// What must go as long as there is something delivered.
    pub fn of_delivered(&self, situation: Situation) -> Shortage {
        self.shortage(situation, |short, _| short)
    }

    /// What must go though it is not delivered, or what must not come in. Others may have filled the disk: for `min_free`
    /// alone, nothing goes of the last eighth of the cap.
    pub fn of_undelivered(&self, situation: Situation) -> Shortage {
        self.shortage(situation, |short, used| short.min(used.saturating_sub(self.cap / 8)))
    }

    fn shortage(&self, situation: Situation, for_min_free: impl FnOnce(u64, u64) -> u64) -> Shortage {
        let Situation { used, kept, disk_size, disk_free, met_full, .. } = situation.settled();
        let headroom = self.headroom();
        let over_cap = (used + headroom).saturating_sub(self.cap);
        let below_min_free = for_min_free(self.wanted_free(disk_size).saturating_sub(disk_free), used);
        let short_of_disk = headroom.saturating_sub(disk_free);
        let full = if met_full { headroom } else { 0 };
        let readings = if self.cap_readings == 0 { 0 } else { kept.saturating_sub(self.cap_readings) };
        Shortage { bytes: over_cap.max(below_min_free).max(short_of_disk).max(full), readings }
    }

    /// Which limit is reached in `situation`, for a person; the figures are those of `seen`, without any margin.
    pub fn reason(&self, situation: &Situation, seen: &Situation) -> String {
        let Situation { used, kept, disk_size, disk_free, met_full, .. } = situation.settled();
        let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        if used + self.headroom() > self.cap {
            format!("the data folder takes {} of retention.cap ({})", mebibytes(seen.used), mebibytes(self.cap))
        } else if self.cap_readings > 0 && kept > self.cap_readings {
            format!("{kept} readings are kept, retention.cap_readings is {}", self.cap_readings)
        } else if met_full && disk_free >= self.headroom() {
            "the disk, or this account's share of it, is full".to_owned()
        } else {
            let wanted = mebibytes(self.wanted_free(disk_size).max(self.headroom()));
            format!("{} are free on the disk, {wanted} should be (retention.min_free)", mebibytes(seen.disk_free))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ByteSize;

    const MIB: u64 = 1 << 20;

    fn limits(cap: u64, cap_readings: u64, min_free: u64) -> Limits {
        let settings = config::Retention {
            cap: ByteSize(cap * MIB),
            cap_readings,
            min_free: ByteSize(min_free * MIB),
            ..config::Retention::default()
        };
        Limits::new(&settings)
    }

    /// On a disk of 8 GiB.
    fn situation(used: u64, disk_free: u64) -> Situation {
        Situation { used: used * MIB, disk_free: disk_free * MIB, disk_size: 8 << 30, ..Situation::default() }
    }

    fn bytes(mebibytes: u64) -> Shortage {
        Shortage { bytes: mebibytes * MIB, readings: 0 }
    }

    #[test]
    fn within_all_limits_nothing_must_go() {
        let limits = limits(64, 1000, 256);
        let well = Situation { kept: 1000, ..situation(60, 300) };
        assert_eq!((limits.of_delivered(well), limits.of_undelivered(well)), (bytes(0), bytes(0)));
        assert_eq!(limits.of_delivered(limits.with_margin(&well)), bytes(1));
        assert!(!limits.is_over_cap(&situation(64, 300)) && limits.is_over_cap(&situation(65, 300)));
    }

    #[test]
    fn the_cap_keeps_a_headroom() {
        for (cap, used, over) in [(16, 16, 1), (64, 64, 4), (64, 61, 1), (1024, 1024, 16), (1024, 1008, 0)] {
            let limits = limits(cap, 0, 0);
            assert_eq!(limits.of_delivered(situation(used, 4000)), bytes(over), "{used} of {cap}");
            assert_eq!(limits.of_undelivered(situation(used, 4000)), bytes(over), "{used} of {cap}");
        }
    }

    #[test]
    fn what_leaves_anyway_counts_as_gone() {
        let limits = limits(64, 0, 0);
        let leaving = Situation { leaving: 10 * MIB, ..situation(70, 4000) };
        assert_eq!(limits.of_delivered(leaving), bytes(0));
    }

    #[test]
    fn what_is_claimed_counts_as_written_and_what_leaves_takes_its_room_until_it_is_gone() {
        let limits = limits(64, 0, 0);
        let busy = Situation { claimed: 5 * MIB, leaving: 10 * MIB, ..situation(66, 4000) };
        assert_eq!(limits.of_undelivered(busy), bytes(1));
        let allowance = |situation: Situation| limits.allowance(&situation).bytes / MIB as i64;
        assert_eq!([allowance(situation(50, 9)), allowance(busy)], [13, -3]);
        assert_eq!(allowance(Situation { without_reserve: true, ..situation(50, 9) }), 9);
    }

    #[test]
    fn room_for_the_reserve_is_made_while_it_is_given_back() {
        let limits = limits(64, 0, 0);
        let without = Situation { without_reserve: true, ..situation(60, 4000) };
        assert_eq!(limits.of_delivered(without), bytes(4));
        let without = Situation { without_reserve: true, ..situation(10, 2) };
        assert_eq!(limits.of_undelivered(without), bytes(4));
    }

    #[test]
    fn a_disk_that_others_filled_takes_all_that_is_delivered_but_not_the_last_of_what_is_not() {
        let limits = limits(64, 0, 256);
        assert_eq!(limits.of_delivered(situation(50, 100)), bytes(156));
        assert_eq!(limits.of_undelivered(situation(50, 250)), bytes(6));
        assert_eq!(limits.of_undelivered(situation(50, 100)), bytes(42));
        assert_eq!(limits.of_undelivered(situation(8, 100)), bytes(0));
        assert_eq!(limits.of_undelivered(situation(8, 1)), bytes(3), "the last megabytes of the disk are needed to go on");
    }

    #[test]
    fn a_small_disk_keeps_at_most_half_of_itself_free() {
        let limits = limits(64, 0, 256);
        let small = Situation { disk_size: 48 * MIB, ..situation(20, 25) };
        assert_eq!(limits.of_delivered(small), bytes(0));
        assert_eq!(limits.of_delivered(Situation { disk_free: 20 * MIB, ..small }), bytes(4));
    }

    #[test]
    fn readings_have_a_limit_of_their_own() {
        let limits = limits(64, 1000, 0);
        let many = Situation { kept: 1200, ..situation(10, 4000) };
        assert_eq!(limits.of_delivered(many), Shortage { bytes: 0, readings: 200 });
        assert!(limits.reason(&many, &many).contains("cap_readings is 1000"));
    }

    #[test]
    fn a_disk_that_is_full_whatever_it_says_must_get_room() {
        let limits = limits(64, 0, 0);
        let full = Situation { met_full: true, ..situation(10, 4000) };
        assert_eq!(limits.of_undelivered(full), bytes(4));
        assert!(limits.reason(&full, &full).contains("share"), "{}", limits.reason(&full, &full));
    }

    #[test]
    fn the_oldest_go_until_the_shortage_is_covered() {
        let sizes = [(3, 10), (3, 0), (3, 10), (3, 10)];
        let count = |bytes, readings| Shortage { bytes, readings }.covered_by(sizes);
        assert_eq!([count(0, 0), count(1, 0), count(3, 0), count(4, 0), count(100, 0)], [0, 1, 1, 2, 4]);
        assert_eq!([count(0, 10), count(0, 11), count(3, 25)], [1, 3, 4]);
    }

    #[test]
    fn the_reason_names_the_limit_and_the_figures() {
        let limits = limits(64, 0, 256);
        let reason = |situation: Situation| limits.reason(&situation.tighter(MIB), &situation);
        assert_eq!(reason(situation(60, 4000)), "the data folder takes 60.0 MiB of retention.cap (64.0 MiB)");
        assert_eq!(reason(situation(10, 100)), "100.0 MiB are free on the disk, 256.0 MiB should be (retention.min_free)");
    }
}
