//! The seam to what must survive a restart: a small ordered key-value store with versions.
//!
//! *For users*: [`MetaStoreExt`] has typed reads and writes, [`update`] a read-modify-write.
//! *For implementers*: write [`MetaStore`]; run `kubeedge_core::meta_store_conformance!` over it.
//!
//! The promise everything stands on: when [`MetaStore::commit`] returns `Ok`, the whole batch is on durable
//! storage; when it returns an error, nothing of it is visible.
//!
//! *What a commit costs*: an fsync, and at least one block of the medium, however small the batch; with the
//! journal of a file system rather two or three of 4 KiB each. Flash wears out by it: a value committed once
//! a second is 86 400 commits a day. What belongs together belongs in one batch; what changes often and may
//! be lost belongs in memory. Implementations may make one fsync of commits that wait at the same time, and
//! ours do.
//!
//! ```
//! use kubeedge_core::store::{Bucket, Key, MetaStore, MetaStoreExt, StoreError, update};
//!
//! /// Counts the starts of a node, also when two count at the same time.
//! async fn started(store: &dyn MetaStore) -> Result<Option<u64>, StoreError> {
//!     let key = Key::new(Bucket("acme"), "starts");
//!     update(store, key.clone(), |starts: Option<u64>| Some(starts.unwrap_or(0) + 1)).await?;
//!     store.get_as(&key).await
//! }
//! ```

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use serde::{Serialize, de::DeserializeOwned};

use crate::{failure::Failure, kinds};

kinds! {
    /// What can go wrong in a store.
    StoreKind {
        Conflict => "version conflict", Retry;
        Corrupt => "stored data is corrupt", GiveUp;
        Full => "store is full", GiveUp;
        Closed => "store is closed", GiveUp;
        TooLarge => "value too large", GiveUp;
        Io => "storage failed", Retry;
    }
}

/// A store could not do what it was asked.
pub type StoreError = Failure<StoreKind>;

/// The largest value any store must take, in bytes: Kubernetes' own limit for an object is 1.5 MiB, twins and
/// uploads are smaller.
pub const MAX_VALUE: usize = 16 << 20;

/// A table of the store, named by the module that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub &'static str);

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The table.
    pub bucket: Bucket,
    /// The name in it; compared and ordered byte by byte.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(bucket: Bucket, name: impl Into<String>) -> Self {
        Self { bucket, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bucket.0, self.name)
    }
}

/// A stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// Grows with every put of this key; starts anew after a delete. Only good for [`Expect::Version`].
    pub version: u64,
}

/// What must be true of a key for a batch to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    #[default]
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists at this version.
    Version(u64),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// On what condition.
        expect: Expect,
    },
    /// Removes a value; removing what is not there is no error.
    Delete {
        /// Where.
        key: Key,
        /// On what condition.
        expect: Expect,
    },
}

impl Change {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
    /// Its condition.
    pub fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }
}

/// Changes that happen together or not at all. Conditions are checked against the state before the batch; of
/// two changes of one key the later one wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an unconditional put.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.0.push(Change::Put { key, value: value.into(), expect: Expect::Any });
        self
    }
    /// Adds an unconditional delete.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.0.push(Change::Delete { key, expect: Expect::Any });
        self
    }
}

/// Which entries to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The table.
    pub bucket: Bucket,
    /// What the names start with; empty for all.
    pub prefix: String,
}

impl Scan {
    /// All names of a table that start with `prefix`.
    pub fn new(bucket: Bucket, prefix: impl Into<String>) -> Self {
        Self { bucket, prefix: prefix.into() }
    }
}

/// Durable, ordered, versioned key-value storage.
///
/// No method may block the thread that polls it, for edges often have one thread for everything: what waits
/// for a disk does so on a thread of its own, or on one of `tokio::task::spawn_blocking`. That holds for
/// locks too: a lock that a commit holds during its fsync must not be one that [`MetaStore::get`] waits for
/// on the caller's thread.
#[async_trait]
pub trait MetaStore: fmt::Debug + Send + Sync + 'static {
    /// Reads one value; sees every commit that returned before the call.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Reads many values in the byte order of their names, as of one moment not before the call: a commit
    /// while the stream is read is seen whole or not at all. Memory is bounded by the reader's pace or by one
    /// table.
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>>;

    /// Applies a batch. `Ok`: all of it is durable. Error: none of it happened ([`StoreKind::Conflict`]: a
    /// condition did not hold, the subject names the key; [`StoreKind::TooLarge`]: a value exceeds
    /// [`MAX_VALUE`]). Dropped before it returns: all or nothing happened, unknown which.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Releases files and threads; later calls fail with [`StoreKind::Closed`]. May be called twice.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Typed conveniences over any [`MetaStore`]; values are JSON.
pub trait MetaStoreExt: MetaStore {
    /// Stores a value unconditionally.
    fn put<'a, T: Serialize + Sync>(
        &'a self,
        key: Key,
        value: &'a T,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'a {
        async move {
            let value = encode(&key, value)?;
            self.commit(Batch::new().put(key, value)).await
        }
    }

    /// Removes a value; no error when it is not there.
    fn remove(&self, key: Key) -> impl Future<Output = Result<(), StoreError>> + Send + '_ {
        self.commit(Batch::new().delete(key))
    }

    /// Reads a value.
    fn get_as<'a, T: DeserializeOwned>(
        &'a self,
        key: &'a Key,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send + 'a {
        async move { self.get(key).await?.map(|entry| decode(&entry)).transpose() }
    }

    /// Reads all values under a prefix, in the order of their names.
    fn list_as<T: DeserializeOwned + Send>(
        &self,
        scan: Scan,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send {
        let found = self.scan(scan);
        async move { found.and_then(|entry| async move { decode(&entry) }).try_collect().await }
    }
}

impl<S: MetaStore + ?Sized> MetaStoreExt for S {}

/// Reads, changes and writes one value, again from the start when somebody else was faster. `None` from
/// `change` removes the value.
pub async fn update<T: DeserializeOwned + Serialize + Send + Sync>(
    store: &(impl MetaStore + ?Sized),
    key: Key,
    mut change: impl FnMut(Option<T>) -> Option<T> + Send,
) -> Result<(), StoreError> {
    loop {
        let old = store.get(&key).await?;
        let expect = old.as_ref().map_or(Expect::Absent, |entry| Expect::Version(entry.version));
        let old = old.map(|entry| decode(&entry)).transpose()?;
        let key = key.clone();
        let change = match change(old) {
            None => Change::Delete { key, expect },
            Some(new) => Change::Put { value: encode(&key, &new)?, key, expect },
        };
        match store.commit(Batch(vec![change])).await {
            Err(error) if error.kind() == StoreKind::Conflict => {}
            done => return done,
        }
    }
}

fn encode<T: Serialize>(key: &Key, value: &T) -> Result<Bytes, StoreError> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|error| {
        Failure::new(StoreKind::Corrupt, "encoding a value").on(key.to_string()).because(error)
    })
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        Failure::new(StoreKind::Corrupt, "decoding a value").on(entry.key.to_string()).because(error)
    })
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: MetaStore + ?Sized> MetaStore for Arc<S> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        (**self).get(key).await
    }
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        (**self).scan(scan)
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch).await
    }
    async fn close(&self) -> Result<(), StoreError> {
        (**self).close().await
    }
}
