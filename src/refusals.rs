//! What strangers do wrong at a door: counted, the last one shown for a while, told in the log once a minute at most.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the last one is worth showing: a fleet with a wrong password comes again sooner, a port scan does not.
const SHOWN: Duration = Duration::from_secs(600);

/// Between two lines in the log: strangers must not be able to fill it.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// Refusals of one kind at one door.
#[derive(Debug)]
pub struct Refusals {
    /// Whose doing, in the plural, for example `TLS handshakes of the listener failed`.
    what: &'static str,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    count: u64,
    last: Option<(Instant, String)>,
    logged: Option<Instant>,
}

impl Refusals {
    /// None yet; `what` happened, in the plural.
    pub fn new(what: &'static str) -> Self {
        Self { what, now: Mutex::default() }
    }

    /// One more.
    pub fn note(&self, peer: &dyn Display, reason: &dyn Display) {
        let mut now = self.now();
        let moment = Instant::now();
        now.count += 1;
        now.last = Some((moment, format!("{reason} ({peer})")));
        let (what, count) = (self.what, now.count);
        if now.logged.is_none_or(|logged| moment.duration_since(logged) >= LOGGED_EVERY) {
            now.logged = Some(moment);
            tracing::warn!(%peer, %reason, count, "{what}");
        } else {
            tracing::debug!(%peer, %reason, count, "{what}");
        }
    }

    /// How many since the start.
    pub fn count(&self) -> u64 {
        self.now().count
    }

    /// A sentence for status while the last one is recent.
    pub fn recent(&self) -> Option<String> {
        let now = self.now();
        let (moment, last) = now.last.as_ref().filter(|(moment, _)| moment.elapsed() < SHOWN)?;
        Some(format!("{} {} since the start, the last {}s ago: {last}", now.count, self.what, moment.elapsed().as_secs()))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_shown_with_the_count() {
        let refusals = Refusals::new("logins were refused");
        assert_eq!((refusals.count(), refusals.recent()), (0, None));
        refusals.note(&"10.0.0.7", &"wrong password");
        refusals.note(&"10.0.0.8", &"unknown");
        let shown = refusals.recent().unwrap();
        assert!(shown.starts_with("2 logins were refused since the start") && shown.ends_with("unknown (10.0.0.8)"), "{shown}");
        refusals.now().last.as_mut().unwrap().0 -= SHOWN;
        assert_eq!(refusals.recent(), None);
    }
}
