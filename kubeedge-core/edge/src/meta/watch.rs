//! Who hears of changes of the copy: a bounded queue for each watcher.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use futures::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{handle::Object, key::Selector};

/// Changes that wait for one watcher; beyond that it has lagged.
const MAX_EVENTS: usize = 1024;
/// Bytes of objects that wait for one watcher; beyond that it has lagged. A single object may be larger.
const MAX_BYTES: usize = 8 << 20;

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaEvent {
    /// It is new here.
    Added(Object),
    /// It has another form now.
    Modified(Object),
    /// It is gone; this is its last form.
    Deleted(Object),
    /// Changes were lost, because too much waited or it is not known whether a commit happened. List anew;
    /// what follows is what happened afterwards.
    Lagged,
}

impl MetaEvent {
    fn object(&self) -> Option<&Object> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => Some(object),
            Self::Lagged => None,
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<MetaEvent>,
    bytes: usize,
    is_over: bool,
}

#[derive(Debug)]
struct Queue {
    of: Selector,
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Queue {
    fn push(&self, event: MetaEvent) {
        let mut waiting = self.waiting.lock();
        // After a loss the watcher lists anew, which brings this change too.
        if waiting.events.front() == Some(&MetaEvent::Lagged) {
            return;
        }
        let bytes = event.object().map_or(0, |object| object.bytes.len());
        let is_full = waiting.events.len() >= MAX_EVENTS || waiting.bytes + bytes > MAX_BYTES;
        if event == MetaEvent::Lagged || is_full && !waiting.events.is_empty() {
            waiting.events.clear();
            waiting.bytes = 0;
            waiting.events.push_back(MetaEvent::Lagged);
        } else {
            waiting.bytes += bytes;
            waiting.events.push_back(event);
        }
        drop(waiting);
        self.more.notify_one();
    }
}

/// The changes of some objects, in the order in which those of each object were stored.
#[derive(Debug)]
pub struct Watch(Arc<Queue>);

impl Watch {
    /// The next change; `None` once MetaManager's copy is no longer used by anyone. Cancel-safe.
    pub async fn next(&mut self) -> Option<MetaEvent> {
        loop {
            {
                let mut waiting = self.0.waiting.lock();
                if let Some(event) = waiting.events.pop_front() {
                    waiting.bytes -= event.object().map_or(0, |object| object.bytes.len());
                    return Some(event);
                }
                if waiting.is_over {
                    return None;
                }
            }
            self.0.more.notified().await;
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = MetaEvent> + Send + Unpin {
        Box::pin(stream::unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            Some((event, watch))
        }))
    }
}

/// All watchers of a copy.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<Vec<Weak<Queue>>>);

impl Watchers {
    /// One more.
    pub(super) fn watch(&self, of: Selector) -> Watch {
        let queue = Arc::new(Queue { of, waiting: Mutex::default(), more: Notify::new() });
        let mut all = self.0.lock();
        all.retain(|queue| queue.strong_count() > 0);
        all.push(Arc::downgrade(&queue));
        Watch(queue)
    }

    /// Tells those whom it concerns.
    pub(super) fn publish(&self, event: &MetaEvent) {
        let Some(object) = event.object() else { return };
        for queue in self.all().filter(|queue| queue.of.matches(&object.key)) {
            queue.push(event.clone());
        }
    }

    /// Until this is settled a commit may or may not happen.
    pub(super) fn in_doubt(&self) -> InDoubt<'_> {
        InDoubt { watchers: self, is_settled: false }
    }

    fn all(&self) -> impl Iterator<Item = Arc<Queue>> + use<> {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        all.into_iter()
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for queue in self.all() {
            queue.waiting.lock().is_over = true;
            queue.more.notify_one();
        }
    }
}

/// A commit under way. Dropped before it is settled, whoever watches is told that changes may be lost.
#[derive(Debug)]
pub(super) struct InDoubt<'a> {
    watchers: &'a Watchers,
    is_settled: bool,
}

impl InDoubt<'_> {
    /// It is known whether the commit happened.
    pub(super) fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for InDoubt<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.watchers.all().for_each(|queue| queue.push(MetaEvent::Lagged));
        }
    }
}
