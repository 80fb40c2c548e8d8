//! `forebay verify`: reads a lake and proves it complete.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CliError;
use super::meter::Meter;
use crate::config;
use crate::error::ErrorKind;
use crate::upload::{Progress, Report, UploadError, verify_watched};

/// Reads a lake and proves it complete: names each gap, duplicate and altered file. A gap that a recorded loss explains
/// is shown as explained. Exit 0: complete or explained; 1: not; 2: wrong use.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The lake: a path, or a `file:` or `s3:` URL.
    pub lake: String,
    /// For `s3:`: the file whose [upstream] has endpoint and keys; without it the environment [default:
    /// /etc/forebay/forebay.toml, where it can be read]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Look at one gateway only.
    #[arg(long, value_name = "ID")]
    pub gateway: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub async fn run(args: VerifyArgs) -> ExitCode {
    let mut meter = Meter::new();
    let settings = match settings(&args) {
        Ok(settings) => settings,
        Err(error) => return error.report(),
    };
    let outcome = verify_watched(&settings, args.gateway.as_deref(), &mut |progress| show(&mut meter, progress)).await;
    meter.clear();
    let printed = match &outcome {
        Ok(report) => print(report, args.json),
        Err(error) => writeln!(io::stderr(), "forebay: {error}"),
    };
    if printed.is_err() { ExitCode::FAILURE } else { ExitCode::from(code(&outcome)) }
}

/// The lake, with endpoint and keys from the configuration where it takes any.
fn settings(args: &VerifyArgs) -> Result<config::Upstream, CliError> {
    let readable = || File::open(config::DEFAULT_PATH).is_ok();
    let asked = args.config.is_some() || (args.lake.starts_with("s3:") && readable());
    let configured = if asked { super::config::load(args.config.clone())?.config.upstream } else { None };
    // Those of another sort of place do not fit.
    let fitting = configured.filter(|upstream| upstream.url.starts_with("s3:")).unwrap_or_default();
    Ok(config::Upstream { url: args.lake.clone(), ..fitting })
}

/// 0: complete or explained; 1: not, or it can't be told; 2: wrong use.
fn code(outcome: &Result<Report, UploadError>) -> u8 {
    match outcome {
        Ok(report) => u8::from(!report.is_complete()),
        Err(error) if error.kind() == ErrorKind::Config => 2,
        Err(_) => 1,
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)
    } else {
        writeln!(out, "{report}")
    }
}

fn show(meter: &mut Meter, progress: Progress) {
    let Progress { manifests_read, manifests, bytes } = progress;
    if manifests_read.is_multiple_of(16) || manifests_read == manifests {
        meter.show(|| format!("manifest {manifests_read} of {manifests}, {} MiB", bytes >> 20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::verify;

    #[tokio::test]
    async fn what_is_no_lake_and_what_is_not_complete_have_their_own_codes() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().to_str().unwrap();
        assert_eq!(code(&verify(empty, None).await), 1);
        assert_eq!(code(&verify(&format!("{empty}/gone"), None).await), 1);
        assert_eq!(code(&verify("ftp://host/lake", None).await), 2);
    }
}
