//! `forebay sim`: simulated sensors that really publish.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Period;
use crate::ingest::sim::{self, Outcome, Progress, Settings, SimError};
use crate::tls::ClientFiles;

/// Publish simulated sensors and count what is acknowledged.
#[derive(Debug, Clone, clap::Args)]
pub struct SimArgs {
    /// Where to publish: mqtt://host:port, or mqtts://host:port for TLS
    #[arg(long, value_name = "URL")]
    pub mqtt: String,
    /// For TLS: the authority that signed the receiver's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// For TLS: a certificate to show
    #[arg(long, value_name = "FILE", requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// For TLS: its key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// Account to log in with
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// File with its password
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// How many sensors
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub sensors: usize,
    /// Messages per second of all sensors together; 0: as fast as they are acknowledged
    #[arg(long, value_name = "R", default_value_t = 10.0)]
    pub rate: f64,
    /// How long, for example 60s; without it, until interrupted
    #[arg(long = "for", value_name = "D")]
    pub duration: Option<Period>,
    /// Quality of service: 0 or 1
    #[arg(long, value_name = "0|1", default_value_t = 1, value_parser = parse_qos)]
    pub qos: u8,
    /// Readings in a message
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub readings: usize,
    /// Most messages of one connection that are not acknowledged yet
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Begins the names of sensors and connections
    #[arg(long, value_name = "NAME", default_value = "sim")]
    pub prefix: String,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// How `forebay sim` fails.
#[derive(Debug, thiserror::Error)]
pub enum SimCommandError {
    /// Nothing was published, or not all of it.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// Some of what was sent got no acknowledgement.
    #[error("{} of {} messages were not acknowledged", .0.sent - .0.acknowledged, .0.sent)]
    Unacknowledged(Outcome),
    /// The result could not be printed.
    #[error("can't print the result")]
    Print(#[from] std::io::Error),
}

fn parse_qos(text: &str) -> Result<u8, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "2" => Err("QoS 2 is not supported yet; use 0 or 1".to_owned()),
        _ => Err("QoS is 0 or 1".to_owned()),
    }
}

/// Publishes until the time is over or Ctrl-C, and prints the result.
///
/// # Errors
/// [`SimCommandError`]; with QoS 1 also if a message was not acknowledged.
pub async fn run(args: SimArgs) -> Result<(), SimCommandError> {
    let settings = Settings {
        url: args.mqtt,
        tls: ClientFiles { ca: args.ca_file, cert: args.cert_file, key: args.key_file },
        username: args.username,
        password_file: args.password_file,
        sensors: args.sensors,
        rate: args.rate,
        duration: args.duration.map(|Period(duration)| duration),
        qos: args.qos,
        readings_per_message: args.readings,
        window: args.window,
        client_prefix: args.prefix,
    };
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let begun = std::time::Instant::now();
    let work = sim::run(settings.clone(), stop.clone(), Arc::clone(&progress));
    let outcome = tokio::select! {
        outcome = work_until_interrupted(work, &stop) => outcome?,
        () = show(&progress, &settings) => Outcome::default(),
    };
    print(&outcome, begun.elapsed(), args.json)?;
    if settings.qos > 0 && outcome.acknowledged < outcome.sent { Err(SimCommandError::Unacknowledged(outcome)) } else { Ok(()) }
}

/// Ctrl-C ends publishing, and what is under way is still waited for.
async fn work_until_interrupted<T>(work: impl Future<Output = T>, stop: &CancellationToken) -> T {
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => return outcome,
        _ = tokio::signal::ctrl_c() => stop.cancel(),
    }
    work.await
}

/// One line on a terminal, twice a second, for ever.
async fn show(progress: &Progress, settings: &Settings) {
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let Outcome { sent, acknowledged, reconnects, .. } = progress.outcome(settings);
        let connections = progress.connections();
        // Progress that can't be shown is no reason to stop.
        let _ = write!(stderr, "\r{sent} sent, {acknowledged} acknowledged, {connections} connections, {reconnects} reconnects ");
        let _ = stderr.flush();
    }
}

fn print(outcome: &Outcome, took: Duration, json: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut stdout, outcome)?;
        return writeln!(stdout);
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r");
    }
    let Outcome { sent, acknowledged, readings_sent, readings_acknowledged, errors, reconnects } = outcome;
    let seconds = took.as_secs_f64();
    writeln!(stdout, "sent          {sent} messages, {readings_sent} readings in {seconds:.1}s")?;
    writeln!(stdout, "acknowledged  {acknowledged} messages, {readings_acknowledged} readings")?;
    writeln!(stdout, "connections   {reconnects} reconnects, {errors} errors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, FromArgMatches};

    fn parse(line: &str) -> Result<SimArgs, String> {
        let command = SimArgs::augment_args(clap::Command::new("sim"));
        let matches = command.try_get_matches_from(line.split(' ')).map_err(|error| error.to_string())?;
        SimArgs::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read_with_their_units() {
        let args = parse("sim --mqtt mqtt://h --for 90s --rate 0.5 --window 1 --qos 0").unwrap();
        assert_eq!((args.duration, args.window, args.qos), (Some(Period(Duration::from_secs(90))), 1, 0));
        assert_eq!((args.rate, args.sensors, args.readings), (0.5, 10, 3));
    }

    #[test]
    fn what_can_not_be_done_is_refused_with_the_reason() {
        for (line, reason) in [
            ("sim", "--mqtt"),
            ("sim --mqtt mqtt://h --qos 2", "QoS 2 is not supported yet; use 0 or 1"),
            ("sim --mqtt mqtt://h --window 0", "window"),
            ("sim --mqtt mqtts://h --cert-file c", "--key-file"),
            ("sim --mqtt mqtt://h --password-file p", "--username"),
            ("sim --mqtt mqtt://h --for 5", "15m"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(reason), "{line}: {message}");
        }
    }

    #[tokio::test]
    async fn nobody_to_publish_to_is_an_error_that_names_the_address() {
        let args = parse("sim --mqtt mqtt://127.0.0.1:9 --for 1s").unwrap();
        let message = run(args).await.unwrap_err().to_string();
        assert!(message.contains("can't publish to mqtt://127.0.0.1:9"), "{message}");
    }
}
