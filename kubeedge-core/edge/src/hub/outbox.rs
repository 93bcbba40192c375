//! What waits for the cloud, in lanes; who waits for its answers; and what is to be sent again. The rules by
//! kind of message stand in the documentation of [`super`].

mod kind;
mod modules;
mod shelf;
mod state;
mod waiter;

use std::sync::Arc;

use futures::TryStreamExt;
use kubeedge_common::log::Seldom;
use kubeedge_core::{
    backoff::Backoff,
    bus::{Bus, Envelope, Inbox},
    failure::chain,
    message::{Message, json},
    name::{ModuleName, NodeName},
    routes,
    store::{MetaStore, Scan, StoreError},
    transport::Lane,
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

pub(super) use self::state::Bounds;
use self::{
    kind::{Kind, Room, Row},
    modules::{ModuleMail, RowChange},
    state::{Item, LOST, State},
};
use crate::refusals;

/// The lane of what vendors' modules send.
const MODULES: Lane = Lane::Twins;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// What vendors' modules send. Never locked while the state is waited for.
    modules: Mutex<ModuleMail>,
    bounds: Bounds,
    store: Option<Arc<dyn MetaStore>>,
    more: Notify,
    room: Notify,
    wished: Notify,
    turned_away: Notify,
    undelivered: Notify,
}

impl Outbox {
    /// Nothing waits yet. Without a store everything is lost with the process.
    pub(super) fn new(bounds: Bounds, store: Option<Arc<dyn MetaStore>>) -> Self {
        let [more, room, wished, turned_away, undelivered] = [(); 5].map(|()| Notify::new());
        let state = Mutex::new(State::new(store.is_some()));
        let modules = Mutex::default();
        Self { state, modules, bounds, store, more, room, wished, turned_away, undelivered }
    }

    /// Takes in what an earlier process left in the store. To be called once, before anything else.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut rows = store.scan(Scan::new(shelf::BUCKET, ""));
        let mut found = 0_u64;
        while let Some(row) = rows.try_next().await? {
            let mut state = self.state.lock();
            state.place = state.place.max(shelf::place_of(&row.key.name).unwrap_or(0));
            state.shelf.found(row.key.name.clone());
            match json::decode(&row.value) {
                Ok(message) if self.modules.lock().restore(&row.key.name, &message) => found += 1,
                Ok(message) => {
                    state.restore(message, row.key.name);
                    found += 1;
                }
                Err(error) => {
                    tracing::error!(row = %row.key.name, %error, "a stored message cannot be read, dropped");
                    state.shelf.forget(&row.key.name);
                }
            }
        }
        if found > 0 {
            tracing::info!(messages = found, "found messages that the cloud has not got yet");
        }
        Ok(())
    }

    /// Moves messages from the mailbox into the lanes until the mailbox ends. While a working link has too
    /// much control traffic before it, the mailbox waits, and with it its senders; without a link nobody
    /// waits.
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
        state.up && state.is_full(Room::Control, self.bounds)
    }

    /// Takes a message of a module.
    pub(super) fn put(&self, envelope: Envelope) {
        let delivery = envelope.delivery();
        let (mut message, reply) = envelope.into_parts();
        message.header.sync = false;
        if routes::is_vendors(&message.route.group) {
            self.modules.lock().offer(message, delivery, reply);
            return self.settle_modules();
        }
        let kind = Kind::of(&message, reply.is_some());
        let mut state = self.state.lock();
        if let Some(reply) = reply
            && !state.admit(&message, kind, reply)
        {
            return;
        }
        let row = state.row(&message, kind);
        let mut item = Item { message, kind, row };
        if kind.row == Row::Newest {
            let Some(back) = state.supersede(item) else { return self.touched() };
            item = back;
        }
        if state.enter(&item, self.bounds) {
            state.push(item);
            self.touched();
        } else {
            state.refuse(&item);
            self.turned_away.notify_one();
        }
    }

    /// Has the store follow what is kept of modules' messages, and senders told what was not delivered.
    fn settle_modules(&self) {
        let (changes, reports) = {
            let mut modules = self.modules.lock();
            (modules.take_changes(), modules.has_reports())
        };
        if !changes.is_empty() && self.store.is_some() {
            let mut state = self.state.lock();
            for change in changes {
                match change {
                    RowChange::Keep(row, message) => state.keep_row(row, *message),
                    RowChange::Forget(row) => state.shelf.forget(&row),
                }
            }
        }
        if reports {
            self.undelivered.notify_one();
        }
        self.touched();
    }

    /// Tells modules which of their messages were not delivered; as long as it runs.
    pub(super) async fn tell_undelivered(self: Arc<Self>, bus: Bus) {
        let lines = Seldom::default();
        loop {
            self.undelivered.notified().await;
            let reports = self.modules.lock().take_reports();
            reports.into_iter().for_each(|report| report.report(&bus, "the cloud", &lines));
        }
    }

    /// Tells programs on the node, by way of EventBus, which of their uploads found no room; as long as it
    /// runs.
    pub(super) async fn tell_refusals(self: Arc<Self>, bus: Bus, node: NodeName) {
        loop {
            self.turned_away.notified().await;
            let said = self.state.lock().refusals.take("too much waits for the cloud");
            let Some(said) = said.filter(|_| bus.has(&ModuleName::EVENT_BUS)) else { continue };
            if let Err(error) = bus.send(&ModuleName::EVENT_BUS, refusals::to_publish(&node, &said)).await {
                tracing::warn!(%error, said, "nobody was told that uploads were refused");
            }
            tokio::time::sleep(refusals::TELL).await;
        }
    }

    fn touched(&self) {
        self.more.notify_one();
        self.wished.notify_one();
    }

    /// Completes when there may be something new to write. Cancel-safe; for one waiter.
    pub(super) async fn changed(&self) {
        self.more.notified().await;
    }

    /// The first lane in which something waits, of those that are open.
    pub(super) fn waits(&self, mut open: impl FnMut(Lane) -> bool) -> Option<Lane> {
        let modules = self.modules.lock().has_next();
        let mut state = self.state.lock();
        Lane::ALL
            .into_iter()
            .find(|lane| open(*lane) && (!state.lane(*lane).is_empty() || (*lane == MODULES && modules)))
    }

    /// The next message to write in a lane that is open, and its lane. It stays here until
    /// [`Outbox::written`].
    pub(super) fn try_next(&self, mut open: impl FnMut(Lane) -> bool) -> Option<(Lane, Message)> {
        let next = self.next_of_module(&mut open).or_else(|| self.state.lock().fly(open));
        self.room.notify_one();
        next
    }

    /// A message of a module where it is its turn: control goes first, and twins go in turn with it.
    fn next_of_module(&self, open: &mut impl FnMut(Lane) -> bool) -> Option<(Lane, Message)> {
        let waits = |lane| !self.state.lock().lane(lane).is_empty();
        if !open(MODULES) || (open(Lane::Control) && waits(Lane::Control)) {
            return None;
        }
        let others = waits(MODULES);
        let mut modules = self.modules.lock();
        let next = if modules.takes_turn(others) { modules.next() } else { None };
        next.map(|message| (MODULES, message))
    }

    /// The message being written is out.
    pub(super) fn written(&self) {
        if !self.modules.lock().written() {
            self.state.lock().landed(None);
        }
        self.wished.notify_one();
        self.room.notify_one();
    }

    /// The message being written can never be written.
    pub(super) fn unwritable(&self, why: &str) {
        if self.modules.lock().unwritable(why) {
            return self.settle_modules();
        }
        self.state.lock().landed(Some(why));
        self.wished.notify_one();
        self.room.notify_one();
    }

    /// How many messages were written, and how many of them wait for a sign of life.
    pub(super) fn progress(&self) -> (u64, usize) {
        let state = self.state.lock();
        (state.count, state.alive_wanted)
    }

    /// The cloud gave a sign of life after it read the message of this number.
    pub(super) fn prove(&self, through: u64) {
        self.state.lock().prove(through, None);
        self.room.notify_one();
        self.wished.notify_one();
    }

    /// Hands an answer to whoever waits for it; gives it back when nobody does.
    pub(super) fn claim(&self, answer: Message) -> Option<Message> {
        let unclaimed = self.modules.lock().claim(answer);
        let Some(answer) = unclaimed else {
            self.settle_modules();
            return None;
        };
        let Some(parent) = &answer.header.parent else { return Some(answer) };
        let waiter = self.state.lock().answered(parent);
        self.room.notify_one();
        self.wished.notify_one();
        match waiter {
            Some(waiter) => waiter.reply.send(answer).err(),
            None => Some(answer),
        }
    }

    /// The cloud said something.
    pub(super) fn heard(&self) {
        let mut state = self.state.lock();
        state.unheard = None;
        state.alive = Some(Instant::now());
    }

    /// The cloud's end of the link is there, which is not to say that the cloud answers.
    pub(super) fn alive(&self) {
        self.state.lock().alive = Some(Instant::now());
    }

    /// When the last sign of life came.
    pub(super) fn alive_since(&self) -> Instant {
        self.state.lock().alive.unwrap_or_else(Instant::now)
    }

    /// For how long the cloud has owed us any word.
    pub(super) fn unheard(&self) -> Duration {
        self.state.lock().unheard.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Forgets requests whose askers have gone, and sends again what modules of the cloud have not answered.
    /// A cloud that is not known to be ours may not confirm.
    pub(super) fn sweep(&self, is_ours: bool) {
        self.state.lock().waiters.retain(|_, waiter| !waiter.reply.is_closed());
        self.modules.lock().tick(is_ours);
        self.settle_modules();
    }

    /// How many messages were dropped for want of room since the start.
    pub(super) fn refused(&self) -> u64 {
        self.state.lock().refused
    }

    /// There is a link.
    pub(super) fn up(&self) {
        let mut state = self.state.lock();
        state.up = true;
        self.modules.lock().up();
        state.unheard = None;
        state.alive = Some(Instant::now());
    }

    /// There is no link: requests fail, other messages wait for the next one, first those that may not have
    /// arrived.
    pub(super) fn down(&self) {
        let mut state = self.state.lock();
        state.up = false;
        state.bring_back();
        state.drop_requests();
        std::mem::take(&mut state.waiters).into_values().for_each(|waiter| waiter.fail(LOST));
        state.shelf.hurry();
        drop(state);
        self.modules.lock().down();
        self.room.notify_one();
        self.settle_modules();
    }

    /// Stores what is to be stored, as long as it runs.
    pub(super) async fn put_away(&self, seed: u64) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30), seed);
        loop {
            let due = self.state.lock().shelf.due();
            let Some(due) = due.filter(|_| self.store.is_some()) else {
                self.wished.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.wished.notified() => continue,
            }
            match self.commit().await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "cannot store what waits for the cloud, trying again");
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Stores everything that is still to be stored.
    pub(super) async fn put_all_away(&self) -> Result<(), StoreError> {
        while self.store.is_some() && self.state.lock().shelf.due().is_some() {
            self.commit().await?;
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let Some(taken) = self.state.lock().shelf.take() else { return Ok(()) };
        store.commit(taken.batch.clone()).await?;
        let mut state = self.state.lock();
        for message in state.shelf.stored(taken) {
            state.safe(&message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
