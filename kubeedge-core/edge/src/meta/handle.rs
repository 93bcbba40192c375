//! The copy as other modules of this process see it.

use std::sync::Arc;

use bytes::Bytes;
use kubeedge_core::{
    failure::Failure,
    name::ResourceVersion,
    store::{MetaStore, StoreError, StoreKind},
};
use serde::de::DeserializeOwned;

use super::{
    head::Head,
    key::{ObjectKey, Selector},
    objects::Objects,
    watch::Watch,
};

/// An object of the copy. The bytes are shared, not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// Which one it is.
    pub key: ObjectKey,
    /// Its JSON, as the cloud sent it.
    pub bytes: Bytes,
}

impl Object {
    pub(super) fn new(key: ObjectKey, bytes: Bytes) -> Self {
        Self { key, bytes }
    }

    /// Its resourceVersion, read from the bytes; empty where it states none.
    pub fn version(&self) -> ResourceVersion {
        Head::of(&self.bytes).version
    }

    /// Parses it. [`StoreKind::Corrupt`]: it is not what was expected.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            Failure::new(StoreKind::Corrupt, "decoding an object").on(self.key.to_string()).because(error)
        })
    }
}

/// MetaManager's copy, for modules of this process. Cheap to clone; works whether or not MetaManager runs,
/// and over its restarts.
///
/// All methods fail with the store's own errors; [`StoreError::advice`](Failure::advice) says whether trying
/// again helps. Nothing here asks the cloud.
///
/// ```
/// # use kubeedge_edge::meta::{MetaEvent, MetaHandle, Selector};
/// # use kubeedge_core::store::StoreError;
/// # async fn doc(meta: MetaHandle) -> Result<(), StoreError> {
/// // First watch, then list: what changes in between is heard of twice rather than not at all.
/// let mut changes = meta.watch(Selector::known("pod"));
/// for pod in meta.list(&Selector::known("pod")).await? {
///     println!("{} at {}", pod.key, pod.version());
/// }
/// while let Some(event) = changes.next().await {
///     if let MetaEvent::Lagged = event { /* list anew */ }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MetaHandle(pub(super) Objects);

impl MetaHandle {
    /// The copy in a store, for a node that has no MetaManager of ours. All handles of one store must be
    /// clones of one, as changes made through another are not heard of.
    pub fn over(store: Arc<dyn MetaStore>) -> Self {
        Self(Objects::new(store))
    }

    /// One object; `None` when it is not here.
    pub async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.0.get(key).await
    }

    /// All objects of a kind, or of a kind and namespace, in the order of their names. Reads only their own
    /// rows.
    pub async fn list(&self, of: &Selector) -> Result<Vec<Object>, StoreError> {
        self.0.list(of).await
    }

    /// Stores an object, unless a later form of it is here already. It is durable when this returns. The
    /// cloud does not learn that it is here.
    pub async fn put(&self, key: &ObjectKey, object: Bytes) -> Result<(), StoreError> {
        self.0.put_newest(key, &Head::of(&object), object, None).await
    }

    /// Removes an object; no error when it is not here.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.0.remove(key, "").await
    }

    /// The changes of a kind, or of a kind and namespace, from now on. Each is told after it is durable.
    pub fn watch(&self, of: Selector) -> Watch {
        self.0.watch(of)
    }
}
