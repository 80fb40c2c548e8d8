//! Numbers, sizes and times as people read them.

use std::time::Duration;

use crate::model::Timestamp;

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut amount = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// The two largest units: `3d 4h`, `5m 6s`, `7s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (large, small) = match seconds {
        86_400.. => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
        3_600.. => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "m")),
        60.. => ((seconds / 60, "m"), (seconds % 60, "s")),
        _ => ((seconds, "s"), (0, "")),
    };
    if small.0 == 0 { format!("{}{}", large.0, large.1) } else { format!("{}{} {}{}", large.0, large.1, small.0, small.1) }
}

/// How long before `now`: `5m 6s ago`; the moment itself where it is ahead, as after a step of the clock.
pub fn ago(moment: Timestamp, now: Timestamp) -> String {
    match u64::try_from(now.0.saturating_sub(moment.0)) {
        Ok(micros) if micros < 1_000_000 => "just now".to_owned(),
        Ok(micros) => format!("{} ago", duration(Duration::from_micros(micros))),
        Err(_) => moment.to_string(),
    }
}

/// Without control characters: what sensors send must not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|shown| if shown.is_control() { char::REPLACEMENT_CHARACTER } else { shown }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_023, 1_024, 5 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]);
        assert!(bytes(u64::MAX).ends_with(" PiB"));
    }

    #[test]
    fn times_have_their_two_largest_units() {
        let shown = [7, 60, 306, 3_600, 7_260, 273_600].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["7s", "1m", "5m 6s", "1h", "2h 1m", "3d 4h"]);
    }

    #[test]
    fn a_moment_ahead_is_shown_as_it_is() {
        assert_eq!(ago(Timestamp(0), Timestamp(999_999)), "just now");
        assert_eq!(ago(Timestamp(5_000_000), Timestamp(0)), "1970-01-01T00:00:05.000000Z");
        assert_eq!(ago(Timestamp(i64::MIN), Timestamp(i64::MAX)), "106751991d 4h ago");
    }
}
