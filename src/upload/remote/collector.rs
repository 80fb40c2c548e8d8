//! An HTTPS collector: where a key is there, the token, and what a reply says of an object. `docs/collector.md` is the
//! page for those who write one.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, Request, StatusCode, Url};

use super::content_type;
use super::refusal::judge;
use super::wire::{Reply, Use, client, one_line};
use crate::config;
use crate::model::Digest;
use crate::upload::UploadError;
use crate::upload::upstream::{Body, UpstreamError};

const DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A collector.
pub struct Collector {
    root: Url,
    token_file: Option<PathBuf>,
}

impl Collector {
    /// The place that `settings` name, and the client that leads there.
    ///
    /// # Errors
    /// [`UploadError::Config`].
    pub fn new(settings: &config::Upstream) -> Result<(Self, Client), UploadError> {
        let config = |why: String| UploadError::Config(format!("upstream: {why}"));
        let root: Url = settings.url.parse().map_err(|error| config(format!("the url is none: {error}")))?;
        let client = client(settings, &root, Use::Upload)?;
        let collector = Self { root, token_file: settings.token_file.clone() };
        collector.token().map_err(config)?;
        Ok((collector, client))
    }

    /// The request to `method` the object `key`; with `body` as what it will carry.
    pub fn request(&self, method: Method, key: &str, body: Option<&Body>) -> Result<Request, UpstreamError> {
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(key.split('/'));
        }
        let mut request = Request::new(method, url);
        let headers = request.headers_mut();
        headers.extend(self.token().map_err(UpstreamError::Transient)?.map(|token| (AUTHORIZATION, token)));
        let Some(body) = body else {
            headers.insert("want-repr-digest", HeaderValue::from_static("sha-256=10"));
            return Ok(request);
        };
        headers.insert(CONTENT_LENGTH, body.bytes.into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(key)));
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        let digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(body.sha256.0));
        headers.extend(HeaderValue::try_from(digest).ok().map(|digest| (DIGEST, digest)));
        Ok(request)
    }

    /// The header with the token, read anew so that it may be exchanged at any time.
    fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let failed = |why: &dyn std::fmt::Display| format!("upstream.token_file \"{}\": {why}", file.display());
        let token = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let mut header: HeaderValue =
            format!("Bearer {}", token.trim()).try_into().map_err(|_| failed(&"what is in it can't be a token"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// The digest that the head of a reply gives for its object (RFC 9530).
    pub fn digest_in(reply: &Reply) -> Option<Digest> {
        let digest = reply.header(DIGEST.as_str()).split(',').find_map(|one| one.trim().strip_prefix("sha-256=:"))?;
        let bytes = BASE64_STANDARD.decode(digest.strip_suffix(':')?).ok()?;
        bytes.try_into().ok().map(Digest)
    }

    /// What a refusal means.
    pub fn refused(status: StatusCode, headers: &HeaderMap, said: &str) -> UpstreamError {
        judge(status, headers, &one_line(said))
    }

    /// Its URL, in which there are no secrets.
    pub fn shown(&self) -> String {
        self.root.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> config::Upstream {
        config::Upstream { url: url.to_owned(), ..config::Upstream::default() }
    }

    #[test]
    fn keys_stand_below_the_url_as_they_are() {
        for url in ["https://lake.example/farm", "https://lake.example/farm/"] {
            let (collector, _) = Collector::new(&settings(url)).unwrap();
            let request = collector.request(Method::HEAD, "readings/gateway=gw-1/x.parquet", None).unwrap();
            assert_eq!(request.url().as_str(), "https://lake.example/farm/readings/gateway=gw-1/x.parquet");
        }
    }

    #[test]
    fn the_token_is_read_anew_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let with_token = config::Upstream { token_file: Some(file.clone()), ..settings("https://lake.example/") };
        assert!(Collector::new(&with_token).err().unwrap().to_string().contains("token"));
        std::fs::write(&file, "first\n").unwrap();
        let (collector, _) = Collector::new(&with_token).unwrap();
        for token in ["first", "second"] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            let request = collector.request(Method::HEAD, "x", None).unwrap();
            assert_eq!(request.headers()[AUTHORIZATION], format!("Bearer {token}"));
            assert!(!format!("{request:?}").contains(token));
        }
        std::fs::write(&file, "two\nlines").unwrap();
        let error = collector.request(Method::HEAD, "x", None).unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("lines"), "{error}");
    }
}
