//! SyncController: what an edge has against what it should have.
//!
//! For every record of what an edge has confirmed (see [`crate::hub`]) the object is looked up: one that is gone is
//! deleted from the edge, one that is newer is sent as an update. This runs every five seconds as in Go, and for a
//! node's records at once when it connects, so that both sides agree soon after a reconnect. Records of nodes that are
//! gone are removed.

mod plural;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kube::core::ApiResource;
use kubeedge_core::{
    bus::{Bus, SendError},
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message, resource},
    name::{Group, ModuleName, NodeName, Operation},
};
use serde_json::json;

use crate::{
    cluster::Clients,
    hub::records::{self, Record, RecordBody, Records},
    informer::{Change, Informer, Informers, Object, ObjectKey},
};

/// How the controller works.
#[derive(Clone, Copy, Debug)]
pub struct SyncSettings {
    /// The pause between two passes. KubeEdge: 5 s.
    pub every: Duration,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self { every: Duration::from_secs(5) }
    }
}

/// The SyncController module; see the module's documentation.
#[derive(Debug)]
pub struct SyncController {
    settings: SyncSettings,
    informers: Arc<Informers>,
    records: Records,
    nodes: Arc<Informer>,
    namespaced: Arc<Informer>,
    cluster: Arc<Informer>,
    of_nodes: HashMap<NodeName, HashSet<ObjectKey>>,
    kinds: HashMap<(String, String), ApiResource>,
}

/// Kinds beyond this many are not watched; a record may name any.
const MAX_KINDS: usize = 256;

impl SyncController {
    /// A controller on these clients and informers.
    pub fn new(settings: SyncSettings, clients: &Arc<Clients>, informers: &Arc<Informers>) -> Self {
        let (namespaced, cluster) = records::informers_of(informers);
        Self {
            settings,
            informers: informers.clone(),
            records: Records::new(clients.clone(), informers),
            nodes: crate::objects::edge_nodes(informers),
            namespaced,
            cluster,
            of_nodes: HashMap::new(),
            kinds: HashMap::new(),
        }
    }

    /// Notes whose a record is, so that a node that connects costs its own records, not everybody's.
    fn note(&mut self, change: &Change) {
        let Some(record) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let Some((node, _)) = records::split_name(&record.key.name) else { return };
        if change.new.is_some() {
            self.of_nodes.entry(node).or_default().insert(record.key.clone());
        } else if let Some(records) = self.of_nodes.get_mut(&node) {
            records.remove(&record.key);
            if records.is_empty() {
                self.of_nodes.remove(&node);
            }
        }
    }

    /// Compares the records of all nodes with the cluster.
    async fn pass(&mut self, bus: &Bus) -> Result<(), SendError> {
        for record in self.namespaced.list().into_iter().chain(self.cluster.list()) {
            self.compare(&record, bus).await?;
        }
        Ok(())
    }

    /// Compares the records of one node with the cluster.
    async fn pass_node(&mut self, node: &NodeName, bus: &Bus) -> Result<(), SendError> {
        let Some(records) = self.of_nodes.get(node) else { return Ok(()) };
        let of = |key: &ObjectKey| if key.namespace.is_empty() { &self.cluster } else { &self.namespaced };
        let records: Vec<_> = records.iter().filter_map(|key| of(key).get(key)).collect();
        for record in records {
            self.compare(&record, bus).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, record: &Object, bus: &Bus) -> Result<(), SendError> {
        let Some((node, uid)) = records::split_name(&record.key.name) else { return Ok(()) };
        match self.difference(&node, uid, record) {
            Some(message) => bus.send(&ModuleName::CLOUD_HUB, message).await,
            None => Ok(()),
        }
    }

    /// The message that brings the edge nearer to the cluster, if one is needed.
    fn difference(&mut self, node: &NodeName, uid: &str, record: &Object) -> Option<Message> {
        let body: RecordBody = record.view().ok()?;
        if body.spec.object_kind.is_empty() || body.spec.object_name.is_empty() {
            return None;
        }
        let informer = self.informer_of(&body.spec.object_api_version, &body.spec.object_kind)?;
        // Not listed yet is not gone.
        if !informer.is_ready() {
            return None;
        }
        let key = ObjectKey::new(record.key.namespace.clone(), body.spec.object_name.clone());
        let path =
            resource::object(&key.namespace, &body.spec.object_kind.to_lowercase(), &body.spec.object_name);
        let path = resource::for_node(node, &path);
        let found = informer.get(&key).filter(|object| object.uid == uid);
        let Some(object) = found else { return Some(gone(path, &key, uid)) };
        // A record without version was never confirmed; Go leaves such an object unsent for good.
        let confirmed = body.status.object_resource_version;
        let confirmed = if confirmed.is_empty() { 0 } else { confirmed.number()? };
        if object.version.number()? <= confirmed {
            return None;
        }
        if moved(node, &object) {
            return Some(gone(path, &key, uid));
        }
        let update = Message::new(ModuleName::EDGE_CONTROLLER, Operation::UPDATE, path);
        let update = update.in_group(Group::RESOURCE).at_version(object.version.clone());
        Some(update.with(object.content.clone()))
    }

    fn informer_of(&mut self, api_version: &str, kind: &str) -> Option<Arc<Informer>> {
        let key = (api_version.to_owned(), kind.to_owned());
        if !self.kinds.contains_key(&key) {
            if self.kinds.len() >= MAX_KINDS {
                tracing::warn!(api_version, kind, "too many kinds in sync records");
                return None;
            }
            let resource =
                ApiResource::from_gvk_with_plural(&plural::gvk(api_version, kind)?, &plural::of(kind));
            self.kinds.insert(key.clone(), resource);
        }
        self.kinds.get(&key).map(|resource| self.informers.of(resource))
    }

    /// Removes the records of nodes that are gone.
    async fn collect(&self) {
        for record in self.namespaced.list().into_iter().chain(self.cluster.list()) {
            self.collect_one(&record.key).await;
        }
    }

    /// Removes the records of one node, if it is gone.
    async fn collect_node(&self, node: &NodeName) {
        let records: Vec<_> = self.of_nodes.get(node).into_iter().flatten().cloned().collect();
        for record in records {
            self.collect_one(&record).await;
        }
    }

    async fn collect_one(&self, record: &ObjectKey) {
        let Some((node, uid)) = records::split_name(&record.name) else { return };
        if self.nodes.get(&ObjectKey::new("", node.as_str())).is_some() {
            return;
        }
        let namespace = if record.namespace.is_empty() { resource::NO_NAMESPACE } else { &record.namespace };
        if let Err(status) = self.records.remove(&Record::new(&node, namespace, uid)).await {
            tracing::warn!(record = %record.name, error = %status, "a sync record was not removed");
        }
    }
}

/// Whether a device is on another node by now. Go keeps sending it to the old one.
fn moved(node: &NodeName, object: &Object) -> bool {
    #[derive(serde::Deserialize)]
    struct Placed {
        #[serde(default)]
        kind: String,
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        node_name: Option<String>,
    }
    let Ok(placed) = object.view::<Placed>() else { return false };
    placed.kind == "Device" && placed.spec.node_name.is_some_and(|place| place != node.as_str())
}

fn gone(path: kubeedge_core::name::Resource, key: &ObjectKey, uid: &str) -> Message {
    let metadata = if key.namespace.is_empty() {
        json!({"name": key.name, "uid": uid})
    } else {
        json!({"name": key.name, "namespace": key.namespace, "uid": uid})
    };
    let stub = Content::json(&json!({"metadata": metadata})).unwrap_or_default();
    Message::new(ModuleName::EDGE_CONTROLLER, Operation::DELETE, path).in_group(Group::RESOURCE).with(stub)
}

#[async_trait]
impl Module for SyncController {
    fn name(&self) -> ModuleName {
        ModuleName::SYNC_CONTROLLER
    }

    fn group(&self) -> Group {
        Group::of("synccontroller")
    }

    async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
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
        self.collect().await;
        let mut tick = tokio::time::interval(self.settings.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // In this order: what a node has is noted before it is compared.
                biased;
                () = ctx.shutdown.requested() => return Ok(()),
                change = namespaced.next() => self.note(&change),
                change = cluster.next() => self.note(&change),
                _ = tick.tick() => self.pass(&ctx.bus).await?,
                change = nodes.next() => {
                    if let (None, Some(gone)) = (&change.new, &change.old) {
                        self.collect_node(&gone.key.name.as_str().into()).await;
                    }
                }
                envelope = ctx.inbox.next() => {
                    let Some(envelope) = envelope else { return Ok(()) };
                    let route = &envelope.message.route;
                    if route.operation == "connected"
                        && let Some(node) = resource::target_node(&route.resource)
                    {
                        self.pass_node(&node, &ctx.bus).await?;
                    }
                }
            }
        }
    }
}
