//! The rows of the copy.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use kubeedge_core::{
    message::{Content, Message, resource::ObjectPath},
    name::ResourceVersion,
    store::{Batch, Bucket, Change, Expect, Key, MetaStore, Scan, StoreError, StoreKind},
};
use serde::Deserialize;

/// Where MetaManager keeps its copy: key = resource, value = the object's JSON.
pub const BUCKET: Bucket = Bucket("meta");

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

pub(super) fn key(resource: &str) -> Key {
    Key::new(BUCKET, resource)
}

fn uid_in(object: &[u8]) -> String {
    Head::of(object).metadata.uid
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
    /// each other.
    pub(super) async fn put_newest(&self, resource: &str, value: Bytes) -> Result<(), StoreError> {
        let (key, new) = (key(resource), Head::of(&value));
        loop {
            let old = self.store.get(&key).await?;
            if old.as_ref().is_some_and(|old| new.is_older_than(&Head::of(&old.value))) {
                return Ok(());
            }
            let expect = old.map_or(Expect::Absent, |old| Expect::Version(old.version));
            let change = Change::Put { key: key.clone(), value: value.clone(), expect };
            match self.store.commit(Batch(vec![change])).await {
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

    pub(super) async fn remove(&self, message: &Message) -> Result<(), StoreError> {
        self.store.commit(Batch::new().delete(key(message.route.resource.as_str()))).await
    }

    /// Removes a pod with its last patch, unless the row is of another pod of the same name, and the tokens that were
    /// made for it.
    pub(super) async fn remove_pod(&self, message: &Message) -> Result<(), StoreError> {
        let resource = message.route.resource.as_str();
        let Some(path) = ObjectPath::parse(resource) else { return Ok(()) };
        let old = self.store.get(&key(resource)).await?.map(|row| uid_in(&row.value));
        let named = uid_in(&message.content.data());
        // A deletion that names no uid means whichever pod there is.
        let uid = if named.is_empty() { old.clone().unwrap_or_default() } else { named };
        let mut batch = Batch::new();
        if old.is_none_or(|old| old == uid) {
            let patch = ObjectPath { kind: "podpatch", ..path }.to_resource();
            batch = batch.delete(key(resource)).delete(key(patch.as_str()));
        }
        for token in self.tokens_for(path.namespace, &uid).await? {
            batch = batch.delete(token);
        }
        self.store.commit(batch).await
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
