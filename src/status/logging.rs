//! Where log lines go: stderr for people, or systemd's journal with each field on its own.

use std::fmt;
use std::io::IsTerminal as _;

use systemd_journal_logger::JournalLog;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::quiet::Quiet;
use crate::config::{Log, LogTarget};
use crate::error::ErrorKind;

/// Logging can't begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is neither a level nor directives.
    #[error("log.level \"{level}\" is not a level; write error, warn, info, debug, trace, or as \"info,forebay::upload=debug\"")]
    Level {
        /// What it says.
        level: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// `log.target = "journal"`, and there is none.
    #[error("log.target is \"journal\", but systemd's journal can't be reached")]
    Journal(#[source] std::io::Error),
    /// Logging was begun before in this process.
    #[error("logging is running already")]
    Again(#[source] tracing_subscriber::util::TryInitError),
}

impl LogError {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Level { .. } | Self::Journal(_) => ErrorKind::Config,
            Self::Again(_) => ErrorKind::Broken,
        }
    }
}

/// The log that runs.
#[derive(Debug, Clone)]
pub struct Logging {
    filter: Handle<EnvFilter, Registry>,
    quiet: Quiet,
}

impl Logging {
    /// Lets through what `level` says from now on.
    ///
    /// # Errors
    /// [`LogError::Level`].
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        // It fails only when the log is gone, and then nobody hears of it.
        let _ = self.filter.reload(filter(level)?);
        Ok(())
    }

    /// Says now and then how many lines were left out because they came too fast. Never ends.
    pub async fn tell_left_out(self) {
        self.quiet.tell().await;
    }
}

/// Begins logging for the whole process. `auto` takes the journal when stderr is connected to it.
///
/// # Errors
/// Settings that can't be followed; a second call.
pub fn init(settings: &Log) -> Result<Logging, LogError> {
    let quiet = Quiet::default();
    let (levels, filter) = reload::Layer::new(filter(&settings.level)?);
    let registry = tracing_subscriber::registry().with(levels).with(quiet.clone());
    let begun = match journal(settings.target)? {
        Some(journal) => registry.with(JournalLayer(journal)).try_init(),
        None => {
            let stderr = std::io::stderr;
            let lines = tracing_subscriber::fmt::layer().compact().with_writer(stderr).with_ansi(stderr().is_terminal());
            registry.with(lines).try_init()
        }
    };
    begun.map_err(LogError::Again)?;
    Ok(Logging { filter, quiet })
}

/// What `log.level` lets through.
///
/// # Errors
/// [`LogError::Level`].
pub fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let wrong = |source| LogError::Level { level: level.to_owned(), source };
    // A lone word that is no level would be taken for the name of a module, and silence all others.
    for word in level.split(',').filter(|word| !word.contains('=')) {
        word.parse::<LevelFilter>().map_err(|source| wrong(source.into()))?;
    }
    EnvFilter::builder().parse(level).map_err(wrong)
}

fn journal(target: LogTarget) -> Result<Option<JournalLog>, LogError> {
    let open = || JournalLog::empty().map(|journal| journal.with_syslog_identifier("forebay".to_owned()));
    match target {
        LogTarget::Stderr => Ok(None),
        LogTarget::Journal => open().map(Some).map_err(LogError::Journal),
        LogTarget::Auto if systemd_journal_logger::connected_to_journal() => Ok(open().ok()),
        LogTarget::Auto => Ok(None),
    }
}

/// Hands events to the journal: the message as MESSAGE, each field as a field.
struct JournalLayer(JournalLog);

impl<S: Subscriber> Layer<S> for JournalLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let fields: Vec<(&str, &str)> = parts.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let metadata = event.metadata();
        // A line that can't be sent is lost: there is nowhere to say so.
        let _ = self.0.journal_send(
            &log::Record::builder()
                .args(format_args!("{}", parts.message))
                .level(level_of(metadata.level()))
                .target(metadata.target())
                .module_path(metadata.module_path())
                .file(metadata.file())
                .line(metadata.line())
                .key_values(&fields)
                .build(),
        );
    }
}

fn level_of(level: &Level) -> log::Level {
    match *level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        Level::TRACE => log::Level::Trace,
    }
}

/// An event taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Parts {
    fn put(&mut self, field: &Field, value: String) {
        // A field of its own is called `message` too where the macro's shorthand was used for it.
        if field.name() == "message" && self.message.is_empty() { self.message = value } else { self.fields.push((field.name(), value)) }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_level_that_is_none_is_a_configuration_error_that_names_it() {
        for level in ["info,=", "warning", "info,forebay"] {
            let error = init(&Log { level: level.to_owned(), target: LogTarget::Stderr }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("\"{level}\"")), "{error}");
        }
        for level in ["info", "WARN", "info,forebay::upload=debug", "forebay=trace", "off"] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    struct Keep(Arc<Mutex<Vec<Parts>>>);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut parts = Parts::default();
            event.record(&mut parts);
            self.0.lock().unwrap().push(parts);
        }
    }

    #[test]
    fn an_event_is_taken_apart_into_its_message_and_its_fields() {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Keep(Arc::clone(&kept)));
        tracing::subscriber::with_default(subscriber, || tracing::info!(cut = 7, topic = "a b", "sealed"));
        let expected = Parts { message: "sealed".to_owned(), fields: vec![("cut", "7".to_owned()), ("topic", "a b".to_owned())] };
        assert_eq!(*kept.lock().unwrap(), [expected]);
    }
}
