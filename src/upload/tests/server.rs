//! An HTTP server that keeps objects and fails by script: S3 and collector at once, as far as the two are alike. It is
//! written by hand, because a library would not do most of what it has to do wrong.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::config;
use crate::model::Digest;

/// What goes wrong with a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// It is refused with this status and these header lines.
    Refuse(u16, &'static str),
    /// It is refused before its body is read.
    RefuseEarly(u16),
    /// It is stored, and then fails with this status.
    StoreAndFail(u16),
    /// No answer ever comes.
    Hang,
    /// The connection is reset in the middle of the body.
    Reset,
    /// It is stored, and the connection is reset instead of a reply.
    DropReply,
    /// Half of it is stored, and it is said to be well.
    StoreHalf,
    /// It is stored, and another digest is confirmed.
    ConfirmOther,
    /// Nothing is stored, and it is said to be well.
    Pretend,
    /// Nothing is stored, and the reply has no end.
    EndlessReply(u16),
    /// Nothing is stored, and the head of the reply has no end.
    EndlessHead,
    /// Someone else stores these bytes just before.
    Race(&'static str),
    /// As a captive portal does it.
    Html,
}

/// Whether the server heeds `If-None-Match: *`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditional {
    /// It does.
    Honoured,
    /// It replaces what is there.
    Ignored,
    /// It answers 501.
    Unknown,
}

/// Which certificate the server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// One that the client trusts.
    Good,
    /// One of an authority that the client does not know.
    Foreign,
    /// One that was good once.
    Expired,
    /// One that is good later.
    Early,
}

/// How the server is, beside its objects.
pub struct State {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// What each coming put meets; then all is well.
    pub script: VecDeque<Trouble>,
    /// Every request, as `METHOD path`.
    pub requests: Vec<String>,
    /// Every `authorization` that came.
    pub tokens: Vec<String>,
    /// Bytes of bodies that came in.
    pub received: u64,
    /// Digests are given, and confirmed.
    pub digests: bool,
    /// HEAD is known.
    pub head: bool,
    pub conditional: Conditional,
    /// Everything is answered as a captive portal does it.
    pub portal: bool,
    /// What every request is refused with.
    pub refuse_all: Option<(u16, String)>,
}

/// The server; it ends with the test's runtime.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    state: Arc<Mutex<State>>,
    folder: Arc<tempfile::TempDir>,
    tls: bool,
}

struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Server {
    /// Without TLS.
    pub async fn plain() -> Self {
        Self::start(None).await
    }

    /// With TLS.
    pub async fn tls(shows: Shows) -> Self {
        Self::start(Some(shows)).await
    }

    async fn start(shows: Option<Shows>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let acceptor = shows.map(|shows| acceptor(shows, folder.path()));
        std::fs::write(folder.path().join("keys"), "aws_access_key_id = AK\naws_secret_access_key = SK\n").unwrap();
        std::fs::write(folder.path().join("token"), "open-sesame\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            objects: BTreeMap::new(),
            script: VecDeque::new(),
            requests: Vec::new(),
            tokens: Vec::new(),
            received: 0,
            digests: true,
            head: true,
            conditional: Conditional::Honoured,
            portal: false,
            refuse_all: None,
        };
        let server = Self { port, state: Arc::new(Mutex::new(state)), folder, tls: shows.is_some() };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(tcp, acceptor.clone()));
            }
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next puts meet `troubles`.
    pub fn script(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.state().script = troubles.into_iter().collect();
    }

    fn base(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls { "https" } else { "http" }, self.port)
    }

    fn ca_file(&self) -> Option<PathBuf> {
        self.tls.then(|| self.folder.path().join("ca.pem"))
    }

    /// The settings that lead here as to a collector.
    pub fn as_collector(&self) -> config::Upstream {
        let token_file = Some(self.folder.path().join("token"));
        config::Upstream { url: format!("{}/farm", self.base()), token_file, ca_file: self.ca_file(), ..config::Upstream::default() }
    }

    /// The settings that lead here as to S3.
    pub fn as_s3(&self) -> config::Upstream {
        config::Upstream {
            url: "s3://lake/farm".to_owned(),
            endpoint: Some(self.base()),
            region: Some("here".to_owned()),
            credentials_file: Some(self.folder.path().join("keys")),
            ca_file: self.ca_file(),
            ..config::Upstream::default()
        }
    }

    /// The objects of the lake, by key, whichever way they came.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let key = |path: &String| path.split_once("/farm/").map(|(_, key)| key.replace("%3D", "="));
        let objects = state.objects.iter().filter_map(|(path, bytes)| Some((key(path)?, bytes.clone())));
        objects.filter(|(key, _)| !key.starts_with('.')).collect()
    }

    async fn serve(self, tcp: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<()> {
        // To drop it is to reset it; a connection that ends well is ended by the client.
        tcp.set_zero_linger()?;
        match acceptor {
            Some(acceptor) => self.talk(acceptor.accept(tcp).await?).await,
            None => self.talk(tcp).await,
        }
    }

    async fn talk(&self, line: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut line = BufReader::new(line);
        loop {
            let asked = read_head(&mut line).await?;
            self.note(&asked);
            let early = {
                let state = self.state();
                if state.portal { Some((200, "portal".to_owned())) } else { state.refuse_all.clone() }
            };
            match (early, asked.method.as_str()) {
                (Some((status, said)), method) => {
                    read_body(&mut line, &asked, u64::MAX).await?;
                    reply(&mut line, status, "content-type: text/html\r\n", if method == "HEAD" { "" } else { &said }.as_bytes()).await?;
                }
                (None, "PUT") => self.take(&mut line, &asked).await?,
                (None, method) => self.give(&mut line, &asked, method == "HEAD").await?,
            }
        }
    }

    fn note(&self, asked: &Asked) {
        let mut state = self.state();
        state.requests.push(format!("{} {}", asked.method, asked.path));
        state.tokens.extend(asked.headers.get("authorization").cloned());
    }

    async fn give(&self, line: &mut (impl AsyncWrite + Unpin), asked: &Asked, head: bool) -> io::Result<()> {
        if asked.path.matches('/').count() == 1 {
            return reply(line, 200, "", b"").await;
        }
        let (found, digests, head_known) = {
            let state = self.state();
            (state.objects.get(&asked.path).cloned(), state.digests, state.head)
        };
        match found {
            _ if head && !head_known => reply(line, 405, "", b"").await,
            None => reply(line, 404, "", b"").await,
            Some(bytes) => {
                let lines = if digests { digest_lines(Digest::of(&bytes)) } else { String::new() };
                let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{lines}\r\n", bytes.len());
                line.write_all(length.as_bytes()).await?;
                line.write_all(if head { b"" } else { &bytes }).await?;
                line.flush().await
            }
        }
    }

    async fn take(&self, line: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>, asked: &Asked) -> io::Result<()> {
        let is_mark = asked.path.ends_with("/.forebay-lake");
        let trouble = if is_mark { Trouble::None } else { self.state().script.pop_front().unwrap_or(Trouble::None) };
        if let Trouble::RefuseEarly(status) = trouble {
            reply(line, status, "connection: close\r\n", b"no").await?;
            read_body(line, asked, u64::MAX).await?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let half = asked.length() / 2;
        let body = read_body(line, asked, if trouble == Trouble::Reset { half } else { u64::MAX }).await?;
        self.state().received += body.len() as u64;
        let html = b"<html><body>Please log in</body></html>";
        match trouble {
            Trouble::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Trouble::Hang => std::future::pending().await,
            Trouble::Refuse(status, lines) => reply(line, status, lines, b"<Error><Code>No</Code></Error>").await,
            Trouble::Html => reply(line, 200, "content-type: text/html\r\n", html).await,
            Trouble::Pretend => reply(line, 201, "", b"").await,
            Trouble::EndlessReply(status) => endless(line, &format!("HTTP/1.1 {status} X\r\n\r\n"), "x").await,
            Trouble::EndlessHead => endless(line, "HTTP/1.1 200 OK\r\n", "x-more: and more\r\n").await,
            Trouble::StoreHalf => {
                let kept = body.get(..half as usize).unwrap_or_default().to_vec();
                self.state().objects.insert(asked.path.clone(), kept);
                reply(line, 201, "", b"").await
            }
            Trouble::Race(other) => {
                self.state().objects.insert(asked.path.clone(), other.as_bytes().to_vec());
                self.store(line, asked, body, &trouble).await
            }
            _ => self.store(line, asked, body, &trouble).await,
        }
    }

    async fn store(&self, line: &mut (impl AsyncWrite + Unpin), asked: &Asked, body: Vec<u8>, trouble: &Trouble) -> io::Result<()> {
        let digest = Digest::of(&body);
        let (status, digests) = {
            let mut state = self.state();
            let asks = asked.headers.get("if-none-match").is_some_and(|value| value == "*");
            let status = match state.conditional {
                Conditional::Unknown if asks => 501,
                Conditional::Honoured if asks && state.objects.contains_key(&asked.path) => 412,
                _ if asked.promised().is_some_and(|promised| promised != BASE64_STANDARD.encode(digest.0)) => 400,
                _ => 201,
            };
            if status == 201 {
                state.objects.insert(asked.path.clone(), body);
            }
            (status, state.digests)
        };
        match trouble {
            Trouble::StoreAndFail(status) => reply(line, *status, "", b"").await,
            Trouble::DropReply => Err(io::ErrorKind::ConnectionReset.into()),
            Trouble::ConfirmOther => reply(line, 201, &digest_lines(Digest::of(b"other")), b"").await,
            _ if digests && status == 201 => reply(line, status, &digest_lines(digest), b"").await,
            _ => reply(line, status, "", b"").await,
        }
    }
}

impl Asked {
    fn length(&self) -> u64 {
        self.headers.get("content-length").map_or(0, |length| length.parse().unwrap())
    }

    /// The digest that came with it, in base64.
    fn promised(&self) -> Option<String> {
        let repr = self.headers.get("repr-digest").map(|digest| digest.replace("sha-256=:", "").replace(':', ""));
        repr.or_else(|| self.headers.get("x-amz-checksum-sha256").cloned())
    }
}

async fn read_head(line: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Asked> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if line.read_line(&mut text).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut lines = text.lines();
    let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Ok(Asked { method, path, headers: headers.collect() })
}

async fn read_body(line: &mut (impl AsyncRead + Unpin), asked: &Asked, limit: u64) -> io::Result<Vec<u8>> {
    let wanted = asked.length().min(limit);
    let mut body = Vec::new();
    match line.take(wanted).read_to_end(&mut body).await? as u64 {
        read if read == wanted => Ok(body),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn reply(line: &mut (impl AsyncWrite + Unpin), status: u16, lines: &str, body: &[u8]) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{lines}\r\n", body.len());
    line.write_all(head.as_bytes()).await?;
    line.write_all(body).await?;
    line.flush().await
}

async fn endless(line: &mut (impl AsyncWrite + Unpin), head: &str, piece: &str) -> io::Result<()> {
    line.write_all(head.as_bytes()).await?;
    let piece = piece.repeat(1000);
    loop {
        line.write_all(piece.as_bytes()).await?;
    }
}

fn digest_lines(digest: Digest) -> String {
    let text = BASE64_STANDARD.encode(digest.0);
    format!("repr-digest: sha-256=:{text}:\r\nx-amz-checksum-sha256: {text}\r\n")
}

/// An acceptor with a certificate for this machine; its authority is written to `ca.pem`.
fn acceptor(shows: Shows, folder: &Path) -> TlsAcceptor {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, foreign) = (authority("ours"), authority("foreign"));
    std::fs::write(folder.join("ca.pem"), ours.pem()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    match shows {
        Shows::Good | Shows::Foreign => {}
        Shows::Expired => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
        Shows::Early => params.not_before = rcgen::date_time_ymd(4000, 1, 1),
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, if shows == Shows::Foreign { &foreign } else { &ours }).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(crate::tls::provider()).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}
