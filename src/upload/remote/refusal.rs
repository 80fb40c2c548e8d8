//! What a status that is no success means for a shipment.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};

use crate::upload::upstream::UpstreamError;

/// The longest patience: whatever is asked for, it is tried again within a day.
const MAX_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What to make of `status`; `said` is what stood in the reply.
pub fn judge(status: StatusCode, headers: &HeaderMap, said: &str) -> UpstreamError {
    let text = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status.as_u16() {
        429 | 503 => UpstreamError::Busy { detail: text, retry_after: patience(headers) },
        300..=399 => {
            let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            UpstreamError::Transient(format!("{text}: it points to {to}, which is not followed (a captive portal, or a wrong URL?)"))
        }
        // Out of time, taken at this moment, locked, too early, out of room.
        408 | 409 | 412 | 423 | 425 | 507 => UpstreamError::Transient(text),
        // Who we are, or what we may: it would be the same for anything else.
        401 | 403 => UpstreamError::Denied(text),
        400..=499 | 501 | 505 => UpstreamError::Permanent(text),
        // It failed on the way, perhaps after it was stored.
        _ => UpstreamError::Ambiguous(format!("only {text}")),
    }
}

/// How long `Retry-After` asks for: seconds, or a date, which is set against the server's own clock.
fn patience(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let date = |text| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let asked = text(RETRY_AFTER).unwrap_or_default();
    let seconds = asked.parse::<u64>().ok().map(Duration::from_secs);
    let until = || {
        let now = text(DATE).and_then(date).unwrap_or_else(jiff::Timestamp::now);
        Duration::try_from(date(asked)?.duration_since(now)).ok()
    };
    seconds.or_else(until).unwrap_or_default().min(MAX_PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn kind(status: u16) -> &'static str {
        match judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), "why") {
            UpstreamError::Transient(text) if text.contains("why") => "transient",
            UpstreamError::Busy { .. } => "busy",
            UpstreamError::Ambiguous(_) => "ambiguous",
            UpstreamError::Permanent(_) => "permanent",
            UpstreamError::Denied(_) => "denied",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_status_says_whether_it_is_worth_another_attempt() {
        for (statuses, meaning) in [
            (&[301, 302, 307, 408, 409, 412, 423, 425, 507][..], "transient"),
            (&[429, 503], "busy"),
            (&[500, 502, 504, 520], "ambiguous"),
            (&[401, 403], "denied"),
            (&[400, 404, 405, 410, 411, 413, 422, 451, 501], "permanent"),
        ] {
            for status in statuses {
                assert_eq!(kind(*status), meaning, "{status}");
            }
        }
    }

    #[test]
    fn patience_is_seconds_or_a_date_and_at_most_a_day() {
        let date = ("date", "Sat, 21 Nov 2026 10:00:00 GMT");
        for (found, seconds) in [
            (headers(&[]), 0),
            (headers(&[("retry-after", "120")]), 120),
            (headers(&[("retry-after", "0")]), 0),
            (headers(&[("retry-after", "999999999")]), 86_400),
            (headers(&[("retry-after", "soon")]), 0),
            (headers(&[("retry-after", "-5")]), 0),
            (headers(&[("retry-after", "Sat, 21 Nov 2026 10:02:00 GMT"), date]), 120),
            (headers(&[("retry-after", "Sat, 21 Nov 2026 09:00:00 GMT"), date]), 0),
            (headers(&[("retry-after", "Sat, 28 Nov 2026 10:00:00 GMT"), date]), 86_400),
            (headers(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), 0),
        ] {
            assert_eq!(patience(&found), Duration::from_secs(seconds), "{found:?}");
        }
    }
}
