//! `forebay config`: what is set, whether it is right, and what could be.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CliError;
use crate::config::{self, DEFAULT_FILE, Loaded};
use crate::daemon;
use crate::error::explain;
use crate::status::logging;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the effective settings, with where each comes from
    Show {
        /// The file to read [default: /etc/forebay/forebay.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration; exit 78 if it is wrong
    Check {
        /// The file to read [default: /etc/forebay/forebay.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the commented default file
    Default,
}

/// Runs `config`.
pub fn run(args: ConfigArgs) -> Result<ExitCode, CliError> {
    let text = match args.action {
        Action::Default => DEFAULT_FILE.to_owned(),
        Action::Check { config } => {
            check(&load(config)?)?;
            "the configuration is right\n".to_owned()
        }
        Action::Show { config, json } => show(&load(config)?, json)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks the configuration, or says all that is wrong with it.
pub fn load(file: Option<PathBuf>) -> Result<Loaded, CliError> {
    config::load(file.as_deref()).map_err(|problems| CliError::configuration(problems.to_string()))
}

/// What the rooms would say beyond the rules of single keys.
pub fn problems(loaded: &Loaded) -> Vec<String> {
    let mut found: Vec<String> = daemon::check(&loaded.config).iter().map(|error| explain(error)).collect();
    found.extend(logging::filter(&loaded.config.log.level).err().map(|error| explain(&error)));
    found
}

/// All of it at once, as an error.
fn check(loaded: &Loaded) -> Result<(), CliError> {
    let found = problems(loaded);
    match found.len() {
        0 => Ok(()),
        1 => Err(CliError::configuration(found.concat())),
        places => Err(CliError::configuration(format!("the configuration is wrong in {places} places\n  {}", found.join("\n  ")))),
    }
}

fn show(loaded: &Loaded, json: bool) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("the configuration could not be shown: {error}"));
    if json {
        let shown = serde_json::json!({ "settings": loaded.config, "origins": loaded.origins });
        return serde_json::to_string_pretty(&shown).map(|text| text + "\n").map_err(|error| failed(&error));
    }
    let table = toml::Table::try_from(&loaded.config).map_err(|error| failed(&error))?;
    let mut text = String::new();
    for (section, settings) in &table {
        let toml::Value::Table(settings) = settings else {
            text += &format!("{section} = {settings}{}\n", origin(loaded, section));
            continue;
        };
        text += &format!("[{section}]\n");
        for (key, value) in settings {
            text += &format!("{key} = {value}{}\n", origin(loaded, &format!("{section}.{key}")));
        }
        text.push('\n');
    }
    Ok(text)
}

fn origin(loaded: &Loaded, key: &str) -> String {
    loaded.origins.get(key).map_or_else(|| "  # default".to_owned(), |origin| format!("  # {origin}"))
}
