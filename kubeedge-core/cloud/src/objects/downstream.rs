//! What the cluster holds for edge nodes, as messages to them.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::core::v1::PodSpec;
use kubeedge_core::{
    bus::{Bus, SendError},
    message::{Message, resource},
    name::{Group, ModuleName, NodeName, Operation},
};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Caches,
    locations::{Locations, Referent},
};
use crate::informer::{Change, Object};

#[derive(Debug)]
pub(super) struct Downstream {
    caches: Caches,
    bus: Bus,
    nodes: HashSet<NodeName>,
    locations: Arc<Mutex<Locations>>,
}

#[derive(Deserialize)]
struct PodView {
    spec: PodSpec,
}

impl Downstream {
    pub(super) fn new(caches: Caches, bus: Bus, locations: Arc<Mutex<Locations>>) -> Self {
        Self { caches, bus, nodes: HashSet::new(), locations }
    }

    /// Turns changes into messages until the hub is gone.
    pub(super) async fn run(&mut self) -> Result<(), SendError> {
        // The nodes first: pods of nodes that are not known would be dropped.
        self.caches.nodes.ready().await;
        for node in self.caches.nodes.list() {
            self.nodes.insert(node.key.name.as_str().into());
        }
        let (mut nodes, mut pods) = (self.caches.nodes.subscribe(), self.caches.pods.subscribe());
        let (mut maps, mut secrets) = (self.caches.config_maps.subscribe(), self.caches.secrets.subscribe());
        loop {
            let messages = tokio::select! {
                change = nodes.next() => self.node(&change),
                change = pods.next() => self.pod(&change),
                change = maps.next() => self.referred(&change, Referent::ConfigMap),
                change = secrets.next() => self.referred(&change, Referent::Secret),
            };
            for message in messages {
                self.bus.send(&ModuleName::CLOUD_HUB, message).await?;
            }
        }
    }

    fn node(&mut self, change: &Change) -> Vec<Message> {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return Vec::new() };
        let node = NodeName::from(object.key.name.as_str());
        if change.new.is_none() {
            self.nodes.remove(&node);
            self.locations.lock().forget_node(&node);
            let path = resource::for_node(&node, &resource::object("", "node", node.as_str()));
            // Never reaches the edge: the hub ends the node's session.
            return vec![
                Message::new(ModuleName::EDGE_CONTROLLER, Operation::DELETE, path).in_group(Group::RESOURCE),
            ];
        }
        let mut messages = vec![message(&node, "node", Operation::UPDATE, object)];
        if self.nodes.insert(node.clone()) {
            // Its pods may have been seen before the node was.
            for pod in self.caches.pods.list() {
                messages.extend(self.pod_of(&pod, Some(&node), Operation::INSERT));
            }
        }
        messages
    }

    fn pod(&mut self, change: &Change) -> Vec<Message> {
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if old.uid == new.uid => {
                if old.same_but_status(new) {
                    return Vec::new();
                }
                self.pod_of(new, None, Operation::UPDATE).into_iter().collect()
            }
            (old, new) => {
                let gone = old.as_ref().and_then(|old| self.pod_of(old, None, Operation::DELETE));
                let operation =
                    |new: &Object| if new.deleting { Operation::UPDATE } else { Operation::INSERT };
                let there = new.as_ref().and_then(|new| self.pod_of(new, None, operation(new)));
                gone.into_iter().chain(there).collect()
            }
        }
    }

    /// The message about a pod, if it is on an edge node (on `only`, when given).
    fn pod_of(&mut self, pod: &Object, only: Option<&NodeName>, operation: Operation) -> Option<Message> {
        let view = match pod.view::<PodView>() {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(pod = %pod.key.name, error = %error, "a pod cannot be read");
                return None;
            }
        };
        let node = NodeName::from(view.spec.node_name.as_deref()?);
        if !self.nodes.contains(&node) || only.is_some_and(|only| *only != node) {
            return None;
        }
        if operation != Operation::DELETE {
            self.locations.lock().add_pod(&node, &pod.key.namespace, &view.spec);
        }
        Some(message(&node, "pod", operation, pod))
    }

    /// A ConfigMap or Secret, for every node that runs a pod which refers to it.
    fn referred(&self, change: &Change, referent: Referent) -> Vec<Message> {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return Vec::new() };
        let kind = match referent {
            Referent::ConfigMap => "configmap",
            Referent::Secret => "secret",
        };
        let operation = match (&change.old, &change.new) {
            (_, None) => Operation::DELETE,
            (None, Some(_)) if referent == Referent::ConfigMap => Operation::INSERT,
            _ => Operation::UPDATE,
        };
        let nodes = self.locations.lock().of(referent, &object.key);
        nodes.iter().map(|node| message(node, kind, operation.clone(), object)).collect()
    }
}

/// An object's message to a node.
fn message(node: &NodeName, kind: &str, operation: Operation, object: &Object) -> Message {
    let path = resource::for_node(node, &resource::object(&object.key.namespace, kind, &object.key.name));
    Message::new(ModuleName::EDGE_CONTROLLER, operation, path)
        .in_group(Group::RESOURCE)
        .at_version(object.version.clone())
        .with(object.content.clone())
}
