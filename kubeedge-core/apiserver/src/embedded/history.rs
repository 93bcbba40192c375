//! What has changed lately, for watchers.
//!
//! Each kind has a history of its own, as in a Kubernetes API server: whoever watches ConfigMaps is neither
//! woken by leases nor outrun by them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::Change;

/// How many changes a history holds.
const MOST: usize = 4096;
/// How long. Kubernetes forgets after as long, too.
const LONGEST: Duration = Duration::from_secs(300);

/// A watcher asked for changes that are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld;

/// The newest changes, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    changes: VecDeque<(Instant, Arc<Change>)>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    newest: watch::Sender<u64>,
}

impl History {
    /// Nothing since this version.
    pub(super) fn from(version: u64) -> Self {
        Self { changes: VecDeque::new(), forgotten: version, newest: watch::Sender::new(version) }
    }

    /// Takes a change; nobody is told yet.
    pub(super) fn take(&mut self, change: Arc<Change>) {
        let now = Instant::now();
        let is_old = |(at, _): &mut (Instant, Arc<Change>)| now.duration_since(*at) > LONGEST;
        while let Some((_, oldest)) = if self.changes.len() >= MOST {
            self.changes.pop_front()
        } else {
            self.changes.pop_front_if(is_old)
        } {
            self.forgotten = oldest.version;
        }
        self.changes.push_back((now, change));
    }

    /// Told of every new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Tells the newest version, if it is not told yet.
    pub(super) fn tell(&self) {
        let newest = self.changes.back().map_or(self.forgotten, |(_, change)| change.version);
        self.newest.send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }

    /// The changes after a version, at most `most`.
    pub(super) fn since(&self, version: u64, most: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        if version < self.forgotten {
            return Err(TooOld);
        }
        let from = self.changes.partition_point(|(_, change)| change.version <= version);
        Ok(self.changes.iter().skip(from).take(most).map(|(_, change)| change.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Happened, ObjectKey},
        *,
    };

    fn change(version: u64) -> Arc<Change> {
        let key = ObjectKey {
            group: String::new(),
            plural: "pods".to_owned(),
            namespace: "default".to_owned(),
            name: "web".to_owned(),
        };
        Change::new(version, key, Happened::Modified, Arc::default(), None).into()
    }

    #[tokio::test(start_paused = true)]
    async fn old_changes_are_forgotten_and_whoever_asks_for_them_is_told() {
        let mut history = History::from(10);
        assert_eq!(history.since(9, 1).unwrap_err(), TooOld);
        assert!(history.since(10, 1).unwrap().is_empty());
        (11..=20).for_each(|version| history.take(change(version)));
        tokio::time::advance(LONGEST * 2).await;
        assert_eq!(history.since(10, 100).unwrap().len(), 10, "nothing took their place");
        history.take(change(21));
        assert_eq!(history.since(19, 1).unwrap_err(), TooOld);
        let newest = history.since(20, 100).unwrap();
        assert_eq!(newest.iter().map(|change| change.version).collect::<Vec<_>>(), [21]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_is_bounded() {
        let mut history = History::from(0);
        (1..=2 * MOST as u64).for_each(|version| history.take(change(version)));
        assert_eq!(history.changes.len(), MOST);
        assert_eq!(history.since(MOST as u64, usize::MAX).unwrap().len(), MOST);
        assert_eq!(history.since(MOST as u64 - 1, 1).unwrap_err(), TooOld);
    }

    #[tokio::test]
    async fn a_listener_is_told_once_of_what_was_taken_together() {
        let mut history = History::from(0);
        let mut listener = history.subscribe();
        (1..=3).for_each(|version| history.take(change(version)));
        history.tell();
        history.tell();
        assert_eq!(*listener.borrow_and_update(), 3);
        assert!(!listener.has_changed().unwrap());
    }
}
