//! What each edge has confirmed: ObjectSync and ClusterObjectSync records in the cluster.

mod name;
mod saves;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};

use kube::core::Status;
use kubeedge_core::{
    backoff::Backoff,
    message::resource::NO_NAMESPACE,
    name::{NodeName, ResourceVersion},
};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::{sync::Notify, time::Instant};

pub(crate) use self::name::RecordName;
pub(crate) use self::saves::Confirmed;
use self::saves::Saves;
use crate::{
    cluster::{self, Clients},
    informer::{Informer, Informers, ObjectKey, kind},
};

const GROUP: &str = "reliablesyncs.kubeedge.io";
const PREFIX: &str = "/apis/reliablesyncs.kubeedge.io/v1alpha1";

/// The object a record is about, and where the record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The object's namespace; empty for a cluster-scoped object.
    pub(crate) namespace: String,
    pub(crate) name: RecordName,
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) object: String,
}

impl Record {
    /// The record of an object (namespace element as in a resource, `null` for none) for a node.
    pub(crate) fn new(node: &NodeName, namespace: &str, uid: &str) -> Self {
        let namespace = if namespace == NO_NAMESPACE { "" } else { namespace };
        Self {
            namespace: namespace.to_owned(),
            name: RecordName::new(&format!("{node}.{uid}")),
            api_version: String::new(),
            kind: String::new(),
            object: String::new(),
        }
    }

    fn kind_of_record(&self) -> (&'static str, &'static str) {
        if self.namespace.is_empty() {
            ("ClusterObjectSync", "clusterobjectsyncs")
        } else {
            ("ObjectSync", "objectsyncs")
        }
    }

    /// Whether it is of an object whose unique id nobody knows: there is no such record.
    pub(crate) fn is_of_any(&self) -> bool {
        self.name.ends_with('.')
    }

    fn path(&self, rest: &[&str]) -> String {
        let (_, plural) = self.kind_of_record();
        if self.namespace.is_empty() {
            let mut segments = vec![plural];
            segments.extend(rest);
            cluster::api_path(PREFIX, &segments)
        } else {
            cluster::namespaced(PREFIX, &self.namespace, plural, rest)
        }
    }
}

/// The node and uid in a record's name; the node is everything before the last dot.
pub(crate) fn split_name(name: &str) -> Option<(NodeName, &str)> {
    name.rsplit_once('.').map(|(node, uid)| (NodeName::from(node), uid))
}

/// What a record holds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RecordBody {
    pub(crate) spec: RecordSpec,
    pub(crate) status: RecordStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RecordSpec {
    #[serde(rename = "objectAPIVersion")]
    pub(crate) object_api_version: String,
    pub(crate) object_kind: String,
    pub(crate) object_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RecordStatus {
    pub(crate) object_resource_version: ResourceVersion,
}

/// An object as the API server has made it.
#[derive(Default, Deserialize)]
struct Made {
    metadata: MadeMeta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MadeMeta {
    resource_version: ResourceVersion,
}

/// What is known of a record without asking the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Missing,
    /// There, but with no version: it is being made, or its maker died over it.
    Unversioned,
    At(ResourceVersion),
}

/// The records of deliveries: read from informers, written through the API. A cloudcore has one, which
/// CloudHub and SyncController share.
#[derive(Debug)]
pub struct Records {
    clients: Arc<Clients>,
    namespaced: Arc<Informer>,
    cluster: Arc<Informer>,
    /// Records to be made, each with how often it was made already.
    later: Mutex<HashMap<RecordName, (Arc<Record>, usize)>>,
    unseen: Mutex<Unseen>,
    wake: Notify,
    confirmed: Saves,
    room: Notify,
}

/// How often it is looked whether the cache shows records that were made, until when it should, and how often
/// one that it never shows is made again.
const LOOK: Duration = Duration::from_millis(500);
const SHOWN: Duration = Duration::from_secs(10);
const AGAIN: usize = 2;

/// Records that were made and that the cache has not shown yet, when that was, and how often they were made
/// before.
type Unseen = HashMap<RecordName, (Instant, Arc<Record>, usize)>;

/// From how many remembered records on the hub takes nothing more from controllers until some are made.
const MAX_LATER: usize = 100_000;

/// How many confirmations are saved at the same time.
const SAVING: usize = 64;

impl Records {
    /// Records kept through these clients, known by these informers.
    pub fn new(clients: Arc<Clients>, informers: &Informers) -> Self {
        let (namespaced, cluster) = informers_of(informers);
        Self {
            clients,
            namespaced,
            cluster,
            later: Mutex::default(),
            unseen: Mutex::default(),
            wake: Notify::new(),
            confirmed: Saves::default(),
            room: Notify::new(),
        }
    }

    pub(crate) async fn ready(&self) {
        self.namespaced.ready().await;
        self.cluster.ready().await;
    }

    pub(crate) fn known(&self, record: &Record) -> Known {
        let informer = if record.namespace.is_empty() { &self.cluster } else { &self.namespaced };
        let key = ObjectKey::new(record.namespace.clone(), record.name.to_string());
        let Some(found) = informer.get(&key) else { return Known::Missing };
        match found.view::<RecordBody>() {
            Ok(body) if !body.status.object_resource_version.is_empty() => {
                Known::At(body.status.object_resource_version)
            }
            _ => Known::Unversioned,
        }
    }

    /// Whether there is no record, as far as is known.
    pub(crate) fn is_missing(&self, record: &Record) -> bool {
        self.known(record) == Known::Missing
    }

    /// Makes the record with version 0 if there is none.
    pub(crate) async fn ensure(&self, record: &Record) -> Result<(), Box<Status>> {
        let made = match self.create(record).await {
            Err(status) if status.is_already_exists() => return Ok(()),
            made => made?,
        };
        // The edge may have confirmed an answer meanwhile, which is more than nothing.
        match self.set_version(record, "0", Some(&made)).await {
            Err(status) if !status.is_conflict() => Err(status),
            _ => Ok(()),
        }
    }

    /// Notes what an edge has confirmed now, to be saved soon.
    pub(crate) fn confirm(&self, record: &Arc<Record>, confirmed: Confirmed, now: Instant) {
        if !self.confirmed.put(record, confirmed, now) {
            tracing::warn!(record = %record.name, "too many confirmations wait to be saved; the object will be sent once more");
        }
    }

    /// Notes what an edge says it has, to be saved at once. False when what it has confirmed is not saved
    /// yet.
    pub(crate) fn correct_soon(
        &self,
        record: &Arc<Record>,
        to: ResourceVersion,
        at: Option<ResourceVersion>,
    ) -> bool {
        self.confirmed.correct(record, Confirmed::Corrected { to, at })
    }

    /// Notes that an edge may no longer have the object, and completes when that is saved: whatever becomes
    /// of this process, nobody will take the object for being there.
    pub(crate) async fn withdraw(&self, record: &Arc<Record>) {
        self.confirm(record, Confirmed::At("0".into()), Instant::now());
        self.confirmed.at_once(record).await;
    }

    /// Saves what is confirmed; runs until dropped.
    pub(crate) async fn save_confirmed(&self) {
        let mut saving = FuturesUnordered::new();
        loop {
            while saving.len() < SAVING {
                let Some((record, confirmed)) = self.confirmed.take() else { break };
                saving.push(async move {
                    let mut pauses = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), 0);
                    loop {
                        let saved = match &confirmed {
                            Confirmed::Gone => self.remove(&record).await,
                            Confirmed::At(version) => self.save(&record, version.as_str()).await,
                            Confirmed::Corrected { to, at } => self.correct(&record, to, at.as_ref()).await,
                        };
                        let Err(status) = saved else { break };
                        tracing::warn!(record = %record.name, error = %status, "cannot save a confirmation");
                        // The session holds the object for confirmed: nobody would come back to this.
                        if status.code < 500 && status.code != 429 {
                            break;
                        }
                        tokio::time::sleep(pauses.next_pause()).await;
                    }
                    record
                });
            }
            tokio::select! {
                Some(record) = saving.next() => self.confirmed.done(&record),
                // With no room to take them, those that have rested wait.
                () = self.confirmed.changed(), if saving.len() < SAVING => {}
            }
        }
    }

    /// Completes when all that is confirmed is saved.
    pub(crate) async fn saved(&self) {
        self.confirmed.finish().await;
    }

    /// The edge has confirmed this version.
    async fn save(&self, record: &Record, version: &str) -> Result<(), Box<Status>> {
        match self.set_version(record, version, None).await {
            Err(status) if status.is_not_found() && !record.kind.is_empty() => {
                match self.create(record).await {
                    Err(status) if !status.is_already_exists() => return Err(status),
                    _ => {}
                }
                self.set_version(record, version, None).await
            }
            done => done,
        }
    }

    /// Makes a record say what the edge says it has, unless it was changed, or made, or removed since it was
    /// looked at.
    async fn correct(
        &self,
        record: &Record,
        to: &ResourceVersion,
        at: Option<&ResourceVersion>,
    ) -> Result<(), Box<Status>> {
        let made = match at {
            Some(at) => Ok(at.clone()),
            None => self.create(record).await,
        };
        let corrected = match made {
            Ok(at) => self.set_version(record, to.as_str(), Some(&at)).await,
            Err(status) => Err(status),
        };
        match corrected {
            Err(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found() => {
                Ok(())
            }
            corrected => corrected,
        }
    }

    /// The edge has confirmed that the object is gone.
    pub(crate) async fn remove(&self, record: &Record) -> Result<(), Box<Status>> {
        if record.is_of_any() {
            return Ok(());
        }
        let body = br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#.to_vec();
        let path = record.path(&[&record.name]);
        let client = self.clients.ours();
        let removed = match client.call(http::Method::DELETE, &path, cluster::Media::Json, body).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        };
        // A record that comes and goes between two looks is not one that the cache never showed.
        self.unseen.lock().remove(&record.name);
        removed
    }

    /// Remembers to make a record for a node that is away, so that it gets the object when it is back.
    pub(crate) fn ensure_later(&self, record: Arc<Record>) {
        self.later.lock().insert(record.name.clone(), (record, 0));
        self.wake.notify_one();
    }

    /// Whether more is remembered than should be.
    pub(crate) fn is_crowded(&self) -> bool {
        self.later.lock().len() >= MAX_LATER
    }

    /// Completes when some of what was remembered is being made. For one waiter.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// Makes the records remembered; runs until dropped. A record that cannot be made now is tried again, and
    /// so is one that the cache never shows: somebody has removed it while the cache did not hear of
    /// anything.
    pub(crate) async fn make_remembered(&self) {
        loop {
            let batch: Vec<_> = self.later.lock().drain().map(|(_, later)| later).collect();
            if batch.is_empty() {
                let looks = !self.unseen.lock().is_empty();
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(LOOK), if looks => {}
                }
            } else {
                self.room.notify_one();
                self.make(batch).await;
            }
            self.make_again();
        }
    }

    /// Remembers once more what was made and the cache has not shown in time.
    fn make_again(&self) {
        let mut unseen = self.unseen.lock();
        unseen.retain(|_, (_, record, _)| self.is_missing(record));
        for (name, (_, record, times)) in unseen.extract_if(|_, (made, ..)| made.elapsed() >= SHOWN) {
            if times < AGAIN {
                self.later.lock().entry(name).or_insert((record, times + 1));
            }
        }
    }

    async fn make(&self, batch: Vec<(Arc<Record>, usize)>) {
        let mut failed = false;
        for (record, times) in batch {
            let Err(status) = self.ensure(&record).await else {
                self.unseen.lock().insert(record.name.clone(), (Instant::now(), record, times));
                continue;
            };
            tracing::warn!(record = %record.name, error = %status, "cannot make a sync record");
            // A name the API server will never take must not be tried for ever.
            if status.code >= 500 || status.code == 429 {
                failed = true;
                self.later.lock().entry(record.name.clone()).or_insert((record, times));
            }
        }
        if failed {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Makes a record without a version of the object; returns its own version.
    async fn create(&self, record: &Record) -> Result<ResourceVersion, Box<Status>> {
        let (kind, _) = record.kind_of_record();
        let mut metadata = serde_json::Map::new();
        metadata.insert("name".to_owned(), (*record.name).into());
        if !record.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), record.namespace.as_str().into());
        }
        let body = serde_json::json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind, "metadata": metadata,
            "spec": {"objectAPIVersion": record.api_version, "objectKind": record.kind, "objectName": record.object},
        });
        let made = self.clients.ours().post(&record.path(&[]), body.to_string()).await?;
        let made: Made = serde_json::from_slice(&made).unwrap_or_default();
        Ok(made.metadata.resource_version)
    }

    /// Writes the version of the object; `only_at`: if the record itself has not changed since.
    async fn set_version(
        &self,
        record: &Record,
        version: &str,
        only_at: Option<&ResourceVersion>,
    ) -> Result<(), Box<Status>> {
        let metadata =
            only_at.map_or_else(|| serde_json::json!({}), |own| serde_json::json!({"resourceVersion": own}));
        let patch = serde_json::json!({"metadata": metadata, "status": {"objectResourceVersion": version}});
        let path = record.path(&[&record.name, "status"]);
        self.clients.ours().merge(&path, &patch).await.map(drop)
    }
}

/// The informers of both kinds of records: namespaced, cluster-scoped.
pub(crate) fn informers_of(informers: &Informers) -> (Arc<Informer>, Arc<Informer>) {
    let namespaced = kind(GROUP, "v1alpha1", "ObjectSync", "objectsyncs");
    let cluster = kind(GROUP, "v1alpha1", "ClusterObjectSync", "clusterobjectsyncs");
    (informers.of(&namespaced), informers.of(&cluster))
}

#[cfg(test)]
mod tests;
