//! What a pool keeps of an object.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use kubeedge_core::{message::Message, name::Operation};

use tokio::time::Instant;

use super::offer::Offer;
use crate::{
    hub::{
        id::Id,
        rules::{self, Priority},
    },
    records::{Known, Record},
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Option<Arc<Message>>,
    /// The message's identity.
    pub(super) id: Id,
    /// What the message weighs.
    pub(super) bytes: usize,
    pub(super) version: Option<u64>,
    pub(super) gone: bool,
    /// Taken, or being taken, from this node; it may come back.
    pub(super) withdrawn: bool,
    pub(super) record: Arc<Record>,
    pub(super) needs_record: bool,
    pub(super) queued: bool,
    pub(super) flying: bool,
    pub(super) failures: u32,
    pub(super) priority: Priority,
}

impl Entry {
    /// Of an object of which nothing is to be sent yet.
    pub(super) fn new(offer: &Offer) -> Self {
        Self {
            message: None,
            id: offer.id.clone(),
            bytes: 0,
            version: None,
            gone: false,
            withdrawn: false,
            record: offer.record.clone(),
            needs_record: false,
            queued: false,
            flying: false,
            failures: 0,
            priority: offer.priority,
        }
    }

    /// Takes the newest message in the place of the one before.
    pub(super) fn take(&mut self, offer: Offer, version: Option<u64>, needs_record: bool, bytes: usize) {
        let Offer { message, id, priority, gone, record, .. } = offer;
        (self.version, self.gone, self.withdrawn) = (version, gone, rules::withdraws(&message));
        (self.record, self.needs_record, self.priority) = (record, needs_record, priority);
        (self.message, self.id, self.bytes) = (Some(message), id, bytes);
    }

    /// The edge is being told that the object is gone.
    pub(super) fn is_leaving(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.route.operation == Operation::DELETE)
    }

    /// Takes a place in line if there is something to send and it has none; says whether it does.
    pub(super) fn queues(&mut self) -> bool {
        let queues = self.message.is_some() && !self.queued && !self.flying;
        self.queued |= queues;
        queues
    }
}

/// How many deletions a session remembers, and for how long.
const MOST_GONE: usize = 1024;
const GONE: Duration = Duration::from_secs(60);

/// Deletions that the edge has confirmed in this session. Until the cluster's cache has heard that its record
/// has gone, an object is taken for being there; to an edge of Go, which deletes by name, saying it again
/// could cost the next object of the name.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<(Instant, Id)>);

impl Gone {
    pub(super) fn add(&mut self, key: Id) {
        let now = Instant::now();
        while self.0.front().is_some_and(|(at, _)| *at + GONE <= now) || self.0.len() >= MOST_GONE {
            self.0.pop_front();
        }
        self.0.push_back((now, key));
    }

    pub(super) fn has(&self, key: &Id) -> bool {
        self.0.iter().any(|(at, gone)| gone == key && at.elapsed() < GONE)
    }

    /// The object is back.
    pub(super) fn forget(&mut self, key: &Id) {
        self.0.retain(|(_, gone)| gone != key);
    }
}

/// Whether an object needs a record before it is sent; `None` when it is no news to the edge.
pub(super) fn needs_record(
    kept: Option<&Entry>,
    offer: &Offer,
    version: Option<u64>,
    known: impl FnOnce(&Record) -> Known,
) -> Option<bool> {
    let forced = offer.gone || offer.message.route.operation == Operation::RESPONSE;
    match kept {
        Some(kept) if kept.withdrawn && rules::returns(&offer.message) => Some(true),
        Some(kept) if kept.withdrawn && !offer.is_deletion() => None,
        // Nothing comes after the end. Go lets an answer take the place of the deletion, which is lost then.
        Some(kept) if kept.is_leaving() => None,
        Some(kept) if !forced && (kept.gone || version <= kept.version) => None,
        Some(kept) => Some(kept.needs_record),
        None => match known(&offer.record) {
            Known::At(confirmed) if !forced && version <= confirmed.number() => None,
            // An object that is being deleted gets its record like any other, or its edge might never hear of
            // it.
            Known::Missing => Some(true),
            // Go drops what has a record without a version, and never sends it if the version was never
            // written.
            Known::Unversioned | Known::At(_) => Some(false),
        },
    }
}

/// What waits in each priority.
#[derive(Debug)]
pub(super) struct ByPriority<T> {
    pub(super) control: VecDeque<T>,
    pub(super) later: VecDeque<T>,
}

impl<T> Default for ByPriority<T> {
    fn default() -> Self {
        Self { control: VecDeque::new(), later: VecDeque::new() }
    }
}

impl<T> ByPriority<T> {
    pub(super) fn of(&mut self, priority: Priority) -> &mut VecDeque<T> {
        match priority {
            Priority::Control => &mut self.control,
            Priority::Later => &mut self.later,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.control.len() + self.later.len()
    }
}
