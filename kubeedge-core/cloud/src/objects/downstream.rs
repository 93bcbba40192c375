//! What the cluster holds for edge nodes, as messages to them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::PodSpec;
use kubeedge_core::{
    bus::{Bus, Envelope, SendError},
    message::{Message, resource},
    name::{Group, ModuleName, NodeName, Operation, Resource},
};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Caches,
    locations::{Locations, Referent},
};
use crate::informer::{Change, Object, ObjectKey};

#[derive(Debug)]
pub(super) struct Downstream {
    caches: Caches,
    bus: Bus,
    nodes: HashSet<NodeName>,
    /// Pods on nodes that are not known to be edge nodes; those of other nodes of the cluster among them.
    elsewhere: HashMap<NodeName, HashSet<ObjectKey>>,
    locations: Arc<Mutex<Locations>>,
}

#[derive(Deserialize)]
struct PodView {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodPlace {
    spec: Place,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    node_name: Option<String>,
}

impl Downstream {
    pub(super) fn new(caches: Caches, bus: Bus, locations: Arc<Mutex<Locations>>) -> Self {
        Self { caches, bus, nodes: HashSet::new(), elsewhere: HashMap::new(), locations }
    }

    /// Turns changes into messages until the hub is gone.
    pub(super) async fn run(&mut self) -> Result<(), SendError> {
        // The nodes first: pods of nodes that are not known would be dropped.
        self.caches.nodes.ready().await;
        for node in self.caches.nodes.list() {
            self.nodes.insert(node.key.name.as_str().into());
        }
        // Where ConfigMaps and Secrets go is known before they are looked at, as in Go.
        self.caches.pods.ready().await;
        for pod in self.caches.pods.list() {
            drop(self.pod_of(&pod, Operation::UPDATE));
        }
        let (mut nodes, mut pods) = (self.caches.nodes.subscribe(), self.caches.pods.subscribe());
        let (mut maps, mut secrets) = (self.caches.config_maps.subscribe(), self.caches.secrets.subscribe());
        loop {
            let each = |messages: Vec<Message>| messages.into_iter().map(Envelope::new).collect();
            let envelopes: Vec<_> = tokio::select! {
                change = nodes.next() => each(self.node(&change)),
                change = pods.next() => each(self.pod(&change)),
                change = maps.next() => self.referred(&change, Referent::ConfigMap).into_iter().collect(),
                change = secrets.next() => self.referred(&change, Referent::Secret).into_iter().collect(),
            };
            for envelope in envelopes {
                self.bus.forward(&ModuleName::CLOUD_HUB, envelope).await?;
            }
        }
    }

    fn node(&mut self, change: &Change) -> Vec<Message> {
        let Some(object) = change.new.as_ref().or(change.old.as_ref()) else { return Vec::new() };
        let node = NodeName::from(object.key.name.as_str());
        if change.new.is_none() {
            self.nodes.remove(&node);
            self.locations.lock().forget_node(&node);
            self.left_behind(&node);
            let path = resource::for_node(&node, &resource::object("", "node", node.as_str()));
            // Never reaches the edge: the hub ends the node's session.
            return vec![
                Message::new(ModuleName::EDGE_CONTROLLER, Operation::DELETE, path).in_group(Group::RESOURCE),
            ];
        }
        let mut messages = vec![message(&node, "node", Operation::UPDATE, object)];
        if self.nodes.insert(node.clone()) {
            // Its pods may have been seen before the node was.
            for key in self.elsewhere.remove(&node).unwrap_or_default() {
                let pod = self.caches.pods.get(&key);
                messages.extend(pod.and_then(|pod| self.pod_of(&pod, Operation::INSERT)));
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
                self.pod_of(new, Operation::UPDATE).into_iter().collect()
            }
            (old, new) => {
                let gone = old.as_ref().and_then(|old| self.pod_of(old, Operation::DELETE));
                let operation =
                    |new: &Object| if new.deleting { Operation::UPDATE } else { Operation::INSERT };
                let there = new.as_ref().and_then(|new| self.pod_of(new, operation(new)));
                gone.into_iter().chain(there).collect()
            }
        }
    }

    /// The message about a pod, if it is on an edge node.
    fn pod_of(&mut self, pod: &Object, operation: Operation) -> Option<Message> {
        let view = match pod.view::<PodView>() {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(pod = %pod.key.name, error = %error, "a pod cannot be read");
                return None;
            }
        };
        let node = NodeName::from(view.spec.node_name.as_deref()?);
        if !self.nodes.contains(&node) {
            self.is_elsewhere(node, pod, operation != Operation::DELETE);
            return None;
        }
        if operation != Operation::DELETE {
            self.locations.lock().add_pod(&node, &pod.key.namespace, &view.spec);
        }
        Some(message(&node, "pod", operation, pod))
    }

    /// The pods of a node that is gone: it may come back.
    fn left_behind(&mut self, node: &NodeName) {
        for pod in self.caches.pods.list() {
            let place = pod.view::<PodPlace>().ok().and_then(|pod| pod.spec.node_name);
            if place.is_some_and(|place| place == node.as_str()) {
                self.is_elsewhere(node.clone(), &pod, true);
            }
        }
    }

    /// Remembers a pod for the case that its node turns out to be an edge node, or forgets it.
    fn is_elsewhere(&mut self, node: NodeName, pod: &Object, there: bool) {
        if there {
            self.elsewhere.entry(node).or_default().insert(pod.key.clone());
        } else if let Some(pods) = self.elsewhere.get_mut(&node) {
            pods.remove(&pod.key);
            if pods.is_empty() {
                self.elsewhere.remove(&node);
            }
        }
    }

    /// A ConfigMap or Secret, for every node that runs a pod which refers to it.
    fn referred(&self, change: &Change, referent: Referent) -> Option<Envelope> {
        let object = change.new.as_ref().or(change.old.as_ref())?;
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
        (!nodes.is_empty()).then(|| Envelope::for_nodes(about(object, path(kind, object), operation), nodes))
    }
}

/// An object's message to a node.
fn message(node: &NodeName, kind: &str, operation: Operation, object: &Object) -> Message {
    about(object, resource::for_node(node, &path(kind, object)), operation)
}

fn path(kind: &str, object: &Object) -> Resource {
    resource::object(&object.key.namespace, kind, &object.key.name)
}

fn about(object: &Object, resource: Resource, operation: Operation) -> Message {
    Message::new(ModuleName::EDGE_CONTROLLER, operation, resource)
        .in_group(Group::RESOURCE)
        .at_version(object.version.clone())
        .with(object.content.clone())
}
