//! The state of the link, as status shows it. Written by the uploader alone; anyone may look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::model::{InstanceId, Timestamp};

/// How much the newest shipment tells about the rate to come.
const NEWEST_WEIGHT: f64 = 0.3;

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
    /// Bytes a second while shipping, from the latest shipments.
    pub bytes_per_s: Option<f64>,
    /// Instances set aside, oldest first.
    pub set_aside: Vec<SetAside>,
}

/// Where the uploader writes and others look. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkState {
    inner: Arc<Mutex<LinkStatus>>,
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
            bytes_per_s: None,
            set_aside: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(status)) }
    }

    /// How it is now.
    pub fn status(&self) -> LinkStatus {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, LinkStatus> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters `state`; `since` moves only when it is another one.
    pub(super) fn enter(&self, state: LinkMode, now: Timestamp) {
        let mut status = self.lock();
        if status.state != state || status.since.is_none() {
            status.since = Some(now);
        }
        status.state = state;
    }

    /// Upstream answered.
    pub(super) fn reached(&self, now: Timestamp) {
        self.lock().last_success = Some(now);
    }

    pub(super) fn failed(&self, error: String) {
        self.lock().last_error = Some(error);
    }

    /// A shipment of `readings` and `bytes` is delivered; `taken` is the time it took, where that tells of the rate.
    pub(super) fn delivered(&self, readings: u64, bytes: u64, taken: Option<Duration>, now: Timestamp) {
        let mut status = self.lock();
        status.last_success = Some(now);
        status.last_error = None;
        status.delivered_readings += readings;
        status.delivered_bytes += bytes;
        if let Some(taken) = taken {
            let rate = bytes as f64 / taken.as_secs_f64().max(1e-3);
            status.bytes_per_s = Some(status.bytes_per_s.map_or(rate, |before| before + NEWEST_WEIGHT * (rate - before)));
        }
    }

    pub(super) fn set_aside(&self, all: Vec<SetAside>) {
        self.lock().set_aside = all;
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
    fn the_rate_follows_the_latest_shipments() {
        let link = LinkState::probing();
        link.enter(LinkMode::Online, Timestamp(1));
        assert_eq!(link.status().bytes_per_s, None);
        link.failed("no way".to_owned());
        link.delivered(10, 1000, Some(Duration::from_secs(1)), Timestamp(2));
        assert_eq!(link.status().bytes_per_s, Some(1000.0));
        link.delivered(10, 3000, Some(Duration::from_secs(1)), Timestamp(3));
        assert!((link.status().bytes_per_s.unwrap() - 1600.0).abs() < 1e-6);
        assert_eq!((link.status().delivered_readings, link.status().delivered_bytes, link.status().last_error), (20, 4000, None));
    }
}
