//! `forebay run`: the daemon, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CliError;
use crate::daemon::{Daemon, DaemonError};
use crate::error::{ErrorKind, explain};
use crate::status::logging;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The file to read [default: /etc/forebay/forebay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs `run` until SIGTERM, SIGINT or a failure.
pub async fn run(args: RunArgs) -> Result<ExitCode, CliError> {
    let loaded = super::config::load(args.config)?;
    logging::init(&loaded.config.log).map_err(|error| CliError::configuration(explain(&error)))?;
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(outlive(listen(SignalKind::hangup())?));
    let daemon = Daemon::start(loaded.config).await.map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = daemon.failed() => {}
    }
    tokio::select! {
        outcome = daemon.stop() => outcome.map_err(failed)?,
        // A second signal cuts the orderly end short; what is acknowledged is on disk.
        _ = interrupt.recv() => return Err(CliError::failed("stopped at once by a second signal".to_owned())),
    }
    Ok(ExitCode::SUCCESS)
}

/// A terminal that is closed, or a habit of reloading by SIGHUP, must not end what keeps readings safe.
async fn outlive(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::warn!("SIGHUP changes nothing: settings are read at the start; restart forebay to apply them");
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
