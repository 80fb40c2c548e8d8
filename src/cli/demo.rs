//! `forebay demo`: the whole story on loopback, nothing to install.
//!
//! A daemon with its own listener, simulated sensors that really publish, a directory as lake, and a link that fails for
//! the middle third of the time: the lake's folder is moved away, as a mount that drops out would be.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::CliError;
use crate::config::{self, Config, Period};
use crate::daemon::Daemon;
use crate::ingest::sim;
use crate::model::columns;
use crate::segment;
use crate::status::{LinkState, Status};
use crate::upload;

/// How long the demo waits in the end for the backlog to be delivered.
const DRAIN_TIME: Duration = Duration::from_secs(60);

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How long sensors publish
    #[arg(long = "for", value_name = "TIME", default_value = "60s")]
    duration: Period,
    /// Where to keep everything, also afterwards [default: a scratch folder that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs `demo`; exit 0 only if every acknowledged reading is in the lake once.
pub async fn run(args: DemoArgs) -> Result<ExitCode, CliError> {
    let scratch = args.dir.is_none();
    // A name that nobody can have taken before us, in a folder that everybody may write to.
    let dir = args.dir.unwrap_or_else(|| std::env::temp_dir().join(format!("forebay-demo-{:016x}", rand::random::<u64>())));
    std::fs::DirBuilder::new()
        .recursive(!scratch)
        .mode(0o700)
        .create(&dir)
        .map_err(|error| CliError::failed(format!("{} can't be made: {error}", dir.display())))?;
    let dir = dir.canonicalize().map_err(|error| CliError::failed(format!("{} can't be used: {error}", dir.display())))?;
    let outcome = tell(&dir, args.duration.0).await;
    if scratch {
        let _ = std::fs::remove_dir_all(&dir);
    }
    outcome
}

/// The story: start, publish, lose the link, get it back, drain, prove.
async fn tell(dir: &Path, duration: Duration) -> Result<ExitCode, CliError> {
    let daemon = Daemon::start(settings(dir)?).await.map_err(CliError::because)?;
    let port = daemon.addresses().mqtt.first().map(std::net::SocketAddr::port).unwrap_or_default();
    say(&format!(
        "forebay demo in {}\n\
         twenty sensors publish over MQTT at 127.0.0.1:{port} for {}; the link to the lake fails for the middle third\n\
         meanwhile, in another terminal:  forebay status --socket {}\n",
        dir.display(),
        Period(duration),
        dir.join("forebay.sock").display(),
    ));
    let sensors = sim::Settings {
        url: format!("mqtt://127.0.0.1:{port}"),
        sensors: 20,
        rate: 200.0,
        duration: Some(duration),
        ..sim::Settings::default()
    };
    let progress = Arc::new(sim::Progress::default());
    let publishing = tokio::spawn(sim::run(sensors.clone(), CancellationToken::new(), Arc::clone(&progress)));
    let lake = Lake { place: dir.join("lake"), away: dir.join("lake-out-of-reach") };
    watch(&daemon, &lake, duration, || progress.outcome(&sensors).readings_acknowledged).await?;
    let sent = publishing.await.map_err(CliError::because)?;
    let sent = sent.map_err(CliError::because)?;
    drain(&daemon).await?;
    let ended = daemon.status().await.map_err(CliError::because)?;
    daemon.stop().await.map_err(CliError::because)?;
    conclude(&lake.place, sent, &ended).await
}

fn settings(dir: &Path) -> Result<Config, CliError> {
    let dir = toml::Value::String(dir.display().to_string()).to_string();
    let dir = dir.trim_matches('"');
    let text = format!(
        "[gateway]\nid = \"demo\"\ndata_dir = \"{dir}/data\"\n[api]\nsocket = \"{dir}/forebay.sock\"\n\
         [listener]\nbind = [\"127.0.0.1:0\"]\n[segment]\nseal_interval = \"2s\"\n\
         [upstream]\nurl = \"file://{dir}/lake\"\nretry_min = \"200ms\"\nretry_max = \"1s\"\nprobe_interval = \"500ms\"\n"
    );
    config::parse(&text).map(|loaded| loaded.config).map_err(|problems| CliError::configuration(problems.to_string()))
}

/// The lake's folder, and where it is while the link is down.
struct Lake {
    place: PathBuf,
    away: PathBuf,
}

impl Lake {
    fn unplug(&self) {
        let _ = std::fs::rename(&self.place, &self.away);
    }

    fn plug_in(&self) {
        let _ = std::fs::rename(&self.away, &self.place);
    }
}

/// Shows a line a second, and takes the link away for the middle third.
async fn watch(daemon: &Daemon, lake: &Lake, duration: Duration, acknowledged: impl Fn() -> u64) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut unplugged = false;
    say("   time  link      acknowledged  committed        hot     sealed  delivered\n");
    while begun.elapsed() < duration {
        tokio::time::sleep(Duration::from_secs(1).min(duration)).await;
        let third = begun.elapsed().as_secs_f64() / duration.as_secs_f64() * 3.0;
        if !unplugged && third >= 1.0 {
            (unplugged, ()) = (true, lake.unplug());
            say("         the link fails\n");
        } else if third >= 2.0 && lake.away.exists() {
            lake.plug_in();
            say("         the link is back\n");
        }
        let status = daemon.status().await.map_err(CliError::because)?;
        say(&line(begun.elapsed(), acknowledged(), &status));
    }
    lake.plug_in();
    Ok(())
}

fn line(elapsed: Duration, acknowledged: u64, status: &Status) -> String {
    let books = &status.books.books;
    let link = match status.link.state {
        LinkState::Online => "online",
        LinkState::Offline => "offline",
        LinkState::Probing => "probing",
        LinkState::Off => "off",
    };
    format!(
        "  {:4} s  {link:8}  {acknowledged:12}  {:9}  {:9}  {:9}  {:9}\n",
        elapsed.as_secs(),
        books.accepted,
        books.hot,
        books.sealed,
        books.delivered
    )
}

/// Flushes, as the command does, until nothing is left to deliver.
async fn drain(daemon: &Daemon) -> Result<(), CliError> {
    let end = Instant::now() + DRAIN_TIME;
    loop {
        daemon.flush().await.map_err(CliError::because)?;
        let status = daemon.status().await.map_err(CliError::because)?;
        let books = &status.books.books;
        if books.hot + books.sealed == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(CliError::failed(format!("{} readings were not delivered in time", books.hot + books.sealed)));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The table, what `verify` found, and whether every acknowledged message is in the lake once.
async fn conclude(lake: &Path, sent: sim::Outcome, ended: &Status) -> Result<ExitCode, CliError> {
    let report = upload::verify(&lake.display().to_string(), None).await.map_err(CliError::because)?;
    let folder = lake.to_path_buf();
    let counted = tokio::task::spawn_blocking(move || count(&folder)).await.map_err(CliError::because)??;
    let books = &ended.books.books;
    let lost = books.thinned + books.dropped + books.damaged;
    let mut text = String::from("\n  readings\n");
    for (what, readings) in [
        ("sent by the sensors", sent.readings_sent),
        ("acknowledged", sent.readings_acknowledged),
        ("committed", books.accepted),
        ("delivered", books.delivered),
        ("in the lake", counted.readings),
        ("in the lake twice", counted.doubled),
        ("lost", lost),
    ] {
        let _ = writeln!(text, "  {what:22}{readings:10}");
    }
    say(&format!("{text}\n{report}\n"));
    let every_one = counted.messages >= sent.acknowledged && counted.doubled == 0 && counted.readings == books.accepted;
    let proven = report.is_complete() && ended.books.balanced && lost == 0 && books.delivered == books.accepted;
    let (verdict, code) = if every_one && proven {
        ("every acknowledged reading is in the lake, once", ExitCode::SUCCESS)
    } else {
        ("NOT every acknowledged reading is in the lake once", ExitCode::FAILURE)
    };
    say(&format!("{verdict}\n"));
    Ok(code)
}

#[derive(Debug, Default)]
struct Counted {
    readings: u64,
    /// Different messages, by sensor and the number it gave them.
    messages: u64,
    doubled: u64,
}

/// Reads the lake as anyone would.
fn count(lake: &Path) -> Result<Counted, CliError> {
    let mut counted = Counted::default();
    let mut times: HashMap<(Arc<str>, u64), u64> = HashMap::new();
    for file in files(&lake.join("readings")) {
        let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("{} can't be read: {error}", file.display()));
        for batch in segment::read(&file).map_err(|error| failed(&error))? {
            let readings =
                batch.map_err(|error| failed(&error)).and_then(|batch| columns::to_readings(&batch).map_err(|error| failed(&error)))?;
            counted.readings += readings.len() as u64;
            let numbers = readings.into_iter().filter(|(_, reading)| &*reading.metric == "seq");
            numbers.for_each(|(_, reading)| *times.entry((reading.sensor, reading.value.unwrap_or_default() as u64)).or_default() += 1);
        }
    }
    counted.messages = times.len() as u64;
    counted.doubled = times.values().filter(|times| **times > 1).count() as u64;
    Ok(counted)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Prints; a terminal that is gone is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
