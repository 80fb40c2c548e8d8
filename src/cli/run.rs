//! `forebay run`: the daemon, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::daemon::{Daemon, DaemonError};
use crate::error::{ErrorKind, explain};
use crate::status::logging::{self, Logging};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The file to read [default: /etc/forebay/forebay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `run` until SIGTERM, SIGINT or a failure.
pub async fn run(args: RunArgs) -> Result<ExitCode, CliError> {
    let loaded = super::config::load(args.config.clone())?;
    let logging = logging::init(&loaded.config.log).map_err(|error| CliError::configuration(explain(&error)))?;
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // From here on it ends nothing: neither a closed terminal nor a reload that comes too early.
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(logging.clone().tell_left_out());
    let daemon = Daemon::start(loaded.config).await.map_err(failed)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = daemon.failed() => break,
            Some(()) = hangup.recv() => reload(&daemon, &logging, args.config.clone()),
        }
    }
    tokio::select! {
        outcome = daemon.stop() => outcome.map_err(failed)?,
        // A second signal cuts the orderly end short; what is acknowledged is on disk.
        _ = interrupt.recv() => return Err(CliError::failed("stopped at once by a second signal".to_owned())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration again. What is wrong with it is told, and changes nothing.
fn reload(daemon: &Daemon, logging: &Logging, file: Option<PathBuf>) {
    let reloaded = super::config::load(file).and_then(|loaded| {
        logging::filter(&loaded.config.log.level).map_err(CliError::because)?;
        let level = loaded.config.log.level.clone();
        let waiting = daemon.reload(loaded.config).map_err(CliError::because)?;
        logging.set_level(&level).map_err(CliError::because)?;
        Ok(waiting)
    });
    match reloaded.as_deref() {
        Ok([]) => tracing::info!("the configuration is read again: routes, limits and the level of the log"),
        Ok(waiting) => {
            let waiting = waiting.join(", ");
            tracing::warn!(waiting, "the configuration is read again; what changed in these sections waits for the next start");
        }
        Err(error) => tracing::error!(%error, "the configuration can't be read again; nothing is changed"),
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::failed(format!("signals can't be received: {error}")))
}

fn failed(error: DaemonError) -> CliError {
    match error.kind() {
        ErrorKind::Config => CliError::configuration(explain(&error)),
        _ => CliError::because(error),
    }
}
