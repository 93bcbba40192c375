//! What waits for one session: messages sent once, and objects kept until the edge has confirmed them.
//!
//! Objects are kept under their UID, the newest message only. After the confirmation the message goes and its
//! version stays, so that an older one does not follow. An object made anew under the name of another waits until the
//! edge has confirmed that the other is gone: sent again later, that deletion would hit the wrong one. Nothing comes after
//! the deletion of an object but its return, where it was taken from this node only.
//! Both parts are bounded: a session whose plain messages do
//! not fit any more is ended (its edge does not read), an object that does not fit is left to the reconciliation.
//!
//! What is written next is chosen by lane (see [`Lane`]), and in a lane plain messages before objects. Objects of the later
//! lane leave a quarter of the window free, so that a pod need not wait until a device is confirmed.

use std::{collections::VecDeque, sync::Arc};

use foldhash::HashMap;
use kubeedge_core::{
    message::{Message, resource},
    name::{MessageId, Operation, Resource},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    id::Id,
    records::{Known, Record},
    rules::{self, Lane},
};

/// Plain messages that may wait for one session.
pub(super) const MAX_PLAIN: usize = 4096;
/// Bytes of content that may wait for one session, plain and kept each.
pub(super) const MAX_BYTES: usize = 32 << 20;
/// Objects of which a session remembers the confirmed version.
const MAX_REMEMBERED: usize = 20_000;

/// The key of an object on its way: its UID, or its path when it has none (Go uses the empty text there, so that
/// such messages overwrite each other).
pub(super) type Key = Id;

/// A message for the acknowledged part, with what decides its fate.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) key: Key,
    /// As it goes to the edge.
    message: Arc<Message>,
    lane: Lane,
    /// Deletion, or an object that is being deleted.
    gone: bool,
    pub(super) record: Arc<Record>,
}

impl Offer {
    pub(super) fn new(key: Key, message: Message, gone: bool, record: Arc<Record>) -> Self {
        let lane = rules::lane(&message);
        Self { key, message: Arc::new(for_the_wire(message)), lane, gone, record }
    }

    /// The object is gone; an object that only is being deleted is not.
    pub(super) fn is_deletion(&self) -> bool {
        self.message.route.operation == Operation::DELETE
    }
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// The edge has this version or a newer one, or is about to get it.
    Stale,
    /// No room; see the module's documentation.
    Full,
}

/// A message to write now, and its record.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) key: Key,
    /// The identity of the message.
    pub(super) id: Id,
    pub(super) message: Arc<Message>,
    pub(super) record: Arc<Record>,
    /// The record has to be made first.
    pub(super) needs_record: bool,
    /// The record must say first that the edge may no longer have the object, which is in the cluster all the same.
    pub(super) withdraws: bool,
    lane: Lane,
}

impl Flight {
    /// Whether something has to be written about it before it goes.
    pub(super) fn waits_for_record(&self) -> bool {
        // An answer is waited for; its record may follow.
        self.withdraws || (self.needs_record && self.message.route.operation != Operation::RESPONSE)
    }
}

/// What a session does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Write this once.
    Plain(Box<Message>),
    /// Write this until it is confirmed.
    Object(Flight),
}

#[derive(Debug)]
struct Entry {
    message: Option<Arc<Message>>,
    version: Option<u64>,
    gone: bool,
    /// Taken, or being taken, from this node; it may come back.
    withdrawn: bool,
    record: Arc<Record>,
    needs_record: bool,
    queued: bool,
    flying: bool,
    failures: u32,
    lane: Lane,
}

/// What waits in each lane.
#[derive(Debug)]
struct Lanes<T> {
    control: VecDeque<T>,
    later: VecDeque<T>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { control: VecDeque::new(), later: VecDeque::new() }
    }
}

impl<T> Lanes<T> {
    fn of(&mut self, lane: Lane) -> &mut VecDeque<T> {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Later => &mut self.later,
        }
    }

    fn len(&self) -> usize {
        self.control.len() + self.later.len()
    }
}

impl Entry {
    /// The edge is being told that the object is gone.
    fn is_leaving(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.route.operation == Operation::DELETE)
    }
}

#[derive(Debug, Default)]
struct Inner {
    plain: Lanes<Message>,
    plain_bytes: usize,
    kept: HashMap<Key, Entry>,
    kept_bytes: usize,
    ready: Lanes<Key>,
    /// Objects of the later lane on their way.
    later_flying: usize,
    /// The objects of the messages on their way.
    flights: HashMap<Id, Key>,
    /// Objects that were confirmed, and by which message.
    acked: VecDeque<(Key, Id)>,
    /// Deletions not confirmed yet: the name, the object that is to go, and the objects of that name that wait for it.
    leaving: HashMap<Resource, (Key, VecDeque<Key>)>,
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
        let (lane, message) = (rules::lane(&message), for_the_wire(message));
        let mut inner = self.inner.lock();
        let size = message.size();
        if inner.plain.len() >= MAX_PLAIN || inner.plain_bytes + size > MAX_BYTES {
            return Put::Full;
        }
        inner.plain_bytes += size;
        inner.plain.of(lane).push_back(message);
        self.wake.notify_one();
        Put::Taken
    }

    /// What is to be written next while `flying` of at most `window` objects are on their way.
    pub(super) fn next(&self, flying: usize, window: usize) -> Option<Next> {
        let mut inner = self.inner.lock();
        for lane in [Lane::Control, Lane::Later] {
            if let Some(message) = inner.next_plain(lane) {
                return Some(Next::Plain(Box::new(message)));
            }
            let room = lane == Lane::Control || inner.later_flying < later_window(window);
            if room
                && flying < window
                && let Some(flight) = inner.next_ready(lane)
            {
                return Some(Next::Object(flight));
            }
        }
        None
    }

    /// Takes an object if it is news to the edge. `known` looks up the record where the session knows nothing yet.
    pub(super) fn put(&self, offer: Offer, known: impl FnOnce(&Record) -> Known) -> Put {
        let version = offer.message.header.resource_version.as_ref().and_then(|version| version.number());
        let forced = offer.gone || offer.message.route.operation == Operation::RESPONSE;
        if version.is_none() && !offer.gone {
            return Put::Stale;
        }
        let mut inner = self.inner.lock();
        let needs_record = match inner.kept.get(&offer.key) {
            Some(kept) if kept.withdrawn && rules::returns(&offer.message) => true,
            Some(kept) if kept.withdrawn && !offer.is_deletion() => return Put::Stale,
            // Nothing comes after the end. Go lets an answer take the place of the deletion, which is lost then.
            Some(kept) if kept.is_leaving() => return Put::Stale,
            Some(kept) if !forced && (kept.gone || version <= kept.version) => return Put::Stale,
            Some(kept) => kept.needs_record,
            None => match known(&offer.record) {
                Known::At(confirmed) if !forced && version <= confirmed.number() => return Put::Stale,
                // An object that is being deleted gets its record like any other, or its edge might never hear of it.
                Known::Missing => true,
                // Go drops what has a record without a version, and never sends it if the version was never written.
                Known::Unversioned | Known::At(_) => false,
            },
        };
        let needs_record = needs_record && !offer.is_deletion();
        inner.keep(offer, version, needs_record, &self.wake)
    }

    /// The record of an object that this session has, or had, to do with.
    pub(super) fn record_of(&self, key: &Key) -> Option<Arc<Record>> {
        self.inner.lock().kept.get(key).map(|entry| entry.record.clone())
    }

    /// The objects that the edge has confirmed in this session and still has, of those whose record is wanted, and their
    /// versions.
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

    /// Does something about an object, and says what came of it, unless this session has, or had, to do with the object.
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

    /// The edge has answered this message; unknown and repeated confirmations are ignored.
    pub(super) fn acked(&self, message: &MessageId) {
        let id = Id::from(message.as_str());
        let mut inner = self.inner.lock();
        if let Some(key) = inner.flights.remove(&id) {
            inner.acked.push_back((key, id));
            self.wake.notify_one();
        }
    }

    /// The next object that was confirmed, and the message that was: another may be on its way by now.
    pub(super) fn next_acked(&self) -> Option<(Key, Id)> {
        self.inner.lock().acked.pop_front()
    }

    /// Whether something newer than what is on its way waits for this key.
    pub(super) fn superseded(&self, flight: &Flight) -> bool {
        let inner = self.inner.lock();
        let newest = inner.kept.get(&flight.key).and_then(|entry| entry.message.as_ref());
        newest.is_some_and(|newest| newest.header.id != flight.message.header.id)
    }

    /// The flight is over and the confirmation recorded: forget the message, or queue the newer one.
    pub(super) fn landed(&self, flight: &Flight) {
        let mut inner = self.inner.lock();
        // Its confirmation has taken it out of the flights.
        inner.has_room(flight.lane);
        let Some(entry) = inner.kept.get_mut(&flight.key) else { return };
        entry.flying = false;
        entry.failures = 0;
        let newest =
            entry.message.as_ref().is_none_or(|message| message.header.id == flight.message.header.id);
        if !newest {
            return inner.queue(&flight.key, &self.wake);
        }
        let freed = entry.message.take().map_or(0, |message| message.size());
        let gone = flight.message.route.operation == Operation::DELETE;
        let withdrawn = entry.withdrawn;
        if (gone && !withdrawn) || inner.kept.len() > MAX_REMEMBERED {
            inner.kept.remove(&flight.key);
        }
        inner.kept_bytes = inner.kept_bytes.saturating_sub(freed);
        if gone {
            inner.left(&flight.message.route.resource, &self.wake);
        }
    }

    /// The flight failed. Returns how often in a row, for the pause before [`Pool::requeue`].
    pub(super) fn failed(&self, flight: &Flight) -> u32 {
        let mut inner = self.inner.lock();
        inner.ended(flight);
        let Some(entry) = inner.kept.get_mut(&flight.key) else { return 0 };
        entry.flying = false;
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Records that were still to be made when the session ended. Without them nobody would know that the edge has not
    /// got these objects.
    pub(super) fn unrecorded(&self) -> Vec<Arc<Record>> {
        let inner = self.inner.lock();
        let waiting = inner.kept.values().filter(|entry| entry.needs_record && entry.message.is_some());
        waiting.map(|entry| entry.record.clone()).collect()
    }

    /// Puts an object in line again, if there still is something to send.
    pub(super) fn requeue(&self, key: &Key) {
        self.inner.lock().queue(key, &self.wake);
    }
}

impl Inner {
    fn next_plain(&mut self, lane: Lane) -> Option<Message> {
        let message = self.plain.of(lane).pop_front()?;
        self.plain_bytes = self.plain_bytes.saturating_sub(message.size());
        Some(message)
    }

    fn next_ready(&mut self, lane: Lane) -> Option<Flight> {
        loop {
            let key = self.ready.of(lane).pop_front()?;
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
            let id = Id::from(message.header.id.as_str());
            self.flights.insert(id.clone(), key.clone());
            self.later_flying += usize::from(lane == Lane::Later);
            let withdraws = rules::withdraws(&message);
            return Some(Flight { key, id, message, record, needs_record, withdraws, lane });
        }
    }

    fn ended(&mut self, flight: &Flight) {
        self.flights.remove(&flight.id);
        self.has_room(flight.lane);
    }

    /// One of this lane is no longer on its way.
    fn has_room(&mut self, lane: Lane) {
        self.later_flying = self.later_flying.saturating_sub(usize::from(lane == Lane::Later));
    }

    /// The edge need no longer be told that the object of this name is gone: others of the name may follow.
    fn left(&mut self, name: &Resource, wake: &Notify) {
        let Some((_, waiting)) = self.leaving.remove(name) else { return };
        for key in waiting {
            let Some(lane) = self.kept.get(&key).map(|entry| entry.lane) else { continue };
            self.ready.of(lane).push_back(key);
        }
        wake.notify_one();
    }

    fn keep(&mut self, offer: Offer, version: Option<u64>, needs_record: bool, wake: &Notify) -> Put {
        let earlier = self.kept.get(&offer.key);
        let freed = earlier.and_then(|entry| entry.message.as_ref()).map_or(0, |message| message.size());
        let bytes = self.kept_bytes.saturating_sub(freed) + offer.message.size();
        if bytes > MAX_BYTES {
            return Put::Full;
        }
        let (queued, flying, failures) =
            earlier.map_or((false, false, 0), |entry| (entry.queued, entry.flying, entry.failures));
        let returns = earlier.is_some_and(Entry::is_leaving) && !offer.is_deletion();
        self.kept_bytes = bytes;
        let Offer { key, message, lane, gone, record } = offer;
        if message.route.operation == Operation::DELETE {
            let leaving = || (key.clone(), VecDeque::new());
            self.leaving.entry(message.route.resource.clone()).or_insert_with(leaving);
        } else if returns {
            self.left(&message.route.resource, wake);
        }
        let withdrawn = rules::withdraws(&message);
        let message = Some(message);
        let entry =
            Entry { message, version, gone, withdrawn, record, needs_record, queued, flying, failures, lane };
        self.kept.insert(key.clone(), entry);
        self.queue(&key, wake);
        Put::Taken
    }

    fn queue(&mut self, key: &Key, wake: &Notify) {
        let Some(entry) = self.kept.get_mut(key) else { return };
        if entry.message.is_some() && !entry.queued && !entry.flying {
            entry.queued = true;
            let lane = entry.lane;
            self.ready.of(lane).push_back(key.clone());
            wake.notify_one();
        }
    }
}

/// The message as it is written: without the node in its resource, and without what means something in one process only.
fn for_the_wire(mut message: Message) -> Message {
    message.route.resource = resource::trimmed(&message.route.resource);
    message.header.sync = false;
    message
}

/// How many objects of the later lane may be on their way at once.
fn later_window(window: usize) -> usize {
    (window - window / 4).max(1)
}

#[cfg(test)]
mod tests;
