//! Confirmations that wait to be saved: the newest of each record, and of each record one in a while, so that an object
//! that changes quickly costs one write now and then, and not one for each version. What is not saved when this process
//! dies is sent to its edge once more.

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
/// How long a record rests that was saved; four times as long each time that its object did not rest meanwhile, up to the
/// longest.
const REST: Duration = Duration::from_secs(2);
const LONGER: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(32);

/// What an edge has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Confirmed {
    /// It has this version of the object.
    At(ResourceVersion),
    /// The object is gone there.
    Gone,
    /// An edge that was asked has this version, which its record does not say. Gives way to what is confirmed.
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
    /// It is being saved, and rests so long then.
    Saving(Duration),
    /// It rests until this moment, so long in all.
    Resting(Instant, Duration),
}

/// A record of which something waits to be saved, or about which something is being done. Where nothing is being done, it
/// is in line.
#[derive(Debug)]
struct Entry {
    newest: Option<Confirmed>,
    doing: Option<Doing>,
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
    /// Takes what is to be saved in the place of what was, and gives the record a place in line if nothing is being done
    /// about it; false when there is no room.
    fn put(&mut self, record: &Arc<Record>, newest: Confirmed) -> bool {
        let full = self.waiting >= MOST;
        match self.entries.get_mut(&record.name) {
            Some(entry) if entry.newest.is_some() => entry.newest = Some(newest),
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
            if let Some((own, rest)) = self.rest_of(&record)
                && own == until
            {
                self.end_rest(&record, rest.saturating_mul(LONGER).min(LONGEST_REST));
            }
        }
    }

    /// Ends a record's rest before its time; the next one is as long.
    fn cut_rest(&mut self, record: &Arc<Record>) {
        if let Some((_, rest)) = self.rest_of(record) {
            self.end_rest(record, rest);
        }
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

    /// Until when a record rests, and how long in all.
    fn rest_of(&self, record: &Record) -> Option<(Instant, Duration)> {
        match self.entries.get(&record.name)?.doing? {
            Doing::Resting(until, rest) => Some((until, rest)),
            Doing::Saving(_) => None,
        }
    }

    /// Whether something of a record waits, or is being saved.
    fn is_busy(&self, record: &Record) -> bool {
        self.entries
            .get(&record.name)
            .is_some_and(|entry| entry.newest.is_some() || matches!(entry.doing, Some(Doing::Saving(_))))
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
    /// Takes a confirmation in the place of an earlier one; false when there is no room.
    pub(super) fn put(&self, record: &Arc<Record>, confirmed: Confirmed) -> bool {
        let gone = confirmed == Confirmed::Gone;
        let mut inner = self.inner.lock();
        let before = inner.line.len();
        if !inner.put(record, confirmed) {
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

    /// Takes a correction, to be saved without a rest; false when there is no room, or when a confirmation waits or is being
    /// saved, which then rests no longer: what it says must be looked at first.
    pub(super) fn correct(&self, record: &Arc<Record>, correction: Confirmed) -> bool {
        let mut inner = self.inner.lock();
        let gives_way = inner.is_busy(record);
        if !gives_way && !inner.put(record, correction) {
            return false;
        }
        inner.cut_rest(record);
        self.wake.notify_one();
        !gives_way
    }

    /// Saves what waits of this record without a rest; completes when nothing waits and nothing is being saved of it.
    pub(super) async fn at_once(&self, record: &Arc<Record>) {
        self.inner.lock().cut_rest(record);
        self.wake.notify_one();
        self.until(|inner| !inner.is_busy(record)).await;
    }

    /// Saves all that waits without a rest, from now on; completes when nothing waits and nothing is being saved.
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
        entry.doing = Some(Doing::Saving(rest));
        let newest = entry.newest.take()?;
        inner.waiting -= 1;
        inner.saving += 1;
        Some((record, newest))
    }

    /// It is saved, or could not be.
    pub(super) fn done(&self, record: &Arc<Record>) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.entries.get_mut(&record.name) else { return };
        let Some(Doing::Saving(rest)) = entry.doing else { return };
        let until = Instant::now() + rest;
        entry.doing = Some(Doing::Resting(until, rest));
        inner.saving -= 1;
        inner.rested += 1;
        let place = (until, inner.rested);
        inner.resting.insert(place, record.clone());
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
mod tests {
    use super::*;

    fn record(uid: &str) -> Arc<Record> {
        Arc::new(Record::new(&"n".into(), "default", uid))
    }

    fn at(version: &str) -> Confirmed {
        Confirmed::At(version.into())
    }

    async fn next(saves: &Saves) -> (Arc<Record>, Confirmed) {
        loop {
            match saves.take() {
                Some(next) => return next,
                None => saves.changed().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn versions_that_follow_each_other_quickly_are_saved_once_and_one_at_a_time() {
        let (saves, record) = (Saves::default(), record("u"));
        for version in ["1", "2", "3"] {
            assert!(saves.put(&record, at(version)));
        }
        assert_eq!(saves.take().unwrap().1, at("3"));
        assert!(saves.put(&record, at("4")) && saves.put(&record, at("5")));
        assert!(saves.take().is_none(), "the record is being saved");
        saves.done(&record);
        assert!(saves.take().is_none(), "the record rests");
        let begun = Instant::now();
        assert_eq!((next(&saves).await.1, begun.elapsed()), (at("5"), REST));
        saves.done(&record);
        assert!(saves.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_confirmed_goes_before_a_correction_whichever_came_first_and_neither_rests_then() {
        let (saves, record) = (Saves::default(), record("u"));
        let corrected = || Confirmed::Corrected { to: "0".into(), at: Some("77".into()) };
        assert!(saves.correct(&record, corrected()) && saves.put(&record, at("4")));
        assert_eq!(saves.take().unwrap().1, at("4"));
        assert!(!saves.correct(&record, corrected()), "it is being saved");
        saves.done(&record);
        saves.put(&record, at("5"));
        assert!(saves.take().is_none() && !saves.correct(&record, corrected()));
        assert_eq!(saves.take().unwrap().1, at("5"));
        saves.done(&record);
        assert!(saves.correct(&record, corrected()));
        assert_eq!(saves.take().unwrap().1, corrected());
    }

    #[tokio::test(start_paused = true)]
    async fn the_record_of_an_object_that_is_gone_goes_at_once() {
        let (saves, record) = (Saves::default(), record("u"));
        saves.put(&record, at("1"));
        saves.done(&saves.take().unwrap().0);
        saves.put(&record, at("2"));
        assert!(saves.take().is_none());
        saves.put(&record, Confirmed::Gone);
        assert_eq!(saves.take().unwrap().1, Confirmed::Gone);
        saves.done(&record);
        assert!(saves.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_rests_is_saved_ever_more_seldom_until_it_does() {
        let (saves, record) = (Saves::default(), record("u"));
        let mut rests = Vec::new();
        for _ in 0..5 {
            saves.put(&record, at("1"));
            let begun = Instant::now();
            saves.done(&next(&saves).await.0);
            rests.push(begun.elapsed().as_secs());
        }
        assert_eq!(rests, [0, 2, 8, 32, 32]);
        tokio::time::advance(LONGEST_REST).await;
        assert!(saves.take().is_none());
        saves.put(&record, at("2"));
        assert_eq!(saves.take().unwrap().1, at("2"), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_rested_leaves_nothing_behind() {
        let saves = Saves::default();
        for number in 0..1000 {
            assert!(saves.put(&record(&number.to_string()), at("1")));
            saves.done(&saves.take().unwrap().0);
        }
        tokio::time::advance(REST).await;
        assert!(saves.take().is_none());
        let inner = saves.inner.lock();
        assert!(inner.entries.is_empty() && inner.resting.is_empty() && inner.line.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_and_where_it_is_asked_for_nothing_rests() {
        let saves = Saves::default();
        let [one, other] = ["one", "other"].map(record);
        for record in [&one, &other] {
            saves.put(record, at("1"));
            saves.done(&saves.take().unwrap().0);
            saves.put(record, at("2"));
        }
        assert!(saves.take().is_none());
        tokio::join!(saves.at_once(&one), async {
            let (record, confirmed) = saves.take().unwrap();
            assert_eq!((&record, confirmed), (&one, at("2")));
            assert!(saves.take().is_none(), "the other rests");
            saves.done(&record);
        });
        tokio::join!(saves.finish(), async {
            let (record, confirmed) = saves.take().unwrap();
            assert_eq!((&record, confirmed), (&other, at("2")));
            saves.done(&record);
        });
    }
}
