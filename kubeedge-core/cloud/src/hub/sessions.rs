//! Who is connected.

use std::{collections::HashMap, sync::Arc};

use kubeedge_core::name::NodeName;
use parking_lot::Mutex;

use super::session::Handle;

/// The sessions there are. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<HashMap<NodeName, Arc<Handle>>>>);

impl Sessions {
    /// How many nodes are connected.
    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// The nodes that are connected.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.0.lock().keys().cloned().collect()
    }

    /// Whether a node is connected.
    pub fn has(&self, node: &NodeName) -> bool {
        self.0.lock().contains_key(node)
    }

    /// Whether one more session of this node fits.
    pub(super) fn fits(&self, node: &NodeName, limit: usize) -> bool {
        let sessions = self.0.lock();
        sessions.len() < limit || sessions.contains_key(node)
    }

    /// Whether a later connection serves the node already.
    pub(super) fn is_overtaken(&self, node: &NodeName, generation: u64) -> bool {
        self.0.lock().get(node).is_some_and(|handle| handle.generation > generation)
    }

    pub(super) fn get(&self, node: &NodeName) -> Option<Arc<Handle>> {
        self.0.lock().get(node).cloned()
    }

    /// Makes this the node's session and ends the one before.
    pub(super) fn enter(&self, node: &NodeName, handle: Arc<Handle>) {
        if let Some(earlier) = self.0.lock().insert(node.clone(), handle) {
            earlier.end("the node has connected anew");
        }
    }

    /// Forgets a session unless a newer one stands in its place.
    pub(super) fn leave(&self, node: &NodeName, generation: u64) -> bool {
        let mut sessions = self.0.lock();
        let ours = sessions.get(node).is_some_and(|handle| handle.generation == generation);
        if ours {
            sessions.remove(node);
        }
        ours
    }

    /// Ends all.
    pub(super) fn end(&self, why: &'static str) {
        for handle in self.0.lock().values() {
            handle.end(why);
        }
    }

    /// Removes the sessions that nobody serves any more.
    pub(super) fn take_dead(&self) -> Vec<Arc<Handle>> {
        let dead = |handle: &Arc<Handle>| Arc::strong_count(handle) == 1;
        self.0.lock().extract_if(|_, handle| dead(handle)).map(|(_, handle)| handle).collect()
    }
}
