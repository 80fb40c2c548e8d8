//! `forebay flush`: seal and upload now.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CliError;
use super::connect::Daemon;
use crate::api::{FlushAnswer, FlushRequest};
use crate::config::Period;
use crate::status::LinkState;

/// Arguments of `flush`.
#[derive(Debug, Clone, Args)]
pub struct FlushArgs {
    /// How long to wait for the delivery
    #[arg(long, value_name = "D", default_value = "30s")]
    wait: Period,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `flush`; ends with 0 when all that was accepted before is delivered.
pub async fn run(args: FlushArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let request = FlushRequest { wait: Some(args.wait) };
    let answer: FlushAnswer = Daemon::find(socket).post("/api/v1/flush", &request, args.wait.0).await?;
    let text = if args.json { serde_json::to_string(&answer).unwrap_or_default() } else { sentence(&answer) };
    writeln!(io::stdout(), "{text}")?;
    Ok(if answer.delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sentence(answer: &FlushAnswer) -> String {
    if answer.delivered {
        return "everything is sealed and delivered".to_owned();
    }
    let (readings, cuts) = (answer.undelivered_readings, answer.undelivered_cuts);
    let left = format!("sealed; {readings} readings in {cuts} cuts are not delivered");
    let link = answer.link.as_str();
    match (answer.link, &answer.last_error) {
        (LinkState::Off, _) => format!("{left}: no upstream is configured"),
        (_, Some(error)) => format!("{left}: the link is {link}: {error}"),
        (_, None) => format!("{left} yet: the link is {link}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_left_and_why() {
        let mut answer =
            FlushAnswer { delivered: false, undelivered_readings: 7, undelivered_cuts: 2, link: LinkState::Off, last_error: None };
        assert_eq!(sentence(&answer), "sealed; 7 readings in 2 cuts are not delivered: no upstream is configured");
        (answer.link, answer.last_error) = (LinkState::Offline, Some("no such folder".to_owned()));
        assert_eq!(sentence(&answer), "sealed; 7 readings in 2 cuts are not delivered: the link is offline: no such folder");
        answer.delivered = true;
        assert_eq!(sentence(&answer), "everything is sealed and delivered");
    }
}
