//! Confirmations that wait to be saved: the newest of each record, so that an object that changes quickly costs one
//! write now and then, and not one for each version.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use kubeedge_core::name::ResourceVersion;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Record;

/// How many records may wait.
const MOST: usize = 100_000;

/// What an edge has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Confirmed {
    /// It has this version of the object.
    At(ResourceVersion),
    /// The object is gone there.
    Gone,
}

#[derive(Debug, Default)]
struct Inner {
    line: VecDeque<Arc<Record>>,
    /// By the name of the record.
    newest: HashMap<String, (Arc<Record>, Confirmed)>,
    busy: HashSet<String>,
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
        let mut inner = self.inner.lock();
        if let Some(waiting) = inner.newest.get_mut(&record.name) {
            waiting.1 = confirmed;
            return true;
        }
        if inner.newest.len() >= MOST {
            return false;
        }
        inner.newest.insert(record.name.clone(), (record.clone(), confirmed));
        if !inner.busy.contains(&record.name) {
            inner.line.push_back(record.clone());
            self.wake.notify_one();
        }
        true
    }

    /// The next to save. Of one record one at a time, until [`Saves::done`].
    pub(super) fn take(&self) -> Option<(Arc<Record>, Confirmed)> {
        let mut inner = self.inner.lock();
        let record = inner.line.pop_front()?;
        inner.busy.insert(record.name.clone());
        inner.newest.remove(&record.name)
    }

    /// It is saved, or could not be.
    pub(super) fn done(&self, record: &Arc<Record>) {
        let mut inner = self.inner.lock();
        inner.busy.remove(&record.name);
        if inner.newest.contains_key(&record.name) {
            inner.line.push_back(record.clone());
        }
        self.done.notify_waiters();
    }

    /// Completes when there may be something to take.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Completes when nothing waits and nothing is being saved.
    pub(super) async fn empty(&self) {
        self.until(|inner| inner.busy.is_empty() && inner.line.is_empty()).await;
    }

    /// Completes when nothing waits and nothing is being saved of this record.
    pub(super) async fn is_saved(&self, record: &Record) {
        self.until(|inner| !inner.busy.contains(&record.name) && !inner.newest.contains_key(&record.name))
            .await;
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

    #[test]
    fn versions_that_follow_each_other_quickly_are_saved_once_and_one_at_a_time() {
        let saves = Saves::default();
        let record = Arc::new(Record::new(&"n".into(), "default", "u"));
        let at = |version: &str| Confirmed::At(version.into());
        for version in ["1", "2", "3"] {
            assert!(saves.put(&record, at(version)));
        }
        assert_eq!(saves.take().unwrap().1, at("3"));
        assert!(saves.put(&record, at("4")) && saves.put(&record, Confirmed::Gone));
        assert!(saves.take().is_none(), "the record is being saved");
        saves.done(&record);
        assert_eq!(saves.take().unwrap().1, Confirmed::Gone);
        saves.done(&record);
        assert!(saves.take().is_none());
    }
}
