//! The metrics text, in Prometheus' exposition format: names are promises, units are in them, counters end in `_total`.

use std::fmt::{self, Display, Write as _};

use super::page::{EngineState, LinkState, State, Status};
use crate::model::Timestamp;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of one status.
pub fn render(status: &Status) -> String {
    let mut text = Text::default();
    about(&mut text, status);
    ingest(&mut text, status);
    buffer(&mut text, status);
    books(&mut text, status);
    link(&mut text, status);
    engine(&mut text, status);
    machine(&mut text, status);
    text.0
}

fn about(text: &mut Text, status: &Status) {
    text.family("forebay_info", Kind::Gauge, "Version, gateway and instance, as labels; always 1.");
    let labels = [("version", &*status.version), ("gateway", &*status.gateway), ("instance", &*status.instance)];
    text.sample("forebay_info", &labels, 1);
    text.gauge("forebay_uptime_seconds", "Time since the daemon started.", status.uptime_s);
    text.family("forebay_state", Kind::Gauge, "1 for the state the daemon is in.");
    for state in State::ALL {
        text.sample("forebay_state", &[("state", state.as_str())], u8::from(state == status.state));
    }
}

fn ingest(text: &mut Text, status: &Status) {
    let page = &status.ingest;
    text.family("forebay_ingest_messages_total", Kind::Counter, "Messages received, by way of delivery.");
    let ways = [
        ("mqtt_qos0", page.messages_qos0),
        ("mqtt_qos1", page.messages_qos1),
        ("mqtt_qos2", page.messages_qos2),
        ("http", page.messages_http),
    ];
    for (way, messages) in ways {
        text.sample("forebay_ingest_messages_total", &[("way", way)], messages);
    }
    text.counter("forebay_ingest_readings_total", "Readings committed.", page.readings);
    text.counter("forebay_ingest_records_total", "Records received.", page.records);
    text.counter("forebay_ingest_rejected_total", "Messages refused: not decodable or over a limit.", page.rejected);
    text.counter("forebay_ingest_duplicates_total", "Messages redelivered, and so not stored again.", page.duplicates);
    text.counter("forebay_ingest_ignored_total", "Messages left out by a route.", page.ignored);
    text.counter("forebay_ingest_skipped_members_total", "Members skipped alone inside good messages.", page.skipped_members);
    text.counter("forebay_ingest_times_replaced_total", "Implausible times replaced by the arrival.", page.times_replaced);
    text.counter("forebay_ingest_refused_total", "QoS 0 messages not taken under pressure, since the start.", page.refused_under_pressure);
    text.gauge("forebay_listener_connections", "Sensors connected to the listener.", page.connections);
    text.counter("forebay_listener_refused_total", "Connections the listener refused, since the start.", page.connections_refused);
    text.counter("forebay_listener_handshakes_failed_total", "TLS handshakes that failed, since the start.", page.handshakes_failed);
    text.gauge("forebay_ingest_waiting_deliveries", "Deliveries that wait for their commit.", page.waiting);
    text.gauge("forebay_ingest_series", "Known series.", page.series);
    text.gauge_if("forebay_ingest_last_arrival_timestamp_seconds", "When the last message arrived.", page.last_arrival.map(unix_seconds));
    text.family("forebay_commit_latency_seconds", Kind::Summary, "Time a commit takes, fsync included.");
    text.sample("forebay_commit_latency_seconds", &[("quantile", "0.5")], page.commit_p50_s);
    text.sample("forebay_commit_latency_seconds", &[("quantile", "0.99")], page.commit_p99_s);
}

fn buffer(text: &mut Text, status: &Status) {
    let page = &status.buffer;
    text.gauge("forebay_buffer_segments", "Segments on this machine.", page.segments);
    text.gauge("forebay_buffer_undelivered_readings", "Readings here that are not delivered.", page.undelivered_readings);
    text.gauge("forebay_buffer_undelivered_bytes", "Bytes of sealed readings that are not delivered.", page.undelivered_bytes);
    let oldest = page.oldest_undelivered.map(unix_seconds);
    text.gauge_if("forebay_buffer_oldest_undelivered_timestamp_seconds", "When the oldest undelivered readings were taken.", oldest);
    text.gauge("forebay_buffer_disk_bytes", "What the data folder takes on disk.", page.disk_bytes);
    text.gauge("forebay_buffer_cap_bytes", "The limit of the data folder.", page.cap_bytes);
    text.gauge("forebay_buffer_disk_free_bytes", "Free on the data folder's file system.", page.disk_free_bytes);
}

fn books(text: &mut Text, status: &Status) {
    let books = &status.books.books;
    text.counter("forebay_books_accepted_readings_total", "Readings committed by this instance.", books.accepted);
    text.family("forebay_books_readings", Kind::Gauge, "Readings of this instance, by where they are; their sum is accepted.");
    for (place, readings) in books.places() {
        text.sample("forebay_books_readings", &[("place", place)], readings);
    }
    text.gauge("forebay_books_kept_readings", "Readings on this machine that can be queried.", books.kept);
    text.gauge("forebay_books_balanced", "1 if every accepted reading is in exactly one place.", u8::from(status.books.balanced));
}

fn link(text: &mut Text, status: &Status) {
    let page = &status.link;
    text.family("forebay_link_state", Kind::Gauge, "1 for the state the link is in.");
    for state in LinkState::ALL {
        text.sample("forebay_link_state", &[("state", state.as_str())], u8::from(state == page.state));
    }
    text.counter("forebay_link_delivered_readings_total", "Readings delivered by this instance.", page.delivered_readings);
    text.counter("forebay_link_delivered_bytes_total", "Bytes put upstream since the start.", page.delivered_bytes);
    text.counter("forebay_link_sent_bytes_total", "Bytes handed to the line since the start, also in vain.", page.sent_bytes);
    text.gauge("forebay_link_refused_cuts", "Cuts that upstream refused.", page.refused_cuts);
    text.gauge_if("forebay_link_drain_eta_seconds", "Until the backlog is gone, at the present rates.", page.drain_eta_s);
    let success = page.last_success.map(unix_seconds);
    text.gauge_if("forebay_link_last_success_timestamp_seconds", "When something last arrived upstream.", success);
}

fn engine(text: &mut Text, status: &Status) {
    let page = &status.engine;
    text.family("forebay_engine_state", Kind::Gauge, "1 for the state the engine is in.");
    for state in EngineState::ALL {
        text.sample("forebay_engine_state", &[("state", state.as_str())], u8::from(state == page.state));
    }
    text.counter("forebay_engine_restarts_total", "How often the engine was started again.", page.restarts);
    text.gauge("forebay_engine_resident_memory_bytes", "Resident memory of the engine.", page.rss_bytes);
    text.gauge("forebay_engine_segments", "Segments attached to the engine.", page.segments);
}

fn machine(text: &mut Text, status: &Status) {
    text.gauge("forebay_clock_synchronized", "1 if something disciplines the clock.", u8::from(status.clock.synchronized));
    text.gauge("forebay_process_resident_memory_bytes", "Resident memory of the daemon.", status.process.rss_bytes);
    text.counter(
        "forebay_flash_written_bytes_total",
        "Bytes the daemon caused to be written, since the start.",
        status.flash.written_bytes,
    );
    text.gauge("forebay_flash_bytes_per_reading", "The same by readings committed.", status.flash.bytes_per_reading);
    text.gauge_if("forebay_flash_bytes_per_day", "The same by days, at the rate since the start.", status.flash.bytes_per_day);
}

fn unix_seconds(moment: Timestamp) -> f64 {
    moment.0 as f64 / 1e6
}

enum Kind {
    Counter,
    Gauge,
    Summary,
}

impl Kind {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// The text under way. Writing to a `String` can't fail, so the results are not looked at.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.0, "{name}{} {value}", Labels(labels));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// A gauge that has no sample while there is nothing to say.
    fn gauge_if(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.family(name, Kind::Gauge, help);
        if let Some(value) = value {
            self.sample(name, &[], value);
        }
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{name}=\"{value}\"", if place == 0 { "{" } else { "," })?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(Labels(&[("a", "x\"y\\z\n"), ("b", "°C")]).to_string(), r#"{a="x\"y\\z\n",b="°C"}"#);
        assert_eq!(Labels(&[]).to_string(), "");
    }
}
