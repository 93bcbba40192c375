//! The rows of the copy, and what of it is confirmed.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use futures::TryStreamExt;
use kubeedge_common::digest;
use kubeedge_core::store::{
    Batch, Bucket, Change, Entry, Expect, Key, MetaStore, Scan, StoreError, StoreKind,
};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::{
    handle::Object,
    head::Head,
    key::{ObjectKey, Selector},
    migration,
    watch::{MetaEvent, Watch, Watchers},
};

/// Where MetaManager keeps its copy: the key is that of [`ObjectKey::row`], the value the object's JSON.
pub const BUCKET: Bucket = Bucket("object");

/// Which version of each object the cloud was told that it is here, by unique id. A row is written and
/// removed in the commit that stores and removes its object, so that it never says more than is stored; the
/// stored object may be newer, as answers to patches bring it up to date.
pub(super) const CONFIRMED: Bucket = Bucket("confirmed");

/// Tokens of service accounts, by namespace, account and request; see [`super::tokens`].
pub(super) const TOKENS: Bucket = Bucket("token");

/// Changes of one object are made one after the other, so that they are told in the order in which they were
/// stored.
const LOCKS: usize = 64;

/// What a row of [`CONFIRMED`] says: the version, and the resource the object is stored under.
type Confirmed = (u64, String);

fn confirmed_key(uid: &str) -> Key {
    Key::new(CONFIRMED, uid)
}

/// The cloud is not told any more that the object is here.
fn forget(batch: Batch, uid: &str) -> Batch {
    if uid.is_empty() { batch } else { batch.delete(confirmed_key(uid)) }
}

fn unchanged(row: Option<&Entry>) -> Expect {
    row.map_or(Expect::Absent, |row| Expect::Version(row.version))
}

pub(super) fn key(object: &ObjectKey) -> Key {
    Key::new(BUCKET, object.row())
}

/// The row of a token: the account, a question mark and the request as it was made.
pub(super) fn token_key(namespace: &str, account: &str, request: &str) -> Key {
    Key::new(TOKENS, format!("{namespace}/{account}?{request}"))
}

fn uid_in(object: &[u8]) -> String {
    Head::of(object).uid
}

/// The row that says that this version is here, for objects that are compared with what the cloud believes.
fn confirmation(object: &ObjectKey, uid: &str, version: u64) -> Option<Change> {
    let is_compared = digest::KINDS.contains(&&*object.kind) && !uid.is_empty();
    let row = (version, object.resource());
    let value = serde_json::to_vec(&row).ok().filter(|_| is_compared)?;
    Some(Change::Put { key: confirmed_key(uid), value: value.into(), expect: Expect::Any })
}

/// What a batch does to a row.
fn event_of(object: &ObjectKey, row: &Key, old: Option<&Entry>, batch: &Batch) -> Option<MetaEvent> {
    let change = batch.0.iter().rev().find(|change| change.key() == row)?;
    let told = |bytes: &Bytes| Object::new(object.clone(), bytes.clone());
    match (change, old) {
        (Change::Put { value, .. }, None) => Some(MetaEvent::Added(told(value))),
        (Change::Put { value, .. }, Some(old)) => {
            (*value != old.value).then(|| MetaEvent::Modified(told(value)))
        }
        (Change::Delete { .. }, old) => old.map(|old| MetaEvent::Deleted(told(&old.value))),
    }
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn MetaStore>,
    /// Set once no row is left in the layout of old.
    is_migrated: OnceCell<()>,
    locks: [Mutex<()>; LOCKS],
    watchers: Watchers,
}

/// Typed access to the buckets. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Objects(Arc<Shared>);

impl Objects {
    pub(super) fn new(store: Arc<dyn MetaStore>) -> Self {
        Self(Arc::new(Shared {
            store,
            is_migrated: OnceCell::new(),
            locks: std::array::from_fn(|_| Mutex::new(())),
            watchers: Watchers::default(),
        }))
    }

    /// The store, once its rows have today's layout.
    async fn store(&self) -> Result<&dyn MetaStore, StoreError> {
        let Shared { store, is_migrated, .. } = &*self.0;
        is_migrated.get_or_try_init(|| migration::run(&**store)).await?;
        Ok(&**store)
    }

    async fn lock(&self, row: &Key) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        row.name.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % LOCKS as u64).ok()?;
        Some(self.0.locks.get(place)?.lock().await)
    }

    pub(super) fn watch(&self, of: Selector) -> Watch {
        self.0.watchers.watch(of)
    }

    /// Commits what is made of a row as it is, and tells it to those who watch.
    async fn edit(
        &self,
        object: &ObjectKey,
        change: impl Fn(Option<&Entry>) -> Batch + Send,
    ) -> Result<(), StoreError> {
        let (store, row) = (self.store().await?, key(object));
        let _lock = self.lock(&row).await;
        loop {
            let old = store.get(&row).await?;
            let batch = change(old.as_ref());
            if batch.0.is_empty() {
                return Ok(());
            }
            let event = event_of(object, &row, old.as_ref(), &batch);
            let doubt = self.0.watchers.in_doubt();
            let done = store.commit(batch).await;
            doubt.settle();
            match done {
                Ok(()) => {
                    event.iter().for_each(|event| self.0.watchers.publish(event));
                    return Ok(());
                }
                // Somebody wrote past this copy.
                Err(error) if error.kind() == StoreKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stores an object whatever is there.
    pub(super) async fn put(&self, object: &ObjectKey, value: Bytes) -> Result<(), StoreError> {
        self.edit(object, |_| Batch::new().put(key(object), value.clone())).await
    }

    /// Stores the last patch that was sent for an object. Patches are no objects: nobody watches them.
    pub(super) async fn put_patch(&self, patch: &ObjectKey, value: Bytes) -> Result<(), StoreError> {
        self.store().await?.commit(Batch::new().put(key(patch), value)).await
    }

    /// Stores an object of the cloud, unless the row holds a later form of it already: updates and answers
    /// may overtake each other. `new` is the head of `value`, `confirms` the version the cloud is going to be
    /// told is here.
    pub(super) async fn put_newest(
        &self,
        object: &ObjectKey,
        new: &Head,
        value: Bytes,
        confirms: Option<u64>,
    ) -> Result<(), StoreError> {
        let confirms = confirms.and_then(|version| confirmation(object, &new.uid, version));
        let change = |old: Option<&Entry>| {
            let had = old.map(|old| Head::of(&old.value)).unwrap_or_default();
            let is_older = old.is_some() && new.is_older_than(&had);
            if is_older && confirms.is_none() {
                return Batch::new();
            }
            // What is there stays there, but must still be there when its confirmation is stored.
            let stays = old.filter(|_| is_older).map(|old| old.value.clone());
            let value = stays.unwrap_or_else(|| value.clone());
            let put = Change::Put { key: key(object), value, expect: unchanged(old) };
            let mut batch = Batch(vec![put]);
            if had.uid != new.uid {
                batch = forget(batch, &had.uid);
            }
            batch.0.extend(confirms.clone());
            batch
        };
        self.edit(object, change).await
    }

    /// Replaces a row by a newer form of the same object; nothing happens when the row is gone, is another
    /// object's or is newer.
    pub(super) async fn refresh(&self, object: &ObjectKey, value: Bytes) -> Result<(), StoreError> {
        let new = Head::of(&value);
        let change = |old: Option<&Entry>| match old.map(|old| (old, Head::of(&old.value))) {
            Some((old, had)) if had.uid == new.uid && !new.is_older_than(&had) => {
                let expect = Expect::Version(old.version);
                Batch(vec![Change::Put { key: key(object), value: value.clone(), expect }])
            }
            _ => Batch::new(),
        };
        self.edit(object, change).await
    }

    /// Removes an object, unless the row is of another object of the same name that was made since. An empty
    /// `uid` means whichever is there.
    pub(super) async fn remove(&self, object: &ObjectKey, uid: &str) -> Result<(), StoreError> {
        let change = |old: Option<&Entry>| {
            let had = old.map(|row| uid_in(&row.value)).unwrap_or_default();
            let mut batch = forget(Batch::new(), uid);
            if had.is_empty() || uid.is_empty() || had == uid {
                batch.0.push(Change::Delete { key: key(object), expect: unchanged(old) });
                batch = forget(batch, &had);
            }
            batch
        };
        self.edit(object, change).await
    }

    /// Removes a pod with its last patch, unless the row is of another pod of the same name, and the tokens
    /// that were made for it.
    pub(super) async fn remove_pod(&self, pod: &ObjectKey, uid: &str) -> Result<(), StoreError> {
        let mut uid = uid.to_owned();
        if uid.is_empty() {
            // A deletion that names no uid means the pod there is.
            uid = self.get(pod).await?.map(|pod| uid_in(&pod.bytes)).unwrap_or_default();
        }
        let patch = key(&ObjectKey::known("podpatch", &pod.namespace, &pod.name));
        let tokens = self.tokens_for(&pod.namespace, &uid).await?;
        let change = |old: Option<&Entry>| {
            let mut batch = forget(Batch::new(), &uid);
            if old.is_none_or(|old| uid_in(&old.value) == uid) {
                batch.0.push(Change::Delete { key: key(pod), expect: unchanged(old) });
                batch = batch.delete(patch.clone());
            }
            tokens.iter().fold(batch, |batch, token| batch.delete(token.clone()))
        };
        self.edit(pod, change).await
    }

    /// Everything the cloud was told is here.
    pub(super) async fn confirmed(&self) -> Result<Vec<digest::Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut rows = self.store().await?.scan(Scan::new(CONFIRMED, ""));
        while let Some(row) = rows.try_next().await? {
            // A row that cannot be read says nothing, and the object is sent once more.
            if let Ok((version, path)) = serde_json::from_slice::<Confirmed>(&row.value) {
                entries.push(digest::Entry { key: row.key.name, version, path });
            }
        }
        Ok(entries)
    }

    /// A token that is kept.
    pub(super) async fn token(&self, row: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store().await?.get(row).await?.map(|entry| entry.value))
    }

    /// Keeps a token.
    pub(super) async fn put_token(&self, row: Key, token: Bytes) -> Result<(), StoreError> {
        self.store().await?.commit(Batch::new().put(row, token)).await
    }

    /// The rows of tokens bound to a pod: their keys hold the request, which names its uid.
    async fn tokens_for(&self, namespace: &str, uid: &str) -> Result<Vec<Key>, StoreError> {
        if uid.is_empty() {
            return Ok(Vec::new());
        }
        let bound = format!("\"{uid}\"");
        let rows = self.store().await?.scan(Scan::new(TOKENS, format!("{namespace}/")));
        rows.try_filter_map(|row| {
            let token = row.key.name.contains(&bound).then_some(row.key);
            async move { Ok(token) }
        })
        .try_collect()
        .await
    }

    pub(super) async fn get(&self, object: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let entry = self.store().await?.get(&key(object)).await?;
        Ok(entry.map(|entry| Object::new(object.clone(), entry.value)))
    }

    /// All objects of a kind, or of a kind and namespace.
    pub(super) async fn list(&self, of: &Selector) -> Result<Vec<Object>, StoreError> {
        let rows = self.store().await?.scan(Scan::new(BUCKET, of.prefix()));
        rows.try_filter_map(|row| async move {
            let object = ObjectKey::of_row(&row.key.name);
            Ok(object.map(|object| Object::new(object, row.value)))
        })
        .try_collect()
        .await
    }
}
