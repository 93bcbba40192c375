//! The rows of the copy.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use kubeedge_core::{
    message::{Content, Message, resource::ObjectPath},
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

#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Meta,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(default)]
    uid: String,
}

pub(super) fn key(resource: &str) -> Key {
    Key::new(BUCKET, resource)
}

fn uid_in(object: &[u8]) -> String {
    serde_json::from_slice::<Head>(object).unwrap_or_default().metadata.uid
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

    /// Replaces a row by a newer form of the same object; nothing happens when the row is gone, is another object's,
    /// or changed meanwhile.
    pub(super) async fn refresh(&self, resource: &str, value: Bytes) -> Result<(), StoreError> {
        let key = key(resource);
        let Some(old) = self.store.get(&key).await? else { return Ok(()) };
        if uid_in(&old.value) != uid_in(&value) {
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

    /// Removes a pod and its last patch, unless the row is of another pod of the same name.
    pub(super) async fn remove_pod(&self, message: &Message) -> Result<(), StoreError> {
        let resource = message.route.resource.as_str();
        let uid = uid_in(&message.content.data());
        let Some(row) = self.store.get(&key(resource)).await? else { return Ok(()) };
        if !uid.is_empty() && uid_in(&row.value) != uid {
            return Ok(());
        }
        let patch =
            ObjectPath::parse(resource).map(|path| ObjectPath { kind: "podpatch", ..path }.to_resource());
        let batch = Batch::new().delete(key(resource));
        let batch = patch.into_iter().fold(batch, |batch, patch| batch.delete(key(patch.as_str())));
        self.store.commit(batch).await
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
