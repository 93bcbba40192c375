//! From the controllers' messages to the sessions of their nodes.

use kubeedge_core::{
    bus::{Envelope, Inbox},
    message::{Content, Message, resource},
    name::NodeName,
    routes,
};

use super::{
    Sessions,
    delivery::{Delivery, Fan},
    rules,
    session::{self, Shared},
};

/// Messages that are handed to sessions in one go.
const TOGETHER: usize = 512;

/// Hands messages of modules to the sessions of their nodes.
pub(super) struct Dispatcher<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) shared: &'a Shared,
}

impl Dispatcher<'_> {
    /// Hands a message to its nodes, and with it what else is there, so that sessions write it together.
    pub(super) async fn take(&self, envelope: Envelope, inbox: &mut Inbox) {
        let (mut next, mut room) = (Some(envelope), TOGETHER);
        while let Some(envelope) = next {
            let nodes = envelope.nodes();
            room = room.saturating_sub(nodes.as_ref().map_or(1, |nodes| nodes.len()));
            match nodes {
                _ if routes::is_vendors(&envelope.message.route.group) => self.shared.modules.send(envelope),
                Some(nodes) => self.send_to_each(envelope.message, &nodes).await,
                None => self.send_and_tell(envelope),
            }
            next = if room > 0 { inbox.try_next() } else { None };
        }
    }

    /// Sends a message to its node. A sender that waits learns what became of it.
    fn send_and_tell(&self, envelope: Envelope) {
        let (message, reply) = envelope.into_parts();
        let question = reply.is_some().then(|| message.clone().with(Content::empty()));
        let sent = self.send(message);
        if let (Some(reply), Some(question)) = (reply, question) {
            let answer = match sent {
                Ok(()) => question.answer(Content::ok()),
                Err(why) => question.error_answer(why),
            };
            // Whoever no longer waits has no use for it.
            let _ = reply.send(answer);
        }
    }

    fn send(&self, message: Message) -> Result<(), &'static str> {
        let Some(node) = resource::target_node(&message.route.resource) else {
            tracing::warn!(resource = %message.route.resource, "a message to no node");
            return Err("the message names no node");
        };
        let session = self.sessions.get(&node);
        if rules::is_node_gone(&message) {
            if let Some(session) = session {
                session.end("the node was deleted from the cluster");
            }
            self.shared.modules.node_gone(&node);
            return Ok(());
        }
        match session {
            Some(session) => session::deliver(&node, &session, message),
            None => self.remember(Delivery::of(&node, message, |_| None)),
        }
    }

    /// Sends a message to many nodes, whose sessions have their turn meanwhile.
    async fn send_to_each(&self, message: Message, nodes: &[NodeName]) {
        let mut fan = Fan::new(message);
        for nodes in nodes.chunks(TOGETHER) {
            for node in nodes {
                // What cannot be sent is told to the log, as nobody waits for it.
                let _ = match self.sessions.get(node) {
                    Some(session) => {
                        let delivery = fan.to(node, |key| session.pool.record_of(key));
                        session::put(node, &session, delivery)
                    }
                    None => self.remember(fan.to(node, |_| None)),
                };
            }
            if nodes.len() == TOGETHER {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The node is away: make sure that there is a record, so that it gets the object when it is back.
    fn remember(&self, delivery: Delivery) -> Result<(), &'static str> {
        let Delivery::Acked(offer) = delivery else {
            return Err("the node is not connected");
        };
        let records = &self.shared.records;
        if !offer.is_deletion() && records.is_missing(&offer.record) {
            records.ensure_later(offer.record);
        }
        Ok(())
    }
}
