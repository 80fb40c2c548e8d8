//! The engine's process: started from this very program, with one socket and nothing else; or come from a unit of its own,
//! which starts one for each connection.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// What is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for Program {
    /// `forebay engine`, the very file that runs here: after an upgrade under our feet the name leads to another version.
    fn default() -> Self {
        Self { path: PathBuf::from("/proc/self/exe"), args: vec!["engine".into()] }
    }
}

/// Where an engine comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// We start it.
    Child(Program),
    /// The service manager starts one for each connection to this socket, as another user.
    Unit(PathBuf),
}

impl Origin {
    /// Starts an engine that reads `folder`, and gives our end of its control socket.
    ///
    /// # Errors
    /// What can't be started or reached, and why.
    pub async fn start(&self, folder: &Path) -> Result<(Process, UnixStream), String> {
        match self {
            Self::Child(program) => {
                Process::spawn(program, folder).map_err(|error| format!("{} can't be started: {error}", program.path.display()))
            }
            Self::Unit(socket) => match UnixStream::connect(socket).await {
                Ok(control) => Ok((Process::Foreign, control)),
                Err(error) => {
                    let socket = socket.display();
                    Err(format!("nothing answers at engine.socket {socket}: {error}; start forebay-engine.socket, or leave the key out"))
                }
            },
        }
    }
}

/// A running engine. It ends when this is dropped, or when its control socket is.
pub enum Process {
    /// Our child.
    Child {
        /// To kill it.
        child: Child,
        /// Its id.
        pid: u32,
    },
    /// That of a unit: another user's, which we can neither look at nor kill. It ends with its control socket.
    Foreign,
}

impl Process {
    /// Starts `program` in `folder`; its standard input is the other end of the socket. Its environment is empty but for
    /// the allocator's bound, its output goes nowhere, and what it cries at the last goes to our standard error.
    fn spawn(program: &Program, folder: &Path) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = socket_pair()?;
        let mut command = Command::new(&program.path);
        command.args(&program.args).current_dir(folder).env_clear().env("MALLOC_ARENA_MAX", "2");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        // A group of its own: an interrupt at the terminal is for us, who end it in order.
        command.process_group(0);
        let child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        Ok((Self::Child { child, pid }, ours))
    }

    /// Its process id, where it is our child.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Child { pid, .. } => Some(*pid),
            Self::Foreign => None,
        }
    }

    /// Kills it, if it is still there and our child, and says how it ended.
    pub async fn end(self) -> String {
        let Self::Child { mut child, .. } = self else {
            return "the log of its unit says how".to_owned();
        };
        // It may have ended by itself, which is no error here.
        let _ = child.start_kill();
        match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => format!("how it ended is not known: {error}"),
        }
    }
}

/// A connected pair: our end for the runtime, and a blocking one to give away. Both are closed in other programs.
pub fn socket_pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// Resident memory of the process `pid`; 0 where it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    memory_line(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmRSS:").unwrap_or_default()
}

/// The bytes that the line `name` of a process's status names.
pub fn memory_line(status: &str, name: &str) -> Option<u64> {
    let amount = status.lines().find_map(|line| line.strip_prefix(name))?.trim();
    amount.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_from_its_status() {
        let status = "Name:\tforebay\nVmSize:\t  812 kB\nVmRSS:\t   42 kB\n";
        assert_eq!(memory_line(status, "VmSize:"), Some(812 * 1024));
        assert_eq!(memory_line(status, "VmSwap:"), None);
        assert!(resident_bytes(std::process::id()) > 1 << 20);
        assert_eq!(resident_bytes(0), 0);
    }
}
