//! Vendors' modules across the links: what they send to nodes, and what nodes send to them.
//!
//! Nothing of it is in the way of KubeEdge's own messages: it has queues and bounds of its own, is written
//! when no pod waits, and a module that does not read is waited for by its own nodes' messages alone.

mod inbound;
mod outbound;

use std::{collections::HashMap, sync::Arc};

use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    bus::{Bus, Envelope},
    message::{Message, resource},
    name::{MessageId, ModuleName, NodeName},
    routes::NobodyTakes,
};
use tokio::task::JoinSet;

use self::{inbound::Inbound, outbound::Outbound};
use super::{pool::for_the_wire, sessions::Sessions, shares::NodeLimits};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Modules {
    bus: Bus,
    sessions: Sessions,
    outbound: Outbound,
    inbound: HashMap<ModuleName, Arc<Inbound>>,
    /// Lines about messages for nobody.
    nobody: Seldom,
}

impl Modules {
    /// Of the modules that take groups on this bus. One of them works on `places` messages at a time, and
    /// on so many of one node.
    pub(super) fn new(bus: &Bus, sessions: &Sessions, per_node: NodeLimits, places: usize) -> Self {
        let takers = bus.routes().takers().into_iter();
        let inbound = takers.map(|module| (module.clone(), Arc::new(Inbound::new(module, per_node, places))));
        Self {
            bus: bus.clone(),
            sessions: sessions.clone(),
            outbound: Outbound::new(bus, sessions),
            inbound: inbound.collect(),
            nobody: Seldom::default(),
        }
    }

    /// Starts what works beside the sessions.
    pub(super) fn start(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let modules = self.clone();
        tasks.spawn(async move { modules.outbound.run().await });
        for inbound in self.inbound.values() {
            let (inbound, bus, sessions) = (inbound.clone(), self.bus.clone(), self.sessions.clone());
            tasks.spawn(async move { inbound.run(&bus, &sessions).await });
        }
    }

    /// Takes a module's message for a node, or for several.
    pub(super) fn send(&self, envelope: Envelope) {
        let (delivery, nodes) = (envelope.delivery(), envelope.nodes());
        let (message, reply) = envelope.into_parts();
        if let Some(nodes) = nodes {
            for node in nodes.iter() {
                let mut message = Message::clone(&message);
                message.header.id = MessageId::random();
                message.header.sync = false;
                self.outbound.offer(node, message, delivery, None);
            }
            return;
        }
        match resource::target_node(&message.route.resource) {
            Some(node) => self.outbound.offer(&node, for_the_wire(message), delivery, reply),
            None => self.outbound.refuse(&message, reply, "the message names no node: node/<node>/…"),
        }
    }

    /// A node has a link.
    pub(super) fn connected(&self, node: &NodeName) {
        self.outbound.connected(node);
    }

    /// A node has no link any more.
    pub(super) fn disconnected(&self, node: &NodeName) {
        self.outbound.disconnected(node);
    }

    /// A node is no longer part of the cluster: nothing of what waits for it will ever arrive.
    pub(super) fn node_gone(&self, node: &NodeName) {
        self.outbound.forget(node, "the node was deleted from the cluster");
    }

    /// An answer of a node's; given back if it answers nothing of a module.
    pub(super) fn claim(&self, node: &NodeName, answer: Message) -> Option<Message> {
        self.outbound.answered(node, answer)
    }

    /// Takes a message of a node's in a group of a vendor. Says what the node is to be answered at once, if
    /// anything.
    pub(super) fn take(&self, node: &NodeName, mut message: Message) -> Option<Message> {
        if message.is_answer() {
            if self.claim(node, message).is_some() {
                tracing::debug!(%node, "nobody waits for this answer of a module any more");
            }
            return None;
        }
        let route = &message.route;
        let taker = self.bus.routes().taker(&route.group, route.resource.as_str());
        if let Some(inbound) = taker.and_then(|module| self.inbound.get(module)) {
            message.route.resource = resource::for_node(node, &message.route.resource);
            inbound.push(node, message);
            return None;
        }
        if let Some(unsaid) = self.nobody.line(node.as_str()) {
            let (group, resource) = (shown(route.group.as_str()), shown(route.resource.as_str()));
            tracing::warn!(%node, %group, %resource, unsaid, "no module takes this group of a node's");
        }
        let nobody = NobodyTakes { place: "the cloud", group: &route.group };
        let mut answer = message.error_answer(nobody);
        answer.route.group = message.route.group.clone();
        Some(answer)
    }
}
