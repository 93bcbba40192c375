//! Records that somebody has removed, though their objects belong on their nodes.
//!
//! Without record nobody would know that the edge has not got the object, or has an older form of it. What a
//! session knows to be with its edge is recorded again with the next pass, and nothing is sent. Everything
//! else that belongs on the node is handed to CloudHub once more: it is sent, or a record is made for a node
//! that is away. Objects by themselves on a node come first; what they refer to is known by their records. In
//! Go an object without record is sent when cloudcore starts, and not before.

use std::{collections::HashMap, sync::Arc};

use kubeedge_core::{
    bus::{Bus, SendError},
    name::{ModuleName, NodeName},
};

use super::{
    index::{Confirmed, Index},
    resync::{Comparisons, Referred, references, refers},
    update,
};
use crate::informer::{Informer, Informers, Object, ObjectKey};

/// The passes in which a record is missed: by the second, the cluster's cache has heard of an object that
/// went with it.
const FIRST: u32 = 2;
/// From then on it is taken for removed on purpose.
const LAST: u32 = 8;

/// Records that are missed, by node and their own names, and in how many passes.
#[derive(Debug, Default)]
pub(super) struct Missing(HashMap<NodeName, HashMap<ObjectKey, (Confirmed, u32)>>);

impl Missing {
    /// A record has gone.
    pub(super) fn gone(&mut self, node: NodeName, record: ObjectKey, was: Confirmed) {
        self.0.entry(node).or_default().insert(record, (was, 0));
    }

    /// A record is there.
    pub(super) fn found(&mut self, node: &NodeName, record: &ObjectKey) {
        if let Some(of_node) = self.0.get_mut(node) {
            of_node.remove(record);
        }
    }

    /// One more pass over the nodes that do not wait. Returns those that miss records. A record whose object
    /// has gone too is missed no more.
    fn pass(&mut self, waits: impl Fn(&NodeName) -> bool) -> Vec<NodeName> {
        for (_, of_node) in self.0.iter_mut().filter(|(node, _)| !waits(node)) {
            of_node.retain(|_, (was, passes)| {
                *passes += 1;
                let may_be_there = *passes <= FIRST || !was.informer.is_ready() || there(was).is_some();
                may_be_there && *passes < LAST
            });
        }
        self.0.retain(|_, of_node| !of_node.is_empty());
        self.0.keys().filter(|node| !waits(node)).cloned().collect()
    }

    fn of(&self, node: &NodeName) -> impl Iterator<Item = &Confirmed> {
        let missed = self.0.get(node).into_iter().flat_map(HashMap::values);
        missed.filter(|(_, passes)| *passes >= FIRST).map(|(was, _)| was)
    }
}

/// Hands objects whose records were removed to CloudHub.
pub(super) async fn make_again(
    index: &mut Index,
    informers: &Informers,
    nodes: &Informer,
    comparisons: &Comparisons,
    bus: &Bus,
) -> Result<(), SendError> {
    // A comparison makes records without sending anything.
    for node in index.missing.pass(|node| comparisons.is_under_way(node)) {
        if nodes.get(&ObjectKey::new("", node.as_str())).is_none() {
            continue;
        }
        if !index.missing.of(&node).any(|was| there(was).is_some()) {
            continue;
        }
        let referred = Referred::by(index, informers, &node, &[]);
        let messages = index.missing.of(&node).filter_map(|was| {
            let object = there(was)?;
            let belongs = match was.kind.as_str() {
                kind if refers(kind) => references(kind, &object, &node).is_some(),
                kind => referred.has(kind, &was.key),
            };
            belongs.then(|| update(&node, was, &object))
        });
        let messages: Vec<_> = messages.collect();
        if !messages.is_empty() {
            tracing::info!(%node, objects = messages.len(), "records of the node were removed, they are made again");
        }
        for message in messages {
            bus.send(&ModuleName::CLOUD_HUB, message).await?;
        }
    }
    Ok(())
}

fn there(was: &Confirmed) -> Option<Arc<Object>> {
    was.informer.get(&was.key).filter(|object| object.uid == was.uid)
}
