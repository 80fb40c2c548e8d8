//! The keys of S3: from a file, which is read for every request so that it may be exchanged at any time; else from where
//! AWS programs look for them: the environment, the container, the instance.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use object_store::{ClientOptions, RetryConfig};
use reqwest::Client;

use crate::upload::UploadError;
use crate::upload::upstream::UpstreamError;

/// Where the keys come from.
#[derive(Debug)]
pub enum Credentials {
    /// A file as `~/.aws/credentials`.
    File(PathBuf),
    /// The environment, the container, the instance.
    Chain(AwsCredentialProvider),
}

impl Credentials {
    /// From `file`, else from what `builder` finds.
    ///
    /// # Errors
    /// [`UploadError::Config`]: the file can't be used, or the environment holds half of what it takes.
    pub fn new(file: Option<&Path>, builder: AmazonS3Builder) -> Result<Self, UploadError> {
        if let Some(file) = file {
            read_file(file).map_err(UploadError::Config)?;
            return Ok(Self::File(file.to_path_buf()));
        }
        let found = builder.build().map_err(|error| UploadError::Config(format!("S3: {error}")))?;
        Ok(Self::Chain(Arc::clone(found.credentials())))
    }

    /// The keys, as they are now.
    pub async fn get(&self) -> Result<Arc<AwsCredential>, UpstreamError> {
        match self {
            Self::File(file) => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&file)).await.unwrap_or_else(|panic| Err(panic.to_string()));
                read.map(Arc::new).map_err(UpstreamError::Transient)
            }
            Self::Chain(chain) => chain.get_credential().await.map_err(|error| {
                UpstreamError::Transient(format!(
                    "no keys for S3; name them in upstream.credentials_file, or in AWS_ACCESS_KEY_ID ({error})"
                ))
            }),
        }
    }
}

/// The keys in `file`: the lines of its profile `default`, or those before any profile.
pub fn read_file(file: &Path) -> Result<AwsCredential, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("upstream.credentials_file \"{}\": {error}", file.display()))?;
    let (mut ours, mut key_id, mut secret_key, mut token) = (true, None, None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            ours = line == "[default]";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| ours) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    let missing = |name| format!("upstream.credentials_file \"{}\": there is no {name} in its profile default", file.display());
    let key_id = key_id.ok_or_else(|| missing("aws_access_key_id"))?;
    let secret_key = secret_key.ok_or_else(|| missing("aws_secret_access_key"))?;
    Ok(AwsCredential { key_id, secret_key, token })
}

/// Lets object_store speak through our client, and reads no more of a reply than `max_reply_bytes`.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Ours.
    pub client: Client,
    /// Of one reply.
    pub max_reply_bytes: usize,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Connector {
    fn call<'a: 'c, 'c>(&'a self, request: HttpRequest) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>
    where
        Self: 'c,
    {
        Box::pin(async move {
            let (head, body) = self.client.call(request).await?.into_parts();
            let bounded = Limited::new(body, self.max_reply_bytes).map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error));
            Ok(HttpResponse::from_parts(head, HttpResponseBody::new(bounded)))
        })
    }
}

/// What the environment says of S3, over our client. What has no effect may be tried again: no body goes this way.
pub fn builder(connector: Connector) -> AmazonS3Builder {
    let retry = RetryConfig { max_retries: 2, ..RetryConfig::default() };
    AmazonS3Builder::from_env().with_http_connector(connector).with_retry(retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AwsCredential, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        std::fs::write(&file, text).unwrap();
        read_file(&file)
    }

    #[test]
    fn keys_are_read_from_the_default_profile_or_from_before_any() {
        let plain = "# mine\naws_access_key_id=AK\n aws_secret_access_key = s3cr=et/+ \n";
        let profiles = format!("[other]\naws_access_key_id = no\naws_session_token = no\n\n[default]\n{plain}");
        for text in [plain, &profiles] {
            let found = read(text).unwrap();
            assert_eq!((found.key_id.as_str(), found.secret_key.as_str(), found.token), ("AK", "s3cr=et/+", None));
        }
        assert_eq!(read(&format!("{plain}aws_session_token = T")).unwrap().token.as_deref(), Some("T"));
    }

    #[test]
    fn half_of_the_keys_is_an_error_that_names_the_file_and_what_is_missing_and_no_secret() {
        let error = read("aws_secret_access_key = hidden").unwrap_err();
        assert!(error.contains("keys") && error.contains("aws_access_key_id") && !error.contains("hidden"), "{error}");
        assert!(read("[other]\naws_access_key_id = AK").unwrap_err().contains("profile default"));
        assert!(read_file(Path::new("/nonexistent/keys")).unwrap_err().contains("/nonexistent/keys"));
    }
}
