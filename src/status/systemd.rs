//! The talk with systemd: ready, status line, watchdog, stopping. All of it does nothing without `NOTIFY_SOCKET`.
//!
//! Owns: nothing.
//! Does not own: progress (it asks for it).
//! Invariants: the watchdog is fed on progress, not on liveness: a pump that is stuck with work before it starves it.
//! On failure: a notification that can't be sent is logged once a change and forgotten; systemd then acts on silence.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::page::Status;
use super::pulse::STALL_LIMIT;
use super::report::{Sources, report};

/// How often the status line is looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The daemon is ready: sources are started.
pub fn ready() {
    send(&NotifyState::Ready);
}

/// The daemon begins to stop.
pub fn stopping() {
    send(&NotifyState::Stopping);
}

fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, %state, "systemd could not be told");
    }
}

/// Keeps systemd informed until `stop`: feeds its watchdog while there is progress, tells the status line when it changes.
///
/// # Errors
/// None; the result fits the task set.
pub async fn keep_informed(sources: Arc<Sources>, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
    let watchdog = sd_notify::watchdog_enabled();
    let mut tick = tokio::time::interval(interval_for(watchdog));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let stalled = sources.stalled(&sources.now());
        match watchdog {
            Some(_) if stalled < STALL_LIMIT => send(&NotifyState::Watchdog),
            Some(_) => tracing::error!(stalled_s = stalled.as_secs(), "no progress: the watchdog is not fed"),
            None => {}
        }
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let line = current_line(&sources).await;
            if line != told {
                send(&NotifyState::Status(&line));
                told = line;
            }
        }
    }
}

/// A third of the watchdog's time, so that one late tick does no harm, and never slower than the status line.
fn interval_for(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(STATUS_INTERVAL, |time| (time / 3).clamp(Duration::from_millis(100), STATUS_INTERVAL))
}

/// A ledger that does not answer must not keep the watchdog from its verdict: the line waits at most one interval.
async fn current_line(sources: &Arc<Sources>) -> String {
    let sources = Arc::clone(sources);
    let asked = tokio::task::spawn_blocking(move || report(&sources).map(|status| line(&status)).map_err(|error| error.to_string()));
    match tokio::time::timeout(STATUS_INTERVAL, asked).await {
        Ok(Ok(Ok(line) | Err(line))) => line,
        Ok(Err(_)) | Err(_) => "the ledger does not answer".to_owned(),
    }
}

/// One line for `systemctl status`.
pub fn line(status: &Status) -> String {
    let (state, link) = (status.state.as_str(), status.link.state.as_str());
    let (readings, rate) = (status.books.books.accepted, status.ingest.readings_per_s);
    let waiting = status.buffer.undelivered_readings;
    let reason = status.reasons.first().map(|reason| format!("; {}", reason.message)).unwrap_or_default();
    format!("{state}: {readings} readings ({rate:.1}/s), {waiting} not delivered, link {link}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_three_times_in_its_time() {
        assert_eq!(interval_for(Some(Duration::from_secs(6))), Duration::from_secs(2));
        assert_eq!(interval_for(Some(Duration::from_secs(120))), STATUS_INTERVAL);
        assert_eq!(interval_for(None), STATUS_INTERVAL);
    }
}
