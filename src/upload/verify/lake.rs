//! Reading a lake: its manifests, its files, and what else lies there.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::model::{InstanceId, ShipmentNumber};
use crate::upload::UploadError;
use crate::upload::key::LakeKey;
use crate::upload::upstream::local_path;

/// The folders in which gateways' objects stand.
const FOLDERS: [&str; 4] = ["manifests", "readings", "records", "rollups"];

/// A lake, open for reading.
pub struct Lake {
    store: Box<dyn ObjectStore>,
    url: String,
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
    /// Opens the lake at `url`, as `upstream::open` understands it.
    ///
    /// # Errors
    /// [`UploadError::Config`] for a URL that is none, [`UploadError::Lake`] for a folder that is not there.
    pub fn open(url: &str) -> Result<Self, UploadError> {
        let path = local_path(url)?;
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|error| UploadError::Lake(format!("can't open the lake at {}: {error}", path.display())))?;
        Ok(Self { store: Box::new(store), url: format!("file://{}", path.canonicalize().unwrap_or(path).display()) })
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
            list.map_ok(|object| object.location.to_string()).map_err(|error| UploadError::Lake(format!("can't list the lake: {error}"))),
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

    /// Reads the object `key` if it has `bytes` bytes (or whatever size, without).
    pub async fn read(&self, key: &str, bytes: Option<u64>) -> Content {
        let read = async {
            let found = self.store.get(&Path::parse(key)?).await?;
            // A file of another size needs no reading, and might not fit.
            match bytes {
                Some(bytes) if found.meta.size != bytes => Ok(Err(format!("it has {} bytes, not {bytes}", found.meta.size))),
                _ => found.bytes().await.map(Ok),
            }
        };
        match read.await {
            Ok(Ok(bytes)) => Content::Found(bytes),
            Ok(Err(why)) => Content::Unreadable(why),
            Err(object_store::Error::NotFound { .. }) => Content::Absent,
            Err(error) => Content::Unreadable(error.to_string()),
        }
    }
}
