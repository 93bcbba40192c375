//! Messages of vendors' modules on their way to one peer: what waits, what is in flight, who waits for an
//! answer.
//!
//! Both hubs keep one of these for each peer. It decides and does nothing: the time comes from outside,
//! messages to write are asked for with [`Deliveries::next`], and whoever is to learn something is handed
//! back as [`Undelivered`].
//!
//! | delivery | while there is no link | in flight | ends |
//! |---|---|---|---|
//! | best effort | refused | nothing is kept | when written |
//! | best effort, sender waits | refused | kept for its answer | with its answer, or with its link |
//! | newest | the newest of each resource | sent again with growing pauses, and on each link | with its answer |
//! | reliable | each | the same | with its answer |
//!
//! Of one resource one kept message is in flight at a time, so that a repetition overtakes nothing. To a
//! peer that is not known to confirm, a message is sent [`SENDS`] times at most.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use kubeedge_core::{
    bus::Bus,
    message::{Content, Message, json::MAX_TEXT},
    name::{Group, MessageId, Operation, Resource},
    routes::Delivery,
};
use tokio::{sync::oneshot, time::Instant};

use crate::log::Seldom;

/// The pause before a message that was not answered is sent again; it doubles up to [`LONGEST_PAUSE`].
pub const PAUSE: Duration = Duration::from_secs(10);
/// The longest of these pauses.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often a message is sent to a peer that is not known to confirm.
pub const SENDS: u32 = 5;
/// Messages without a waiting sender of which it is remembered whose they were.
const REMEMBERED: usize = 256;

const FULL: &str = "too much waits for the other side, the message was not taken";
const NOT_CONNECTED: &str = "not connected, the message was not sent";
const LOST: &str = "the link was lost before the answer came";
const SUPERSEDED: &str = "a newer message of the same resource takes its place";
const UNANSWERED: &str =
    "the other side has not answered it, and is not known to confirm messages of modules";
const UNDER_WAY: &str = "a message of this id is under way already";
const TOO_LONG: &str = "its route is too long";

/// How much may wait for one peer, and how much of it may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages that wait, or whose answer is waited for.
    pub messages: usize,
    /// Their bytes. One always fits.
    pub bytes: usize,
    /// Kept messages in flight.
    pub window: usize,
    /// Their bytes. One always fits.
    pub window_bytes: usize,
}

/// A message that did not reach its module, or whose module refused it: what its sender is to learn.
#[derive(Debug)]
pub struct Undelivered {
    question: Message,
    reply: Option<oneshot::Sender<Message>>,
    /// What came back, or why nothing did.
    answer: Message,
}

impl Undelivered {
    fn new(question: Message, reply: Option<oneshot::Sender<Message>>, why: &str) -> Self {
        let mut answer = question.error_answer(why);
        answer.route.group = question.route.group.clone();
        Self { question, reply, answer }
    }

    /// Of a message that was never taken.
    pub fn refused(message: &Message, reply: Option<oneshot::Sender<Message>>, why: &str) -> Self {
        Self::new(without_content(message), reply, why)
    }

    /// Tells the sender, over its reply channel or into its mailbox, and now and then the log.
    pub fn report(self, bus: &Bus, peer: &str, lines: &Seldom) {
        let Self { question, reply, answer } = self;
        if question.is_answer() {
            // Whoever asked has learnt that the link broke, or asks again.
            return;
        }
        let source = question.route.source;
        if let Some(unsaid) = lines.line(source.as_str()) {
            let why = answer.content.as_text().unwrap_or_default();
            let (resource, group) = (question.route.resource, question.route.group);
            tracing::warn!(module = %source, peer, %group, %resource, why = %crate::log::shown(&why), unsaid, "a message was not delivered");
        }
        match reply {
            // Whoever no longer waits has no use for it.
            Some(reply) => drop(reply.send(answer)),
            None if bus.has(&source) => {
                if let Err(error) = bus.try_send(&source, answer) {
                    tracing::debug!(%error, "a module was not told that its message was not delivered");
                }
            }
            None => {}
        }
    }
}

/// What becomes of an answer.
#[derive(Debug)]
pub enum Answered {
    /// The message that it answers has arrived, and whoever waited has the answer.
    Claimed,
    /// The message that it answers was not delivered, or refused: its sender is to be told.
    Failed(Box<Undelivered>),
    /// It answers nothing that is known here.
    Unknown(Box<Message>),
}

fn without_content(message: &Message) -> Message {
    Message::from_parts(message.header.clone(), message.route.clone(), Content::empty())
}

#[derive(Debug)]
struct Entry {
    message: Message,
    delivery: Delivery,
    reply: Option<oneshot::Sender<Message>>,
    /// How often it was sent.
    times: u32,
    /// Since it was sent on this link: when it is due again.
    due: Option<Instant>,
    size: usize,
}

impl Entry {
    fn is_kept(&self) -> bool {
        self.delivery != Delivery::BestEffort
    }

    fn is_abandoned(&self) -> bool {
        !self.is_kept() && self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn line(&self) -> Line {
        (self.message.route.group.clone(), self.message.route.resource.clone())
    }
}

/// What is kept in order: the messages of one group about one resource.
type Line = (Group, Resource);

/// See the module's text.
#[derive(Debug)]
pub struct Deliveries {
    bounds: Bounds,
    up: bool,
    /// In the order in which they were offered.
    entries: BTreeMap<u64, Entry>,
    numbers: HashMap<MessageId, u64>,
    last: u64,
    bytes: usize,
    /// Kept messages of each line; the first may be in flight.
    lines: HashMap<Line, VecDeque<u64>>,
    /// What may be written now: kept, and sent once.
    ready: BTreeSet<u64>,
    ready_once: BTreeSet<u64>,
    flying: usize,
    flying_bytes: usize,
    /// Sent once and not waited for: whose they were.
    once: VecDeque<Message>,
    /// Kept messages that are kept no longer.
    gone: Vec<u64>,
}

impl Deliveries {
    /// Nothing waits, and there is no link.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            up: false,
            entries: BTreeMap::new(),
            numbers: HashMap::new(),
            last: 0,
            bytes: 0,
            lines: HashMap::new(),
            ready: BTreeSet::new(),
            ready_once: BTreeSet::new(),
            flying: 0,
            flying_bytes: 0,
            once: VecDeque::new(),
            gone: Vec::new(),
        }
    }

    /// Takes a message, as it goes on the wire. The number of one that is kept, by which it may be stored
    /// until [`Deliveries::take_gone`] names it.
    pub fn offer(
        &mut self,
        message: Message,
        delivery: Delivery,
        reply: Option<oneshot::Sender<Message>>,
    ) -> Result<Option<u64>, Box<Undelivered>> {
        let refusal = match () {
            () if message.longest_text() > MAX_TEXT => Some(TOO_LONG),
            () if self.numbers.contains_key(&message.header.id) => Some(UNDER_WAY),
            () if delivery == Delivery::BestEffort && !self.up => Some(NOT_CONNECTED),
            () => None,
        };
        if let Some(why) = refusal {
            return Err(Box::new(Undelivered::refused(&message, reply, why)));
        }
        let superseded = self.supersede(&message, delivery);
        let size = message.size();
        let fits = self.entries.len() < self.bounds.messages && self.bytes + size <= self.bounds.bytes;
        // Once the one that it replaces has gone, the one that replaces it has at most a little less room.
        if !fits && !self.entries.is_empty() && superseded.is_none() {
            return Err(Box::new(Undelivered::refused(&message, reply, FULL)));
        }
        self.last += 1;
        let number = self.last;
        self.enter(number, Entry { message, delivery, reply, times: 0, due: None, size });
        Ok((delivery != Delivery::BestEffort).then_some(number))
    }

    /// Takes in what was stored under this number, whatever the bounds are.
    pub fn restore(&mut self, number: u64, message: Message, delivery: Delivery) {
        self.last = self.last.max(number);
        let size = message.size();
        self.enter(number, Entry { message, delivery, reply: None, times: 0, due: None, size });
    }

    fn enter(&mut self, number: u64, entry: Entry) {
        self.bytes += entry.size;
        self.numbers.insert(entry.message.header.id.clone(), number);
        if entry.is_kept() {
            let line = self.lines.entry(entry.line()).or_default();
            line.push_back(number);
            if line.len() == 1 {
                self.ready.insert(number);
            }
        } else {
            self.ready_once.insert(number);
        }
        self.entries.insert(number, entry);
    }

    /// Removes the newest of a line that waits, where one that is newer comes; says who is to learn it.
    fn supersede(&mut self, message: &Message, delivery: Delivery) -> Option<u64> {
        if delivery != Delivery::Newest {
            return None;
        }
        let line = (message.route.group.clone(), message.route.resource.clone());
        let last = *self.lines.get(&line)?.back()?;
        let waits =
            self.entries.get(&last).is_some_and(|entry| entry.delivery == delivery && entry.due.is_none());
        if !waits {
            return None;
        }
        let entry = self.remove(last)?;
        if let Some(reply) = entry.reply {
            let _ = reply.send(without_content(&entry.message).error_answer(SUPERSEDED));
        }
        Some(last)
    }

    /// The next message to write, which counts as written now; `None` while there is none or no link.
    pub fn next(&mut self, now: Instant) -> Option<Message> {
        if !self.up {
            return None;
        }
        while let Some(number) = self.ready_once.first().copied()
            && self.entries.get(&number).is_some_and(Entry::is_abandoned)
        {
            self.remove(number);
        }
        let first = |ready: &BTreeSet<u64>| ready.first().copied();
        let kept = first(&self.ready).filter(|number| self.has_window(*number));
        let number = [kept, first(&self.ready_once)].into_iter().flatten().min()?;
        self.ready.remove(&number);
        self.ready_once.remove(&number);
        let entry = self.entries.get_mut(&number)?;
        let message = entry.message.clone();
        if entry.is_kept() {
            entry.times += 1;
            entry.due = Some(now + pause(entry.times));
            self.flying += 1;
            self.flying_bytes += entry.size;
        } else if entry.reply.is_none() {
            self.remove(number);
            self.remember(&message);
        }
        Some(message)
    }

    fn has_window(&self, number: u64) -> bool {
        let size = self.entries.get(&number).map_or(0, |entry| entry.size);
        let fits = self.flying < self.bounds.window && self.flying_bytes + size <= self.bounds.window_bytes;
        fits || self.flying == 0
    }

    /// Whether [`Deliveries::next`] has something.
    pub fn has_next(&self) -> bool {
        let kept = self.ready.first().is_some_and(|number| self.has_window(*number));
        self.up && (kept || !self.ready_once.is_empty())
    }

    fn remember(&mut self, message: &Message) {
        if !message.is_answer() {
            if self.once.len() >= REMEMBERED {
                self.once.pop_front();
            }
            self.once.push_back(without_content(message));
        }
    }

    /// A message that [`Deliveries::next`] gave was not written after all, and is the next again.
    pub fn unwritten(&mut self, message: Message) {
        match self.numbers.get(&message.header.id).copied() {
            Some(number) => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.times = entry.times.saturating_sub(1);
                }
                self.lands(number);
                self.readies(number);
            }
            // One that nobody waits for is gone, as best effort may be.
            None => self.once.retain(|sent| sent.header.id != message.header.id),
        }
    }

    /// A message can never be written.
    pub fn unwritable(&mut self, message: &MessageId, why: &str) -> Option<Undelivered> {
        let number = self.numbers.get(message).copied();
        if let Some(entry) = number.and_then(|number| self.remove(number)) {
            return Some(Undelivered::new(without_content(&entry.message), entry.reply, why));
        }
        let at = self.once.iter().position(|sent| sent.header.id == *message)?;
        self.once.remove(at).map(|sent| Undelivered::new(sent, None, why))
    }

    /// Hands an answer to whoever waits for it.
    pub fn answered(&mut self, answer: Message) -> Answered {
        let Some(parent) = answer.header.parent.clone() else { return Answered::Unknown(Box::new(answer)) };
        let known = self.numbers.get(&parent).copied().and_then(|number| self.remove(number));
        let (question, reply) = match known {
            Some(entry) => (without_content(&entry.message), entry.reply),
            None => match self.once.iter().position(|sent| sent.header.id == parent) {
                Some(at) => (self.once.remove(at).unwrap_or_else(|| answer.clone()), None),
                None => return Answered::Unknown(Box::new(answer)),
            },
        };
        if answer.route.operation == Operation::ERROR {
            return Answered::Failed(Box::new(Undelivered { question, reply, answer }));
        }
        if let Some(reply) = reply {
            // Whoever no longer waits has no use for it.
            let _ = reply.send(answer);
        }
        Answered::Claimed
    }

    /// There is a link.
    pub fn up(&mut self) {
        self.up = true;
    }

    /// There is no link any more: what is kept waits for the next one, the rest fails.
    pub fn down(&mut self) -> Vec<Undelivered> {
        self.up = false;
        self.once.clear();
        let numbers: Vec<_> = self.entries.keys().copied().collect();
        let mut failed = Vec::new();
        for number in numbers {
            if self.entries.get(&number).is_some_and(Entry::is_kept) {
                self.lands(number);
                self.readies(number);
            } else if let Some(entry) = self.remove(number) {
                failed.push(Undelivered::new(without_content(&entry.message), entry.reply, LOST));
            }
        }
        failed
    }

    /// Everything is forgotten, for this reason.
    pub fn clear(&mut self, why: &str) -> Vec<Undelivered> {
        let numbers: Vec<_> = self.entries.keys().copied().collect();
        let removed = numbers.into_iter().filter_map(|number| self.remove(number));
        let entries: Vec<_> = removed.collect();
        let failed = |entry: Entry| Undelivered::new(without_content(&entry.message), entry.reply, why);
        entries.into_iter().map(failed).collect()
    }

    /// What was not answered in time is ready to be sent again; requests whose askers have gone are
    /// forgotten. Those that a peer which is not known to confirm has not answered after [`SENDS`] times
    /// fail.
    pub fn tick(&mut self, now: Instant, confirms: bool) -> Vec<Undelivered> {
        let mut failed = Vec::new();
        let due = |entry: &Entry| entry.is_abandoned() || entry.due.is_some_and(|due| due <= now);
        let numbers: Vec<_> =
            self.entries.iter().filter(|(_, entry)| due(entry)).map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(entry) = self.entries.get(&number) else { continue };
            if entry.is_abandoned() {
                self.remove(number);
            } else if !confirms && entry.times >= SENDS {
                if let Some(entry) = self.remove(number) {
                    failed.push(Undelivered::new(without_content(&entry.message), entry.reply, UNANSWERED));
                }
            } else {
                self.lands(number);
                self.readies(number);
            }
        }
        failed
    }

    /// When [`Deliveries::tick`] has something to send again at the earliest; `None` when nothing is in
    /// flight.
    pub fn due(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.due).min()
    }

    /// The numbers of messages that were kept and are no longer, since this was asked last.
    pub fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// The message of this number, if it is kept.
    pub fn kept(&self, number: u64) -> Option<&Message> {
        self.entries.get(&number).map(|entry| &entry.message)
    }

    /// Whether nothing waits and nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A message is in flight no longer.
    fn lands(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if entry.due.take().is_some() {
            self.flying = self.flying.saturating_sub(1);
            self.flying_bytes = self.flying_bytes.saturating_sub(entry.size);
        }
    }

    /// A message may be written, if it is the first of its line.
    fn readies(&mut self, number: u64) {
        let Some(entry) = self.entries.get(&number) else { return };
        if !entry.is_kept() {
            self.ready_once.insert(number);
        } else if self.lines.get(&entry.line()).and_then(|line| line.front()) == Some(&number) {
            self.ready.insert(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        self.lands(number);
        let entry = self.entries.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(entry.size);
        self.numbers.remove(&entry.message.header.id);
        self.ready.remove(&number);
        self.ready_once.remove(&number);
        if entry.is_kept() {
            self.gone.push(number);
            let key = entry.line();
            let line = self.lines.get_mut(&key);
            let next = line.and_then(|line| {
                line.retain(|waiting| *waiting != number);
                line.front().copied()
            });
            match next {
                Some(next) if self.entries.get(&next).is_some_and(|next| next.due.is_none()) => {
                    self.ready.insert(next);
                }
                Some(_) => {}
                None => drop(self.lines.remove(&key)),
            }
        }
        Some(entry)
    }
}

/// The pause after this many sends.
fn pause(times: u32) -> Duration {
    PAUSE.saturating_mul(1 << times.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
