//! The commands, a file each; thin.

mod config;
pub mod connect;
mod demo;
mod doctor;
mod error;
mod export;
mod flush;
mod import;
mod meter;
mod query;
mod route;
mod run;
mod show;
mod sim;
mod status;
mod table;
mod terminal;
mod user;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use error::CliError;

/// Keeps sensor readings safe on a gateway, answers SQL on the spot, sends everything upstream as Parquet.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
struct Cli {
    /// The daemon's Unix socket [default: FOREBAY_SOCKET, the configuration's, /run/forebay/forebay.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Run(run::RunArgs),
    /// Show the whole story on loopback: sensors, a link that fails, a lake that is complete
    Demo(demo::DemoArgs),
    /// Show what the daemon does
    Status(status::StatusArgs),
    /// Ask SQL of everything kept here
    Query(query::QueryArgs),
    /// Bring readings in from files, each file once
    Import(import::ImportArgs),
    /// Write readings to a file
    Export(export::ExportArgs),
    /// Seal and upload now
    Flush(flush::FlushArgs),
    /// Read a lake and prove it complete
    Verify(verify::VerifyArgs),
    /// Publish simulated sensors
    Sim(sim::SimArgs),
    /// Try the rules that turn messages into readings
    Route(route::RouteArgs),
    /// Accounts of sensors: add one or change its password, remove, list
    User(user::UserArgs),
    /// Look at this machine: what is well, what is not, what to do
    Doctor(doctor::DoctorArgs),
    /// Show, check or print the configuration
    Config(config::ConfigArgs),
    /// The process that runs SQL; started by the daemon
    #[command(hide = true)]
    Engine,
}

/// The command line, for what is written from it: manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Threads that run tasks: one for the sources, one for the doors; more only wake each other.
const WORKER_THREADS: usize = 2;

/// Threads for blocking reads: a few answers at a time and the sealer.
const BLOCKING_THREADS: usize = 16;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The engine restricts itself before it starts a thread, so it must not find any.
    if matches!(cli.command, Command::Engine) {
        return crate::engine::child_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(cli));
            // A blocking read that hangs on a bad card must not keep the process from ending.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            outcome
        }
        Err(error) => Err(CliError::failed(format!("no thread could be started: {error}"))),
    };
    outcome.unwrap_or_else(|error| error.report())
}

async fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { socket, command } = cli;
    match command {
        Command::Run(args) => run::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Status(args) => status::run(args, socket).await,
        Command::Query(args) => query::run(args, socket).await,
        Command::Import(args) => import::run(args, socket).await,
        Command::Export(args) => export::run(args, socket).await,
        Command::Flush(args) => flush::run(args, socket).await,
        Command::Verify(args) => Ok(verify::run(args).await),
        Command::Sim(args) => sim::run(args).await.map(|()| ExitCode::SUCCESS).map_err(CliError::because),
        Command::Route(args) => route::run(args),
        Command::User(args) => user::run(args).await,
        Command::Doctor(args) => doctor::run(args, socket).await,
        Command::Config(args) => config::run(args),
        Command::Engine => Ok(ExitCode::FAILURE),
    }
}
