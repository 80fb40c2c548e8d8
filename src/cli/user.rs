//! `forebay user`: the accounts of sensors that publish straight to forebay.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{CliError, config, terminal};
use crate::config::Loaded;
use crate::error::ErrorKind;
use crate::ingest::users::{self, UsersError};
use crate::secrets;

/// Arguments of `user`.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add an account, or give it a new password; asks for the password, or reads it from stdin
    Add {
        /// The user name
        name: String,
        /// Read the password from this file
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Remove an account; a connection it has stays until it ends
    Remove {
        /// The user name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// List the names
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The file of accounts [default: listener.users_file of the configuration]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration [default: /etc/forebay/forebay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The file, and who should own it if it is new: whom the data belongs to, so that what root adds the daemon can read.
    fn find(self) -> Result<(PathBuf, Option<(u32, u32)>), CliError> {
        if let Some(file) = self.file {
            return Ok((file, None));
        }
        let Loaded { config, .. } = config::load(self.config)?;
        let file = config.listener.and_then(|listener| listener.users_file);
        let owner = std::fs::metadata(&config.gateway.data_dir).ok().map(|folder| (folder.uid(), folder.gid()));
        let file =
            file.ok_or_else(|| CliError::wrong_use("the configuration names no listener.users_file; set it, or name a file with --file"))?;
        Ok((file, owner))
    }
}

/// Runs `user`.
pub async fn run(args: UserArgs) -> Result<ExitCode, CliError> {
    let said = match args.action {
        Action::Add { name, password_file, place } => {
            let (file, owner) = place.find()?;
            let password = match password_file {
                Some(path) => secrets::read(&path).map_err(CliError::because)?,
                None => terminal::password(&name).await.map_err(CliError::failed)?,
            };
            let hash = users::hash(password.reveal().as_bytes()).map_err(CliError::failed)?;
            let was_there = users::change(&file, &name, Some(&hash), owner).map_err(failed)?;
            let done = if was_there { "has a new password" } else { "is added" };
            format!("\"{name}\" {done} in {}\n", file.display())
        }
        Action::Remove { name, place } => {
            let (file, _) = place.find()?;
            if !users::change(&file, &name, None, None).map_err(failed)? {
                return Err(CliError::failed(format!("there is no account \"{name}\" in {}", file.display())));
            }
            format!("\"{name}\" is removed from {}\n", file.display())
        }
        Action::List { json, place } => list(&place.find()?.0, json)?,
    };
    std::io::stdout().write_all(said.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list(file: &Path, json: bool) -> Result<String, CliError> {
    let accounts = users::read(file).map_err(failed)?;
    if json {
        return Ok(format!("{}\n", serde_json::json!(accounts.names())));
    }
    Ok(accounts.names().iter().map(|name| format!("{name}\n")).collect())
}

fn failed(error: UsersError) -> CliError {
    match error.kind() {
        ErrorKind::Config => CliError::configuration(crate::error::explain(&error)),
        ErrorKind::Invalid => CliError::wrong_use(error.to_string()),
        _ => CliError::because(error),
    }
}
