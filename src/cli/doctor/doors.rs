//! What forebay talks to: the daemon itself, the broker, upstream; with the credentials that are configured.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::Finding;
use crate::cli::connect::Daemon;
use crate::config::Config;
use crate::error::explain;
use crate::ingest::client::{self, KnockError};
use crate::status::{State, Status};
use crate::upload::{self, UpstreamError};

/// For upstream to answer a question.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Others may neither talk to the daemon nor put another socket in its place.
const OTHERS: u32 = 0o007;

const WRITE_BY_OTHERS: u32 = 0o002;

/// The daemon behind its socket, and the socket.
pub async fn daemon(config: &Config, socket: Option<PathBuf>) -> Vec<Finding> {
    let daemon = Daemon::find_or(socket, || config.api.socket.clone());
    let found = permissions(daemon.socket());
    let answer = match daemon.get::<Status>("/api/v1/status").await {
        Ok(status) => state(&status),
        Err(error) => Finding::warning("daemon", error.to_string(), "start it (systemctl start forebay), if it should run"),
    };
    found.into_iter().chain([answer]).collect()
}

fn state(status: &Status) -> Finding {
    let reasons: Vec<&str> = status.reasons.iter().map(|reason| reason.message.as_str()).collect();
    let message = format!("version {} runs, its state is {}", status.version, status.state.as_str());
    let said = || format!("{message}: {}", reasons.join("; "));
    match status.state {
        State::Ok => Finding::ok("daemon", message),
        State::Degraded => Finding::warning("daemon", said(), "\"forebay status\" shows more"),
        State::Failing => Finding::fault("daemon", said(), "\"forebay status\" shows more"),
    }
}

/// Who may use the socket; nothing is said where there is none.
fn permissions(socket: &Path) -> Option<Finding> {
    let found = match fs::symlink_metadata(socket) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            let message = format!("{}: {error}", socket.display());
            return Some(Finding::warning("socket", message, "add this user to the group forebay, or run it as root"));
        }
    };
    let mode = found.permissions().mode() & 0o777;
    let message = format!("{} has mode {mode:04o}", socket.display());
    let folder = socket.parent().and_then(|folder| fs::metadata(folder).ok()).map_or(0, |folder| folder.permissions().mode());
    Some(if !found.file_type().is_socket() {
        Finding::fault("socket", format!("{} is no socket", socket.display()), "remove it, or set api.socket")
    } else if mode & OTHERS != 0 {
        Finding::fault("socket", format!("{message}: everyone on this machine may use it"), "restart forebay: it makes it 0660")
    } else if folder & WRITE_BY_OTHERS != 0 {
        let advice = "set api.socket to a folder that only forebay may write, as /run/forebay";
        Finding::warning("socket", format!("{message}, in a folder that everyone may write"), advice)
    } else {
        Finding::ok("socket", message)
    })
}

/// Whether the broker takes us.
pub async fn broker(config: &Config) -> Finding {
    let Some(mqtt) = &config.mqtt else { return Finding::ok("broker", "none is configured") };
    match client::knock(mqtt, &config.gateway.id).await {
        Ok(()) => Finding::ok("broker", format!("{} lets us in", mqtt.url)),
        Err(KnockError::Settings(error)) => Finding::fault("broker", explain(&error), "correct [mqtt] in the configuration"),
        Err(error @ KnockError::Broker(_)) => {
            Finding::fault("broker", format!("{}: {error}", mqtt.url), "see that it runs there, and that [mqtt] has the right account")
        }
    }
}

/// Whether upstream answers and takes our credentials.
pub async fn upstream(config: &Config) -> Finding {
    let Some(settings) = &config.upstream else { return Finding::ok("upstream", "none is configured: readings are kept here only") };
    let upstream = match upload::open(settings) {
        Ok(upstream) => upstream,
        Err(error) => return Finding::fault("upstream", explain(&error), "correct [upstream] in the configuration"),
    };
    let place = upstream.describe();
    match tokio::time::timeout(ANSWER_TIME, upstream.probe()).await {
        Ok(Ok(())) => Finding::ok("upstream", format!("{place} answers")),
        // The first upload puts it there, unless something was delivered before.
        Ok(Err(UpstreamError::Unmarked(told))) => {
            Finding::warning("upstream", told, "before the first upload this is as it should be; later, see whether the lake is mounted")
        }
        Ok(Err(error @ UpstreamError::Permanent(_))) => {
            Finding::fault("upstream", format!("{place}: {error}"), "see that [upstream] has the right place and keys, and they the rights")
        }
        Ok(Err(error)) => Finding::warning("upstream", format!("{place}: {error}"), "if this lasts, look at the link"),
        Err(_) => {
            let message = format!("{place} did not answer within {} s", ANSWER_TIME.as_secs());
            Finding::warning("upstream", message, "if this lasts, look at the link")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::config::{Mqtt, Upstream};

    #[tokio::test]
    async fn without_broker_and_upstream_nothing_is_missing() {
        let config = Config::default();
        assert_eq!(broker(&config).await.verdict, Verdict::Ok);
        assert_eq!(upstream(&config).await.verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_a_fault_that_names_it() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mqtt = Mqtt { url: format!("mqtt://{free}"), ..Mqtt::default() };
        let found = broker(&Config { mqtt: Some(mqtt), ..Config::default() }).await;
        assert_eq!(found.verdict, Verdict::Fault);
        assert!(found.message.contains(&free.to_string()), "{found:?}");
    }

    #[tokio::test]
    async fn a_folder_is_no_lake_until_it_has_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Upstream { url: folder.path().display().to_string(), ..Upstream::default() };
        let config = Config { upstream: Some(settings), ..Config::default() };
        assert_eq!(upstream(&config).await.verdict, Verdict::Warning);
        fs::write(folder.path().join(upload::MARK), "").unwrap();
        assert_eq!(upstream(&config).await.verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn a_socket_that_everyone_may_use_is_a_fault_and_none_is_no_finding() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.sock");
        assert_eq!(permissions(&path), None);
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let verdict = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            permissions(&path).unwrap().verdict
        };
        assert_eq!((verdict(0o666), verdict(0o660)), (Verdict::Fault, Verdict::Ok));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(verdict(0o660), Verdict::Warning);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(permissions(&path).unwrap().verdict, Verdict::Fault);
    }
}
