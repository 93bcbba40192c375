//! What nodes send to one module of the cloud: the nodes take turns.

use std::collections::{HashMap, HashSet, VecDeque};

use futures::{StreamExt, stream::FuturesUnordered};
use kubeedge_common::log::Seldom;
use kubeedge_core::{
    bus::{Bus, Envelope},
    message::{Content, Message},
    name::{MessageId, ModuleName, NodeName},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::hub::{pool::for_the_wire, sessions::Sessions, shares::NodeLimits};

/// What may wait of one node, and in bytes what of all nodes.
const MOST: usize = 1024;
const MOST_BYTES: usize = 8 << 20;
const MOST_BYTES_OF_ALL: usize = 256 << 20;

/// What one node wants of the module.
#[derive(Debug, Default)]
struct OfNode {
    queue: VecDeque<Message>,
    /// What waits and what the module works on.
    ids: HashSet<MessageId>,
    bytes: usize,
    working: usize,
    working_bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    nodes: HashMap<NodeName, OfNode>,
    /// The nodes of which something waits, whose turn is next first.
    turns: VecDeque<NodeName>,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Inbound {
    module: ModuleName,
    per_node: NodeLimits,
    places: usize,
    waiting: Mutex<Waiting>,
    more: Notify,
    drops: Seldom,
}

/// A message the module is done with: whose, which, its size, and the answer if there is one.
type Done = (NodeName, MessageId, usize, Option<Message>);

impl Inbound {
    pub(super) fn new(module: ModuleName, per_node: NodeLimits, places: usize) -> Self {
        let (waiting, more, drops) = (Mutex::default(), Notify::new(), Seldom::default());
        Self { module, per_node, places: places.max(1), waiting, more, drops }
    }

    /// Leaves a message for the module; never waits. One that is there already is not taken twice. What
    /// finds no room is not answered, so that a sender that kept it sends it again.
    pub(super) fn push(&self, node: &NodeName, message: Message) {
        if self.waiting.lock().push(node, message) {
            self.more.notify_one();
        } else if let Some(unsaid) = self.drops.line(node.as_str()) {
            tracing::warn!(%node, module = %self.module, unsaid, "too much of the node waits for the module, a message was dropped");
        }
    }

    /// Hands messages to the module and its answers to the nodes, as long as it runs.
    pub(super) async fn run(&self, bus: &Bus, sessions: &Sessions) {
        let mut working = FuturesUnordered::new();
        loop {
            let room = working.len() < self.places;
            let next = if room { self.waiting.lock().next(self.per_node) } else { None };
            let Some((node, message)) = next else {
                tokio::select! {
                    () = self.more.notified(), if room => {}
                    Some(done) = working.next() => self.done(done, sessions),
                }
                continue;
            };
            let (size, question) = (message.size(), message.clone().with(Content::empty()));
            let (envelope, answer) = Envelope::with_reply(message);
            if let Err(error) = bus.forward(&self.module, envelope).await {
                tracing::debug!(%error, "a message of a node was not delivered");
            }
            // One that was not delivered completes at once: its reply channel is gone.
            working.push(done(node, size, question, answer));
        }
    }

    fn done(&self, (node, id, size, answer): Done, sessions: &Sessions) {
        self.waiting.lock().done(&node, &id, size);
        let Some(answer) = answer else { return };
        match sessions.get(&node) {
            Some(session) if session.pool.has_room_for_modules() => {
                session.pool.put_of_module(for_the_wire(answer));
            }
            _ => {
                tracing::debug!(%node, module = %self.module, "an answer of a module found no way to its node")
            }
        }
    }
}

async fn done(node: NodeName, size: usize, question: Message, answer: oneshot::Receiver<Message>) -> Done {
    let answer = answer.await.ok().map(|mut answer| {
        // An error has no group, and the node would not know whose it is.
        answer.route.group = question.route.group.clone();
        answer
    });
    (node, question.header.id, size, answer)
}

impl Waiting {
    fn push(&mut self, node: &NodeName, message: Message) -> bool {
        let size = message.size();
        let of_node = self.nodes.entry(node.clone()).or_default();
        if of_node.ids.contains(&message.header.id) {
            return true;
        }
        let fits = of_node.queue.len() < MOST
            && of_node.bytes + size <= MOST_BYTES
            && self.bytes + size <= MOST_BYTES_OF_ALL;
        // One of a node always fits, as long as there is room for all.
        let is_only = of_node.ids.is_empty() && self.bytes + size <= MOST_BYTES_OF_ALL;
        if !fits && !is_only {
            self.forget_idle(node);
            return false;
        }
        if of_node.queue.is_empty() {
            self.turns.push_back(node.clone());
        }
        of_node.ids.insert(message.header.id.clone());
        of_node.bytes += size;
        self.bytes += size;
        of_node.queue.push_back(message);
        true
    }

    /// The next message of the node whose turn it is, of those that may have one more in work.
    fn next(&mut self, limits: NodeLimits) -> Option<(NodeName, Message)> {
        for _ in 0..self.turns.len() {
            let node = self.turns.pop_front()?;
            let Some(of_node) = self.nodes.get_mut(&node) else { continue };
            let is_full = of_node.working >= limits.messages.max(1) || of_node.working_bytes >= limits.bytes;
            let next = if is_full { None } else { of_node.queue.pop_front() };
            if let Some(message) = &next {
                of_node.working += 1;
                of_node.working_bytes += message.size();
            }
            if !of_node.queue.is_empty() {
                self.turns.push_back(node.clone());
            }
            if let Some(message) = next {
                return Some((node, message));
            }
        }
        None
    }

    fn done(&mut self, node: &NodeName, id: &MessageId, size: usize) {
        if let Some(of_node) = self.nodes.get_mut(node) {
            of_node.ids.remove(id);
            of_node.bytes = of_node.bytes.saturating_sub(size);
            of_node.working = of_node.working.saturating_sub(1);
            of_node.working_bytes = of_node.working_bytes.saturating_sub(size);
            self.bytes = self.bytes.saturating_sub(size);
        }
        self.forget_idle(node);
    }

    fn forget_idle(&mut self, node: &NodeName) {
        if self.nodes.get(node).is_some_and(|of_node| of_node.ids.is_empty()) {
            self.nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::name::Operation;

    use super::*;

    fn message(n: usize) -> Message {
        Message::new("acme".into(), Operation::UPDATE, n.to_string()).in_group("acme".into())
    }

    #[test]
    fn nodes_take_turns_however_much_one_of_them_sends() {
        let (mut waiting, limits) = (Waiting::default(), NodeLimits::default());
        let flood = (0..2000).filter(|n| waiting.push(&"flood".into(), message(*n))).count();
        assert_eq!(flood, MOST);
        for n in 0..3 {
            assert!(waiting.push(&"quiet".into(), message(n)));
        }
        let order: Vec<_> = (0..6).map(|_| waiting.next(limits).unwrap().0).collect();
        assert_eq!(order, ["flood", "quiet", "flood", "quiet", "flood", "quiet"]);
    }

    #[test]
    fn a_node_has_so_many_messages_in_work_and_others_go_on() {
        let (mut waiting, limits) = (Waiting::default(), NodeLimits { messages: 2, ..NodeLimits::default() });
        for n in 0..9 {
            assert!(waiting.push(&"flood".into(), message(n)));
        }
        let first = waiting.next(limits).unwrap().1;
        assert!(waiting.next(limits).is_some() && waiting.next(limits).is_none());
        assert!(waiting.push(&"quiet".into(), message(0)));
        assert_eq!(waiting.next(limits).unwrap().0, "quiet");
        waiting.done(&"flood".into(), &first.header.id, first.size());
        assert_eq!(waiting.next(limits).unwrap().0, "flood");
    }

    #[test]
    fn what_comes_again_while_it_waits_is_not_taken_twice_and_all_is_given_back() {
        let (mut waiting, node) = (Waiting::default(), NodeName::of("n"));
        let sent = message(1);
        assert!(waiting.push(&node, sent.clone()) && waiting.push(&node, sent.clone()));
        let (_, next) = waiting.next(NodeLimits::default()).unwrap();
        assert!(waiting.push(&node, sent) && waiting.next(NodeLimits::default()).is_none());
        waiting.done(&node, &next.header.id, next.size());
        assert!(waiting.nodes.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_of_a_node_and_of_all() {
        let mut waiting = Waiting::default();
        let large = |n| message(n).with(Content::text(&"x".repeat(3 << 20)));
        assert_eq!((0..5).filter(|n| waiting.push(&"a".into(), large(*n))).count(), 2);
        for node in 0..200 {
            for n in 0..2 {
                waiting.push(&format!("node-{node}").into(), large(n));
            }
        }
        assert!(waiting.bytes <= MOST_BYTES_OF_ALL, "{}", waiting.bytes);
    }
}
