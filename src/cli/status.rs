//! `forebay status`: what the daemon does, on one page.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::CliError;
use super::connect::Daemon;
use super::show::{ago, bytes, count, duration, printable};
use super::watch;
use crate::clock::{Clock as _, SystemClock};
use crate::model::Timestamp;
use crate::status::{EngineState, LinkState, Status};

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON, as the daemon answers it
    #[arg(long)]
    json: bool,
    /// Show it again every second, with rates, until Ctrl-C; a line each time where the output is no terminal
    #[arg(long)]
    watch: bool,
}

/// Runs `status`.
pub async fn run(args: StatusArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let daemon = Daemon::find(socket);
    if args.watch {
        return watch::run(&daemon, args.json).await;
    }
    let text = if args.json {
        daemon.text("/api/v1/status").await? + "\n"
    } else {
        page(&daemon.get("/api/v1/status").await?, SystemClock.now(), None)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The page for people. `now` is for the ages on it; `rates` are known to who watches.
pub(super) fn page(status: &Status, now: Timestamp, rates: Option<&str>) -> String {
    let mut lines = vec![
        ("forebay".to_owned(), format!("{} {}, up {}", status.gateway, status.version, duration(Duration::from_secs_f64(status.uptime_s)))),
        ("state".to_owned(), status.state.as_str().to_owned()),
    ];
    lines.extend(status.reasons.iter().map(|reason| (String::new(), format!("{}: {}", reason.code, reason.message))));
    lines.extend(rates.map(|rates| ("rates".to_owned(), rates.to_owned())));
    lines.push(("ingest".to_owned(), ingest(status, now)));
    lines.push((String::new(), refused(status)));
    lines.push(("buffer".to_owned(), buffer(status)));
    lines.push((String::new(), backlog(status, now)));
    lines.push(("link".to_owned(), link(status, now)));
    lines.push(("books".to_owned(), books(status)));
    lines.push(("engine".to_owned(), engine(status)));
    lines.push(("machine".to_owned(), machine(status)));
    let listeners = [("mqtt", &status.listeners.mqtt), ("http", &status.listeners.http), ("flight", &status.listeners.flight)];
    let bound: Vec<_> = listeners.iter().flat_map(|(kind, all)| all.iter().map(move |address| format!("{kind} {address}"))).collect();
    lines.push(("listens".to_owned(), if bound.is_empty() { "on the socket alone".to_owned() } else { bound.join(", ") }));
    lines.into_iter().filter(|(_, text)| !text.is_empty()).fold(String::new(), |mut page, (name, text)| {
        let _ = writeln!(page, "{name:<9}{}", printable(&text));
        page
    })
}

fn ingest(status: &Status, now: Timestamp) -> String {
    let page = &status.ingest;
    let last = page.last_arrival.map_or_else(|| "nothing has arrived yet".to_owned(), |last| format!("last arrival {}", ago(last, now)));
    format!(
        "{} readings in {} messages, {:.1}/s, {} series, {last}",
        count(page.readings),
        count(page.messages),
        page.readings_per_s,
        count(page.series)
    )
}

/// What did not become readings, where there is any.
fn refused(status: &Status) -> String {
    let page = &status.ingest;
    let kinds = [
        (page.records, "records"),
        (page.duplicates, "duplicates"),
        (page.rejected, "rejected"),
        (page.ignored, "ignored"),
        (page.refused_under_pressure, "refused under pressure"),
        (page.times_replaced, "times replaced"),
    ];
    let mut refused: Vec<_> =
        kinds.iter().filter(|(number, _)| *number > 0).map(|(number, kind)| format!("{} {kind}", count(*number))).collect();
    refused.extend(page.last_reject.as_ref().map(|reason| format!("the last one rejected because {reason}")));
    refused.join(", ")
}

fn buffer(status: &Status) -> String {
    let page = &status.buffer;
    format!(
        "{} hot, {} segments, {} of {}, {} free on disk",
        count(page.hot_readings),
        count(page.segments),
        bytes(page.disk_bytes),
        bytes(page.cap_bytes),
        bytes(page.disk_free_bytes)
    )
}

fn backlog(status: &Status, now: Timestamp) -> String {
    let page = &status.buffer;
    let oldest = page.oldest_undelivered.map(|oldest| format!(", the oldest from {}", ago(oldest, now))).unwrap_or_default();
    format!("{} readings not delivered ({} sealed){oldest}", count(page.undelivered_readings), bytes(page.undelivered_bytes))
}

fn link(status: &Status, now: Timestamp) -> String {
    let page = &status.link;
    if page.state == LinkState::Off {
        return "off: no upstream is configured, everything is kept here".to_owned();
    }
    let mut text = page.state.as_str().to_owned();
    if let Some(micros) = page.since.and_then(|since| u64::try_from(now.0.saturating_sub(since.0)).ok()) {
        let _ = write!(text, " for {}", duration(Duration::from_micros(micros)));
    }
    if let Some(success) = page.last_success {
        let _ = write!(text, ", last success {}", ago(success, now));
    }
    if let Some(left) = time_to_drain(status) {
        let _ = write!(text, ", done in {left}");
    }
    if page.refused_cuts > 0 {
        let _ = write!(text, ", {} cuts refused", count(page.refused_cuts));
    }
    if let Some(error) = &page.last_error {
        let _ = write!(text, "; last error: {error}");
    }
    text
}

/// Until the backlog is gone, where that is known and takes a while.
pub(super) fn time_to_drain(status: &Status) -> Option<String> {
    let eta = status.link.drain_eta_s.filter(|eta| *eta >= 1.0)?;
    Some(duration(Duration::from_secs_f64(eta.min(1e9))))
}

fn books(status: &Status) -> String {
    let books = &status.books.books;
    let places = [
        (books.hot, "hot"),
        (books.sealed, "sealed"),
        (books.delivered, "delivered"),
        (books.thinned, "thinned"),
        (books.dropped, "dropped"),
        (books.damaged, "damaged"),
    ];
    // Losses are shown only where there are some.
    let shown = places.iter().enumerate().filter(|(place, (number, _))| *place < 3 || *number > 0);
    let sum = shown.map(|(_, (number, name))| format!("{} {name}", count(*number))).collect::<Vec<_>>().join(" + ");
    let verdict = if status.books.balanced { "" } else { " DO NOT BALANCE" };
    format!("{} accepted = {sum}{verdict}; {} kept", count(books.accepted), count(books.kept))
}

fn engine(status: &Status) -> String {
    let page = &status.engine;
    if page.state == EngineState::Off {
        return "off".to_owned();
    }
    let restarts = if page.restarts > 0 { format!(", started again {} times", count(page.restarts)) } else { String::new() };
    let unit = if page.own_unit { " in its own unit" } else { "" };
    format!("{}{unit}, {} segments, {}{restarts}", page.state.as_str(), count(page.segments), bytes(page.rss_bytes))
}

fn machine(status: &Status) -> String {
    let clock = if status.clock.synchronized { "clock synchronised" } else { "clock NOT synchronised" };
    let flash = &status.flash;
    let daily = flash.bytes_per_day.map_or_else(String::new, |daily| format!(", {} a day", bytes(daily as u64)));
    format!(
        "{} memory, {} written ({:.0} B a reading{daily}), {clock}",
        bytes(status.process.rss_bytes),
        bytes(flash.written_bytes),
        flash.bytes_per_reading
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The golden answer of the status room.
    pub fn example() -> Status {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/status.json");
        serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap()
    }

    #[test]
    fn the_page_shows_every_part_of_the_status() {
        let now = Timestamp(1_795_168_800_000_000 + 90_000_000);
        let expected = "\
forebay  gw-1 0.0.0, up 12s
state    ok
ingest   1,000 readings in 904 messages, 12.5/s, 8 series, last arrival 1m 30s ago
         4 rejected, the last one rejected because the payload is not JSON
buffer   300 hot, 12 segments, 1.0 MiB of 1.0 GiB, 8.0 GiB free on disk
         500 readings not delivered (39.1 KiB sealed), the oldest from 1m 30s ago
link     online for 1m 30s, last success 1m 30s ago, done in 4s
books    1,000 accepted = 300 hot + 200 sealed + 450 delivered + 20 thinned + 25 dropped + 5 damaged; 900 kept
engine   ready, 12 segments, 0 B
machine  30.0 MiB memory, 48.8 KiB written (100 B a reading), clock synchronised
listens  mqtt 127.0.0.1:1884
";
        assert_eq!(page(&example(), now, None), expected);
    }

    #[test]
    fn what_is_wrong_stands_below_the_state() {
        let mut status = example();
        status.state = crate::status::State::Degraded;
        status.reasons = vec![crate::status::Reason::degraded("subscription_refused", "the broker refuses a\u{1b}[31m")];
        status.books.balanced = false;
        let page = page(&status, Timestamp(0), None);
        assert!(page.contains("state    degraded\n         subscription_refused: the broker refuses a\u{fffd}[31m\n"), "{page}");
        assert!(page.contains("DO NOT BALANCE"), "{page}");
    }
}
