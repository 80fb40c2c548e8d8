//! Times as sensors write them: numbers by magnitude, RFC 3339, and local times without a zone.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::json::{Member, Node};
use crate::config::TimeFormat;
use crate::model::{MICROS_PER_DAY, TimeSource, TimeUnit, Timestamp};

/// 2100-01-01: the end of what is believed when our own clock can't judge.
const LATEST: Timestamp = Timestamp(4_102_444_800_000_000);

/// 2025-01-01: our own clock was never set if it stands before.
const CLOCK_UNSET: Timestamp = Timestamp(1_735_689_600_000_000);

/// Keys of a message's time. The first that holds one counts: those that carry their zone stand before those that may not.
const TIME_KEYS: [&str; 20] = [
    "epoch",
    "ts",
    "timestamp",
    "time",
    "datetime",
    "date_time",
    "last_seen",
    "tst",
    "measured_at",
    "sampled_at",
    "recorded_at",
    "created_at",
    "sourcetimestamp",
    "event_time",
    "eventtime",
    "received_at",
    "gwts",
    "utc_time",
    "unixtime",
    "date",
];

/// How long a text must be to be a date with a clock: `2021-01-02T12:08`.
const SHORTEST_DATE: usize = 13;

/// Reads times of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar<'z> {
    /// For times without a zone.
    pub zone: &'z TimeZone,
    /// When the message reached us.
    pub arrived: Timestamp,
    /// Whether that is to be believed.
    pub arrival_source: TimeSource,
}

/// The time among an object's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnTime {
    /// There is none.
    None,
    /// This one.
    At(Timestamp),
    /// There is one, but it can't be right.
    Implausible,
}

impl Calendar<'_> {
    /// The moment `node` tells, if it is one and plausible.
    pub fn moment(&self, node: &Node<'_>, format: TimeFormat) -> Option<Timestamp> {
        let moment = match node {
            Node::Int(whole) => from_whole(*whole, format)?,
            Node::Float(number) => from_float(*number, format)?,
            Node::Text(text) => self.read_text(text.trim(), format)?,
            _ => return None,
        };
        Some(moment).filter(|moment| self.is_plausible(*moment))
    }

    /// Whether `node` tells a plausible moment.
    pub fn is_moment(&self, node: &Node<'_>) -> bool {
        self.moment(node, TimeFormat::Auto).is_some()
    }

    /// The time among `members`.
    pub fn own_time(&self, members: &[Member<'_>]) -> OwnTime {
        let mut best: Option<(usize, Timestamp)> = None;
        let mut implausible = false;
        for (key, node) in members {
            let Some(rank) = rank(key) else { continue };
            match self.moment(node, TimeFormat::Auto) {
                Some(moment) if best.is_none_or(|(known, _)| rank < known) => best = Some((rank, moment)),
                Some(_) => {}
                None => {
                    implausible |= matches!(node, Node::Int(_) | Node::Float(_)) || node.text().is_some_and(|text| !text.trim().is_empty())
                }
            }
        }
        match best {
            Some((_, moment)) => OwnTime::At(moment),
            None if implausible => OwnTime::Implausible,
            None => OwnTime::None,
        }
    }

    /// Not before 2000 and not more than a day ahead of the arrival. A clock of our own that was never set can't judge
    /// what is ahead of it.
    pub fn is_plausible(&self, moment: Timestamp) -> bool {
        let unset = self.arrival_source == TimeSource::Unsynchronised && self.arrived < CLOCK_UNSET;
        let latest = if unset { LATEST } else { self.arrived.plus_micros(MICROS_PER_DAY) };
        (Timestamp::EARLIEST..=latest).contains(&moment)
    }

    fn read_text(&self, text: &str, format: TimeFormat) -> Option<Timestamp> {
        let first = *text.as_bytes().first()?;
        if !first.is_ascii_digit() {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return from_whole(text.parse().ok()?, format);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return from_float(text.parse().ok()?, format);
        }
        if !matches!(format, TimeFormat::Auto | TimeFormat::Rfc3339) || text.len() < SHORTEST_DATE {
            return None;
        }
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Some(Timestamp(moment.as_microsecond()));
        }
        let local: DateTime = text.parse().ok()?;
        Some(Timestamp(self.zone.to_timestamp(local).ok()?.as_microsecond()))
    }
}

/// The place of `key` among the keys of a time.
pub(super) fn rank(key: &str) -> Option<usize> {
    TIME_KEYS.iter().position(|known| {
        // A bridge's `last_seen` is a time; `LastSeen` counts seconds.
        if *known == "last_seen" { key == *known } else { key.eq_ignore_ascii_case(known) }
    })
}

/// What a number counts; `None` where the rule expects a text.
fn unit(number: f64, format: TimeFormat) -> Option<TimeUnit> {
    match format {
        TimeFormat::UnixS => Some(TimeUnit::Seconds),
        TimeFormat::UnixMs => Some(TimeUnit::Millis),
        TimeFormat::UnixUs => Some(TimeUnit::Micros),
        TimeFormat::UnixNs => Some(TimeUnit::Nanos),
        TimeFormat::Rfc3339 => None,
        TimeFormat::Auto => Some(TimeUnit::by_magnitude(number)),
    }
}

fn from_whole(number: i64, format: TimeFormat) -> Option<Timestamp> {
    unit(number as f64, format)?.whole(number)
}

fn from_float(number: f64, format: TimeFormat) -> Option<Timestamp> {
    unit(number, format)?.fraction(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(node: &Node<'_>) -> Option<String> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let arrived = "2026-11-20T10:00:00Z".parse().unwrap();
        let calendar = Calendar { zone: &zone, arrived, arrival_source: TimeSource::Gateway };
        calendar.moment(node, TimeFormat::Auto).map(|moment| moment.to_string())
    }

    #[test]
    fn numbers_are_times_by_magnitude() {
        let expected = Some("2023-11-14T22:13:20.000000Z".to_owned());
        for whole in [1_700_000_000, 1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000_000_000] {
            assert_eq!(told(&Node::Int(whole)), expected, "{whole}");
            assert_eq!(told(&Node::Text(whole.to_string().into())), expected, "{whole} as text");
        }
        assert_eq!(told(&Node::Float(1_631_186_545.04)).as_deref(), Some("2021-09-09T11:22:25.040000Z"));
        assert_eq!(told(&Node::Text("1631186545.04".into())).as_deref(), Some("2021-09-09T11:22:25.040000Z"));
        assert_eq!(told(&Node::Int(1_653_579_140_440_951_943)).as_deref(), Some("2022-05-26T15:32:20.440951Z"));
    }

    #[test]
    fn dates_carry_their_zone_or_take_the_configured_one() {
        let cases = [
            ("2021-06-27T15:03:44+02:00", "2021-06-27T13:03:44.000000Z"),
            ("2021-06-27 13:03:44.123456789Z", "2021-06-27T13:03:44.123456Z"),
            ("2021-06-27T15:03:44", "2021-06-27T13:03:44.000000Z"),
            ("2021-01-27 15:03:44.5", "2021-01-27T14:03:44.500000Z"),
            // Said twice that night: the first is meant. Not said at all that night: the hour after.
            ("2021-10-31T02:30:00", "2021-10-31T00:30:00.000000Z"),
            ("2021-03-28T02:30:00", "2021-03-28T01:30:00.000000Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(told(&Node::Text(text.into())).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_or_an_implausible_one_is_none() {
        for text in
            ["", "@0.14s", "07:16:17", "0T18:36:12", "2021-06-27", "ON", "-1700000000", "1970-01-01T00:00:05Z", "2100-01-01T00:00:00Z"]
        {
            assert_eq!(told(&Node::Text(text.into())), None, "{text}");
        }
        for number in [0, 353, -5, 144_995_643, 4_102_444_800, i64::MAX, i64::MIN] {
            assert_eq!(told(&Node::Int(number)), None, "{number}");
        }
        for number in [f64::MAX, -1e300, 1e17, 0.5] {
            assert_eq!(told(&Node::Float(number)), None, "{number}");
        }
    }

    #[test]
    fn a_clock_that_was_never_set_does_not_judge() {
        let calendar = Calendar { zone: &TimeZone::UTC, arrived: Timestamp(5_000_000), arrival_source: TimeSource::Unsynchronised };
        assert!(calendar.is_plausible("2026-01-01T00:00:00Z".parse().unwrap()));
        assert!(!calendar.is_plausible("2100-01-02T00:00:00Z".parse().unwrap()));
        assert!(!Calendar { arrival_source: TimeSource::Gateway, ..calendar }.is_plausible("2026-01-01T00:00:00Z".parse().unwrap()));
    }
}
