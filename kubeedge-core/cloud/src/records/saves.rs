//! Confirmations that wait to be saved: the newest of each record, and of each record one in a while, so that
//! an object that changes quickly costs one write now and then, and not one for each version. What is not
//! saved when this process dies is sent to its edge once more.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::HashMap;
use kubeedge_core::name::ResourceVersion;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{Record, RecordName};

/// How many records may wait.
const MOST: usize = 100_000;
/// How long a record rests that was saved; four times as long each time that its object did not rest
/// meanwhile, up to the longest.
const REST: Duration = Duration::from_secs(2);
const LONGER: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(32);
/// While an object changes at least so often, its record rests on and is not saved: what would be saved is
/// old before it is stored. Once in a while it is all the same.
const CHANGING: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(100);

/// What an edge has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confirmed {
    /// It has this version of the object.
    At(ResourceVersion),
    /// The object is gone there.
    Gone,
    /// An edge that was asked has this version, which its record does not say. Gives way to what is
    /// confirmed.
    Corrected {
        /// What the record is to say.
        to: ResourceVersion,
        /// The record's own version when it was looked at; `None` when there was none.
        at: Option<ResourceVersion>,
    },
}

/// What is being done about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It is being saved, and rests so long then; with `at_once`, unless something waits by then.
    Saving {
        rest: Duration,
        at_once: bool,
    },
    Resting(Rest),
}

/// A record's rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until: Instant,
    long: Duration,
    /// When it was saved.
    since: Instant,
    /// When the newest confirmation came in the place of another.
    changed: Option<Instant>,
}

impl Rest {
    fn new(since: Instant, long: Duration) -> Self {
        Self { until: since + long, long, since, changed: None }
    }

    /// How long the next one is.
    fn next(self) -> Duration {
        self.long.saturating_mul(LONGER).min(LONGEST_REST)
    }

    /// As it goes on, if its object changes all the while.
    fn goes_on(self, now: Instant) -> Option<Self> {
        let changing = self.changed.is_some_and(|changed| now.duration_since(changed) < CHANGING);
        let on = Self { since: self.since, ..Self::new(now, self.next()) };
        (changing && on.since + LATEST > now).then_some(on)
    }
}

/// A record of which something waits to be saved, or about which something is being done. Where nothing is
/// being done, it is in line.
#[derive(Debug)]
struct Entry {
    newest: Option<Confirmed>,
    doing: Option<Doing>,
}

impl Entry {
    fn changed(&mut self, now: Instant) {
        if let Some(Doing::Resting(rest)) = &mut self.doing {
            rest.changed = Some(now);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<RecordName, Entry>,
    /// How many entries have something that waits, and how many are being saved.
    waiting: usize,
    saving: usize,
    /// Whose turn it is, and how long each is to rest then.
    line: VecDeque<(Arc<Record>, Duration)>,
    /// Those that rest, by the end of it.
    resting: BTreeMap<(Instant, u64), Arc<Record>>,
    rested: u64,
    /// Nobody rests any more.
    hurry: bool,
}

impl Inner {
    /// Takes what is to be saved in the place of what was, and gives the record a place in line if nothing is
    /// being done about it; false when there is no room.
    fn put(&mut self, record: &Arc<Record>, newest: Confirmed, now: Instant) -> bool {
        let full = self.waiting >= MOST;
        match self.entries.get_mut(&record.name) {
            // Said once more, it is no change.
            Some(entry) if entry.newest.as_ref() == Some(&newest) => {}
            Some(entry) if entry.newest.is_some() => {
                entry.newest = Some(newest);
                entry.changed(now);
            }
            _ if full => return false,
            Some(entry) => {
                entry.newest = Some(newest);
                self.waiting += 1;
            }
            None => {
                let entry = Entry { newest: Some(newest), doing: None };
                self.entries.insert(record.name.clone(), entry);
                self.waiting += 1;
                self.line.push_back((record.clone(), REST));
            }
        }
        true
    }

    /// Ends the rest of those who have rested.
    fn wake_rested(&mut self, now: Instant) {
        loop {
            let first = self.resting.first_entry().filter(|first| self.hurry || first.key().0 <= now);
            let Some(((until, _), record)) = first.map(|first| first.remove_entry()) else { return };
            // Otherwise its rest was cut short.
            let Some(rest) = self.rest_of(&record).filter(|rest| rest.until == until) else { continue };
            match rest.goes_on(now).filter(|_| !self.hurry) {
                Some(rest) => self.rest(&record, rest),
                None => self.end_rest(&record, rest.next()),
            }
        }
    }

    /// Ends a record's rest before its time, or the one to come; the next one is as long.
    fn cut_rest(&mut self, record: &Arc<Record>) {
        match self.entries.get_mut(&record.name).and_then(|entry| entry.doing.as_mut()) {
            Some(Doing::Saving { at_once, .. }) => *at_once = true,
            Some(Doing::Resting(rest)) => {
                let next = rest.long;
                self.end_rest(record, next);
            }
            None => {}
        }
    }

    fn rest(&mut self, record: &Arc<Record>, rest: Rest) {
        let Some(entry) = self.entries.get_mut(&record.name) else { return };
        entry.doing = Some(Doing::Resting(rest));
        self.rested += 1;
        self.resting.insert((rest.until, self.rested), record.clone());
    }

    fn end_rest(&mut self, record: &Arc<Record>, next: Duration) {
        let Some(entry) = self.entries.get_mut(&record.name) else { return };
        entry.doing = None;
        if entry.newest.is_some() {
            self.line.push_back((record.clone(), next));
        } else {
            self.entries.remove(&record.name);
        }
    }

    /// A record's rest, if it has one.
    fn rest_of(&self, record: &Record) -> Option<Rest> {
        match self.entries.get(&record.name)?.doing? {
            Doing::Resting(rest) => Some(rest),
            Doing::Saving { .. } => None,
        }
    }

    /// Whether something of a record waits, or is being saved.
    fn is_busy(&self, record: &Record) -> bool {
        self.entries
            .get(&record.name)
            .is_some_and(|entry| entry.newest.is_some() || matches!(entry.doing, Some(Doing::Saving { .. })))
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Saves {
    inner: Mutex<Inner>,
    wake: Notify,
    done: Notify,
}

impl Saves {
    /// Takes a confirmation of now in the place of an earlier one; false when there is no room.
    pub(super) fn put(&self, record: &Arc<Record>, confirmed: Confirmed, now: Instant) -> bool {
        let gone = confirmed == Confirmed::Gone;
        let mut inner = self.inner.lock();
        let before = inner.line.len();
        if !inner.put(record, confirmed, now) {
            return false;
        }
        // While the record is there, the edge is told again and again that the object is gone.
        if gone {
            inner.cut_rest(record);
        }
        if inner.line.len() > before {
            self.wake.notify_one();
        }
        true
    }

    /// Takes a correction, to be saved without a rest. Returns false when there is no room for it. Returns
    /// false, too, when a confirmation of the record waits or is being saved: this confirmation is then saved
    /// without a rest, and the correction is to be found out anew after it.
    pub(super) fn correct(&self, record: &Arc<Record>, correction: Confirmed) -> bool {
        let mut inner = self.inner.lock();
        let gives_way = inner.is_busy(record);
        if !gives_way && !inner.put(record, correction, Instant::now()) {
            return false;
        }
        inner.cut_rest(record);
        self.wake.notify_one();
        !gives_way
    }

    /// Saves what waits of this record without a rest; completes when nothing waits and nothing is being
    /// saved of it.
    pub(super) async fn at_once(&self, record: &Arc<Record>) {
        self.inner.lock().cut_rest(record);
        self.wake.notify_one();
        self.until(|inner| !inner.is_busy(record)).await;
    }

    /// Saves all that waits without a rest, from now on; completes when nothing waits and nothing is being
    /// saved.
    pub(super) async fn finish(&self) {
        self.inner.lock().hurry = true;
        self.wake.notify_one();
        self.until(|inner| (inner.waiting, inner.saving) == (0, 0)).await;
    }

    /// The next to save. Of one record one at a time, until [`Saves::done`].
    pub(super) fn take(&self) -> Option<(Arc<Record>, Confirmed)> {
        let mut inner = self.inner.lock();
        inner.wake_rested(Instant::now());
        let (record, rest) = inner.line.pop_front()?;
        let entry = inner.entries.get_mut(&record.name)?;
        entry.doing = Some(Doing::Saving { rest, at_once: false });
        let newest = entry.newest.take()?;
        inner.waiting -= 1;
        inner.saving += 1;
        Some((record, newest))
    }

    /// It is saved, or could not be.
    pub(super) fn done(&self, record: &Arc<Record>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.entries.get(&record.name) else { return };
        let Some(Doing::Saving { rest, at_once }) = entry.doing else { return };
        let at_once = at_once && entry.newest.is_some();
        inner.saving -= 1;
        inner.rest(record, Rest::new(Instant::now(), rest));
        if at_once {
            inner.cut_rest(record);
        }
        self.done.notify_waiters();
    }

    /// Completes when there may be something to take. For one waiter.
    pub(super) async fn changed(&self) {
        let rested = self.inner.lock().resting.first_key_value().map(|((until, _), _)| *until);
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep_until(rested.unwrap_or_else(Instant::now)), if rested.is_some() => {}
        }
    }

    async fn until(&self, is_so: impl Fn(&Inner) -> bool) {
        loop {
            let done = self.done.notified();
            if is_so(&self.inner.lock()) {
                return;
            }
            done.await;
        }
    }
}

#[cfg(test)]
mod tests;
