//! What waits for the cloud, in lanes; and who waits for its answers.

use std::collections::{HashMap, VecDeque};

use kubeedge_core::{
    bus::{Envelope, Inbox},
    message::{Content, Message, resource::ObjectPath},
    name::{MessageId, ModuleName, Operation},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

/// How many messages one lane or backlog holds, and how many bytes of content.
const MOST: usize = 1024;
const MOST_BYTES: usize = 32 << 20;
/// How many requests may wait for their answers.
const MOST_REQUESTS: usize = 4096;

const NOT_CONNECTED: &str = "not connected to the cloud, the request was not sent";
const LOST: &str = "the connection to the cloud was lost before the answer came";
const CROWDED: &str = "too much waits for the cloud, the request was not sent";

/// Messages in order, bounded in number and bytes. One message always fits, however large.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= MOST || self.bytes >= MOST_BYTES
    }

    /// Takes a message in, or says that there is no room.
    #[must_use]
    pub(super) fn push(&mut self, message: Message) -> bool {
        let size = message.size();
        let fits = self.messages.len() < MOST && self.bytes.saturating_add(size) <= MOST_BYTES;
        if !fits && !self.messages.is_empty() {
            return false;
        }
        self.bytes += size;
        self.messages.push_back(message);
        true
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.size();
        Some(message)
    }

    /// Puts back what was taken out.
    fn unpop(&mut self, message: Message) {
        self.bytes += message.size();
        self.messages.push_front(message);
    }

    fn retain(&mut self, keep: impl Fn(&Message) -> bool) {
        self.messages.retain(keep);
        self.bytes = self.messages.iter().map(Message::size).sum();
    }
}

/// What goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Control,
    Twins,
    Bulk,
}

impl Lane {
    /// Events are hints that come in floods: they go with the uploads.
    fn of(message: &Message) -> Self {
        let route = &message.route;
        let kind = ObjectPath::parse(route.resource.as_str()).map_or("", |path| path.kind);
        match () {
            () if message.is_answer() => Self::Control,
            () if route.operation == Operation::UPLOAD => Self::Bulk,
            () if route.source == ModuleName::TWIN => Self::Twins,
            () if kind == "event" => Self::Bulk,
            () => Self::Control,
        }
    }
}

/// Somebody who waits for an answer, and the question without its content.
#[derive(Debug)]
struct Waiter {
    question: Message,
    reply: oneshot::Sender<Message>,
}

impl Waiter {
    fn fail(self, why: &str) {
        // An asker that no longer waits has no use for the reason.
        let _ = self.reply.send(self.question.error_answer(why));
    }
}

#[derive(Debug, Default)]
struct State {
    up: bool,
    lanes: [Queue; 3],
    waiters: HashMap<MessageId, Waiter>,
    /// What is being written; it goes back to its lane if the link breaks.
    flying: Option<(Lane, Message)>,
    /// Since when the cloud, having been asked, has said nothing at all.
    unheard: Option<Instant>,
    refused: u64,
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut Queue {
        let [control, twins, bulk] = &mut self.lanes;
        match lane {
            Lane::Control => control,
            Lane::Twins => twins,
            Lane::Bulk => bulk,
        }
    }

    /// The next message by rank. A request nobody waits for any more is not sent.
    fn take(&mut self) -> Option<(Lane, Message)> {
        for lane in [Lane::Control, Lane::Twins, Lane::Bulk] {
            while let Some(message) = self.lane(lane).pop() {
                let waiter = self.waiters.get(&message.header.id);
                if !message.header.sync || waiter.is_some_and(|waiter| !waiter.reply.is_closed()) {
                    return Some((lane, message));
                }
            }
        }
        None
    }

    fn fail(&mut self, request: &MessageId, why: &str) {
        if let Some(waiter) = self.waiters.remove(request) {
            waiter.fail(why);
        }
    }

    fn refuse(&mut self, lane: Lane) {
        self.refused += 1;
        // The first of a row is told, then every thousandth.
        if self.refused % 1000 == 1 {
            tracing::warn!(
                ?lane,
                refused = self.refused,
                "more is to be sent than the link takes, messages dropped"
            );
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    more: Notify,
    room: Notify,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Moves messages from the mailbox into the lanes until the mailbox ends. While a working link has too much control
    /// traffic before it, the mailbox waits, and with it its senders; without a link nobody waits.
    pub(super) async fn fill(&self, inbox: &mut Inbox) {
        loop {
            while self.is_crowded() {
                self.room.notified().await;
            }
            let Some(envelope) = inbox.next().await else { return };
            self.put(envelope);
        }
    }

    fn is_crowded(&self) -> bool {
        let mut state = self.state.lock();
        state.up && state.lane(Lane::Control).is_full()
    }

    /// Takes a message of a module.
    pub(super) fn put(&self, envelope: Envelope) {
        let (mut message, reply) = envelope.into_parts();
        let (lane, id) = (Lane::of(&message), message.header.id.clone());
        // Inside the hub this tells requests from messages that outlive a link.
        message.header.sync = reply.is_some();
        let asks = message.header.sync;
        let mut state = self.state.lock();
        if let Some(reply) = reply {
            let waiter = Waiter { question: Message { content: Content::Empty, ..message.clone() }, reply };
            if !state.up {
                return waiter.fail(NOT_CONNECTED);
            }
            if state.waiters.len() >= MOST_REQUESTS {
                return waiter.fail(CROWDED);
            }
            state.waiters.insert(id.clone(), waiter);
        }
        if state.lane(lane).push(message) {
            self.more.notify_one();
        } else if asks {
            state.fail(&id, CROWDED);
        } else {
            state.refuse(lane);
        }
    }

    /// The next message to write. It stays here until [`Outbox::written`]. Cancel-safe.
    pub(super) async fn next(&self) -> Message {
        loop {
            if let Some(message) = self.try_next() {
                return message;
            }
            self.more.notified().await;
        }
    }

    fn try_next(&self) -> Option<Message> {
        let mut state = self.state.lock();
        let (lane, message) = state.take()?;
        state.flying = Some((lane, message.clone()));
        self.room.notify_one();
        Some(message)
    }

    /// The message being written is out.
    pub(super) fn written(&self) {
        let mut state = self.state.lock();
        let flown = state.flying.take();
        if flown.is_some_and(|(_, message)| message.header.sync) {
            state.unheard.get_or_insert_with(Instant::now);
        }
        if state.lanes.iter().all(|lane| !lane.is_full()) {
            state.refused = 0;
        }
    }

    /// The message being written can never be written.
    pub(super) fn unwritable(&self, why: &str) {
        let mut state = self.state.lock();
        if let Some((_, message)) = state.flying.take() {
            state.fail(&message.header.id, why);
        }
    }

    /// Hands an answer to whoever waits for it; gives it back when nobody does.
    pub(super) fn claim(&self, answer: Message) -> Option<Message> {
        let waiter =
            answer.header.parent.as_ref().and_then(|parent| self.state.lock().waiters.remove(parent));
        match waiter {
            Some(waiter) => waiter.reply.send(answer).err(),
            None => Some(answer),
        }
    }

    /// The cloud said something.
    pub(super) fn heard(&self) {
        self.state.lock().unheard = None;
    }

    /// For how long the cloud has owed us any word.
    pub(super) fn unheard(&self) -> Duration {
        self.state.lock().unheard.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Forgets requests whose askers have gone.
    pub(super) fn sweep(&self) {
        self.state.lock().waiters.retain(|_, waiter| !waiter.reply.is_closed());
    }

    /// There is a link.
    pub(super) fn up(&self) {
        let mut state = self.state.lock();
        state.up = true;
        state.unheard = None;
    }

    /// There is no link: requests fail, other messages wait for the next one, the one being written first.
    pub(super) fn down(&self) {
        let mut state = self.state.lock();
        state.up = false;
        if let Some((lane, message)) = state.flying.take() {
            state.lane(lane).unpop(message);
        }
        state.lanes.iter_mut().for_each(|lane| lane.retain(|message| !message.header.sync));
        std::mem::take(&mut state.waiters).into_values().for_each(|waiter| waiter.fail(LOST));
        self.room.notify_one();
    }
}

#[cfg(test)]
mod tests;
