//! Gathers what the rooms hold in memory for an answer of status.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Addresses;
use crate::clock::SharedClock;
use crate::engine;
use crate::ingest::client::ClientState;
use crate::ingest::listener::{Gate, ListenerState};
use crate::ingest::{Latest, PumpState};
use crate::retention::RetentionState;
use crate::segment::SealerState;
use crate::space::Space;
use crate::status::{EnginePage, EngineState, IngestNow, LinkNow, LinkState, Listeners, Now, Pulse, Reason, RoomNow};
use crate::tls::Acceptor;
use crate::upload::{self, LinkMode};

/// The states of all rooms.
pub struct States {
    /// Of the pump.
    pub pump: Arc<PumpState>,
    /// The series.
    pub latest: Arc<Latest>,
    /// Of the listener.
    pub listener: Arc<ListenerState>,
    /// Of the broker's client.
    pub client: Arc<ClientState>,
    /// Of the sealer.
    pub sealer: Arc<SealerState>,
    /// Of the uploader.
    pub link: upload::LinkState,
    /// Of retention.
    pub retention: Arc<RetentionState>,
    /// Whether readings are taken.
    pub space: Space,
    /// Of the engine.
    pub engine: Arc<engine::EngineState>,
    /// What is bound.
    pub addresses: Addresses,
    /// Of the listener: who may publish.
    pub gate: Option<Arc<Gate>>,
    /// Of HTTP on TCP.
    pub http_tls: Option<Arc<Acceptor>>,
    /// Of Flight SQL.
    pub flight_tls: Option<Arc<Acceptor>>,
    /// For what is valid now.
    pub clock: SharedClock,
    /// Whether the sources run.
    pub ready: Arc<AtomicBool>,
}

impl States {
    /// All of it at this moment.
    pub fn now(&self) -> Now {
        Now {
            ingest: self.ingest(),
            link: self.link(),
            room: self.room(),
            engine: self.engine(),
            listeners: Listeners {
                mqtt: self.addresses.mqtt.iter().map(ToString::to_string).collect(),
                http: self.addresses.http.iter().map(ToString::to_string).collect(),
                flight: self.addresses.flight.iter().map(ToString::to_string).collect(),
            },
            pulse: Pulse { steps: self.pump.steps(), waiting: self.pump.waiting() > 0 },
            ready: self.ready.load(Ordering::Relaxed),
            troubles: self.troubles(),
        }
    }

    fn ingest(&self) -> IngestNow {
        let pump = &self.pump;
        IngestNow {
            last_arrival: pump.last_arrival(),
            readings_per_s: pump.readings_per_s(),
            series: self.latest.count() as u64,
            waiting: pump.waiting(),
            committed_since_start: pump.committed(),
            commit_p50: pump.commit_latency(0.5).unwrap_or_default(),
            commit_p99: pump.commit_latency(0.99).unwrap_or_default(),
            refused_under_pressure: self.listener.qos0_refused.get() + self.client.status().qos0_refused,
            last_reject: pump.last_reject(),
            connections: self.listener.connections.get(),
            connections_refused: self.listener.refused.get() + self.listener.refused_by_limit.get(),
            handshakes_failed: self.gate.as_ref().map_or(0, |gate| gate.handshakes_failed()),
        }
    }

    fn link(&self) -> LinkNow {
        let link = self.link.status();
        let state = match link.state {
            LinkMode::Online => LinkState::Online,
            LinkMode::Offline => LinkState::Offline,
            LinkMode::Probing => LinkState::Probing,
            LinkMode::Off => LinkState::Off,
        };
        LinkNow {
            state,
            since: link.since,
            last_success: link.last_success,
            last_error: link.last_error,
            delivered_bytes: link.delivered_bytes,
            sent_bytes: link.sent_bytes,
            bytes_per_s: link.bytes_per_s,
        }
    }

    fn room(&self) -> RoomNow {
        let room = self.retention.room();
        RoomNow { disk_bytes: room.used_bytes, quarantine_bytes: room.quarantine_bytes, min_free_bytes: room.min_free_bytes }
    }

    fn engine(&self) -> EnginePage {
        let engine = self.engine.report();
        let state = match engine.state {
            engine::Phase::Ready => EngineState::Ready,
            engine::Phase::Starting => EngineState::Starting,
            engine::Phase::Restarting => EngineState::Restarting,
            engine::Phase::Off => EngineState::Off,
        };
        EnginePage {
            state,
            restarts: engine.restarts,
            rss_bytes: engine.rss_bytes,
            last_seq: engine.last_seq,
            segments: engine.segments as u64,
            excess_readings: engine.excess_readings,
            isolation: engine.isolation,
            own_unit: engine.own_unit,
            absence: engine.absence,
        }
    }

    /// What a person should know of.
    fn troubles(&self) -> Vec<Reason> {
        let mut troubles = Vec::new();
        let client = self.client.status();
        if !client.refused_filters.is_empty() {
            let filters = client.refused_filters.join(", ");
            troubles.push(Reason::degraded(
                "subscription_refused",
                format!("the broker {} refuses the subscription to {filters}", client.broker),
            ));
        }
        if let Some(error) = client.last_error.filter(|_| !client.connected) {
            troubles.push(Reason::degraded("broker", format!("there is no connection to the broker {}: {error}", client.broker)));
        }
        if let Some(why) = self.space.refusal() {
            troubles.push(Reason::failing("refusing", format!("no readings are taken: {why}")));
        }
        if let Some(dropped) = self.retention.dropping() {
            let message = format!("{dropped} readings that were not delivered were dropped to make room; see the losses");
            troubles.push(Reason::degraded("dropping", message));
        }
        let now = self.clock.now();
        let at_gate = self.gate.iter().flat_map(|gate| gate.troubles(now));
        troubles.extend(at_gate.map(|trouble| Reason::degraded("listener_access", trouble)));
        for (code, tls) in [("http_tls", &self.http_tls), ("flight_tls", &self.flight_tls)] {
            troubles.extend(tls.iter().flat_map(|tls| tls.troubles(now)).map(|trouble| Reason::degraded(code, trouble)));
        }
        if self.pump.is_full() {
            troubles.push(Reason::failing("disk_full", "nothing is acknowledged until there is room on the disk"));
        }
        if self.pump.series_refused() > 0 {
            let count = self.pump.series_refused();
            troubles.push(Reason::degraded("too_many_series", format!("{count} readings were refused because there are too many series")));
        }
        if let Some(error) = self.sealer.last_error() {
            troubles.push(Reason::degraded("seal_failed", format!("the last cut could not be sealed: {error}")));
        }
        let link = self.link.status();
        if let Some(error) = link.refused {
            troubles.push(Reason::degraded("link_refused", format!("upstream refuses everything: {error}")));
        }
        let aside = link.set_aside;
        if let Some(first) = aside.first() {
            let message = format!("{} instances can't be shipped; {}: {}", aside.len(), first.instance, first.reason);
            troubles.push(Reason::degraded("set_aside", message));
        }
        troubles
    }
}
