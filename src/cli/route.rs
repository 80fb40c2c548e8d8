//! `forebay route test`: what a message becomes, and by which rule.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CliError;
use crate::clock::{Clock as _, SystemClock};
use crate::ingest::decode::Decoder;

/// Arguments of `route`.
#[derive(Debug, Args)]
pub struct RouteArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a message becomes, and by which rule
    Test {
        /// The topic
        topic: String,
        /// The payload
        payload: String,
        /// The file with the routes [default: /etc/forebay/forebay.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs `route`.
pub fn run(args: RouteArgs) -> Result<ExitCode, CliError> {
    let Action::Test { topic, payload, config, json } = args.action;
    let config = super::config::load(config)?.config;
    let decoder = Decoder::new(&config.route, &config.ingest).map_err(|error| CliError::configuration(error.to_string()))?;
    let explanation = decoder.explain(&topic, payload.as_bytes(), SystemClock.now());
    let text = if json { serde_json::to_string_pretty(&explanation).map_err(CliError::because)? } else { explanation.to_string() };
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(CliError::because)?;
    Ok(ExitCode::SUCCESS)
}
