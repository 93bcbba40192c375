//! The seam below the API: where objects are.
//!
//! *For users*: [`ApiServer`](crate::ApiServer) serves any storage with discovery, tables, selectors and
//! watches. *For implementers*: write [`Storage`] and [`Watcher`]; run
//! `kubeedge_apiserver::storage_conformance!` (feature `conformance`) over it.
//!
//! A storage knows objects, their keys and their versions. It knows no kinds: defaults, checks, grace and
//! finalizers are the server's, and reach a storage as the decision of a write. Versions are numbers that
//! grow with each write, as those of etcd do: `metadata.resourceVersion` of an object is the version of its
//! last write, and a list is true at one version.
//!
//! Objects are parsed JSON, shared: a read copies none. Every method may be called from many tasks at once,
//! and is cancel-safe but where it says otherwise.

use std::{
    error::Error,
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use bytes::Bytes;
use kubeedge_core::{
    failure::{Failure, chain},
    kinds,
};
use serde_json::Value;

use crate::{
    key::{Collection, ObjectKey},
    selectors::Selector,
    status::Refusal,
};

kinds! {
    /// Why a storage did not do what it was asked.
    StorageKind {
        NotFound => "no such kind is kept here", GiveUp;
        Conflict => "the object was changed meanwhile", Retry;
        Expired => "the version is no longer known", Reconnect;
        Unavailable => "the storage is not available", Retry;
        Failed => "the storage failed", GiveUp;
    }
}

/// A storage could not do what it was asked. Clients are answered by its kind: 404, 409, 410, 503 and 500.
pub type StorageError = Failure<StorageKind>;

/// Where objects are kept.
#[async_trait]
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// One object as it is stored; `None` if it is not there.
    ///
    /// Sees each write that was answered before the call. An object that did not change is the same `Arc`
    /// each time, where the storage holds it: what is read from a CustomResourceDefinition is kept for as
    /// long as that.
    ///
    /// Errors: `NotFound` where the storage has no such kind, `Unavailable` where it cannot be asked now.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Value>>, StorageError>;

    /// The objects of a collection that match, in the order of namespace and name, at most as many as asked
    /// for, and the version that this is true at: a watch after it misses nothing.
    ///
    /// Errors: as [`Storage::get`]. A kind that has no objects is an empty list, not an error.
    async fn list(&self, query: &ListQuery) -> Result<Listed, StorageError>;

    /// The changes of a collection after a version, whatever their number. Selectors are the server's to
    /// apply.
    ///
    /// That the version is too old, or is from before a restart, is told by the watcher: `Expired`.
    async fn watch(&self, collection: &Collection, after: u64) -> Result<Box<dyn Watcher>, StorageError>;

    /// Reads, decides and writes one object. `decide` is given the object as it is, with all writes before
    /// this one, is called at most once, and nobody writes the object between its answer and the write; a
    /// storage that cannot promise that answers `Conflict`. It must not block.
    ///
    /// Returns the object as it is then: what was put, with its new version in `metadata.resourceVersion`;
    /// for a deletion what was deleted, at the version of the deletion; else what was there. When it returns,
    /// the write is as durable as the storage makes it, and visible to all reads. When it fails, nothing has
    /// changed. Dropped before, it may happen or not.
    ///
    /// Errors: `Unavailable` without a call of `decide` where nothing can be written; `Conflict`; `Failed`.
    async fn write(&self, key: &ObjectKey, decide: Decide<'_>) -> Result<Option<Arc<Value>>, StorageError>;
}

/// What a write decides on the object as it is.
pub type Decide<'a> = Box<dyn FnOnce(Option<&Value>) -> Write + Send + 'a>;

/// What a write wants.
#[derive(Debug)]
#[non_exhaustive]
pub enum Write {
    /// Make the object so. The storage sets its version.
    Put(Value),
    /// Remove it. Of what is not there nothing happens.
    Delete,
    /// Leave it as it is, and answer when all that it was decided on is stored.
    Keep,
    /// Leave it as it is; there is nothing to wait for.
    Refuse,
}

/// What a list is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListQuery {
    /// Of which objects.
    pub collection: Collection,
    /// Those that match it.
    pub selector: Selector,
    /// At most so many; zero for all.
    pub limit: usize,
    /// Only those behind this namespace and name.
    pub after: Option<(String, String)>,
}

impl ListQuery {
    /// All objects of a collection.
    pub fn all(collection: Collection) -> Self {
        Self { collection, selector: Selector::default(), limit: 0, after: None }
    }

    /// Only those that match.
    #[must_use]
    pub fn matching(mut self, selector: Selector) -> Self {
        self.selector = selector;
        self
    }

    /// At most so many (zero for all), of those behind this namespace and name.
    #[must_use]
    pub fn page(mut self, limit: usize, after: Option<(String, String)>) -> Self {
        self.limit = limit;
        self.after = after;
        self
    }
}

/// A list, or a page of one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listed {
    /// The objects, in the order of namespace and name.
    pub objects: Vec<Arc<Value>>,
    /// The version that the list is true at.
    pub version: u64,
    /// How many more match behind the last object; zero exactly if there are none.
    pub remaining: usize,
}

impl Listed {
    /// A whole list.
    pub fn new(objects: Vec<Arc<Value>>, version: u64) -> Self {
        Self { objects, version, remaining: 0 }
    }

    /// A page behind which so many more match.
    #[must_use]
    pub fn with_remaining(mut self, remaining: usize) -> Self {
        self.remaining = remaining;
        self
    }
}

/// The changes of a collection, oldest first.
#[async_trait]
pub trait Watcher: Send {
    /// Waits for changes and returns those there are, at least one and each once. At most a few hundred at a
    /// time: whoever is too slow reads on from a history, and is told `Expired` when it is outrun. After an
    /// error the watcher is over.
    async fn next(&mut self) -> Result<Vec<Arc<Change>>, StorageError>;

    /// The version up to which all changes of the collection have been returned. It grows also while the
    /// collection rests, and is what a bookmark says: a watch after it misses nothing.
    fn version(&mut self) -> u64;
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted.
    Deleted,
}

/// A change of an object.
#[derive(Debug)]
#[non_exhaustive]
pub struct Change {
    /// The version of this change.
    pub version: u64,
    /// The object's key.
    pub key: ObjectKey,
    /// What happened.
    pub happened: Happened,
    /// The object after the change; for a deletion, as it was last, at the version of the deletion.
    pub object: Arc<Value>,
    /// The object before the change. A storage that does not know it may leave it out: an object that is
    /// modified is then told to watchers as added.
    pub before: Option<Arc<Value>>,
    text: OnceLock<Bytes>,
}

impl Change {
    /// A change.
    pub fn new(
        version: u64,
        key: ObjectKey,
        happened: Happened,
        object: Arc<Value>,
        before: Option<Arc<Value>>,
    ) -> Self {
        Self { version, key, happened, object, before, text: OnceLock::new() }
    }

    /// The object as JSON: made once for the store and for all watchers.
    pub fn text(&self) -> &Bytes {
        self.text.get_or_init(|| self.object.to_string().into())
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        match error.kind() {
            StorageKind::NotFound => Self::no_such_path(),
            StorageKind::Conflict => Self::changed_meanwhile(error.subject()),
            StorageKind::Expired => Self::expired(),
            StorageKind::Unavailable => Self::unavailable(chain(&error)),
            StorageKind::Failed => {
                let cause = error.source().map_or_else(|| chain(&error), chain);
                Self::internal(format!("nothing was changed: {cause}"))
            }
        }
    }
}

/// [`Storage::write`] with a decision that may refuse for a reason of its own.
pub(crate) async fn write<E: From<StorageError> + Send>(
    storage: &dyn Storage,
    key: &ObjectKey,
    decide: impl FnOnce(Option<&Value>) -> Result<Write, E> + Send,
) -> Result<Option<Arc<Value>>, E> {
    let mut refused = None;
    let slot = &mut refused;
    let done = storage.write(
        key,
        Box::new(|before| {
            decide(before).unwrap_or_else(|error| {
                *slot = Some(error);
                Write::Refuse
            })
        }),
    );
    let done = done.await;
    match refused {
        Some(error) => Err(error),
        None => Ok(done?),
    }
}
