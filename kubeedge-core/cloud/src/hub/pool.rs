//! What waits for one session: messages sent once, and objects kept until the edge has confirmed them.
//!
//! Objects are kept under their UID, the newest message only. After the confirmation the message goes and its
//! version stays, so that an older one does not follow. An object made anew under the name of another waits
//! until the edge has confirmed that the other is gone: sent again later, that deletion would hit the wrong
//! one. Nothing comes after the deletion of an object but its return, where it was taken from this node only.
//! Both parts are bounded: a session whose plain messages do
//! not fit any more is ended (its edge does not read), an object that does not fit is left to the
//! reconciliation.
//!
//! What is written next is chosen by [`Priority`], and within one, plain messages go before objects. Objects
//! of the later priority leave a quarter of the window free, so that a pod need not wait until a device is
//! confirmed.

mod flights;
mod kept;
mod offer;

use std::{collections::VecDeque, sync::Arc};

use foldhash::HashMap;
use kubeedge_core::{
    message::Message,
    name::{MessageId, Operation, Resource},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

pub(super) use self::offer::{Flight, Next, Offer, Put, for_the_wire};
use self::{
    flights::Flights,
    kept::{ByPriority, Entry, Gone, needs_record},
};
use super::{
    id::Id,
    rules::{self, Priority},
};
use crate::records::{Known, Record};

/// Plain messages that may wait for one session.
pub(super) const MAX_PLAIN: usize = 4096;
/// Bytes of content that may wait for one session, plain and kept each.
pub(super) const MAX_BYTES: usize = 32 << 20;
/// Messages of vendors' modules that may wait for one session, and their bytes.
const MAX_OF_MODULES: usize = 512;
const MAX_BYTES_OF_MODULES: usize = 8 << 20;
/// Objects of which a session remembers the confirmed version.
const MAX_REMEMBERED: usize = 20_000;

/// The key of an object on its way: its UID, or its path when it has none (Go uses the empty text there, so
/// that such messages overwrite each other).
pub(super) type Key = Id;

#[derive(Debug, Default)]
struct Inner {
    plain: ByPriority<Message>,
    plain_bytes: usize,
    /// What vendors' modules send, and whether it goes before the next of the later lane: they take turns.
    modules: VecDeque<Message>,
    modules_bytes: usize,
    modules_next: bool,
    kept: HashMap<Key, Entry>,
    kept_bytes: usize,
    ready: ByPriority<Key>,
    /// Objects of the later priority on their way.
    later_flying: usize,
    flights: Flights,
    /// Deletions not confirmed yet: the name, the object that is to go, and the objects of that name that
    /// wait for it.
    leaving: HashMap<Resource, (Key, VecDeque<Key>)>,
    gone: Gone,
}

/// The pool of one session.
#[derive(Debug, Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Pool {
    /// Completes when there may be something new to write. Cancel-safe; for one waiter.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes a message that is sent once.
    pub(super) fn put_plain(&self, message: Message) -> Put {
        let priority = rules::priority(message.route.resource.as_str(), &message.route.group);
        let message = for_the_wire(message);
        let mut inner = self.inner.lock();
        let size = message.size();
        if inner.plain.len() >= MAX_PLAIN || inner.plain_bytes + size > MAX_BYTES {
            return Put::Full;
        }
        inner.plain_bytes += size;
        inner.plain.of(priority).push_back(message);
        self.wake.notify_one();
        Put::Taken
    }

    /// Whether one more message of a vendor's module may wait.
    pub(super) fn has_room_for_modules(&self) -> bool {
        let inner = self.inner.lock();
        inner.modules.len() < MAX_OF_MODULES && inner.modules_bytes < MAX_BYTES_OF_MODULES
    }

    /// Takes a message of a vendor's module, as it goes on the wire. It costs no session, however much waits:
    /// to be asked before is [`Pool::has_room_for_modules`].
    pub(super) fn put_of_module(&self, message: Message) {
        let mut inner = self.inner.lock();
        inner.modules_bytes += message.size();
        inner.modules.push_back(message);
        self.wake.notify_one();
    }

    /// What to write next. At most `window` objects may be on their way; those whose records are being made
    /// (`preparing`) count as well.
    pub(super) fn next(&self, preparing: usize, window: usize) -> Option<Next> {
        let mut inner = self.inner.lock();
        let flying = preparing + inner.flights.len();
        for priority in [Priority::Control, Priority::Later] {
            let is_turn = priority == Priority::Later && std::mem::take(&mut inner.modules_next);
            if let Some(message) = if is_turn { inner.next_of_module() } else { None } {
                return Some(Next::Plain(Box::new(message)));
            }
            inner.modules_next |= priority == Priority::Later;
            if let Some(message) = inner.next_plain(priority) {
                return Some(Next::Plain(Box::new(message)));
            }
            let room = priority == Priority::Control || inner.later_flying < later_window(window);
            if room
                && flying < window
                && let Some(flight) = inner.next_ready(priority)
            {
                return Some(Next::Object(flight));
            }
        }
        inner.next_of_module().map(|message| Next::Plain(Box::new(message)))
    }

    /// Takes an object if it is news to the edge. `known` looks up the record where the session knows nothing
    /// yet.
    pub(super) fn put(&self, offer: Offer, known: impl FnOnce(&Record) -> Known) -> Put {
        let version = offer.message.header.resource_version.as_ref().and_then(|version| version.number());
        if version.is_none() && !offer.gone {
            return Put::Stale;
        }
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let kept = inner.kept.get_mut(&offer.key);
        let is_unknown = kept.is_none();
        // An entry stays of what was only taken from this node.
        let may_be_gone = kept.as_ref().is_none_or(|kept| kept.withdrawn && kept.message.is_none());
        if may_be_gone && offer.is_deletion() && inner.gone.has(&offer.key) {
            return Put::Stale;
        }
        let needs_record = match needs_record(kept.as_deref(), &offer, version, known) {
            Some(needs_record) => needs_record && !offer.is_deletion(),
            None => return Put::Stale,
        };
        let (freed, size) = (kept.as_ref().map_or(0, |kept| kept.bytes), offer.message.size());
        let bytes = inner.kept_bytes.saturating_sub(freed) + size;
        if bytes > MAX_BYTES {
            return Put::Full;
        }
        inner.kept_bytes = bytes;
        let (key, priority) = (offer.key.clone(), offer.priority);
        let entry = match kept {
            Some(kept) => kept,
            None => inner.kept.entry(key.clone()).or_insert_with(|| Entry::new(&offer)),
        };
        let name = || offer.message.route.resource.clone();
        let left = (entry.is_leaving() && !offer.is_deletion()).then(name);
        if is_unknown {
            inner.gone.forget(&key);
        }
        if offer.is_deletion() {
            inner.leaving.entry(name()).or_insert_with(|| (key.clone(), VecDeque::new()));
        }
        entry.take(offer, version, needs_record, size);
        let queues = entry.queues();
        if let Some(name) = left {
            inner.left(&name, &key, &self.wake);
        }
        if queues {
            inner.ready.of(priority).push_back(key);
            self.wake.notify_one();
        }
        Put::Taken
    }

    /// The record of an object that this session has, or had, to do with.
    pub(super) fn record_of(&self, key: &Key) -> Option<Arc<Record>> {
        self.inner.lock().kept.get(key).map(|entry| entry.record.clone())
    }

    /// The objects that the edge has confirmed in this session and still has, of those whose record is
    /// wanted, and their versions.
    pub(super) fn confirmed(&self, wanted: impl Fn(&Record) -> bool) -> Vec<(Arc<Record>, u64)> {
        let inner = self.inner.lock();
        let settled = |entry: &&Entry| entry.message.is_none() && !entry.gone && !entry.withdrawn;
        let settled = inner.kept.values().filter(settled);
        let found = settled.filter_map(|entry| Some((entry, entry.version?)));
        found
            .filter(|(entry, _)| wanted(&entry.record))
            .map(|(entry, version)| (entry.record.clone(), version))
            .collect()
    }

    /// Does something about an object, and says what came of it, unless this session has, or had, to do with
    /// the object.
    pub(super) fn unless_known<T>(&self, key: &str, act: impl FnOnce() -> T) -> Option<T> {
        let inner = self.inner.lock();
        (!inner.kept.contains_key(&Key::from(key))).then(act)
    }

    /// The record of this object exists now.
    pub(super) fn record_made(&self, key: &Key) {
        if let Some(entry) = self.inner.lock().kept.get_mut(key) {
            entry.needs_record = false;
        }
    }

    /// An object is about to be written, with this how often; it is due again then if it is not confirmed.
    pub(super) fn flies(&self, flight: Flight, times: u32, due: Instant) {
        self.inner.lock().flights.begin(flight, times, due);
    }

    /// Whether an object is on its way.
    pub(super) fn is_flying(&self) -> bool {
        self.inner.lock().flights.len() > 0
    }

    /// The edge has answered this message; unknown and repeated confirmations are ignored.
    pub(super) fn acked(&self, message: &MessageId) {
        if self.inner.lock().flights.confirm(&Id::from(message.as_str())) {
            self.wake.notify_one();
        }
    }

    /// The objects that were confirmed, each to be [`landed`](Pool::landed).
    pub(super) fn take_acked(&self) -> Vec<Flight> {
        self.inner.lock().flights.take_confirmed()
    }

    /// The objects that were not confirmed in time, and how often they were written.
    pub(super) fn take_due(&self, now: Instant) -> Vec<(Flight, u32)> {
        self.inner.lock().flights.take_due(now)
    }

    /// Before this moment no object is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.inner.lock().flights.next_due()
    }

    /// Whether something newer than what is on its way waits for this key.
    pub(super) fn superseded(&self, flight: &Flight) -> bool {
        let inner = self.inner.lock();
        let kept = inner.kept.get(&flight.key);
        kept.is_some_and(|entry| entry.message.is_some() && entry.id != flight.id)
    }

    /// The flight is over and the confirmation recorded: forget the message, or queue the newer one.
    pub(super) fn landed(&self, flight: &Flight) {
        let mut inner = self.inner.lock();
        inner.has_room(flight.priority);
        let Some(entry) = inner.kept.get_mut(&flight.key) else { return };
        entry.flying = false;
        entry.failures = 0;
        let newest = entry.message.is_none() || entry.id == flight.id;
        if !newest {
            return inner.queue(&flight.key, &self.wake);
        }
        entry.message = None;
        let freed = std::mem::take(&mut entry.bytes);
        let gone = flight.message.route.operation == Operation::DELETE;
        let withdrawn = entry.withdrawn;
        if (gone && !withdrawn) || inner.kept.len() > MAX_REMEMBERED {
            inner.kept.remove(&flight.key);
        }
        inner.kept_bytes = inner.kept_bytes.saturating_sub(freed);
        if gone {
            if !flight.record.is_of_any() {
                inner.gone.add(flight.key.clone());
            }
            inner.left(&flight.message.route.resource, &flight.key, &self.wake);
        }
    }

    /// The flight failed. Returns how often in a row, for the pause before [`Pool::requeue`].
    pub(super) fn failed(&self, flight: &Flight) -> u32 {
        let mut inner = self.inner.lock();
        inner.has_room(flight.priority);
        let Some(entry) = inner.kept.get_mut(&flight.key) else { return 0 };
        entry.flying = false;
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Records that were still to be made when the session ended, and those of unconfirmed objects that are
    /// missing: they may have been removed since they were made. Without them nobody would know that the edge
    /// has not got these objects.
    pub(super) fn unrecorded(&self, is_missing: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let inner = self.inner.lock();
        let waiting = inner.kept.values().filter(|entry| {
            let unconfirmed = entry.message.is_some();
            unconfirmed && (entry.needs_record || (!entry.is_leaving() && is_missing(&entry.record)))
        });
        waiting.map(|entry| entry.record.clone()).collect()
    }

    /// Puts an object in line again, if there still is something to send.
    pub(super) fn requeue(&self, key: &Key) {
        self.inner.lock().queue(key, &self.wake);
    }
}

impl Inner {
    fn next_plain(&mut self, priority: Priority) -> Option<Message> {
        let message = self.plain.of(priority).pop_front()?;
        self.plain_bytes = self.plain_bytes.saturating_sub(message.size());
        Some(message)
    }

    fn next_of_module(&mut self) -> Option<Message> {
        let message = self.modules.pop_front()?;
        self.modules_bytes = self.modules_bytes.saturating_sub(message.size());
        Some(message)
    }

    fn next_ready(&mut self, priority: Priority) -> Option<Flight> {
        loop {
            let key = self.ready.of(priority).pop_front()?;
            let Some(entry) = self.kept.get_mut(&key) else { continue };
            let Some(message) = entry.message.clone() else {
                entry.queued = false;
                continue;
            };
            let leaving = self.leaving.get_mut(&message.route.resource);
            if let Some((_, waiting)) = leaving.filter(|(leaving, _)| *leaving != key) {
                waiting.push_back(key);
                continue;
            }
            entry.queued = false;
            entry.flying = true;
            let (record, needs_record) = (entry.record.clone(), entry.needs_record);
            let id = entry.id.clone();
            self.later_flying += usize::from(priority == Priority::Later);
            let withdraws = rules::withdraws(&message);
            return Some(Flight { key, id, message, record, needs_record, withdraws, priority });
        }
    }

    /// One of this priority is no longer on its way.
    fn has_room(&mut self, priority: Priority) {
        self.later_flying = self.later_flying.saturating_sub(usize::from(priority == Priority::Later));
    }

    /// The edge need no longer be told that this object of this name is gone: others of the name may follow,
    /// up to the next that is to go.
    fn left(&mut self, name: &Resource, gone: &Key, wake: &Notify) {
        let Some((leaving, waiting)) = self.leaving.get_mut(name).filter(|(leaving, _)| leaving == gone)
        else {
            return;
        };
        wake.notify_one();
        while let Some(key) = waiting.pop_front() {
            let Some(entry) = self.kept.get(&key) else { continue };
            self.ready.of(entry.priority).push_back(key.clone());
            if entry.is_leaving() {
                *leaving = key;
                return;
            }
        }
        self.leaving.remove(name);
    }

    fn queue(&mut self, key: &Key, wake: &Notify) {
        let Some(entry) = self.kept.get_mut(key) else { return };
        if entry.queues() {
            let priority = entry.priority;
            self.ready.of(priority).push_back(key.clone());
            wake.notify_one();
        }
    }
}

/// How many objects of the later priority may be on their way at once.
fn later_window(window: usize) -> usize {
    (window - window / 4).max(1)
}

#[cfg(test)]
mod tests;
