//! Writes that are decided and not stored yet. They are stored in groups, one commit each, so that many
//! writers wait for one disk together; nobody sees a change before it is stored.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use kubeedge_core::{
    failure::{Failure, chain},
    store::{Batch, Key, StoreError, StoreKind},
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{COUNTER, Change, Happened, ObjectKey, Shared, history::History, row};

/// How many changes are stored at once at most.
const GROUP: usize = 1024;

/// Told when a change is stored, or why it is not.
pub(super) type Done = oneshot::Receiver<Result<(), StoreError>>;

/// A change, or nothing but the wish to know when all before it is stored.
#[derive(Debug)]
struct Waiting {
    change: Option<Change>,
    key: ObjectKey,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// The writes in front of the store.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The newest version that was given out.
    pub(super) version: u64,
    /// Objects as they will be, and the version of that; `None` for what will be gone.
    pending: HashMap<ObjectKey, (u64, Option<Arc<Value>>)>,
    waiting: VecDeque<Waiting>,
    storing: bool,
}

impl Queue {
    /// An empty queue behind this version.
    pub(super) fn at(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// The object as it will be once all is stored; `None` when nothing about it waits.
    pub(super) fn pending(&self, key: &ObjectKey) -> Option<Option<Arc<Value>>> {
        self.pending.get(key).map(|(_, object)| object.clone())
    }

    /// Takes a place at the end.
    pub(super) fn join(&mut self, key: &ObjectKey, change: Option<Change>) -> Done {
        if let Some(change) = &change {
            self.version = change.version;
            let object = (change.happened != Happened::Deleted).then(|| change.object.clone());
            self.pending.insert(key.clone(), (change.version, object));
        }
        let (done, told) = oneshot::channel();
        self.waiting.push_back(Waiting { change, key: key.clone(), done });
        told
    }

    /// Whether somebody has to begin to store.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.storing, true)
    }

    fn next(&mut self) -> Vec<Waiting> {
        let group = self.waiting.len().min(GROUP);
        self.storing = group > 0;
        self.waiting.drain(..group).collect()
    }

    /// Forgets what has become of a key at this version, unless something newer waits.
    fn settle(&mut self, key: &ObjectKey, version: u64) {
        if self.pending.get(key).is_some_and(|(pending, _)| *pending <= version) {
            self.pending.remove(key);
        }
    }

    /// What is built on a change that was not stored falls with it.
    fn fell(&mut self, key: &ObjectKey, error: &StoreError) {
        self.pending.remove(key);
        fell_with(&mut self.waiting, key, error);
    }
}

/// Stores what waits, group by group, until nothing does.
pub(super) async fn store(shared: Arc<Shared>) {
    loop {
        let group = shared.queue.lock().next();
        if group.is_empty() {
            return;
        }
        match shared.store.commit(batch(&group)).await {
            Ok(()) => publish(&shared, group),
            // One alone may be at fault.
            Err(_) if group.len() > 1 => one_by_one(&shared, group).await,
            Err(error) => give_up(&shared, group, &error),
        }
    }
}

async fn one_by_one(shared: &Shared, group: Vec<Waiting>) {
    let mut group = VecDeque::from(group);
    while let Some(waiting) = group.pop_front() {
        let one = vec![waiting];
        match shared.store.commit(batch(&one)).await {
            Ok(()) => publish(shared, one),
            Err(error) => {
                let key = one.first().map(|waiting| waiting.key.clone());
                give_up(shared, one, &error);
                if let Some(key) = key {
                    fell_with(&mut group, &key, &error);
                }
            }
        }
    }
}

/// Tells those who wait for changes of a key that they are not stored.
fn fell_with(queue: &mut VecDeque<Waiting>, key: &ObjectKey, error: &StoreError) {
    for waiting in std::mem::take(queue) {
        if waiting.key == *key {
            tell(waiting.done, Err(copy(error)));
        } else {
            queue.push_back(waiting);
        }
    }
}

fn batch(group: &[Waiting]) -> Batch {
    let changes = group.iter().filter_map(|waiting| waiting.change.as_ref());
    let mut newest = None;
    let mut batch = Batch::new();
    for change in changes {
        newest = Some(change.version);
        batch = match change.happened {
            Happened::Deleted => batch.delete(row(&change.key)),
            _ => batch.put(row(&change.key), change.text().clone()),
        };
    }
    match newest {
        Some(version) => batch.put(Key::new(COUNTER, "newest"), version.to_string()),
        None => batch,
    }
}

/// Lets everybody see what is stored.
fn publish(shared: &Shared, group: Vec<Waiting>) {
    let mut told = Vec::with_capacity(group.len());
    {
        let mut queue = shared.queue.lock();
        let mut state = shared.state.write();
        for Waiting { change, key, done } in group {
            if let Some(change) = change {
                queue.settle(&key, change.version);
                state.take(change);
            }
            told.push(done);
        }
    }
    {
        // Those who are woken want to read, which they can.
        let state = shared.state.read();
        state.kinds.values().chain([&state.all]).for_each(History::tell);
    }
    told.into_iter().for_each(|done| tell(done, Ok(())));
}

fn give_up(shared: &Shared, group: Vec<Waiting>, error: &StoreError) {
    let mut queue = shared.queue.lock();
    for waiting in group {
        queue.fell(&waiting.key, error);
        tell(waiting.done, Err(copy(error)));
    }
}

/// A writer that no longer waits needs no answer.
fn tell(done: oneshot::Sender<Result<(), StoreError>>, outcome: Result<(), StoreError>) {
    let _ = done.send(outcome);
}

fn copy(error: &StoreError) -> StoreError {
    Failure::new(error.kind(), "writing an object").because(chain(error))
}

/// The task that stores is gone: the program ends.
pub(super) fn ended() -> StoreError {
    Failure::new(StoreKind::Closed, "writing an object")
}
