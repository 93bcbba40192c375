//! Who may be in a handshake with a listener.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

/// How long a handshake is left alone while others wait for its place.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// The places of those who are in their handshake. When all are taken, whoever has had one longest gives it up, so that
/// peers who say nothing keep nobody out.
pub(crate) struct Places {
    count: usize,
    free: Arc<Semaphore>,
    /// Since when, and how to ask for it back; the longest first.
    taken: VecDeque<(Instant, oneshot::Sender<()>)>,
}

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        let count = count.max(1);
        Self { count, free: Arc::new(Semaphore::new(count)), taken: VecDeque::new() }
    }

    /// Whether more than half of them are taken.
    pub(crate) fn are_scarce(&self) -> bool {
        self.free.available_permits() < self.count / 2
    }

    /// A place, as soon as there is one.
    pub(crate) async fn next(&mut self) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            self.taken.retain(|(_, wanted)| !wanted.is_closed());
            let oldest = self.taken.front().map(|(since, _)| *since + UNDISTURBED);
            tokio::select! {
                biased;
                place = self.free.clone().acquire_owned() => return place,
                () = tokio::time::sleep_until(oldest.unwrap_or_else(Instant::now)), if oldest.is_some() => {
                    if let Some((_, wanted)) = self.taken.pop_front() {
                        // It may just have ended by itself.
                        let _ = wanted.send(());
                    }
                }
            }
        }
    }

    /// Notes that the place is taken; completes when it is wanted back.
    pub(crate) fn taken(&mut self) -> oneshot::Receiver<()> {
        let (wanted, asked) = oneshot::channel();
        self.taken.push_back((Instant::now(), wanted));
        asked
    }
}
