//! Who is connected, and who comes and goes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use kubeedge_core::name::NodeName;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

use super::session::Handle;

/// How many changes a subscriber may be behind before it hears the present state instead.
const BEHIND: usize = 256;

/// The sessions there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    table: Arc<Mutex<HashMap<NodeName, Arc<Handle>>>>,
    changes: broadcast::Sender<Change>,
}

/// A node's session, by its number, began or ended. Sent while the table is locked, so that nobody misses
/// one.
#[derive(Clone, Debug)]
struct Change {
    node: NodeName,
    generation: u64,
    began: bool,
}

/// A node came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The node has a link now, or a new one.
    Connected(NodeName),
    /// The node has no link any more.
    Disconnected(NodeName),
}

/// A subscription to nodes that come and go; see [`Sessions::subscribe`].
#[derive(Debug)]
pub struct NodeEvents {
    sessions: Sessions,
    changes: broadcast::Receiver<Change>,
    /// What the subscriber was told, by node: the number of its session.
    told: HashMap<NodeName, u64>,
    /// What it is still to be told.
    next: VecDeque<NodeEvent>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { table: Arc::default(), changes: broadcast::Sender::new(BEHIND) }
    }
}

impl Sessions {
    /// How many nodes are connected.
    pub fn count(&self) -> usize {
        self.table.lock().len()
    }

    /// The nodes that are connected.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.table.lock().keys().cloned().collect()
    }

    /// Whether a node is connected.
    pub fn has(&self, node: &NodeName) -> bool {
        self.table.lock().contains_key(node)
    }

    /// Nodes that come and go, beginning with those that are there. A subscriber holds up nobody: one that
    /// is more than 256 changes behind hears what has changed between what it knows and the present state,
    /// and nothing of what was between.
    pub fn subscribe(&self) -> NodeEvents {
        let table = self.table.lock();
        let changes = self.changes.subscribe();
        let told: HashMap<_, _> =
            table.iter().map(|(node, handle)| (node.clone(), handle.generation)).collect();
        drop(table);
        let next = told.keys().cloned().map(NodeEvent::Connected).collect();
        NodeEvents { sessions: self.clone(), changes, told, next }
    }

    /// Whether one more session of this node fits.
    pub(super) fn fits(&self, node: &NodeName, limit: usize) -> bool {
        let sessions = self.table.lock();
        sessions.len() < limit || sessions.contains_key(node)
    }

    /// Whether a later connection serves the node already.
    pub(super) fn is_overtaken(&self, node: &NodeName, generation: u64) -> bool {
        self.table.lock().get(node).is_some_and(|handle| handle.generation > generation)
    }

    pub(super) fn get(&self, node: &NodeName) -> Option<Arc<Handle>> {
        self.table.lock().get(node).cloned()
    }

    /// Makes this the node's session and ends the one before.
    pub(super) fn enter(&self, node: &NodeName, handle: Arc<Handle>) {
        let mut table = self.table.lock();
        self.tell(node, handle.generation, true);
        if let Some(earlier) = table.insert(node.clone(), handle) {
            earlier.end("the node has connected anew");
        }
    }

    /// Forgets a session unless a newer one stands in its place.
    pub(super) fn leave(&self, node: &NodeName, generation: u64) -> bool {
        let mut table = self.table.lock();
        let ours = table.get(node).is_some_and(|handle| handle.generation == generation);
        if ours {
            table.remove(node);
            self.tell(node, generation, false);
        }
        ours
    }

    /// Ends all.
    pub(super) fn end(&self, why: &'static str) {
        for handle in self.table.lock().values() {
            handle.end(why);
        }
    }

    /// Removes the sessions that nobody serves any more.
    pub(super) fn take_dead(&self) -> Vec<(NodeName, Arc<Handle>)> {
        let dead = |handle: &Arc<Handle>| Arc::strong_count(handle) == 1;
        let mut table = self.table.lock();
        let taken: Vec<_> = table.extract_if(|_, handle| dead(handle)).collect();
        taken.iter().for_each(|(node, handle)| self.tell(node, handle.generation, false));
        taken
    }

    /// To be called while the table is locked.
    fn tell(&self, node: &NodeName, generation: u64, began: bool) {
        // Without subscribers nobody is to be told.
        let _ = self.changes.send(Change { node: node.clone(), generation, began });
    }
}

impl NodeEvents {
    /// The next node that came or went. Cancel-safe.
    pub async fn next(&mut self) -> NodeEvent {
        loop {
            if let Some(event) = self.next.pop_front() {
                return event;
            }
            match self.changes.recv().await {
                Ok(change) => self.take(change),
                Err(RecvError::Lagged(_)) => self.catch_up(),
                // Never: the sessions of this subscription hold a sender.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, Change { node, generation, began }: Change) {
        let told = self.told.get(&node).copied();
        match told {
            // Told already, with the present state.
            Some(told) if told > generation || (began && told == generation) => {}
            None if !began => {}
            _ if began => {
                self.told.insert(node.clone(), generation);
                self.next.push_back(NodeEvent::Connected(node));
            }
            _ => {
                self.told.remove(&node);
                self.next.push_back(NodeEvent::Disconnected(node));
            }
        }
    }

    /// Hears the present state, as the difference to what was told.
    fn catch_up(&mut self) {
        let table = self.sessions.table.lock();
        // Whatever was sent before this moment is in the table.
        self.changes = self.changes.resubscribe();
        let present: HashMap<_, _> =
            table.iter().map(|(node, handle)| (node.clone(), handle.generation)).collect();
        drop(table);
        let gone = self.told.keys().filter(|node| !present.contains_key(*node));
        self.next.extend(gone.cloned().map(NodeEvent::Disconnected));
        let new = present.iter().filter(|(node, generation)| self.told.get(*node) != Some(*generation));
        self.next.extend(new.map(|(node, _)| NodeEvent::Connected(node.clone())));
        self.told = present;
    }
}
