//! What may change while the daemon runs: the routes, the limits of what is kept and taken, and when a batch is due. Nobody's
//! connection is touched for it. The rest is read at the start.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::config::{self, Config};
use crate::ingest::decode::Decoder;
use crate::ingest::route::RouteError;
use crate::ingest::{Intake, Latest, Rules};
use crate::ledger::Ledger;
use crate::status::Sources;

/// Where new settings go.
pub struct Live {
    /// Those that hold.
    settings: Mutex<Config>,
    /// Copies its WAL when it is told to.
    pub ledger: Ledger,
    /// To the pump.
    pub rules: watch::Sender<Rules>,
    /// To retention.
    pub retention: watch::Sender<config::Retention>,
    /// Holds what waits, by the cap.
    pub intake: Intake,
    /// Admits new series.
    pub latest: Arc<Latest>,
    /// Shows the cap.
    pub sources: Arc<Sources>,
}

impl Live {
    /// With the settings of the start.
    pub fn new(
        settings: Config,
        ledger: Ledger,
        rules: watch::Sender<Rules>,
        retention: watch::Sender<config::Retention>,
        intake: Intake,
        latest: Arc<Latest>,
        sources: Arc<Sources>,
    ) -> Self {
        Self { settings: Mutex::new(settings), ledger, rules, retention, intake, latest, sources }
    }

    /// Takes what may change from `new`; names the sections of which something waits for the next start.
    ///
    /// # Errors
    /// The routes are wrong: nothing is changed.
    pub fn apply(&self, new: Config) -> Result<Vec<&'static str>, RouteError> {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let decoder = Decoder::new(&new.route, &new.ingest)?;
        self.ledger.checkpoint_at(new.journal.checkpoint.0);
        self.rules.send_replace(Rules { decoder: Arc::new(decoder), journal: new.journal.clone() });
        self.retention.send_replace(new.retention.clone());
        self.intake.fit(new.retention.cap.0);
        self.latest.limit(&new.ingest);
        self.sources.set_cap(new.retention.cap.0);
        let waiting = waiting(&settings, &new);
        // Compared with what holds the next time, too.
        let ingest = config::Ingest { max_message_bytes: settings.ingest.max_message_bytes, ..new.ingest };
        *settings = Config { ingest, route: new.route, journal: new.journal, retention: new.retention, ..settings.clone() };
        Ok(waiting)
    }
}

/// The sections that are read at the start alone, and differ.
fn waiting(old: &Config, new: &Config) -> Vec<&'static str> {
    let sections = [
        ("gateway", old.gateway != new.gateway),
        ("mqtt", old.mqtt != new.mqtt),
        ("listener", old.listener != new.listener),
        ("ingest.max_message_bytes", old.ingest.max_message_bytes != new.ingest.max_message_bytes),
        ("segment", old.segment != new.segment),
        ("upstream", old.upstream != new.upstream),
        ("api", old.api != new.api),
        ("engine", old.engine != new.engine),
        ("log.target", old.log.target != new.log.target),
    ];
    sections.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Engine, Mqtt};

    #[test]
    fn what_waits_for_the_next_start_is_named() {
        let old = Config::default();
        assert_eq!(waiting(&old, &old), Vec::<&str>::new());
        let mut new = Config { mqtt: Some(Mqtt::default()), engine: Engine { threads: 7, ..Engine::default() }, ..old.clone() };
        new.retention.cap_readings = 7;
        new.log.level = "debug".to_owned();
        assert_eq!(waiting(&old, &new), ["mqtt", "engine"]);
    }
}
