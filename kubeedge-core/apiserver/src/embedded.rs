//! A [`Storage`] over any [`MetaStore`], for one process.
//!
//! All objects are in memory, as parsed JSON shared by all readers, and in the store, written before anybody
//! sees them. One number counts all writes and is stored with each of them: the resourceVersion. Watchers
//! read the [history](history) of a kind; one that falls behind it is told so (410) instead of being buffered
//! for.

mod history;
mod queue;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use futures::TryStreamExt;
use kubeedge_core::{
    failure::Failure,
    store::{Bucket, Key, MetaStore, Scan, StoreError},
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::watch;

pub(crate) use self::history::TooOld;
use self::{history::History, queue::Queue};
use super::{
    key::{Collection, ObjectKey},
    storage::{
        Change, Decide, Happened, ListQuery, Listed, Storage, StorageError, StorageKind, Watcher, Write,
    },
    tasks::Tasks,
};

/// Where objects are kept.
const OBJECTS: Bucket = Bucket("apiserver");
/// Where the last resourceVersion is kept.
const COUNTER: Bucket = Bucket("apiserver-version");
/// How many changes a watcher reads from the history at once.
const CHUNK: usize = 64;

fn row(key: &ObjectKey) -> Key {
    Key::new(OBJECTS, key.to_string())
}

fn key_of(row: &str) -> Option<ObjectKey> {
    let mut parts = row.splitn(4, '/').map(str::to_owned);
    Some(ObjectKey {
        group: parts.next()?,
        plural: parts.next()?,
        namespace: parts.next()?,
        name: parts.next()?,
    })
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    version: u64,
    /// The version at the start: nobody knows what was before.
    start: u64,
    /// Of all kinds together, for those who look at everything, and of each that somebody asked for or that
    /// changed, by group and plural.
    all: History,
    kinds: HashMap<(String, String), History>,
}

impl State {
    fn take(&mut self, change: Change) {
        match change.happened {
            Happened::Deleted => drop(self.objects.remove(&change.key)),
            _ => drop(self.objects.insert(change.key.clone(), change.object.clone())),
        }
        self.version = change.version;
        let change = Arc::new(change);
        self.kind(&change.key.group, &change.key.plural).take(change.clone());
        self.all.take(change);
    }

    /// The objects of a collection, in the order of namespace and name, behind a namespace and name.
    fn of<'a>(
        &'a self,
        collection: &'a Collection,
        after: Option<&(String, String)>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> + use<'a> {
        let first = match after {
            Some((namespace, name)) if *namespace >= collection.namespace => {
                Bound::Excluded(collection.key(namespace, name))
            }
            _ => Bound::Included(collection.key(&collection.namespace, "")),
        };
        let range = self.objects.range((first, Bound::Unbounded));
        range.take_while(|(key, _)| collection.has(key))
    }

    /// The history of a kind.
    fn kind(&mut self, group: &str, plural: &str) -> &mut History {
        let start = self.start;
        self.kinds.entry((group.to_owned(), plural.to_owned())).or_insert_with(|| History::from(start))
    }
}

/// What writers share with the task that stores. Of the two locks the queue's is taken first.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn MetaStore>,
    queue: Mutex<Queue>,
    state: RwLock<State>,
}

impl Shared {
    /// The changes of a collection's kind after a version, oldest first, at most `most`, and the version up
    /// to which these are all there are.
    fn since(&self, kind: &Collection, version: u64, most: usize) -> Result<(Vec<Arc<Change>>, u64), TooOld> {
        let state = self.state.read();
        let changes = match state.kinds.get(&(kind.group.clone(), kind.plural.clone())) {
            Some(history) => history.since(version, most)?,
            None if version < state.start => return Err(TooOld),
            None => Vec::new(),
        };
        let last = changes.last().filter(|_| changes.len() == most);
        let up_to = last.map_or(state.version.max(version), |change| change.version);
        Ok((changes, up_to))
    }
}

/// Objects in memory and in a [`MetaStore`].
///
/// A write is answered when it is stored. Writes that wait for the store at the same time are one commit.
#[derive(Debug)]
pub struct EmbeddedStorage {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl EmbeddedStorage {
    /// Reads what the store holds. Objects that cannot be read are logged and left out.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn MetaStore>) -> Result<Self, StoreError> {
        let mut state = State::default();
        let mut rows = store.scan(Scan::new(OBJECTS, ""));
        while let Some(row) = rows.try_next().await? {
            match (key_of(&row.key.name), serde_json::from_slice(&row.value)) {
                (Some(key), Ok(object)) => drop(state.objects.insert(key, Arc::new(object))),
                _ => tracing::error!(key = %row.key, "a stored object cannot be read and is left out"),
            }
        }
        drop(rows);
        let counter = store.get(&Key::new(COUNTER, "newest")).await?;
        let counter = counter.and_then(|row| std::str::from_utf8(&row.value).ok()?.parse().ok());
        state.version = counter.unwrap_or(0);
        state.start = state.version;
        state.all = History::from(state.start);
        let queue = Mutex::new(Queue::at(state.version));
        let shared = Shared { store, queue, state: RwLock::new(state) };
        Ok(Self { shared: Arc::new(shared), tasks: Tasks::default() })
    }

    fn decide(&self, key: &ObjectKey, decide: Decide<'_>) -> (Option<Arc<Value>>, Option<queue::Done>) {
        let mut queue = self.shared.queue.lock();
        let pending = queue.pending(key);
        let is_pending = pending.is_some();
        let before = pending.unwrap_or_else(|| self.shared.state.read().objects.get(key).cloned());
        let (happened, mut object) = match decide(before.as_deref()) {
            Write::Put(object) if before.is_some() => (Happened::Modified, object),
            Write::Put(object) => (Happened::Added, object),
            Write::Delete if before.is_some() => {
                (Happened::Deleted, before.as_deref().cloned().unwrap_or_default())
            }
            // What it stays as may not be stored yet.
            Write::Keep | Write::Delete => {
                let stored = is_pending.then(|| queue.join(key, None));
                return (before, stored);
            }
            Write::Refuse => return (before, None),
        };
        let version = queue.version + 1;
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        let object = Arc::new(object);
        let change = Change::new(version, key.clone(), happened, object.clone(), before);
        let stored = queue.join(key, Some(change));
        if queue.begin() {
            self.tasks.spawn(queue::store(self.shared.clone()));
        }
        (Some(object), Some(stored))
    }
}

/// What the controllers of the same process read without waiting.
#[cfg(feature = "controllers")]
impl EmbeddedStorage {
    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.shared.state.read().version
    }

    /// Told of every new version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.state.read().all.subscribe()
    }

    /// The changes of all kinds after a version, oldest first, at most `most`.
    pub(crate) fn changes(&self, version: u64, most: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        self.shared.state.read().all.since(version, most)
    }

    /// An object.
    pub(crate) fn read(&self, key: &ObjectKey) -> Option<Arc<Value>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects of a collection.
    pub(crate) fn read_all(&self, collection: &Collection) -> Vec<Arc<Value>> {
        let state = self.shared.state.read();
        state.of(collection, None).map(|(_, object)| object.clone()).collect()
    }

    /// Every object whose key satisfies a condition.
    pub(crate) fn find(&self, condition: impl Fn(&ObjectKey) -> bool) -> Vec<(ObjectKey, Arc<Value>)> {
        let state = self.shared.state.read();
        let found = state.objects.iter().filter(|(key, _)| condition(key));
        found.map(|(key, object)| (key.clone(), object.clone())).collect()
    }
}

#[async_trait]
impl Storage for EmbeddedStorage {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Value>>, StorageError> {
        Ok(self.shared.state.read().objects.get(key).cloned())
    }

    async fn list(&self, query: &ListQuery) -> Result<Listed, StorageError> {
        let (mut objects, version) = {
            let state = self.shared.state.read();
            let found = state.of(&query.collection, query.after.as_ref());
            (found.map(|(_, object)| object.clone()).collect::<Vec<_>>(), state.version)
        };
        objects.retain(|object| query.selector.matches(object));
        let most = if query.limit == 0 { usize::MAX } else { query.limit };
        let remaining = objects.len().saturating_sub(most);
        objects.truncate(most);
        Ok(Listed::new(objects, version).with_remaining(remaining))
    }

    async fn watch(&self, collection: &Collection, after: u64) -> Result<Box<dyn Watcher>, StorageError> {
        let newest = self.shared.state.write().kind(&collection.group, &collection.plural).subscribe();
        let (shared, collection) = (self.shared.clone(), collection.clone());
        Ok(Box::new(EmbeddedWatcher { shared, collection, newest, version: after }))
    }

    async fn write(&self, key: &ObjectKey, decide: Decide<'_>) -> Result<Option<Arc<Value>>, StorageError> {
        let (object, stored) = self.decide(key, decide);
        if let Some(stored) = stored {
            let stored = stored.await.unwrap_or_else(|_| Err(queue::ended()));
            stored.map_err(|error| {
                Failure::new(StorageKind::Failed, "writing an object").on(key.to_string()).because(error)
            })?;
        }
        Ok(object)
    }
}

/// Reads the history of a kind.
struct EmbeddedWatcher {
    shared: Arc<Shared>,
    collection: Collection,
    newest: watch::Receiver<u64>,
    version: u64,
}

#[async_trait]
impl Watcher for EmbeddedWatcher {
    async fn next(&mut self) -> Result<Vec<Arc<Change>>, StorageError> {
        loop {
            self.newest.borrow_and_update();
            let read = self.shared.since(&self.collection, self.version, CHUNK);
            let (mut changes, up_to) =
                read.map_err(|TooOld| Failure::new(StorageKind::Expired, "reading the history"))?;
            let is_all = changes.is_empty();
            self.version = up_to;
            changes.retain(|change| self.collection.has(&change.key));
            if !changes.is_empty() {
                return Ok(changes);
            }
            if is_all && self.newest.changed().await.is_err() {
                return Err(Failure::new(StorageKind::Unavailable, "waiting for changes"));
            }
        }
    }

    fn version(&mut self) -> u64 {
        // Other kinds have gone on meanwhile.
        if let Ok((changes, up_to)) = self.shared.since(&self.collection, self.version, 1)
            && changes.is_empty()
        {
            self.version = up_to;
        }
        self.version
    }
}

#[cfg(test)]
#[cfg(feature = "controllers")]
mod tests;
