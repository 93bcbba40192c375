//! Objects, their versions and their history: everything below HTTP.
//!
//! All objects are in memory, as parsed JSON shared by all readers, and in a [`MetaStore`], written before anybody
//! sees them. One number counts all writes and is stored with each of them: the resourceVersion. Watchers read the
//! [history](history) of a kind; one that falls behind it is told so (410) instead of being buffered for.

mod history;
mod line;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use futures::TryStreamExt;
use kubeedge_core::{
    clock::Clock,
    store::{Bucket, Key, MetaStore, Scan, StoreError},
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;

pub(crate) use self::history::{Change, Happened, TooOld};
use self::{history::History, line::Line};
use super::definitions::Definitions;
use kubeedge_common::stamp;

/// Where objects are kept.
const OBJECTS: Bucket = Bucket("apiserver");
/// Where the last resourceVersion is kept.
const COUNTER: Bucket = Bucket("apiserver-version");

/// Which object: group, plural, namespace (empty for none) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    pub group: String,
    pub plural: String,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    fn row(&self) -> Key {
        Key::new(OBJECTS, format!("{}/{}/{}/{}", self.group, self.plural, self.namespace, self.name))
    }

    fn from_row(row: &str) -> Option<Self> {
        let mut parts = row.splitn(4, '/').map(str::to_owned);
        Some(Self {
            group: parts.next()?,
            plural: parts.next()?,
            namespace: parts.next()?,
            name: parts.next()?,
        })
    }
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    version: u64,
    /// The version at the start: nobody knows what was before.
    start: u64,
    /// Of all kinds together, for those who look at everything, and of each that somebody asked for or that changed, by
    /// group and plural.
    all: History,
    kinds: HashMap<(String, String), History>,
}

/// What a write wants.
#[derive(Debug)]
pub(crate) enum Write {
    /// Make the object so.
    Put(Value),
    /// Remove it.
    Delete,
    /// Leave it as it is.
    Keep,
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

    /// The history of a kind.
    fn kind(&mut self, group: &str, plural: &str) -> &mut History {
        let start = self.start;
        self.kinds.entry((group.to_owned(), plural.to_owned())).or_insert_with(|| History::from(start))
    }
}

/// What writers share with the task that stores. Of the two locks the line's is taken first.
#[derive(Debug)]
struct Shared {
    store: Arc<dyn MetaStore>,
    line: Mutex<Line>,
    state: RwLock<State>,
}

/// The objects.
#[derive(Debug)]
pub(crate) struct Storage {
    shared: Arc<Shared>,
    clock: Clock,
    definitions: Definitions,
}

impl Storage {
    /// Reads what the store holds. The clock is what leases, grace and expiry are counted with.
    pub(crate) async fn open(store: Arc<dyn MetaStore>, clock: Clock) -> Result<Self, StoreError> {
        let mut state = State::default();
        let mut rows = store.scan(Scan::new(OBJECTS, ""));
        while let Some(row) = rows.try_next().await? {
            match (ObjectKey::from_row(&row.key.name), serde_json::from_slice(&row.value)) {
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
        let line = Mutex::new(Line::at(state.version));
        let shared = Shared { store, line, state: RwLock::new(state) };
        Ok(Self { shared: Arc::new(shared), clock, definitions: Definitions::default() })
    }

    /// What was read from those CustomResourceDefinitions here that were asked for.
    pub(super) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The present moment.
    pub(crate) fn moment(&self) -> OffsetDateTime {
        stamp::moment(&self.clock)
    }

    /// The present moment as Kubernetes writes it.
    pub(crate) fn now(&self) -> String {
        stamp::stamp(&self.clock)
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.shared.state.read().version
    }

    /// Told of every new version.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.state.read().all.subscribe()
    }

    /// Told of every new version of an object of a kind.
    pub(crate) fn subscribe_to(&self, group: &str, plural: &str) -> watch::Receiver<u64> {
        self.shared.state.write().kind(group, plural).subscribe()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Value>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects of a kind, of one namespace or of all, in the order of namespace and name, and the version this is
    /// true at.
    pub(crate) fn list(&self, group: &str, plural: &str, namespace: &str) -> (Vec<Arc<Value>>, u64) {
        let state = self.shared.state.read();
        let first = ObjectKey {
            group: group.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        let range = state.objects.range((Bound::Included(first), Bound::Unbounded));
        let of_kind = range.take_while(|(key, _)| key.group == group && key.plural == plural);
        let within = of_kind.take_while(|(key, _)| namespace.is_empty() || key.namespace == namespace);
        (within.map(|(_, object)| object.clone()).collect(), state.version)
    }

    /// Every object whose key satisfies a condition.
    pub(crate) fn find(
        &self,
        condition: impl Fn(&ObjectKey, &Value) -> bool,
    ) -> Vec<(ObjectKey, Arc<Value>)> {
        let state = self.shared.state.read();
        let found = state.objects.iter().filter(|(key, object)| condition(key, object));
        found.map(|(key, object)| (key.clone(), object.clone())).collect()
    }

    /// The changes of all kinds after a version, oldest first, at most `most`.
    pub(crate) fn since(&self, version: u64, most: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        self.shared.state.read().all.since(version, most)
    }

    /// The same for one kind, and the version up to which these are all there are.
    pub(crate) fn since_of(
        &self,
        group: &str,
        plural: &str,
        version: u64,
        most: usize,
    ) -> Result<(Vec<Arc<Change>>, u64), TooOld> {
        let state = self.shared.state.read();
        let changes = match state.kinds.get(&(group.to_owned(), plural.to_owned())) {
            Some(history) => history.since(version, most)?,
            None if version < state.start => return Err(TooOld),
            None => Vec::new(),
        };
        let last = changes.last().filter(|_| changes.len() == most);
        let up_to = last.map_or(state.version.max(version), |change| change.version);
        Ok((changes, up_to))
    }

    /// Reads, decides and writes one object; nobody decides in between. The version is set in what is put. Done when it is
    /// stored; dropped before, it may or may not happen.
    pub(crate) async fn write<E: From<StoreError>>(
        &self,
        key: &ObjectKey,
        decide: impl FnOnce(Option<&Value>) -> Result<Write, E> + Send,
    ) -> Result<Option<Arc<Value>>, E> {
        let (object, stored) = match self.decide(key, decide)? {
            (object, Some(stored)) => (object, stored),
            (object, None) => return Ok(object),
        };
        stored.await.unwrap_or_else(|_| Err(line::ended()))?;
        Ok(object)
    }

    fn decide<E: From<StoreError>>(
        &self,
        key: &ObjectKey,
        decide: impl FnOnce(Option<&Value>) -> Result<Write, E>,
    ) -> Result<(Option<Arc<Value>>, Option<line::Done>), E> {
        let mut line = self.shared.line.lock();
        let pending = line.pending(key);
        let is_pending = pending.is_some();
        let before = pending.unwrap_or_else(|| self.shared.state.read().objects.get(key).cloned());
        let (happened, mut object) = match decide(before.as_deref())? {
            Write::Put(object) if before.is_some() => (Happened::Modified, object),
            Write::Put(object) => (Happened::Added, object),
            Write::Delete if before.is_some() => {
                (Happened::Deleted, before.as_deref().cloned().unwrap_or_default())
            }
            // What it stays as may not be stored yet.
            Write::Keep | Write::Delete => {
                let stored = is_pending.then(|| line.join(key, None));
                return Ok((before, stored));
            }
        };
        let version = line.version + 1;
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        let object = Arc::new(object);
        let change = Change::new(version, key.clone(), happened, object.clone(), before);
        let stored = line.join(key, Some(change));
        if line.begin() {
            tokio::spawn(line::store(self.shared.clone()));
        }
        Ok((Some(object), Some(stored)))
    }
}

#[cfg(test)]
mod tests;
