//! Reading a lake: its manifests, its files, and what else lies there.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::config;
use crate::error::explain;
use crate::model::{InstanceId, ShipmentNumber};
use crate::upload::UploadError;
use crate::upload::key::LakeKey;
use crate::upload::remote::S3;
use crate::upload::upstream::local_path;

/// The folders in which gateways' objects stand.
const FOLDERS: [&str; 4] = ["manifests", "readings", "records", "rollups"];

/// More than any manifest has, whose losses are counted: what is longer is none, and would not fit.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// More than any segment or any page of a listing has: an endless reply ends here.
const MAX_REPLY_BYTES: usize = 512 << 20;

/// A lake, open for reading.
pub struct Lake {
    store: Box<dyn ObjectStore>,
    url: String,
    /// Across a network, where a failed read says nothing of what is stored.
    remote: bool,
}

/// The manifests there are, by gateway and instance.
pub type Manifests = BTreeMap<String, BTreeMap<InstanceId, Vec<ShipmentNumber>>>;

/// What reading an object gave.
pub enum Content {
    /// Its bytes.
    Found(Bytes),
    /// There is none.
    Absent,
    /// It can't be read.
    Unreadable(String),
}

impl Lake {
    /// Opens the lake that `settings` name, as `upstream::open` understands them.
    ///
    /// # Errors
    /// [`UploadError::Config`] for a URL that is none or can't be listed, [`UploadError::Lake`] for a folder that is not there.
    pub fn open(settings: &config::Upstream) -> Result<Self, UploadError> {
        let url = settings.url.as_str();
        match url.split_once(':') {
            Some(("s3", _)) => {
                let store = Box::new(S3::reader(settings, MAX_REPLY_BYTES)?);
                return Ok(Self { store, url: url.trim_end_matches('/').to_owned(), remote: true });
            }
            Some(("https" | "http", _)) => {
                let why = format!("lake \"{url}\": a collector can't be listed; verify the lake where the collector keeps it");
                return Err(UploadError::Config(why));
            }
            _ => {}
        }
        let path = local_path(url)?;
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| UploadError::Lake(format!("can't open the lake at {}: {error}", path.display())))?;
        Ok(Self { store: Box::new(store), url: format!("file://{}", path.canonicalize().unwrap_or(path).display()), remote: false })
    }

    /// Which lake.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every key of the gateway `gateway`, or of all, folder by folder.
    pub fn keys<'a>(&'a self, gateway: Option<&'a str>) -> impl Iterator<Item = BoxStream<'a, Result<String, UploadError>>> {
        FOLDERS.into_iter().map(move |folder| self.keys_in(folder, gateway))
    }

    fn keys_in(&self, folder: &str, gateway: Option<&str>) -> BoxStream<'_, Result<String, UploadError>> {
        let prefix = gateway.map_or_else(|| folder.to_owned(), |gateway| format!("{folder}/gateway={gateway}"));
        let list = self.store.list(Some(&Path::from(prefix)));
        Box::pin(
            list.map_ok(|object| object.location.to_string())
                .map_err(|error| UploadError::Lake(format!("can't list the lake: {}", explain(&error)))),
        )
    }

    /// The numbers of the manifests, ascending.
    ///
    /// # Errors
    /// [`UploadError::Lake`].
    pub async fn manifests(&self, gateway: Option<&str>) -> Result<Manifests, UploadError> {
        let mut found = Manifests::new();
        let mut keys = self.keys_in("manifests", gateway);
        while let Some(key) = keys.try_next().await? {
            if let Some(LakeKey::Manifest { gateway, instance, shipment }) = LakeKey::parse(&key) {
                found.entry(gateway).or_default().entry(instance).or_default().push(shipment);
            }
        }
        found.values_mut().flat_map(BTreeMap::values_mut).for_each(|numbers| numbers.sort_unstable());
        Ok(found)
    }

    /// Reads the object `key` if it has `bytes` bytes (or no more than a manifest, without).
    ///
    /// # Errors
    /// [`UploadError::Lake`]: the link to the lake failed, which says nothing of the object.
    pub async fn read(&self, key: &str, bytes: Option<u64>) -> Result<Content, UploadError> {
        let read = async {
            let found = self.store.get(&Path::parse(key)?).await?;
            // A file of another size needs no reading, and might not fit.
            match (found.meta.size, bytes) {
                (size, Some(bytes)) if size != bytes => Ok(Err(format!("it has {size} bytes, not {bytes}"))),
                (size, None) if size > MAX_MANIFEST_BYTES => Ok(Err(format!("it has {size} bytes"))),
                _ => found.bytes().await.map(Ok),
            }
        };
        match read.await {
            Ok(Ok(bytes)) => Ok(Content::Found(bytes)),
            Ok(Err(why)) => Ok(Content::Unreadable(why)),
            Err(object_store::Error::NotFound { .. }) => Ok(Content::Absent),
            Err(error) if self.remote => Err(UploadError::Lake(format!("can't read \"{key}\": {}", explain(&error)))),
            Err(error) => Ok(Content::Unreadable(error.to_string())),
        }
    }
}
