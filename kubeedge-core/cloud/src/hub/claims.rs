//! Which cloudcore a node is connected to.
//!
//! Several cloudcores may serve one cluster, and any of them any node. The one that a node connects to writes
//! itself into the Node object: its address in Go's annotation `cloudcore`, and beside it the running
//! process, as addresses are not always unique. The API server puts these claims in order. Who holds a
//! session and sees a later claim of somebody else ends it: the edge has left, even where its old link has
//! not noticed yet.
//!
//! A claim that was on its way while its node moved on may come last and ends the newer session; the edge
//! connects again, and the claims agree with the links.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kubeedge_core::{
    backoff::Backoff,
    name::{NodeName, ResourceVersion},
};
use serde::Deserialize;
use serde_json::json;

use super::{Sessions, session::Handle};
use crate::{
    cluster::{Clients, api_path},
    informer::{Informer, Informers, Object, ObjectKey, edge_nodes},
    instance::{CLOUDCORE, INSTANCE, Instance},
};

/// Why a session ends whose node has moved on.
const ELSEWHERE: &str = "the node has connected to another cloudcore";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Meta,
}
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    resource_version: ResourceVersion,
    annotations: BTreeMap<String, String>,
}

impl Head {
    fn of(node: &[u8]) -> Self {
        serde_json::from_slice(node).unwrap_or_default()
    }

    fn version(&self) -> u64 {
        self.metadata.resource_version.number().unwrap_or_default()
    }

    /// Who claims the node: address and process.
    fn claim(&self) -> (Option<String>, Option<String>) {
        let of = |name| self.metadata.annotations.get(name).cloned();
        (of(CLOUDCORE), of(INSTANCE))
    }
}

/// Writes claims and looks at those of others.
#[derive(Debug)]
pub(super) struct Claims {
    clients: Arc<Clients>,
    nodes: Arc<Informer>,
    instance: Instance,
}

/// The first and the longest pause before a claim is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl Claims {
    pub(super) fn new(clients: Arc<Clients>, informers: &Informers, instance: Instance) -> Self {
        Self { clients, nodes: edge_nodes(informers), instance }
    }

    /// Claims a node for a session, until it is done or the session ends.
    pub(super) async fn claim(self: Arc<Self>, node: NodeName, handle: Arc<Handle>) {
        let claimed = tokio::select! {
            () = handle.end.cancelled() => return,
            claimed = self.write(&node) => claimed,
        };
        let Some(version) = claimed else { return handle.end(ELSEWHERE) };
        handle.claimed.store(version, Ordering::Relaxed);
        // Another's may have come after it, and been looked at before it was known.
        let now = self.nodes.get(&ObjectKey::new("", node.as_str()));
        if now.is_some_and(|now| self.is_lost(&now, version)) {
            handle.end(ELSEWHERE);
        }
    }

    /// Writes the claim; the version of the Node that bears it, or `None` when somebody else was faster.
    async fn write(&self, node: &NodeName) -> Option<u64> {
        let before = self.nodes.get(&ObjectKey::new("", node.as_str()));
        let before = before.and_then(|node| node.view::<Head>().ok()).unwrap_or_default().claim();
        let patch = json!({"metadata": {"annotations": self.instance.annotations()}});
        let path = api_path("/api/v1", &["nodes", node.as_str()]);
        let mut pauses = Backoff::new(RETRY.0, RETRY.1, 0);
        loop {
            match self.clients.ours().merge(&path, &patch).await {
                Ok(written) => return Some(Head::of(&written).version()),
                // A node that connects for the first time bears the claim from its registration on.
                Err(status) if status.is_not_found() => {}
                Err(status) => {
                    tracing::warn!(%node, error = %status, "a node was not annotated, trying again")
                }
            }
            tokio::time::sleep(pauses.next_pause()).await;
            let Ok(there) = self.clients.ours().get(&path).await else { continue };
            let head = Head::of(&there);
            let ours =
                !head.metadata.annotations.is_empty() && !self.instance.is_not(&head.metadata.annotations);
            if ours && head.claim().1.is_some() {
                return Some(head.version());
            }
            if head.claim() != before && self.instance.is_not(&head.metadata.annotations) {
                return None;
            }
        }
    }

    /// Ends sessions of nodes that have moved to other cloudcores; runs until dropped.
    pub(super) async fn watch(self: Arc<Self>, sessions: Sessions) {
        let mut changes = self.nodes.subscribe();
        loop {
            let Some(node) = changes.next().await.new else { continue };
            let Some(handle) = sessions.get(&NodeName::from(node.key.name.as_str())) else { continue };
            if self.is_lost(&node, handle.claimed.load(Ordering::Relaxed)) {
                handle.end(ELSEWHERE);
            }
        }
    }

    /// Whether somebody else has claimed the node after our claim of this version.
    fn is_lost(&self, node: &Object, claimed: u64) -> bool {
        // Before our own claim is written, what the Node says is of earlier sessions.
        let later = claimed > 0 && node.version.number().is_some_and(|version| version > claimed);
        later && node.view::<Head>().is_ok_and(|head| self.instance.is_not(&head.metadata.annotations))
    }
}
