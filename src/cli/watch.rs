//! `forebay status --watch`: the page again every second, or a line where the output is no terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::CliError;
use super::connect::Daemon;
use super::show::{bytes, count, duration, printable};
use super::status::{page, time_to_drain};
use crate::clock::{Clock as _, SystemClock};
use crate::model::Timestamp;
use crate::status::Status;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// For an answer; then the daemon counts as gone, and is asked again.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Rates are means over so many looks.
const WINDOW: usize = 10;

/// Another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows the status until Ctrl-C.
///
/// # Errors
/// The daemon does not answer the first time; the output can't be written.
pub async fn run(daemon: &Daemon, json: bool) -> Result<ExitCode, CliError> {
    let (mut interrupt, mut end) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let watching = async {
        if json {
            return lines(daemon, |text, _| Ok(text)).await;
        }
        if io::stdout().is_terminal() {
            return redraw(daemon).await;
        }
        let mut watched = Watched::default();
        lines(daemon, |text, now| Ok(watched.line(&read(&text)?, now))).await
    };
    tokio::select! {
        outcome = watching => outcome?,
        _ = interrupt.recv() => {}
        _ = end.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One look; what went wrong otherwise, as a sentence.
async fn look(daemon: &Daemon) -> Result<String, CliError> {
    let late = |_| CliError::failed(format!("the daemon did not answer within {} s", ANSWER_TIME.as_secs()));
    tokio::time::timeout(ANSWER_TIME, daemon.text("/api/v1/status")).await.map_err(late)?
}

fn read(text: &str) -> Result<Status, CliError> {
    serde_json::from_str(text).map_err(|error| CliError::failed(format!("the daemon's answer can't be read: {error}")))
}

/// A line a look. What goes wrong later than the first is told once, on stderr, and the daemon asked on.
async fn lines(daemon: &Daemon, mut line: impl FnMut(String, Timestamp) -> Result<String, CliError>) -> Result<(), CliError> {
    let (mut first, mut told) = (true, None);
    loop {
        match look(daemon).await {
            Ok(text) => {
                let line = line(text, SystemClock.now())?;
                writeln!(io::stdout(), "{}", line.trim_end())?;
                (first, told) = (false, None);
            }
            Err(error) if first => return Err(error),
            Err(error) if told.as_ref() != Some(&error.to_string()) => {
                writeln!(io::stderr(), "forebay: {error}")?;
                told = Some(error.to_string());
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The page again and again, on a screen of its own.
async fn redraw(daemon: &Daemon) -> Result<(), CliError> {
    let (mut watched, mut shown, mut gone): (_, String, Option<Instant>) = (Watched::default(), page_of(daemon).await?, None);
    let screen = Screen::enter()?;
    loop {
        match look(daemon).await.and_then(|text| read(&text)) {
            Ok(status) => {
                shown = watched.page(&status, SystemClock.now());
                gone = None;
                screen.draw(&shown)?;
            }
            Err(error) => {
                let since = duration(gone.get_or_insert_with(Instant::now).elapsed());
                screen.draw(&format!("no answer for {since}: {error}\nbefore that:\n{shown}"))?;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The first page; a daemon that is not there is an error before anything is drawn.
async fn page_of(daemon: &Daemon) -> Result<String, CliError> {
    Ok(page(&read(&look(daemon).await?)?, SystemClock.now(), None))
}

/// The terminal while it is drawn on; given back when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        let screen = Self;
        write!(io::stdout(), "{ENTER}")?;
        Ok(screen)
    }

    fn draw(&self, page: &str) -> io::Result<()> {
        // Where it can't be told the page is not cut; 0 rows is what a serial line says of itself.
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (width, height) = size.map_or((usize::MAX, usize::MAX), |size| (size.ws_col.into(), size.ws_row.into()));
        let mut out = io::stdout().lock();
        out.write_all(frame(page, width, height).as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let mut out = io::stdout().lock();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

/// The page as it is drawn over the one before: what does not fit is cut, so that nothing scrolls.
fn frame(page: &str, width: usize, height: usize) -> String {
    let lines = page.lines().take(height).map(|line| line.chars().take(width).collect::<String>() + "\x1b[K");
    format!("\x1b[H{}\x1b[J", lines.collect::<Vec<_>>().join("\r\n"))
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Watched {
    samples: VecDeque<Sample>,
    restarts: u32,
}

#[derive(Debug, Clone)]
struct Sample {
    instance: String,
    uptime_s: f64,
    accepted: u64,
    delivered: u64,
    sent_bytes: u64,
}

impl Watched {
    fn take(&mut self, status: &Status) {
        let sample = Sample {
            instance: status.instance.clone(),
            uptime_s: status.uptime_s,
            accepted: status.books.books.accepted,
            delivered: status.books.books.delivered,
            sent_bytes: status.link.sent_bytes,
        };
        let before = self.samples.back();
        if before.is_some_and(|before| before.uptime_s > sample.uptime_s || before.instance != sample.instance) {
            self.restarts += 1;
            self.samples.clear();
        }
        self.samples.push_back(sample);
        if self.samples.len() > WINDOW {
            self.samples.pop_front();
        }
    }

    /// Readings in, readings out and bytes out a second; `None` at the first look.
    fn rates(&self) -> Option<[f64; 3]> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let time = last.uptime_s - first.uptime_s;
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / time;
        let rates = [rate(first.accepted, last.accepted), rate(first.delivered, last.delivered), rate(first.sent_bytes, last.sent_bytes)];
        (time > 0.0).then_some(rates)
    }

    fn rates_in_words(&self) -> String {
        self.rates().map_or_else(
            || "in ..., out ...".to_owned(),
            |[accepted, delivered, sent]| format!("in {accepted:.1} readings/s, out {delivered:.1} readings/s, {}/s", bytes(sent as u64)),
        )
    }

    fn page(&mut self, status: &Status, now: Timestamp) -> String {
        self.take(status);
        let mut rates = self.rates_in_words();
        if self.restarts > 0 {
            rates += &format!("; the daemon was started again {} times while watched", self.restarts);
        }
        page(status, now, Some(&rates))
    }

    /// The same on a line.
    fn line(&mut self, status: &Status, now: Timestamp) -> String {
        self.take(status);
        let (buffer, link) = (&status.buffer, &status.link);
        let left = time_to_drain(status).map(|left| format!(", done in {left}")).unwrap_or_default();
        let reasons: String = status.reasons.iter().map(|reason| format!("; {}: {}", reason.code, reason.message)).collect();
        printable(&format!(
            "{now} {}, link {}; {}; {} readings not delivered, {} sealed{left}; {} of {}{reasons}",
            status.state.as_str(),
            link.state.as_str(),
            self.rates_in_words(),
            count(buffer.undelivered_readings),
            bytes(buffer.undelivered_bytes),
            bytes(buffer.disk_bytes),
            bytes(buffer.cap_bytes)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::example;

    #[test]
    fn a_small_terminal_shows_the_beginning_and_never_scrolls() {
        let drawn = frame("first line\nsecond\nthird\n", 5, 2);
        assert_eq!(drawn, "\x1b[Hfirst\x1b[K\r\nsecon\x1b[K\x1b[J");
        assert_eq!(frame("", 5, 2), "\x1b[H\x1b[J");
    }

    #[test]
    fn rates_are_of_the_last_looks_and_begin_anew_with_the_daemon() {
        let (mut watched, mut status) = (Watched::default(), example());
        assert!(watched.page(&status, Timestamp(0)).contains("rates    in ..., out ...\n"));
        for _ in 0..2 * WINDOW {
            status.uptime_s += 2.0;
            status.books.books.accepted += 100;
            status.books.books.delivered += 40;
            status.link.sent_bytes += 4096;
            watched.take(&status);
        }
        assert_eq!(watched.rates(), Some([50.0, 20.0, 2048.0]));
        assert!(watched.page(&status, Timestamp(0)).contains("rates    in 50.0 readings/s, out 20.0 readings/s, 2.0 KiB/s\n"));
        status.uptime_s = 1.0;
        assert!(watched.page(&status, Timestamp(0)).contains("started again 1 times while watched"));
    }

    #[test]
    fn a_line_has_rates_buffer_link_and_backlog() {
        let line = Watched::default().line(&example(), Timestamp(0));
        assert_eq!(
            line,
            "1970-01-01T00:00:00.000000Z ok, link online; in ..., out ...; 500 readings not delivered, 39.1 KiB sealed, done in 4s; \
             1.0 MiB of 1.0 GiB"
        );
    }
}
