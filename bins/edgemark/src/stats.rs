//! What all edges count together.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use crate::{cluster::MAPS, histogram::Histogram};

/// How many different failures are remembered.
const REASONS: usize = 16;

/// A number that goes up, and for gauges down.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, number: usize) {
        self.0.fetch_add(number as u64, Relaxed);
    }

    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn down(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often each ConfigMap of a flood was confirmed.
#[derive(Debug)]
pub(crate) struct Rounds([Round; MAPS]);

impl Default for Rounds {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Round::default()))
    }
}

/// The confirmations of one ConfigMap.
#[derive(Debug, Default)]
pub(crate) struct Round {
    confirmed: AtomicU64,
    awaited: AtomicU64,
    complete: Notify,
}

impl Rounds {
    /// That of a ConfigMap.
    pub(crate) fn of(&self, map: usize) -> Option<&Round> {
        self.0.get(map)
    }
}

impl Round {
    /// An edge has confirmed it.
    pub(crate) fn up(&self) {
        if self.confirmed.fetch_add(1, Relaxed) + 1 == self.awaited.load(Relaxed) {
            self.complete.notify_one();
        }
    }

    /// Begins a round, which is complete when so many edges have confirmed it.
    pub(crate) fn begin(&self, edges: u32) {
        self.awaited.store(self.confirmed.load(Relaxed) + u64::from(edges), Relaxed);
    }

    /// Completes with the round.
    pub(crate) async fn complete(&self) {
        self.complete.notified().await;
    }
}

/// Counters and times of all edges.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Edges with a link now.
    pub(crate) connected: Count,
    /// Edges that are registered, have their lease and owe and miss no answer, since they connected.
    pub(crate) in_sync: Count,
    /// Links that were made.
    pub(crate) connects: Count,
    /// Dials that failed.
    pub(crate) failed_dials: Count,
    /// Sessions that ended though nobody wanted it.
    pub(crate) lost: Count,
    /// Requests the cloud answered with an error.
    pub(crate) refused: Count,
    /// Messages of the cloud that were confirmed.
    pub(crate) confirmed: Count,
    /// The same of each ConfigMap of a flood.
    pub(crate) rounds: Rounds,
    /// Messages of a flood that were answered.
    pub(crate) answered: Count,
    /// Pods that are said to run.
    pub(crate) pods: Count,
    /// Renewals of leases.
    pub(crate) renewals: Count,
    /// Leases that ran out before they were renewed.
    pub(crate) expired: Count,
    /// The same, of bystanders.
    pub(crate) bystanders_expired: Count,
    /// What went up and came down.
    pub(crate) traffic: Traffic,
    /// Handshakes.
    pub(crate) connecting: Histogram,
    /// From the connection to a registered Node.
    pub(crate) registering: Histogram,
    /// From the connection to all in sync.
    pub(crate) syncing: Histogram,
    /// Renewals of leases, question to answer.
    pub(crate) renewing: Histogram,
    /// The same, of bystanders.
    pub(crate) bystanders_renewing: Histogram,
    /// Messages of a flood, question to answer.
    pub(crate) answering: Histogram,
    /// Messages of the cloud: made there, received here. Means something where both have one clock.
    pub(crate) delivering: Histogram,
    reasons: Mutex<BTreeMap<String, u64>>,
}

/// Messages, and their bytes: payload, WebSocket header and TLS record; no TCP, no handshakes. Over QUIC it
/// is nearly as much.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_up: Count,
    pub(crate) messages_down: Count,
    pub(crate) bytes_up: Count,
    pub(crate) bytes_down: Count,
}

/// Traffic up to a moment, or between two.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct TrafficNow {
    pub(crate) messages_up: u64,
    pub(crate) messages_down: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

/// A TLS 1.3 record around application data: header, content type, tag.
const RECORD: usize = 5 + 1 + 16;
/// The key with which a client masks what it sends.
const MASK: usize = 4;

impl Traffic {
    pub(crate) fn up(&self, payload: usize) {
        self.messages_up.up();
        self.bytes_up.add(payload + header(payload) + MASK + RECORD);
    }

    pub(crate) fn down(&self, payload: usize) {
        self.messages_down.up();
        self.bytes_down.add(payload + header(payload) + RECORD);
    }

    pub(crate) fn now(&self) -> TrafficNow {
        TrafficNow {
            messages_up: self.messages_up.get(),
            messages_down: self.messages_down.get(),
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
        }
    }
}

impl TrafficNow {
    /// What came since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            messages_up: self.messages_up.saturating_sub(earlier.messages_up),
            messages_down: self.messages_down.saturating_sub(earlier.messages_down),
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
        }
    }
}

/// The bytes of a WebSocket frame's header, without the mask.
fn header(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    }
}

impl Stats {
    /// Remembers why something failed, and how often.
    pub(crate) fn reason(&self, why: String) {
        let mut reasons = self.reasons.lock();
        if reasons.len() < REASONS || reasons.contains_key(&why) {
            *reasons.entry(why).or_default() += 1;
        }
    }

    /// Why things failed, and how often.
    pub(crate) fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keepalive_of_196_bytes_is_226_bytes_of_tls() {
        let traffic = Traffic::default();
        traffic.up(196);
        traffic.down(196);
        let now = traffic.now();
        assert_eq!((now.bytes_up, now.bytes_down), (226, 222));
    }
}
