//! Pings that wait for their pongs.

use std::{collections::VecDeque, sync::Arc};

use futures::FutureExt;
use kubeedge_core::{
    failure::Failure,
    transport::{Pong, TransportKind},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;
#[cfg(feature = "quic")]
use tokio::time::Instant;

/// How many pings may wait; the oldest is given up for one more.
const MOST: usize = 16;

/// The pings of a link, shared by both its halves: one sends them, the other sees the pongs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pings(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The number of the last one.
    last: u64,
    /// The oldest first; nothing waits any more when the link has ended.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    ended: bool,
    /// When the peer last said that it has a ping, and cannot answer it yet.
    #[cfg(feature = "quic")]
    heard: Option<Instant>,
}

impl Pings {
    /// The number of the next ping, and its pong.
    pub(crate) fn next(&self) -> (u64, Pong) {
        let (answer, pong) = oneshot::channel();
        let mut state = self.0.lock();
        state.last += 1;
        if !state.ended {
            if state.waiting.len() >= MOST {
                state.waiting.pop_front();
            }
            let number = state.last;
            state.waiting.push_back((number, answer));
        }
        let ended = |_| Failure::new(TransportKind::Closed, "waiting for a pong");
        (state.last, pong.map(move |answered| answered.map_err(ended)).boxed())
    }

    /// A pong answers the pings before it too: peers may leave some out.
    pub(crate) fn answered(&self, number: u64) {
        let mut state = self.0.lock();
        while let Some((_, answer)) = state.waiting.pop_front_if(|(ping, _)| *ping <= number) {
            // Who no longer waits does not need the answer.
            let _ = answer.send(());
        }
    }

    /// The peer has a ping, and waits for frames before it.
    #[cfg(feature = "quic")]
    pub(crate) fn heard(&self) {
        self.0.lock().heard = Some(Instant::now());
    }

    /// When that was last.
    #[cfg(feature = "quic")]
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.0.lock().heard
    }

    /// The receiving half of the link: when it is dropped, nothing waits any more.
    pub(crate) fn ending(&self) -> Ending {
        Ending(self.clone())
    }
}

/// See [`Pings::ending`].
#[derive(Debug)]
pub(crate) struct Ending(Pings);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.ended = true;
        state.waiting.clear();
    }
}
