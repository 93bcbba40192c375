//! The rows of the copy.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use kubeedge_common::digest;
use kubeedge_core::{
    message::{Content, Message, resource::ObjectPath},
    name::ResourceVersion,
    store::{Batch, Bucket, Change, Entry, Expect, Key, MetaStore, Scan, StoreError, StoreKind},
};
use serde::Deserialize;

use crate::twin;

/// Where MetaManager keeps its copy: key = resource, value = the object's JSON.
pub const BUCKET: Bucket = Bucket("meta");

/// Which version of each object the cloud was told that it is here, by unique id. A row is written and removed in the commit
/// that stores and removes its object, so that it never says more than is stored; the stored object may be newer, as
/// answers to patches bring it up to date.
pub(super) const CONFIRMED: Bucket = Bucket("confirmed");

/// Typed access to the bucket.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    store: Arc<dyn MetaStore>,
}

/// What decides between two forms of an object; the rest of it is skipped, not parsed.
#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: ResourceVersion,
}

impl Head {
    fn of(object: &[u8]) -> Self {
        serde_json::from_slice(object).unwrap_or_default()
    }

    /// Whether both are the same object and this is an earlier form of it.
    fn is_older_than(&self, other: &Self) -> bool {
        let versions = (self.metadata.resource_version.number(), other.metadata.resource_version.number());
        self.metadata.uid == other.metadata.uid
            && matches!(versions, (Some(ours), Some(theirs)) if ours < theirs)
    }
}

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

pub(super) fn key(resource: &str) -> Key {
    Key::new(BUCKET, resource)
}

fn uid_in(object: &[u8]) -> String {
    Head::of(object).metadata.uid
}

/// The row that says that this version is here, for objects that are compared with what the cloud believes.
fn confirmation(resource: &str, uid: &str, version: u64) -> Option<Change> {
    let kind = ObjectPath::parse(resource).map(|path| path.kind)?;
    let is_compared = digest::KINDS.contains(&kind) && !uid.is_empty();
    let value = serde_json::to_vec(&(version, resource)).ok().filter(|_| is_compared)?;
    Some(Change::Put { key: confirmed_key(uid), value: value.into(), expect: Expect::Any })
}

/// Rows as KubeEdge's answers list them: an array of JSON texts.
pub(super) fn listed(rows: &[Bytes]) -> Content {
    let texts: Vec<_> = rows.iter().map(|row| String::from_utf8_lossy(row)).collect();
    Content::json(&texts).unwrap_or_default()
}

impl Rows {
    pub(super) fn new(store: Arc<dyn MetaStore>) -> Self {
        Self { store }
    }

    /// Stores the content of a message under its resource.
    pub(super) async fn put(&self, message: &Message) -> Result<(), StoreError> {
        self.put_value(message.route.resource.as_str(), message.content.clone().into_data()).await
    }

    pub(super) async fn put_value(&self, resource: &str, value: Bytes) -> Result<(), StoreError> {
        self.store.commit(Batch::new().put(key(resource), value)).await
    }

    /// Stores an object of the cloud, unless the row holds a later form of it already: updates and answers may overtake
    /// each other. `confirms` is the version the cloud is going to be told is here.
    pub(super) async fn put_newest(
        &self,
        resource: &str,
        value: Bytes,
        confirms: Option<u64>,
    ) -> Result<(), StoreError> {
        let (key, new) = (key(resource), Head::of(&value));
        let confirms = confirms.and_then(|version| confirmation(resource, &new.metadata.uid, version));
        let change = |old: Option<&Entry>| {
            let had = old.map(|old| Head::of(&old.value)).unwrap_or_default();
            let is_older = old.is_some() && new.is_older_than(&had);
            if is_older && confirms.is_none() {
                return Batch::new();
            }
            // What is there stays there, but must still be there when its confirmation is stored.
            let stays = old.filter(|_| is_older).map(|old| old.value.clone());
            let value = stays.unwrap_or_else(|| value.clone());
            let put = Change::Put { key: key.clone(), value, expect: unchanged(old) };
            let mut batch = Batch(vec![put]);
            if had.metadata.uid != new.metadata.uid {
                batch = forget(batch, &had.metadata.uid);
            }
            batch.0.extend(confirms.clone());
            batch
        };
        self.edit(&key, change).await
    }

    /// Commits what is made of a row as it is, and makes it anew when the row has changed meanwhile.
    async fn edit(
        &self,
        key: &Key,
        change: impl Fn(Option<&Entry>) -> Batch + Send,
    ) -> Result<(), StoreError> {
        loop {
            let batch = change(self.store.get(key).await?.as_ref());
            if batch.0.is_empty() {
                return Ok(());
            }
            match self.store.commit(batch).await {
                Err(error) if error.kind() == StoreKind::Conflict => {}
                done => return done,
            }
        }
    }

    /// Replaces a row by a newer form of the same object; nothing happens when the row is gone, is another object's,
    /// is newer, or changed meanwhile.
    pub(super) async fn refresh(&self, resource: &str, value: Bytes) -> Result<(), StoreError> {
        let key = key(resource);
        let Some(old) = self.store.get(&key).await? else { return Ok(()) };
        let (had, new) = (Head::of(&old.value), Head::of(&value));
        if had.metadata.uid != new.metadata.uid || new.is_older_than(&had) {
            return Ok(());
        }
        let change = Change::Put { key, value, expect: Expect::Version(old.version) };
        match self.store.commit(Batch(vec![change])).await {
            Err(error) if error.kind() == StoreKind::Conflict => Ok(()),
            done => done,
        }
    }

    /// Removes an object, unless the row is of another object of the same name that was made since.
    pub(super) async fn remove(&self, message: &Message) -> Result<(), StoreError> {
        let key = key(message.route.resource.as_str());
        let named = uid_in(&message.content.data());
        let change = |old: Option<&Entry>| {
            let had = old.map(|row| uid_in(&row.value)).unwrap_or_default();
            let mut batch = forget(Batch::new(), &named);
            if had.is_empty() || named.is_empty() || had == named {
                batch.0.push(Change::Delete { key: key.clone(), expect: unchanged(old) });
                batch = forget(batch, &had);
            }
            batch
        };
        self.edit(&key, change).await
    }

    /// Removes a pod with its last patch, unless the row is of another pod of the same name, and the tokens that were
    /// made for it.
    pub(super) async fn remove_pod(&self, message: &Message) -> Result<(), StoreError> {
        let resource = message.route.resource.as_str();
        let Some(path) = ObjectPath::parse(resource) else { return Ok(()) };
        let key_of_pod = key(resource);
        let mut uid = uid_in(&message.content.data());
        if uid.is_empty() {
            // A deletion that names no uid means the pod there is.
            uid = self.one(resource).await?.map(|pod| uid_in(&pod)).unwrap_or_default();
        }
        let patch = ObjectPath { kind: "podpatch", ..path }.to_resource();
        let tokens = self.tokens_for(path.namespace, &uid).await?;
        let change = |old: Option<&Entry>| {
            let mut batch = forget(Batch::new(), &uid);
            if old.is_none_or(|old| uid_in(&old.value) == uid) {
                batch.0.push(Change::Delete { key: key_of_pod.clone(), expect: unchanged(old) });
                batch = batch.delete(key(patch.as_str()));
            }
            tokens.iter().fold(batch, |batch, token| batch.delete(token.clone()))
        };
        self.edit(&key_of_pod, change).await
    }

    /// Everything the cloud was told is here, and the devices DeviceTwin knows.
    pub(super) async fn confirmed(&self) -> Result<Vec<digest::Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut rows = self.store.scan(Scan::new(CONFIRMED, ""));
        while let Some(row) = rows.try_next().await? {
            // A row that cannot be read says nothing, and the object is sent once more.
            if let Ok((version, path)) = serde_json::from_slice::<Confirmed>(&row.value) {
                entries.push(digest::Entry { key: row.key.name, version, path });
            }
        }
        let mut devices = self.store.scan(Scan::new(twin::DEVICES, ""));
        while let Some(row) = devices.try_next().await? {
            entries.push(digest::Entry { key: row.key.name, version: 1, path: String::new() });
        }
        Ok(entries)
    }

    /// The rows of tokens bound to a pod: their keys hold the request, which names its uid.
    async fn tokens_for(&self, namespace: &str, uid: &str) -> Result<Vec<Key>, StoreError> {
        if uid.is_empty() {
            return Ok(Vec::new());
        }
        let bound = format!("\"{uid}\"");
        let rows = self.store.scan(Scan::new(BUCKET, format!("{namespace}/serviceaccounttoken/")));
        rows.try_filter_map(|row| {
            let token = row.key.name.contains(&bound).then_some(row.key);
            async move { Ok(token) }
        })
        .try_collect()
        .await
    }

    pub(super) async fn one(&self, resource: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.store.get(&key(resource)).await?.map(|entry| entry.value))
    }

    /// The row of a resource; without a name, all rows of its kind in all namespaces, as Go answers.
    pub(super) async fn list(&self, resource: &str) -> Result<Vec<Bytes>, StoreError> {
        let path = ObjectPath::parse(resource);
        let Some(kind) = path.filter(|path| path.name.is_empty()).map(|path| path.kind) else {
            return Ok(self.one(resource).await?.into_iter().collect());
        };
        let of_kind = |name: &str| ObjectPath::parse(name).is_some_and(|path| path.kind == kind);
        let rows = self.store.scan(Scan::new(BUCKET, ""));
        rows.try_filter_map(|row| async move { Ok(of_kind(&row.key.name).then_some(row.value)) })
            .try_collect()
            .await
    }
}
