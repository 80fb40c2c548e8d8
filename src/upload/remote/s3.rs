//! S3: where a key is there, how a request is signed, what a reply says of an object, and whether the server can be trusted
//! to keep what is there already.
//!
//! The keys and the signature are object_store's; the requests are ours, so that a segment goes out as a stream, at the
//! pace of the line, once.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::http;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{ClientConfigKey, HttpRequestBody};
use object_store::prefix::PrefixStore;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, Request, StatusCode, Url};

use super::content_type;
use super::credentials::{Connector, Credentials, builder};
use super::refusal::judge;
use super::wire::{Reply, Use, Wire, client, one_line};
use crate::config;
use crate::model::Digest;
use crate::upload::UploadError;
use crate::upload::file::MARK;
use crate::upload::upstream::{Body, UpstreamError};

const MARK_TEXT: &str = "This is a forebay lake. The file shows whether the server keeps what is there already.\n";

/// What the server computed over the bytes it took.
const CHECKSUM: &str = "x-amz-checksum-sha256";
/// What we said of them; for servers without checksums.
const OUR_SHA256: &str = "x-amz-meta-sha256";
const OUR_BYTES: &str = "x-amz-meta-bytes";

/// Replies to questions for credentials are small; a page of a listing has a thousand keys.
const MAX_SMALL_REPLY: usize = 4 << 20;

/// A bucket, and a place in it.
pub struct S3 {
    bucket: String,
    /// The URL of the bucket, without a slash at its end.
    root: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    region: String,
    credentials: Credentials,
    /// Whether `If-None-Match: *` is honoured; found out at the first probe.
    conditional: OnceLock<bool>,
}

/// Where a bucket is, as settings and environment say it.
struct Site {
    bucket: String,
    prefix: String,
    root: Url,
    region: String,
}

impl Site {
    fn new(settings: &config::Upstream, environment: &AmazonS3Builder) -> Result<Self, UploadError> {
        let config = |rule: &str| UploadError::Config(format!("upstream \"{}\": {rule}", settings.url));
        let place = settings.url.strip_prefix("s3://").ok_or_else(|| config("write it like s3://bucket/prefix"))?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name = bucket.len() > 2 && bucket.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !is_name {
            return Err(config("it names no bucket; write it like s3://bucket/prefix"));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") || prefix.contains(['?', '#']) {
            return Err(config("its prefix must be plain names between slashes"));
        }
        let of_environment = |key| environment.get_config_value(&key).filter(|value| !value.is_empty());
        let region = settings.region.clone().or_else(|| of_environment(AmazonS3ConfigKey::Region));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let elsewhere = || of_environment(AmazonS3ConfigKey::S3Endpoint).or_else(|| of_environment(AmazonS3ConfigKey::Endpoint));
        let endpoint = settings.endpoint.clone().or_else(elsewhere);
        let path_style = settings.path_style.unwrap_or(endpoint.is_some());
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let no_url = |error| UploadError::Config(format!("upstream.endpoint \"{endpoint}\": {error}; write it like https://host:port"));
        let mut root: Url = endpoint.parse().map_err(no_url)?;
        if path_style {
            root.set_path(&format!("{}/{bucket}", root.path().trim_end_matches('/')));
        } else {
            let host = format!("{bucket}.{}", root.host_str().unwrap_or_default());
            root.set_host(Some(&host)).map_err(no_url)?;
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), root, region })
    }
}

/// Whether `http:` to other machines is asked for, by the settings or by the environment.
fn with_plain(settings: &config::Upstream, environment: &AmazonS3Builder) -> config::Upstream {
    let asked = environment.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    config::Upstream { allow_plain: settings.allow_plain || asked.as_deref() == Some("true"), ..settings.clone() }
}

impl S3 {
    /// The place that `settings` name, and the client that leads there.
    ///
    /// # Errors
    /// [`UploadError::Config`].
    pub fn new(settings: &config::Upstream) -> Result<(Self, Client), UploadError> {
        let environment = AmazonS3Builder::from_env();
        let Site { bucket, prefix, root, region } = Site::new(settings, &environment)?;
        let client = client(&with_plain(settings, &environment), &root, Use::Upload)?;
        let connector = Connector { client: client.clone(), max_reply_bytes: MAX_SMALL_REPLY };
        let chain = builder(connector).with_bucket_name(&bucket).with_region(&region);
        let credentials = Credentials::new(settings.credentials_file.as_deref(), chain)?;
        let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
        let root = root.as_str().trim_end_matches('/').to_owned();
        Ok((Self { bucket, root, prefix, region, credentials, conditional: OnceLock::new() }, client))
    }

    /// The request to `method` the object `key`; with `body` as what it will carry.
    pub async fn request(&self, method: Method, key: &str, body: Option<&Body>) -> Result<Request, UpstreamError> {
        let mut headers = HeaderMap::new();
        if let Some(body) = body {
            headers.insert(CONTENT_LENGTH, body.bytes.into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(key)));
            headers.insert("x-amz-sdk-checksum-algorithm", HeaderValue::from_static("SHA256"));
            headers.insert(CHECKSUM, text(&BASE64_STANDARD.encode(body.sha256.0))?);
            headers.insert(OUR_SHA256, text(&body.sha256.to_string())?);
            headers.insert(OUR_BYTES, body.bytes.into());
            if self.conditional.get() != Some(&false) {
                headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
            }
        } else {
            headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        }
        let url = format!("{}/{}", self.root, encoded(&format!("{}{key}", self.prefix)));
        self.signed(method, &url, headers, body.map(|body| body.sha256)).await
    }

    async fn signed(&self, method: Method, url: &str, headers: HeaderMap, sha256: Option<Digest>) -> Result<Request, UpstreamError> {
        let no_request = |error: &dyn std::fmt::Display| UpstreamError::Permanent(format!("\"{url}\" is no address: {error}"));
        let keys = self.credentials.get().await?;
        let request = http::Request::builder().method(&method).uri(url).body(HttpRequestBody::empty());
        let mut request = request.map_err(|error| no_request(&error))?;
        *request.headers_mut() = headers;
        let signer = AwsAuthorizer::new(&keys, "s3", &self.region);
        let sha256 = sha256.as_ref().map(|digest| digest.0.as_slice());
        signer.try_authorize(&mut request, sha256).map_err(|error| no_request(&error))?;
        let mut signed = Request::new(method, url.parse().map_err(|error| no_request(&error))?);
        *signed.headers_mut() = std::mem::take(request.headers_mut());
        Ok(signed)
    }

    /// The digest that the head of a reply gives for its object: the server's own, else ours, if the size is as we said.
    pub fn digest_in(reply: &Reply) -> Option<Digest> {
        let checksum = BASE64_STANDARD.decode(reply.header(CHECKSUM)).ok().and_then(|bytes| bytes.try_into().ok()).map(Digest);
        let ours = || {
            let bytes: u64 = reply.header(OUR_BYTES).parse().ok()?;
            (reply.bytes_told() == Some(bytes)).then(|| reply.header(OUR_SHA256).parse().ok())?
        };
        checksum.or_else(ours)
    }

    /// What a refusal means: S3 says it by a code, which is more exact than the status.
    pub fn refused(&self, status: StatusCode, headers: &HeaderMap, said: &str) -> UpstreamError {
        let (code, message) = (element(said, "Code"), element(said, "Message"));
        let said = one_line(&match (code, message) {
            ("", _) => said.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        });
        let text = format!("{status}: {said}");
        match code {
            "NoSuchBucket" => self.no_bucket(),
            "RequestTimeTooSkewed" => UpstreamError::Transient(format!("{text} (is this machine's clock right?)")),
            // The bytes did not arrive as they were sent; the keys are about to be renewed.
            "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "ExpiredToken" => {
                UpstreamError::Transient(text)
            }
            // Some servers say this with a 400.
            "InvalidAccessKeyId" | "InvalidToken" | "SignatureDoesNotMatch" => UpstreamError::Denied(text),
            _ => match headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok()) {
                Some(region) if region != self.region && status != StatusCode::SERVICE_UNAVAILABLE => {
                    UpstreamError::Denied(format!("{text}; the bucket is in {region}: set upstream.region"))
                }
                _ => judge(status, headers, &said),
            },
        }
    }

    fn no_bucket(&self) -> UpstreamError {
        UpstreamError::Denied(format!("the bucket \"{}\" is gone, or never was", self.bucket))
    }

    /// Is there a way, and is the bucket there? A HEAD, which costs next to nothing; why not is asked only where it is not.
    pub async fn probe(&self, wire: &Wire) -> Result<(), UpstreamError> {
        let reply = wire.ask(self.signed(Method::HEAD, &self.root, HeaderMap::new(), None).await?).await?;
        match reply.status {
            StatusCode::NOT_FOUND => return Err(self.no_bucket()),
            status if status.is_success() => {}
            status if status.is_client_error() => {
                let why = format!("{}?list-type=2&max-keys=1", self.root);
                let mut reply = wire.ask(self.signed(Method::GET, &why, HeaderMap::new(), None).await?).await?;
                if !reply.status.is_success() {
                    let said = reply.excerpt().await;
                    return Err(self.refused(reply.status, &reply.headers, &said));
                }
            }
            status => return Err(self.refused(status, &reply.headers, "")),
        }
        if self.conditional.get().is_none() { self.learn(wire).await } else { Ok(()) }
    }

    /// Puts the mark twice: a server that takes it twice replaces what is there already.
    async fn learn(&self, wire: &Wire) -> Result<(), UpstreamError> {
        let body = Body::memory(MARK_TEXT);
        for _ in 0..2 {
            let mut reply = wire.send(self.request(Method::PUT, MARK, Some(&body)).await?, MARK, &body).await?;
            match reply.status {
                StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => {
                    self.conditional.get_or_init(|| true);
                    return Ok(());
                }
                StatusCode::NOT_IMPLEMENTED => break,
                status if status.is_success() => {}
                status => {
                    let said = reply.excerpt().await;
                    return Err(self.refused(status, &reply.headers, &said));
                }
            }
        }
        self.conditional.get_or_init(|| false);
        let bucket = &self.bucket;
        tracing::warn!(bucket, "this S3 server replaces what is there already (no If-None-Match); forebay looks before each put instead");
        Ok(())
    }

    /// The bucket, with its prefix as the root, for reading.
    ///
    /// # Errors
    /// [`UploadError::Config`].
    pub fn reader(settings: &config::Upstream, max_reply_bytes: usize) -> Result<PrefixStore<AmazonS3>, UploadError> {
        let environment = AmazonS3Builder::from_env();
        let Site { bucket, prefix, root, region } = Site::new(settings, &environment)?;
        let client = client(&with_plain(settings, &environment), &root, Use::Reading)?;
        let mut builder = builder(Connector { client, max_reply_bytes })
            .with_bucket_name(bucket)
            .with_region(region)
            // It wins over whatever endpoint the environment names, and has the bucket in it already.
            .with_config(AmazonS3ConfigKey::S3Endpoint, root.as_str().trim_end_matches('/'))
            .with_virtual_hosted_style_request(true);
        if let Some(file) = &settings.credentials_file {
            let keys = super::credentials::read_file(file).map_err(UploadError::Config)?;
            builder = builder.with_access_key_id(keys.key_id).with_secret_access_key(keys.secret_key);
            builder = keys.token.into_iter().fold(builder, AmazonS3Builder::with_token);
        }
        let store = builder.build().map_err(|error| UploadError::Config(format!("upstream \"{}\": {error}", settings.url)))?;
        Ok(PrefixStore::new(store, prefix))
    }
}

fn text(value: &str) -> Result<HeaderValue, UpstreamError> {
    value.parse().map_err(|_| UpstreamError::Permanent(format!("\"{value}\" can't stand in a header")))
}

/// `key` as S3 signs it: everything but letters, digits, `-._~` and `/` percent-encoded.
fn encoded(key: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    key.bytes().map(encode).collect()
}

/// The text of the first element `name` in `xml`; empty without one.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let rest = xml.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    rest.split_once("</").map_or("", |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::tests::private;

    fn settings(url: &str) -> config::Upstream {
        config::Upstream { url: url.to_owned(), region: Some("eu-central-1".to_owned()), ..config::Upstream::default() }
    }

    fn root(settings: &config::Upstream) -> String {
        Site::new(settings, &AmazonS3Builder::new()).map(|site| site.root.to_string()).unwrap()
    }

    #[test]
    fn the_bucket_stands_in_the_host_at_aws_and_in_the_path_elsewhere() {
        let aws = settings("s3://lake/north");
        assert_eq!(root(&aws), "https://lake.s3.eu-central-1.amazonaws.com/");
        assert_eq!(root(&config::Upstream { path_style: Some(true), ..aws.clone() }), "https://s3.eu-central-1.amazonaws.com/lake");
        let minio = config::Upstream { endpoint: Some("https://minio.local:9000/".to_owned()), ..aws };
        assert_eq!(root(&minio), "https://minio.local:9000/lake");
        assert_eq!(root(&config::Upstream { path_style: Some(false), ..minio }), "https://lake.minio.local:9000/");
    }

    #[test]
    fn what_names_no_bucket_is_a_configuration_error() {
        for url in ["s3:lake", "s3://", "s3://a b/x", "s3:///x", "s3://lake/a/../b", "s3://lake/a//b"] {
            assert!(matches!(Site::new(&settings(url), &AmazonS3Builder::new()), Err(UploadError::Config(_))), "{url}");
        }
    }

    #[test]
    fn a_key_is_encoded_as_it_is_signed() {
        assert_eq!(encoded("readings/gateway=gw-1/ä b.parquet"), "readings/gateway%3Dgw-1/%C3%A4%20b.parquet");
    }

    #[tokio::test]
    async fn a_code_says_more_than_a_status() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        private(&file, "aws_access_key_id = AK\naws_secret_access_key = SK");
        let (s3, _) = S3::new(&config::Upstream { credentials_file: Some(file), ..settings("s3://lake") }).unwrap();
        let said = |status: u16, code: &str| {
            let xml = format!("<Error><Code>{code}</Code><Message>so it is</Message></Error>");
            s3.refused(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &xml)
        };
        assert!(matches!(said(404, "NoSuchBucket"), UpstreamError::Denied(text) if text.contains("\"lake\" is gone")));
        assert!(matches!(said(403, "RequestTimeTooSkewed"), UpstreamError::Transient(text) if text.contains("clock")));
        assert!(matches!(said(400, "BadDigest"), UpstreamError::Transient(_)));
        assert!(matches!(said(409, "ConditionalRequestConflict"), UpstreamError::Transient(_)));
        assert!(matches!(said(403, "AccessDenied"), UpstreamError::Denied(text) if text.contains("AccessDenied: so it is")));
        assert!(matches!(said(503, "SlowDown"), UpstreamError::Busy { .. }));
        let elsewhere = HeaderMap::from_iter([("x-amz-bucket-region".parse().unwrap(), HeaderValue::from_static("us-west-2"))]);
        assert!(s3.refused(StatusCode::MOVED_PERMANENTLY, &elsewhere, "").to_string().contains("us-west-2"));
    }
}
