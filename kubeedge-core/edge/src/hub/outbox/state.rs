//! The state of the outbox: what waits, what is on its way, and the rules by which the one becomes the other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kubeedge_core::{
    message::Message,
    name::{MessageId, Resource},
    transport::Lane,
};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    kind::{Kind, Proof, Room, Row},
    shelf::{self, Shelf},
    waiter::Waiter,
};
use crate::{
    queue::{MOST, MOST_BYTES},
    refusals::Refusals,
};

/// Whose uploads are those of programs on the node: what EventBus calls itself in them, as Go's does.
const PROGRAMS: &str = "bus";

/// How many requests may wait for their answers.
const MOST_REQUESTS: usize = 4096;

const NOT_CONNECTED: &str = "not connected to the cloud, the request was not sent";
pub(super) const LOST: &str = "the connection to the cloud was lost before the answer came";
const CROWDED: &str = "too much waits for the cloud, the message was not taken";
const SUPERSEDED: &str = "a newer status of the same object takes its place";

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::hub) struct Bounds {
    pub(in crate::hub) uploads: usize,
    pub(in crate::hub) upload_bytes: usize,
}

impl Bounds {
    fn of(self, room: Room) -> (usize, usize) {
        match room {
            Room::Uploads => (self.uploads, self.upload_bytes),
            Room::Control | Room::Twins | Room::Events => (MOST, MOST_BYTES),
        }
    }
}

/// A message that was taken, and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) message: Message,
    pub(super) kind: Kind,
    /// Where it is stored, if it is to be.
    pub(super) row: Option<String>,
}

/// What takes room.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        (self.count, self.bytes) = (self.count + 1, self.bytes + bytes);
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) up: bool,
    /// Whether there is a store.
    stores: bool,
    lanes: [VecDeque<Item>; 3],
    loads: [Load; 4],
    pub(super) waiters: HashMap<MessageId, Waiter>,
    /// Those who wait until their upload can be lost no more.
    entrusted: HashMap<MessageId, Waiter>,
    /// The newest status of each object, by its id.
    newest: HashMap<Resource, MessageId>,
    /// What is being written.
    flying: Option<Item>,
    /// Whether the cloud was quicker to answer it than we are to know that it is out.
    answered_in_flight: bool,
    /// Written on this link and not yet known to be with the cloud, by number; each is sent again if the link
    /// breaks.
    unproved: BTreeMap<u64, Item>,
    /// The numbers of statuses among them.
    statuses: HashMap<MessageId, u64>,
    /// How many of them wait for a sign of life.
    pub(super) alive_wanted: usize,
    /// How many messages were written, on all links.
    pub(super) count: u64,
    /// Since when the cloud, having been asked, has said nothing at all.
    pub(super) unheard: Option<Instant>,
    /// When the last sign of life came.
    pub(super) alive: Option<Instant>,
    pub(super) refused: u64,
    /// Uploads of programs on the node among them, of which these are to be told.
    pub(super) refusals: Refusals,
    refused_in_a_row: u64,
    /// The number of the last message that is stored one by one.
    pub(super) place: u64,
    pub(super) shelf: Shelf,
}

impl State {
    pub(super) fn new(stores: bool) -> Self {
        Self { stores, ..Self::default() }
    }

    pub(super) fn lane(&mut self, lane: Lane) -> &mut VecDeque<Item> {
        let [control, twins, bulk] = &mut self.lanes;
        match lane {
            Lane::Control => control,
            Lane::Twins => twins,
            Lane::Bulk => bulk,
        }
    }

    fn load(&mut self, room: Room) -> &mut Load {
        let [control, twins, events, uploads] = &mut self.loads;
        match room {
            Room::Control => control,
            Room::Twins => twins,
            Room::Events => events,
            Room::Uploads => uploads,
        }
    }

    pub(super) fn is_full(&mut self, room: Room, bounds: Bounds) -> bool {
        let (most, most_bytes) = bounds.of(room);
        let load = self.load(room);
        load.count >= most || load.bytes >= most_bytes
    }

    /// Takes room for a message. One always fits, however large.
    pub(super) fn enter(&mut self, item: &Item, bounds: Bounds) -> bool {
        let (most, most_bytes) = bounds.of(item.kind.room);
        let (load, size) = (self.load(item.kind.room), item.message.size());
        let fits = load.count < most && load.bytes.saturating_add(size) <= most_bytes;
        let fits = fits || load.count == 0;
        if fits {
            load.add(size);
        }
        fits
    }

    fn leave(&mut self, item: &Item) {
        let load = self.load(item.kind.room);
        load.count = load.count.saturating_sub(1);
        load.bytes = load.bytes.saturating_sub(item.message.size());
    }

    /// The next message by rank of the lanes that are open. A request nobody waits for any more is not sent.
    fn take(&mut self, mut open: impl FnMut(Lane) -> bool) -> Option<Item> {
        for lane in Lane::ALL.into_iter().filter(|lane| open(*lane)) {
            while let Some(item) = self.lane(lane).pop_front() {
                let waiter = self.waiters.get(&item.message.header.id);
                let waits = waiter.is_some_and(|waiter| !waiter.reply.is_closed());
                if item.kind.proof != Proof::Asker || waits {
                    return Some(item);
                }
                self.leave(&item);
            }
        }
        None
    }

    /// The next message by rank of the lanes that are open, and its lane; it is being written from now on.
    pub(super) fn fly(&mut self, open: impl FnMut(Lane) -> bool) -> Option<(Lane, Message)> {
        let item = self.take(open)?;
        let next = (item.kind.lane, item.message.clone());
        (self.flying, self.answered_in_flight) = (Some(item), false);
        Some(next)
    }

    /// What is being written is out, or can never be written.
    pub(super) fn landed(&mut self, unwritable: Option<&str>) {
        let Some(item) = self.flying.take() else { return };
        let Some(why) = unwritable else { return self.written(item) };
        if !self.fail(&item.message.header.id, why) {
            self.refused += 1;
        }
        self.done(&item);
    }

    /// The cloud has this message, or nobody wants it to have it any more.
    pub(super) fn done(&mut self, item: &Item) {
        self.leave(item);
        self.safe(&item.message.header.id);
        match item.kind.row {
            Row::None => {}
            Row::Each => item.row.iter().for_each(|row| self.shelf.forget(row)),
            Row::Newest if self.is_newest(item) => {
                self.newest.remove(&item.message.route.resource);
                item.row.iter().for_each(|row| self.shelf.forget(row));
            }
            Row::Newest => {}
        }
    }

    fn is_newest(&self, item: &Item) -> bool {
        self.newest.get(&item.message.route.resource) == Some(&item.message.header.id)
    }

    /// Notes who waits for the answer, or until an upload can be lost no more; says whether the message is to
    /// be sent.
    pub(super) fn admit(&mut self, message: &Message, kind: Kind, reply: oneshot::Sender<Message>) -> bool {
        let waiter = Waiter::of(message, reply);
        if kind.row == Row::Each {
            self.entrusted.insert(message.header.id.clone(), waiter);
            return true;
        }
        let kept = kind.row == Row::Newest;
        if !self.up {
            waiter.fail(NOT_CONNECTED);
            return kept;
        }
        if self.waiters.len() >= MOST_REQUESTS {
            waiter.fail(CROWDED);
            return kept;
        }
        self.waiters.insert(message.header.id.clone(), waiter);
        true
    }

    /// This message is stored, or with the cloud.
    pub(super) fn safe(&mut self, message: &MessageId) {
        if let Some(waiter) = self.entrusted.remove(message) {
            waiter.succeed();
        }
    }

    pub(super) fn fail(&mut self, message: &MessageId, why: &str) -> bool {
        let waiter = self.waiters.remove(message).or_else(|| self.entrusted.remove(message));
        waiter.map(|waiter| waiter.fail(why)).is_some()
    }

    /// Puts a status in the place of one of the same object that still waits; gives it back when none does.
    pub(super) fn supersede(&mut self, item: Item) -> Option<Item> {
        let resource = item.message.route.resource.clone();
        let Some(earlier) = self.newest.get(&resource).cloned() else { return Some(item) };
        let waits = |waiting: &&mut Item| waiting.message.header.id == earlier;
        let Some(waiting) = self.lane(item.kind.lane).iter_mut().find(waits) else { return Some(item) };
        let old = std::mem::replace(waiting, item.clone());
        let same = old.message.content == item.message.content;
        let (freed, size) = (old.message.size(), item.message.size());
        let load = self.load(item.kind.room);
        load.bytes = load.bytes.saturating_sub(freed) + size;
        if earlier != item.message.header.id {
            self.fail(&earlier, SUPERSEDED);
            self.newest.insert(resource, item.message.header.id.clone());
        }
        if !same {
            self.keep(&item);
        }
        None
    }

    pub(super) fn keep(&mut self, item: &Item) {
        let Some(row) = &item.row else { return };
        let rest = match () {
            () if !self.up => Duration::ZERO,
            () if self.entrusted.contains_key(&item.message.header.id) => shelf::SHORT_REST,
            () => shelf::REST,
        };
        self.shelf.keep(row.clone(), item.message.clone(), rest);
    }

    /// Will store a message of a module: at once where there is no link, which may last.
    pub(super) fn keep_row(&mut self, row: String, message: Message) {
        let rest = if self.up { shelf::SHORT_REST } else { Duration::ZERO };
        self.shelf.keep(row, message, rest);
    }

    pub(super) fn row(&mut self, message: &Message, kind: Kind) -> Option<String> {
        match kind.row {
            _ if !self.stores => None,
            Row::None => None,
            Row::Newest => Some(shelf::key_of_newest(&message.route.resource)),
            Row::Each => {
                self.place += 1;
                Some(shelf::key_of_each(self.place))
            }
        }
    }

    pub(super) fn refuse(&mut self, item: &Item) {
        let told = self.fail(&item.message.header.id, CROWDED);
        let of_program = item.kind.room == Room::Uploads && item.message.route.source == PROGRAMS;
        if told && !of_program {
            return;
        }
        self.refused += 1;
        self.refused_in_a_row += 1;
        if of_program {
            self.refusals.note(item.message.route.resource.as_str());
        }
        // The first of a row is told, then every thousandth.
        if self.refused_in_a_row % 1000 == 1 {
            tracing::warn!(
                what = ?item.kind.room, resource = %item.message.route.resource, refused = self.refused_in_a_row,
                "more waits for the cloud than may, messages dropped"
            );
        }
    }

    /// Takes in what an earlier process left. It was taken once and is not refused now, whatever the bounds
    /// are.
    pub(super) fn restore(&mut self, message: Message, row: String) {
        let kind = Kind::of(&message, false);
        self.load(kind.room).add(message.size());
        self.is_the_newest(&message, kind);
        self.lane(kind.lane).push_back(Item { message, kind, row: Some(row) });
    }

    /// Puts a message at the end of its lane.
    pub(super) fn push(&mut self, item: Item) {
        self.is_the_newest(&item.message, item.kind);
        self.keep(&item);
        self.lane(item.kind.lane).push_back(item);
    }

    fn is_the_newest(&mut self, message: &Message, kind: Kind) {
        if kind.row == Row::Newest {
            self.newest.insert(message.route.resource.clone(), message.header.id.clone());
        }
    }

    fn written(&mut self, item: Item) {
        self.count += 1;
        let (number, id) = (self.count, item.message.header.id.clone());
        if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.written = Some((number, item.kind.lane));
            // Twins of devices the cloud does not know are never answered.
            if item.kind.lane == Lane::Control {
                self.unheard.get_or_insert_with(Instant::now);
            }
        }
        match item.kind.proof {
            _ if self.answered_in_flight => self.done(&item),
            Proof::Asker | Proof::Writing => self.done(&item),
            Proof::Life => {
                self.alive_wanted += 1;
                self.unproved.insert(number, item);
            }
            Proof::Answer => {
                self.statuses.insert(id, number);
                self.unproved.insert(number, item);
            }
        }
        if Lane::ALL.into_iter().all(|lane| self.lane(lane).is_empty()) {
            self.refused_in_a_row = 0;
        }
    }

    /// The cloud has answered this message, and so has read what went before it. Returns who waits for the
    /// answer.
    pub(super) fn answered(&mut self, question: &MessageId) -> Option<Waiter> {
        let waiter = self.waiters.remove(question);
        let status = self.statuses.remove(question);
        let flying = self.flying.as_ref().map(|item| &item.message.header.id);
        self.answered_in_flight |= flying == Some(question);
        if let Some(item) = status.and_then(|number| self.unproved.remove(&number)) {
            self.done(&item);
        }
        let status = status.map(|number| (number, Lane::Control));
        if let Some((number, lane)) = status.or_else(|| waiter.as_ref()?.written) {
            self.prove(number, Some(lane));
        }
        waiter
    }

    /// The cloud has read what was written up to this number, in one lane or in all. Of statuses the newest
    /// stay until they are answered.
    pub(super) fn prove(&mut self, through: u64, lane: Option<Lane>) {
        let later = self.unproved.split_off(&through.saturating_add(1));
        for (number, item) in std::mem::replace(&mut self.unproved, later) {
            match item.kind.proof {
                _ if lane.is_some_and(|lane| lane != item.kind.lane) => {
                    self.unproved.insert(number, item);
                }
                Proof::Answer if self.is_newest(&item) => drop(self.unproved.insert(number, item)),
                Proof::Answer => {
                    self.statuses.remove(&item.message.header.id);
                    self.done(&item);
                }
                _ => {
                    self.alive_wanted = self.alive_wanted.saturating_sub(1);
                    self.done(&item);
                }
            }
        }
    }

    /// Puts back what is not known to be with the cloud: the earliest first, and before what waits.
    pub(super) fn bring_back(&mut self) {
        let flying = self.flying.take();
        let (had, flying) = if self.answered_in_flight { (flying, None) } else { (None, flying) };
        had.iter().for_each(|item| self.done(item));
        self.statuses.clear();
        self.alive_wanted = 0;
        let unproved = std::mem::take(&mut self.unproved).into_values().chain(flying);
        for item in unproved.collect::<Vec<_>>().into_iter().rev() {
            if item.kind.proof == Proof::Asker || (item.kind.row == Row::Newest && !self.is_newest(&item)) {
                self.done(&item);
            } else {
                self.lane(item.kind.lane).push_front(item);
            }
        }
    }

    /// Forgets requests that wait to be written.
    pub(super) fn drop_requests(&mut self) {
        for lane in Lane::ALL {
            let all = std::mem::take(self.lane(lane)).into_iter();
            let (gone, kept): (VecDeque<_>, _) = all.partition(|item| item.kind.proof == Proof::Asker);
            *self.lane(lane) = kept;
            gone.iter().for_each(|item| self.leave(item));
        }
    }
}
