//! Whether anything is under way on a connection.

use std::sync::Arc;

use tokio::{
    sync::{Notify, watch},
    time::{Duration, Instant},
};

/// The requests under way on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    now: watch::Sender<Requests>,
    /// Told when a connection has nothing under way any longer.
    idle_again: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
struct Requests {
    under_way: usize,
    last_end: Instant,
}

impl Requests {
    fn idle_since(self) -> Option<Instant> {
        (self.under_way == 0).then_some(self.last_end)
    }
}

impl Activity {
    pub(super) fn new(idle_again: Arc<Notify>) -> Self {
        let began = Instant::now();
        Self { began, now: watch::Sender::new(Requests { under_way: 0, last_end: began }), idle_again }
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Since when nothing is under way, if so.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.now.borrow().idle_since()
    }

    /// Something is under way until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.now.send_modify(|requests| requests.under_way += 1);
        Busy(self.clone())
    }

    /// Completes once nothing has been under way for so long.
    pub(super) async fn idle_for(&self, pause: Duration) {
        let mut now = self.now.subscribe();
        loop {
            let since = now.borrow_and_update().idle_since();
            let done = async {
                match since {
                    Some(since) => tokio::time::sleep_until(since + pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = done => return,
                // The sender lives as long as this.
                _ = now.changed() => {}
            }
        }
    }
}

/// Something under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let Activity { now, idle_again, .. } = &*self.0;
        now.send_modify(|requests| {
            requests.under_way = requests.under_way.saturating_sub(1);
            requests.last_end = Instant::now();
        });
        if self.0.idle_since().is_some() {
            idle_again.notify_one();
        }
    }
}
