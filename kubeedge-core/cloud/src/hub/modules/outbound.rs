//! What modules of the cloud send to nodes.

use std::collections::HashMap;

use kubeedge_common::{
    deliveries::{Answered, Bounds, Deliveries, Undelivered},
    log::Seldom,
};
use kubeedge_core::{bus::Bus, message::Message, name::NodeName, routes::Delivery};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

use crate::hub::sessions::Sessions;

/// What may wait for one node, and what of it is in flight.
const BOUNDS: Bounds = Bounds { messages: 1024, bytes: 8 << 20, window: 64, window_bytes: 4 << 20 };
/// What may wait for all nodes together, in bytes.
const MOST_BYTES: usize = 256 << 20;
/// How often it is looked for what is due.
const TICK: Duration = Duration::from_secs(1);

const FULL: &str = "too much waits for all nodes together, the message was not taken";

#[derive(Debug, Default)]
struct Nodes {
    of: HashMap<NodeName, Deliveries>,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Outbound {
    nodes: Mutex<Nodes>,
    sessions: Sessions,
    bus: Bus,
    more: Notify,
    /// Lines about what was not delivered.
    lines: Seldom,
}

impl Outbound {
    pub(super) fn new(bus: &Bus, sessions: &Sessions) -> Self {
        let (bus, sessions) = (bus.clone(), sessions.clone());
        Self { nodes: Mutex::default(), sessions, bus, more: Notify::new(), lines: Seldom::default() }
    }

    /// Takes a message for a node, as it goes on the wire.
    pub(super) fn offer(
        &self,
        node: &NodeName,
        message: Message,
        delivery: Delivery,
        reply: Option<oneshot::Sender<Message>>,
    ) {
        let refused = {
            let mut nodes = self.nodes.lock();
            if nodes.bytes + message.size() > MOST_BYTES {
                Some(Undelivered::refused(&message, reply, FULL))
            } else {
                let is_up = self.sessions.has(node);
                nodes.with(node, |deliveries| {
                    if is_up {
                        deliveries.up();
                    }
                    let refused = deliveries.offer(message, delivery, reply).err();
                    self.write(node, deliveries);
                    refused.map(|refused| *refused)
                })
            }
        };
        self.more.notify_one();
        self.report(node, refused);
    }

    /// Does not take a message.
    pub(super) fn refuse(&self, message: &Message, reply: Option<oneshot::Sender<Message>>, why: &str) {
        Undelivered::refused(message, reply, why).report(&self.bus, "no node", &self.lines);
    }

    /// What waits for the node goes out, and what may not have arrived.
    pub(super) fn connected(&self, node: &NodeName) {
        let failed = self.nodes.lock().known(node, |deliveries| {
            let failed = deliveries.down();
            deliveries.up();
            self.write(node, deliveries);
            failed
        });
        self.report(node, failed.into_iter().flatten());
    }

    pub(super) fn disconnected(&self, node: &NodeName) {
        let failed = self.nodes.lock().known(node, Deliveries::down);
        self.report(node, failed.into_iter().flatten());
    }

    /// Forgets everything for this node.
    pub(super) fn forget(&self, node: &NodeName, why: &str) {
        let failed = self.nodes.lock().known(node, |deliveries| deliveries.clear(why));
        self.report(node, failed.into_iter().flatten());
    }

    /// Hands an answer to whoever waits for it; gives it back when nothing is known of its question.
    pub(super) fn answered(&self, node: &NodeName, answer: Message) -> Option<Message> {
        let mut nodes = self.nodes.lock();
        if !nodes.of.contains_key(node) {
            return Some(answer);
        }
        let answered = nodes.with(node, |deliveries| {
            let answered = deliveries.answered(answer);
            self.write(node, deliveries);
            answered
        });
        drop(nodes);
        match answered {
            Answered::Claimed => None,
            Answered::Failed(failed) => {
                self.report(node, [*failed]);
                None
            }
            Answered::Unknown(answer) => Some(*answer),
        }
    }

    /// Sends again what is due, as long as it runs.
    pub(super) async fn run(&self) {
        loop {
            if self.nodes.lock().of.is_empty() {
                self.more.notified().await;
            }
            tokio::time::sleep(TICK).await;
            let names: Vec<_> = self.nodes.lock().of.keys().cloned().collect();
            for node in names {
                self.tick(&node);
            }
        }
    }

    fn tick(&self, node: &NodeName) {
        let session = self.sessions.get(node);
        let failed = {
            let mut nodes = self.nodes.lock();
            let failed = nodes.known(node, |deliveries| {
                let confirms = session.as_ref().is_none_or(|session| session.ours);
                let failed = deliveries.tick(Instant::now(), confirms);
                self.write(node, deliveries);
                failed
            });
            // Of one that is connected it is remembered what was sent once, for errors that come back.
            if session.is_none() && nodes.of.get(node).is_some_and(Deliveries::is_empty) {
                nodes.of.remove(node);
            }
            failed
        };
        self.report(node, failed.into_iter().flatten());
    }

    /// Hands the node's session what may be written.
    fn write(&self, node: &NodeName, deliveries: &mut Deliveries) {
        let Some(session) = self.sessions.get(node) else { return };
        while session.pool.has_room_for_modules()
            && let Some(message) = deliveries.next(Instant::now())
        {
            session.pool.put_of_module(message);
        }
    }

    fn report(&self, node: &NodeName, failed: impl IntoIterator<Item = Undelivered>) {
        failed.into_iter().for_each(|failed| failed.report(&self.bus, node.as_str(), &self.lines));
    }
}

impl Nodes {
    /// Does something to what there is of a node, and counts what it weighs.
    fn with<T>(&mut self, node: &NodeName, act: impl FnOnce(&mut Deliveries) -> T) -> T {
        let deliveries = self.of.entry(node.clone()).or_insert_with(|| Deliveries::new(BOUNDS));
        let before = deliveries.bytes();
        let done = act(deliveries);
        // Nothing of it is stored on the cloud.
        drop(deliveries.take_gone());
        self.bytes = (self.bytes + deliveries.bytes()).saturating_sub(before);
        done
    }

    /// The same, if there is anything of the node.
    fn known<T>(&mut self, node: &NodeName, act: impl FnOnce(&mut Deliveries) -> T) -> Option<T> {
        self.of.contains_key(node).then(|| self.with(node, act))
    }
}
