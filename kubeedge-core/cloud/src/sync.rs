//! SyncController: what an edge has against what it should have.
//!
//! For every record of what an edge has confirmed (see [`crate::hub`]) the object is looked up: one that is
//! gone is deleted from the edge, one that is newer is sent as an update. This runs every five seconds as in
//! Go, and for a node's records at once when it connects, so that both sides agree soon after a reconnect.
//! Records of nodes that are gone are removed.
//!
//! Where we differ from Go: only nodes that are connected to this cloudcore are compared, as nobody else can
//! be told; records are read when they change, so that a pass over objects that agree costs a look-up each;
//! deletions go first, so that none hits an object made anew under the same name; passes of several
//! cloudcores do not fall together; records that somebody else removes are made again (`sync/missing.rs`). An
//! edge of ours is asked at each connect what it really has, and its records are corrected; see
//! [`kubeedge_common::digest`].

mod index;
mod missing;
mod plural;
mod resync;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    bus::{Bus, SendError},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message, resource},
    name::{Group, ModuleName, NodeName, Operation},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;

use self::{
    index::{Confirmed, Index},
    resync::Comparisons,
};
use crate::{
    cluster::Clients,
    hub::{Sessions, corrections},
    informer::{Change, Informer, Informers, Object, ObjectKey, edge_nodes},
    records::{self, Record, Records},
};

/// How the controller works.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SyncSettings {
    /// The pause between two passes; each is up to a fifth longer. KubeEdge: 5 s.
    pub every: Duration,
    /// Where the random part of the pauses starts.
    pub seed: u64,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self { every: Duration::from_secs(5), seed: 0 }
    }
}

/// The SyncController module; see the module's documentation.
#[derive(Debug)]
pub struct SyncController {
    settings: SyncSettings,
    informers: Arc<Informers>,
    records: Arc<Records>,
    sessions: Sessions,
    nodes: Arc<Informer>,
    namespaced: Arc<Informer>,
    cluster: Arc<Informer>,
    index: Index,
    /// Nodes that had records and no Node object in the last pass.
    orphaned: HashSet<NodeName>,
    comparisons: Comparisons,
    random: SmallRng,
}

/// Records that are compared before others get a turn.
const SLICE: usize = 1024;

impl SyncController {
    /// A controller on these clients, informers and records, for the nodes that have a session.
    pub fn new(
        settings: SyncSettings,
        clients: &Arc<Clients>,
        informers: &Arc<Informers>,
        records: &Arc<Records>,
        sessions: Sessions,
    ) -> Self {
        let (namespaced, cluster) = records::informers_of(informers);
        let clock = clients.clock().clone();
        let comparisons = Comparisons::new(settings, clock, sessions.clone(), informers.clone());
        Self {
            settings,
            informers: informers.clone(),
            records: records.clone(),
            sessions,
            nodes: edge_nodes(informers),
            namespaced,
            cluster,
            index: Index::default(),
            orphaned: HashSet::new(),
            comparisons,
            random: SmallRng::seed_from_u64(settings.seed),
        }
    }

    fn note(&mut self, change: &Change) {
        if let Some((node, uid)) = self.index.note(change, &self.informers) {
            self.comparisons.doubt(&node, &uid);
        }
    }

    /// Compares the records of all connected nodes with the cluster.
    async fn pass(&mut self, bus: &Bus) -> Result<(), SendError> {
        self.comparisons.forget_ended();
        for node in self.sessions.nodes() {
            self.compare(&node, bus).await?;
            self.comparisons.open(&self.index, &node, bus).await?;
        }
        let Self { index, informers, nodes, comparisons, .. } = self;
        missing::make_again(index, informers, nodes, comparisons, bus).await?;
        self.remove_orphaned().await;
        Ok(())
    }

    async fn compare(&self, node: &NodeName, bus: &Bus) -> Result<(), SendError> {
        let (mut gone, mut newer) = (Vec::new(), Vec::new());
        for (count, confirmed) in self.index.of(node).enumerate() {
            match difference(node, confirmed) {
                Difference::None => {}
                Difference::Gone(message) => gone.push(message),
                Difference::Newer(message) => newer.push(message),
            }
            if count % SLICE == SLICE - 1 {
                tokio::task::yield_now().await;
            }
        }
        for message in gone.into_iter().chain(newer) {
            bus.send(&ModuleName::CLOUD_HUB, message).await?;
        }
        corrections::restate(&self.sessions, node, |record| {
            let known = self.index.record(node, &record.namespace, &record.name);
            known.is_none_or(|known| known.version == Some(0))
        });
        Ok(())
    }

    /// Removes the records of nodes that are gone. A node must be missing in two passes: its label may be on
    /// its way.
    async fn remove_orphaned(&mut self) {
        let missing = |node: &NodeName| self.nodes.get(&ObjectKey::new("", node.as_str())).is_none();
        let orphaned: HashSet<_> = self.index.nodes().into_iter().filter(missing).collect();
        for node in orphaned.intersection(&self.orphaned) {
            self.collect(node).await;
        }
        self.orphaned = orphaned;
    }

    async fn collect(&self, node: &NodeName) {
        for confirmed in self.index.of(node) {
            let namespace = &confirmed.key.namespace;
            let namespace = if namespace.is_empty() { resource::NO_NAMESPACE } else { namespace };
            let record = Record::new(node, namespace, &confirmed.uid);
            if let Err(status) = self.records.remove(&record).await {
                tracing::warn!(record = %record.name, error = %status, "a sync record was not removed");
            }
        }
    }
}

/// What an edge has of one object against the cluster.
enum Difference {
    None,
    Gone(Message),
    Newer(Message),
}

fn difference(node: &NodeName, confirmed: &Confirmed) -> Difference {
    let Confirmed { uid, kind, informer, key, version, .. } = confirmed;
    // Not listed yet is not gone.
    if !informer.is_ready() {
        return Difference::None;
    }
    // Volume attachments have no namespace, but are asked for and recorded in one.
    let found = informer.get(key).or_else(|| informer.get(&ObjectKey::new("", key.name.clone())));
    let found = found.filter(|object| object.uid == *uid);
    let Some(object) = found else { return Difference::Gone(gone(node, kind, key, uid)) };
    let (Some(version), Some(there)) = (version, object.version.number()) else { return Difference::None };
    if there <= *version {
        return Difference::None;
    }
    if kind == "device" && moved(node, &object) {
        return Difference::Gone(gone(node, kind, key, uid));
    }
    Difference::Newer(update(node, confirmed, &object))
}

/// Something about an object, for its node.
fn about(node: &NodeName, operation: Operation, kind: &str, key: &ObjectKey) -> Message {
    let path = resource::for_node(node, &resource::object(&key.namespace, kind, &key.name));
    Message::new(ModuleName::EDGE_CONTROLLER, operation, path).in_group(Group::RESOURCE)
}

/// The newest form of an object.
fn update(node: &NodeName, of: &Confirmed, object: &Object) -> Message {
    let update = about(node, Operation::UPDATE, &of.kind, &of.key).at_version(object.version.clone());
    update.with(object.content.clone())
}

/// Whether a device is on another node by now. Go keeps sending it to the old one.
fn moved(node: &NodeName, object: &Object) -> bool {
    #[derive(serde::Deserialize)]
    struct Placed {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        node_name: Option<String>,
    }
    let Ok(placed) = object.view::<Placed>() else { return false };
    placed.spec.node_name.is_some_and(|place| place != node.as_str())
}

fn gone(node: &NodeName, kind: &str, key: &ObjectKey, uid: &str) -> Message {
    let metadata = if key.namespace.is_empty() {
        json!({"name": key.name, "uid": uid})
    } else {
        json!({"name": key.name, "namespace": key.namespace, "uid": uid})
    };
    let stub = Content::json(&json!({"metadata": metadata})).unwrap_or_default();
    about(node, Operation::DELETE, kind, key).with(stub)
}

#[async_trait]
impl Module for SyncController {
    fn name(&self) -> ModuleName {
        ModuleName::SYNC_CONTROLLER
    }

    fn group(&self) -> Group {
        Group::of("synccontroller")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let ready = async {
            self.nodes.ready().await;
            self.records.ready().await;
        };
        tokio::select! {
            () = ready => {}
            () = ctx.shutdown.requested() => return Ok(()),
        }
        let mut nodes = self.nodes.subscribe();
        let (mut namespaced, mut cluster) = (self.namespaced.subscribe(), self.cluster.subscribe());
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                // In this order: what is known of records comes before it is acted on.
                biased;
                () = ctx.shutdown.requested() => return Ok(()),
                change = namespaced.next() => self.note(&change),
                change = cluster.next() => self.note(&change),
                change = nodes.next() => {
                    if let (Some(gone), None) = (&change.old, &change.new) {
                        self.collect(&NodeName::from(gone.key.name.as_str())).await;
                    }
                }
                envelope = ctx.inbox.next() => {
                    let Some(envelope) = envelope else { return Ok(()) };
                    let route = &envelope.message.route;
                    let Some(node) = resource::target_node(&route.resource) else { continue };
                    if route.operation == Operation::GET {
                        self.comparisons.answered(&mut self.index, &node, envelope, &ctx.bus).await?;
                    } else if route.operation == "connected" {
                        self.compare(&node, &ctx.bus).await?;
                        self.comparisons.open(&self.index, &node, &ctx.bus).await?;
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    self.pass(&ctx.bus).await?;
                    let longer = self.settings.every.mul_f64(self.random.random_range(0.0..0.2));
                    next = tokio::time::Instant::now() + self.settings.every + longer;
                }
            }
        }
    }
}
