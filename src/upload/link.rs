//! The state of the link, as status shows it. Written by the uploader alone; anyone may look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::model::{InstanceId, Timestamp};

/// What the shipments before tell about the rate to come, beside the newest.
const EARLIER_WEIGHT: f64 = 0.7;

/// Whether upstream can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkMode {
    /// Shipments go through, or would if there were any.
    Online,
    /// There is no way; it is looked for every `probe_interval`.
    Offline,
    /// Whether there is a way is being found out, or an attempt failed and waits for the next.
    Probing,
    /// No upstream is configured.
    Off,
}

/// An instance of which nothing more is shipped, because its names are taken upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// Which.
    pub instance: InstanceId,
    /// What is in the way.
    pub reason: String,
}

/// One look at the link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkStatus {
    /// Whether upstream can be reached.
    pub state: LinkMode,
    /// Since when; `None` before the first look.
    pub since: Option<Timestamp>,
    /// When something was delivered last, or at least reached.
    pub last_success: Option<Timestamp>,
    /// The last failure; `None` once something was delivered after it.
    pub last_error: Option<String>,
    /// Readings delivered since start.
    pub delivered_readings: u64,
    /// Bytes delivered since start, manifests included.
    pub delivered_bytes: u64,
    /// Bytes handed to the line since start, also those that were in vain.
    pub sent_bytes: u64,
    /// Bytes a second while shipping, from the latest shipments.
    pub bytes_per_s: Option<f64>,
    /// Why upstream refuses everything, if it does.
    pub refused: Option<String>,
    /// Instances set aside, oldest first.
    pub set_aside: Vec<SetAside>,
}

/// Where the uploader writes and others look. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkState {
    inner: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    status: LinkStatus,
    /// Bytes and seconds of the latest shipments, the older the lighter: a large one tells more than a small one.
    recent: (f64, f64),
}

impl LinkState {
    /// The link of a configured upstream, before the first look.
    pub fn probing() -> Self {
        Self::new(LinkMode::Probing)
    }

    /// No upstream is configured.
    pub fn off() -> Self {
        Self::new(LinkMode::Off)
    }

    fn new(state: LinkMode) -> Self {
        let status = LinkStatus {
            state,
            since: None,
            last_success: None,
            last_error: None,
            delivered_readings: 0,
            delivered_bytes: 0,
            sent_bytes: 0,
            bytes_per_s: None,
            refused: None,
            set_aside: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(Seen { status, recent: (0.0, 0.0) })) }
    }

    /// How it is now.
    pub fn status(&self) -> LinkStatus {
        self.lock().status.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters `state`; `since` moves only when it is another one.
    pub(super) fn enter(&self, state: LinkMode, now: Timestamp) {
        let status = &mut self.lock().status;
        if status.state != state || status.since.is_none() {
            status.since = Some(now);
        }
        status.state = state;
    }

    /// Upstream answered.
    pub(super) fn reached(&self, now: Timestamp) {
        self.lock().status.last_success = Some(now);
    }

    pub(super) fn failed(&self, error: String) {
        self.lock().status.last_error = Some(error);
    }

    /// Upstream refuses everything, or no longer.
    pub(super) fn refused(&self, reason: Option<String>) {
        self.lock().status.refused = reason;
    }

    /// The upstream's count of bytes handed to the line.
    pub(super) fn sent(&self, bytes: u64) {
        self.lock().status.sent_bytes = bytes;
    }

    /// A shipment of `readings` and `bytes` is delivered; `sent`: how much was sent for it now, and the time that took.
    pub(super) fn delivered(&self, readings: u64, bytes: u64, sent: Option<(u64, Duration)>, now: Timestamp) {
        let mut seen = self.lock();
        if let Some((bytes, taken)) = sent.filter(|(bytes, _)| *bytes > 0) {
            let (before, time) = seen.recent;
            seen.recent = (EARLIER_WEIGHT * before + bytes as f64, EARLIER_WEIGHT * time + taken.as_secs_f64().max(1e-3));
            seen.status.bytes_per_s = Some(seen.recent.0 / seen.recent.1);
        }
        let status = &mut seen.status;
        status.last_success = Some(now);
        status.last_error = None;
        status.delivered_readings += readings;
        status.delivered_bytes += bytes;
    }

    pub(super) fn set_aside(&self, all: Vec<SetAside>) {
        self.lock().status.set_aside = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_moves_with_the_state_alone() {
        let link = LinkState::probing();
        link.enter(LinkMode::Probing, Timestamp(1));
        link.enter(LinkMode::Online, Timestamp(2));
        link.enter(LinkMode::Online, Timestamp(3));
        assert_eq!((link.status().state, link.status().since), (LinkMode::Online, Some(Timestamp(2))));
    }

    #[test]
    fn the_rate_follows_the_latest_shipments_and_a_large_one_tells_more() {
        let link = LinkState::probing();
        link.enter(LinkMode::Online, Timestamp(1));
        assert_eq!(link.status().bytes_per_s, None);
        link.failed("no way".to_owned());
        link.delivered(10, 1000, Some((1000, Duration::from_secs(1))), Timestamp(2));
        assert_eq!(link.status().bytes_per_s, Some(1000.0));
        link.delivered(10, 30_000, Some((30_000, Duration::from_secs(3))), Timestamp(3));
        assert!((link.status().bytes_per_s.unwrap() - 30_700.0 / 3.7).abs() < 1e-6);
        link.delivered(10, 500, None, Timestamp(4));
        assert!((link.status().bytes_per_s.unwrap() - 30_700.0 / 3.7).abs() < 1e-6, "what was there already tells nothing");
        let status = link.status();
        assert_eq!((status.delivered_readings, status.delivered_bytes, status.last_error), (30, 31_500, None));
    }
}
