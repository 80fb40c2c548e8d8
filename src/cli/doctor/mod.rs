//! `forebay doctor`: looks at this machine and says, line by line, what is well, what is not, and what to do.
//!
//! It changes nothing: it opens no ledger, writes nothing anywhere, and asks the broker under a name of its own, so that a
//! daemon that runs is not disturbed.

mod disk;
mod doors;
mod finding;
mod machine;
mod mounts;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{CliError, config};
use crate::config::Config;
use finding::{Finding, Verdict};

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The file to read [default: /etc/forebay/forebay.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
struct Examination {
    /// The worst of all.
    verdict: Verdict,
    findings: Vec<Finding>,
}

/// Runs `doctor`; exit 1 on a fault.
pub async fn run(args: DoctorArgs, socket: Option<PathBuf>) -> Result<ExitCode, CliError> {
    let loaded = config::load(args.config)?;
    let problems = config::problems(&loaded);
    let findings = examine(&loaded.config, &problems, socket).await;
    let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    let examination = Examination { verdict, findings };
    let text = if args.json { serde_json::to_string_pretty(&examination).map_err(CliError::because)? + "\n" } else { page(&examination) };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if verdict == Verdict::Fault { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(config: &Config, problems: &[String], socket: Option<PathBuf>) -> Vec<Finding> {
    let mut findings = configuration(problems);
    findings.extend(disk::examine(config));
    findings.extend(machine::examine());
    let (daemon, broker, upstream) = tokio::join!(doors::daemon(config, socket), doors::broker(config), doors::upstream(config));
    findings.extend(daemon);
    findings.extend([broker, upstream]);
    findings
}

fn configuration(problems: &[String]) -> Vec<Finding> {
    let fault = |problem: &String| {
        Finding::fault("configuration", problem, "correct it; \"forebay config check\" looks again (as root, if a file can't be read)")
    };
    match problems {
        [] => vec![Finding::ok("configuration", "it is right")],
        problems => problems.iter().map(fault).collect(),
    }
}

/// The page for people: a line a finding, and below it what to do.
fn page(examination: &Examination) -> String {
    let width = examination.findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, verdict, message, advice } in &examination.findings {
        let (check, word) = (check.replace('_', " "), verdict.as_str());
        text += &format!("{check:width$}  {word:7}  {}\n", super::show::printable(message));
        if let Some(advice) = advice {
            text += &format!("{:width$}           -> {advice}\n", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_each_check_its_verdict_and_what_to_do() {
        let findings = vec![Finding::ok("clock", "it is synchronised"), Finding::fault("file_system", "on \u{1b}vfat", "use ext4")];
        let text = page(&Examination { verdict: Verdict::Fault, findings });
        let expected = "\
clock        ok       it is synchronised
file system  fault    on \u{fffd}vfat
                      -> use ext4
";
        assert_eq!(text, expected);
    }

    #[test]
    fn every_problem_of_the_configuration_is_a_fault_of_its_own() {
        let verdicts = |problems: &[&str]| {
            let problems: Vec<String> = problems.iter().map(|&problem| problem.to_owned()).collect();
            configuration(&problems).iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(&[]), [Verdict::Ok]);
        assert_eq!(verdicts(&["a", "b"]), [Verdict::Fault, Verdict::Fault]);
    }
}
