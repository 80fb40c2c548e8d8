//! Passwords from the keyboard, without showing them.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::secrets::Secret;

/// Longest password: what MQTT can carry.
const MAX_BYTES: usize = 65_535;

/// Switches the echo of stdin off until it is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// A password from stdin: on a terminal asked for twice without echo, else its first line.
///
/// # Errors
/// A sentence: two different passwords, none, one that is too long, or stdin's own error.
pub async fn password(name: &str) -> Result<Secret, String> {
    if !io::stdin().is_terminal() {
        return blocking(read_line).await.and_then(check);
    }
    // The echo comes back however it ends, also by Ctrl-C.
    let _silence = Silence::begin().map_err(|error| format!("the terminal's echo can't be switched off: {error}"))?;
    tokio::select! {
        password = ask_twice(name) => password,
        _ = tokio::signal::ctrl_c() => Err("interrupted; nothing is changed".to_owned()),
    }
}

async fn ask_twice(name: &str) -> Result<Secret, String> {
    let first = ask(format!("Password for {name}: ")).await?;
    let first = check(first)?;
    let again = ask("The same again: ".to_owned()).await?;
    if first.reveal() == again { Ok(first) } else { Err("the two passwords differ; nothing is changed".to_owned()) }
}

async fn ask(prompt: String) -> Result<String, String> {
    blocking(move || {
        let mut stderr = io::stderr();
        write!(stderr, "{prompt}")?;
        stderr.flush()?;
        let line = read_line();
        writeln!(stderr)?;
        line
    })
    .await
}

async fn blocking(read: impl FnOnce() -> io::Result<String> + Send + 'static) -> Result<String, String> {
    let read = tokio::task::spawn_blocking(read).await;
    let line = read.map_err(|_| "the password can't be read".to_owned())?;
    line.map_err(|error| format!("the password can't be read: {error}"))
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    let most = MAX_BYTES as u64 + 2;
    io::Read::take(io::stdin().lock(), most).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether it can be a password at all.
pub fn check(password: String) -> Result<Secret, String> {
    match password.len() {
        0 => Err("the password is empty; nothing is changed".to_owned()),
        1..=MAX_BYTES => Ok(Secret::new(password)),
        _ => Err(format!("the password is longer than {MAX_BYTES} bytes; nothing is changed")),
    }
}
