//! Opening the doors: the Unix socket and the TCP addresses, before anything answers on them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};

use super::error::ApiError;
use super::guard::Token;
use crate::config;
use crate::tls::{Acceptor, ServerFiles};

/// Its owner and its group may talk to the daemon.
const SOCKET_MODE: u32 = 0o660;

/// Doors that are open, so that their addresses are known; the socket's file is removed at the end.
#[derive(Debug)]
pub struct Bound {
    pub(super) unix: UnixDoor,
    pub(super) tcp: Vec<TcpListener>,
    pub(super) token: Option<Token>,
    pub(super) tls: Option<Arc<Acceptor>>,
    pub(super) flight: Flight,
}

/// The doors of Flight SQL.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) tls: Option<Arc<Acceptor>>,
}

#[derive(Debug)]
pub(super) struct UnixDoor {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Opens the doors that `settings` name.
///
/// # Errors
/// [`ApiError::Config`]: an address off loopback without a token, an empty token, what is no address or no socket.
/// [`ApiError::Taken`]: another daemon answers. [`ApiError::Bind`]: the system refuses.
pub async fn bind(settings: &config::Api) -> Result<Bound, ApiError> {
    let Keys { token, tls, flight_tls } = keys(settings)?;
    let tcp = bind_all("api.http", &settings.http, token.is_some()).await?;
    let flight = Flight { tcp: bind_all("api.flight", &settings.flight, token.is_some()).await?, tls: flight_tls };
    let reaches_others = |address: &SocketAddr| !address.ip().is_loopback();
    if tls.is_none() && addresses_of(&tcp).iter().chain(&addresses_of(&flight.tcp)).any(reaches_others) {
        tracing::warn!("the token crosses the network in the clear; set api.tls_cert and tls_key");
    }
    let unix = bind_unix(&settings.socket)?;
    Ok(Bound { unix, tcp, token, tls, flight })
}

/// Whether the doors could be opened by `settings`, but for their addresses.
///
/// # Errors
/// [`ApiError::Config`] and [`ApiError::Tls`].
pub fn check(settings: &config::Api) -> Result<(), ApiError> {
    keys(settings).map(drop)
}

/// What the TCP doors ask for and show.
struct Keys {
    token: Option<Token>,
    tls: Option<Arc<Acceptor>>,
    flight_tls: Option<Arc<Acceptor>>,
}

fn keys(settings: &config::Api) -> Result<Keys, ApiError> {
    let token = settings.token_file.as_deref().map(Token::read).transpose()?;
    let files = ServerFiles::of(settings.tls_cert.as_deref(), settings.tls_key.as_deref(), None)?;
    let tls = files.clone().map(|files| Acceptor::new(files, &["http/1.1"], "TLS handshakes of HTTP failed")).transpose()?;
    let files = files.filter(|_| !settings.flight.is_empty());
    let flight_tls = files.map(|files| Acceptor::new(files, &["h2"], "TLS handshakes of Flight SQL failed")).transpose()?;
    Ok(Keys { token, tls: tls.map(Arc::new), flight_tls: flight_tls.map(Arc::new) })
}

impl Bound {
    /// Of the TCP addresses of HTTP, for status.
    pub fn tls(&self) -> Option<Arc<Acceptor>> {
        self.tls.clone()
    }

    /// The same of Flight SQL.
    pub fn flight_tls(&self) -> Option<Arc<Acceptor>> {
        self.flight.tls.clone()
    }

    /// TCP addresses of HTTP, with the ports that were really taken.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        addresses_of(&self.tcp)
    }

    /// The same of Flight SQL.
    pub fn flight_addresses(&self) -> Vec<SocketAddr> {
        addresses_of(&self.flight.tcp)
    }
}

fn addresses_of(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Opens all of `addresses`, which stand under `key`.
async fn bind_all(key: &str, addresses: &[String], has_token: bool) -> Result<Vec<TcpListener>, ApiError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.extend(bind_tcp(key, address, has_token).await?);
    }
    Ok(listeners)
}

async fn bind_tcp(key: &str, address: &str, has_token: bool) -> Result<Vec<TcpListener>, ApiError> {
    let wrong = |_| ApiError::Config(format!("{key} \"{address}\" is not an address; write it like \"127.0.0.1:8480\""));
    let mut listeners = Vec::new();
    for address in tokio::net::lookup_host(address).await.map_err(wrong)? {
        if !address.ip().is_loopback() && !has_token {
            let message = format!("{key} \"{address}\" is open to the network and needs a token; set api.token_file, or bind to 127.0.0.1");
            return Err(ApiError::Config(message));
        }
        listeners.push(TcpListener::bind(address).await.map_err(ApiError::bind(address))?);
    }
    Ok(listeners)
}

/// Binds under another name first, so that the socket is never there with other permissions than its own.
fn bind_unix(path: &Path) -> Result<UnixDoor, ApiError> {
    let failed = || ApiError::bind(path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed())?;
    }
    clear_the_way(path)?;
    let unfinished = path.with_extension("new");
    remove(&unfinished).map_err(failed())?;
    let listener = UnixListener::bind(&unfinished).map_err(failed())?;
    let finish = || {
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(SOCKET_MODE))?;
        fs::rename(&unfinished, path)?;
        Ok(fs::symlink_metadata(path)?.ino())
    };
    let inode = finish().map_err(failed())?;
    Ok(UnixDoor { listener, path: path.to_owned(), inode })
}

/// A socket on which nobody answers was left by a daemon that was killed. What is not a socket is not ours to remove.
fn clear_the_way(path: &Path) -> Result<(), ApiError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ApiError::bind(path.display())(error)),
        Ok(found) if !found.file_type().is_socket() => {
            Err(ApiError::Config(format!("api.socket \"{}\" is there already and is not a socket", path.display())))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(ApiError::Taken(path.to_owned())),
            Err(_) => remove(path).map_err(ApiError::bind(path.display())),
        },
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        // Only if it is still ours: a daemon started meanwhile may have put its own there.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(socket: PathBuf) -> config::Api {
        config::Api { socket, ..config::Api::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_made_with_its_folder_for_owner_and_group_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/forebay.sock");
        let bound = bind(&at(path.clone())).await.unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_one_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let bound = bind(&at(path.clone())).await.unwrap();
        assert!(matches!(bind(&at(path.clone())).await, Err(ApiError::Taken(_))));
        assert!(path.exists());
        drop(bound);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.sock");
        fs::write(&path, "precious").unwrap();
        let error = bind(&at(path.clone())).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Config);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn off_loopback_needs_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = config::Api { http: vec!["0.0.0.0:0".to_owned()], ..at(folder.path().join("s")) };
        let error = bind(&settings).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Config);
        assert!(error.to_string().contains("0.0.0.0:0") && error.to_string().contains("token_file"), "{error}");

        let token = folder.path().join("token");
        crate::disk::write_atomically(&token, b"secret\n").unwrap();
        settings.token_file = Some(token.clone());
        assert_ne!(bind(&settings).await.unwrap().addresses()[0].port(), 0);

        fs::write(&token, " \n").unwrap();
        assert_eq!(bind(&settings).await.unwrap_err().kind(), crate::error::ErrorKind::Config);
    }
}
