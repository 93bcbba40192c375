//! The bus: bounded mailboxes of modules, with requests whose reply channel travels in the envelope.
//!
//! There is no registry to look up later and no global: the set of modules is settled when the kernel is
//! built, and every module gets its own handle. A full mailbox makes a sender wait ([`Bus::send`]) or tells
//! it so ([`Bus::try_send`]); nothing is dropped silently and a reply can never be lost to a full queue.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future;
use tokio::sync::{mpsc, oneshot};

use crate::{
    message::{Content, Message},
    name::{Group, ModuleName, NodeName},
    routes::{Delivery, RoutingTable},
};

/// A message on its way, and the way back for its answer where the sender waits for one.
#[derive(Debug)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    nodes: Option<Arc<[NodeName]>>,
    reply: Option<oneshot::Sender<Message>>,
    delivery: Delivery,
}

impl Envelope {
    /// A message whose sender does not wait.
    pub fn new(message: Message) -> Self {
        Self { message, nodes: None, reply: None, delivery: Delivery::default() }
    }

    /// A message to CloudHub for each of these nodes: instead of one for each, which [`resource::for_node`]
    /// would tell apart, it is one whose resource names no node.
    ///
    /// [`resource::for_node`]: crate::message::resource::for_node
    pub fn for_nodes(message: Message, nodes: impl Into<Arc<[NodeName]>>) -> Self {
        Self { nodes: Some(nodes.into()), ..Self::new(message) }
    }

    /// The nodes it is for, if it was made [`for_nodes`](Envelope::for_nodes).
    pub fn nodes(&self) -> Option<Arc<[NodeName]>> {
        self.nodes.clone()
    }

    /// A message with an answer to wait for; the receiver fails when the envelope is dropped unanswered.
    pub fn with_reply(message: Message) -> (Self, oneshot::Receiver<Message>) {
        let (reply, answer) = oneshot::channel();
        (Self { reply: Some(reply), ..Self::new(message) }, answer)
    }

    /// Asks a hub to deliver it across the link like this, where its group is a vendor's. A sender that waits
    /// gets the answer of the module on the other side, or the reason why there is none; one that does not
    /// wait is sent the reason as a message (operation `error`, `parent` the id of the message) into the
    /// mailbox of the module that the message names as its source.
    #[must_use]
    pub fn deliver(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// How it is to be delivered across the link.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether the sender waits for an answer.
    pub fn wants_answer(&self) -> bool {
        self.reply.is_some()
    }

    /// Answers with [`Message::answer`]; without effect when nobody waits.
    pub fn answer(self, content: Content) {
        let answer = self.message.answer(content);
        self.reply_with(answer);
    }

    /// Answers with [`Message::error_answer`]; without effect when nobody waits.
    pub fn fail(self, why: impl std::fmt::Display) {
        let answer = self.message.error_answer(why);
        self.reply_with(answer);
    }

    /// Answers with a message of the caller's making, such as one that came from the cloud.
    pub fn reply_with(self, answer: Message) {
        if let Some(reply) = self.reply {
            // An asker that no longer waits has no use for the answer.
            let _ = reply.send(answer);
        }
    }

    /// Takes the envelope apart: the message, and the way back if there is one.
    pub fn into_parts(self) -> (Message, Option<oneshot::Sender<Message>>) {
        (self.message, self.reply)
    }
}

/// A message was not delivered to a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No module of that name was assembled.
    #[error("no module is named {0}")]
    Unknown(ModuleName),
    /// The module has ended.
    #[error("module {0} has stopped")]
    Stopped(ModuleName),
    /// The module's mailbox is full.
    #[error("the mailbox of module {0} is full")]
    Full(ModuleName),
}

/// A request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was not delivered.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The module dropped the request.
    #[error("module {0} dropped the request unanswered")]
    Unanswered(ModuleName),
    /// The deadline passed.
    #[error("no answer from module {0} within {1:?}")]
    Late(ModuleName, Duration),
}

#[derive(Debug)]
struct Mailbox {
    group: Group,
    sender: mpsc::Sender<Envelope>,
}

/// A module's mailbox, read by the module alone.
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::Receiver<Envelope>,
}

impl Inbox {
    /// The next message, in the order of arrival. `None` once all senders are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Envelope> {
        self.receiver.recv().await
    }

    /// The next message if one is there already.
    pub fn try_next(&mut self) -> Option<Envelope> {
        self.receiver.try_recv().ok()
    }
}

/// A handle to the mailboxes of all modules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    mailboxes: Arc<BTreeMap<ModuleName, Mailbox>>,
    routes: RoutingTable,
}

impl Bus {
    /// A bus for exactly these modules: name, group, mailbox depth (at least 1). The kernel makes one; tests
    /// of a single module make their own.
    pub fn new(
        modules: impl IntoIterator<Item = (ModuleName, Group, usize)>,
    ) -> (Self, HashMap<ModuleName, Inbox>) {
        let (mut mailboxes, mut inboxes) = (BTreeMap::new(), HashMap::new());
        for (name, group, depth) in modules {
            let (sender, receiver) = mpsc::channel(depth.max(1));
            mailboxes.insert(name.clone(), Mailbox { group, sender });
            inboxes.insert(name, Inbox { receiver });
        }
        (Self { mailboxes: Arc::new(mailboxes), routes: RoutingTable::default() }, inboxes)
    }

    /// Has modules take what this table says, beside what is sent to them by name.
    #[must_use]
    pub fn with_routes(mut self, routes: RoutingTable) -> Self {
        self.routes = routes;
        self
    }

    /// What modules take of the link, of MQTT and of devices.
    pub fn routes(&self) -> &RoutingTable {
        &self.routes
    }

    /// Whether a module of this name was assembled.
    pub fn has(&self, module: &ModuleName) -> bool {
        self.mailboxes.contains_key(module)
    }

    /// Sends to one module, waiting while its mailbox is full. Dropped before it returns: nothing was sent.
    pub async fn send(&self, to: &ModuleName, message: Message) -> Result<(), SendError> {
        self.forward(to, Envelope::new(message)).await
    }

    /// Sends to one module, or says that its mailbox is full.
    pub fn try_send(&self, to: &ModuleName, message: Message) -> Result<(), SendError> {
        self.try_forward(to, Envelope::new(message))
    }

    /// Passes an envelope on, reply channel included, or says that the mailbox is full; the envelope is
    /// dropped then.
    pub fn try_forward(&self, to: &ModuleName, envelope: Envelope) -> Result<(), SendError> {
        self.mailbox(to)?.sender.try_send(envelope).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full(to.clone()),
            mpsc::error::TrySendError::Closed(_) => SendError::Stopped(to.clone()),
        })
    }

    /// Passes an envelope on, reply channel included, so that the final receiver answers the first sender.
    pub async fn forward(&self, to: &ModuleName, envelope: Envelope) -> Result<(), SendError> {
        let sent = self.mailbox(to)?.sender.send(envelope).await;
        sent.map_err(|_| SendError::Stopped(to.clone()))
    }

    /// Sends to one module and waits for its answer, delivery included in the deadline.
    pub async fn request(
        &self,
        to: &ModuleName,
        message: Message,
        within: Duration,
    ) -> Result<Message, RequestError> {
        let (envelope, answer) = Envelope::with_reply(message);
        let work = async {
            self.forward(to, envelope).await?;
            answer.await.map_err(|_| RequestError::Unanswered(to.clone()))
        };
        tokio::time::timeout(within, work).await.map_err(|_| RequestError::Late(to.clone(), within))?
    }

    /// Sends a copy to every module of a group at once, waiting for full mailboxes; returns who was not
    /// reached.
    pub async fn publish(&self, group: &Group, message: Message) -> Vec<SendError> {
        let members = self.mailboxes.iter().filter(|(_, mailbox)| mailbox.group == *group);
        let sends = members.map(|(name, _)| self.send(name, message.clone()));
        future::join_all(sends).await.into_iter().filter_map(Result::err).collect()
    }

    fn mailbox(&self, of: &ModuleName) -> Result<&Mailbox, SendError> {
        self.mailboxes.get(of).ok_or_else(|| SendError::Unknown(of.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Operation;

    const A: ModuleName = ModuleName::of("a");
    const B: ModuleName = ModuleName::of("b");

    fn bus(depth: usize) -> (Bus, HashMap<ModuleName, Inbox>) {
        Bus::new([(A, Group::META, depth), (B, Group::META, depth)])
    }

    fn message() -> Message {
        Message::new(A, Operation::QUERY, "x/y/z")
    }

    #[tokio::test]
    async fn a_request_gets_the_answer_of_whoever_holds_the_envelope() {
        let (bus, mut inboxes) = bus(1);
        let (mut a, mut b) = (inboxes.remove(&A).unwrap(), inboxes.remove(&B).unwrap());
        let passing = bus.clone();
        tokio::spawn(async move { passing.forward(&B, a.next().await.unwrap()).await });
        tokio::spawn(async move { b.next().await.unwrap().answer(Content::text("from b")) });
        let question = message();
        let answer = bus.request(&A, question.clone(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.header.parent, Some(question.header.id));
        assert_eq!(answer.content.as_text().unwrap(), "from b");
    }

    #[tokio::test]
    async fn a_dropped_request_fails_at_once_not_at_the_deadline() {
        let (bus, mut inboxes) = bus(1);
        let mut a = inboxes.remove(&A).unwrap();
        tokio::spawn(async move { drop(a.next().await) });
        let error = bus.request(&A, message(), Duration::from_secs(3600)).await.unwrap_err();
        assert_eq!(error, RequestError::Unanswered(A));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_nobody_answers_ends_at_its_deadline() {
        let (bus, _inboxes) = bus(1);
        let within = Duration::from_secs(60);
        assert_eq!(bus.request(&A, message(), within).await.unwrap_err(), RequestError::Late(A, within));
    }

    #[tokio::test]
    async fn a_full_mailbox_is_told_to_those_who_do_not_wait() {
        let (bus, _inboxes) = bus(1);
        bus.try_send(&A, message()).unwrap();
        assert_eq!(bus.try_send(&A, message()), Err(SendError::Full(A)));
    }

    #[tokio::test]
    async fn unknown_and_stopped_modules_are_named() {
        let (bus, mut inboxes) = bus(1);
        let nobody = ModuleName::of("nobody");
        assert_eq!(bus.send(&nobody, message()).await, Err(SendError::Unknown(nobody)));
        drop(inboxes.remove(&A));
        assert_eq!(bus.send(&A, message()).await, Err(SendError::Stopped(A)));
    }

    #[tokio::test]
    async fn publishing_reaches_every_member_and_reports_the_missing() {
        let (bus, mut inboxes) = bus(1);
        drop(inboxes.remove(&A));
        let mut b = inboxes.remove(&B).unwrap();
        assert_eq!(bus.publish(&Group::META, message()).await, [SendError::Stopped(A)]);
        assert!(b.try_next().is_some());
    }

    #[tokio::test]
    async fn messages_of_one_sender_stay_in_order_under_back_pressure() {
        let (bus, mut inboxes) = bus(2);
        let mut a = inboxes.remove(&A).unwrap();
        let sender = tokio::spawn(async move {
            for n in 0..500 {
                bus.send(&A, Message::new(B, Operation::UPDATE, n.to_string())).await.unwrap();
            }
        });
        for n in 0..500 {
            assert_eq!(a.next().await.unwrap().message.route.resource, n.to_string().as_str());
        }
        sender.await.unwrap();
    }
}
