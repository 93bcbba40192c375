//! Signs of life of the cloud, and what they prove.
//!
//! The cloud's own end of the link answers pings; nothing above it takes notice, Go's neither. A pong says
//! that what was written before the ping was read. Over a transport without pings, what was written two
//! heartbeats ago on a link that still stands counts as read.

use kubeedge_core::transport::{FrameSink, Pong, TransportError};
use tokio::time::{Duration, Instant};

/// The pause between pings while something waits for its proof.
const PAUSE: Duration = Duration::from_secs(1);
/// When so many messages wait for their proof, the next ping goes at once.
const MANY: usize = 64;

/// See the module's text.
pub(super) struct Pulse {
    /// The ping under way, and how much was written before it.
    under_way: Option<(u64, Pong)>,
    /// When the last ping went out.
    last: Option<Instant>,
    /// Whether the link has pings.
    pub(super) works: bool,
    /// What was written up to the last beats; without pings only.
    marks: [u64; 2],
}

impl Pulse {
    pub(super) fn new(works: bool) -> Self {
        Self { under_way: None, last: None, works, marks: [0; 2] }
    }

    /// When the next ping is due because `waiting` messages wait for their proof.
    pub(super) fn due(&self, waiting: usize) -> Option<Instant> {
        let wanted = self.works && waiting > 0 && self.under_way.is_none();
        let last =
            self.last.map_or_else(Instant::now, |last| if waiting < MANY { last + PAUSE } else { last });
        wanted.then_some(last)
    }

    /// Sends a ping unless one is under way. `written`: how many messages went out before. `again`: one more
    /// even then, as a cloud that is slow to take what went before can still say that it is there.
    pub(super) async fn ping(
        &mut self,
        tx: &mut dyn FrameSink,
        written: u64,
        again: bool,
    ) -> Result<(), TransportError> {
        let Some(health) = tx.health() else { return Ok(()) };
        if self.under_way.is_none() {
            self.under_way = Some((written, health.ping().await?));
            self.last = Some(Instant::now());
        } else if again {
            // Its pong comes after the one that is waited for, and proves nothing more.
            drop(health.ping().await?);
        }
        Ok(())
    }

    /// A heartbeat has passed: how many messages are proved by that alone.
    pub(super) fn beat(&mut self, written: u64) -> u64 {
        let [earlier, last] = self.marks;
        self.marks = [last, written];
        if self.works { 0 } else { earlier }
    }

    /// The next pong: how many messages it proves. Never completes when none is under way. Cancel-safe.
    pub(super) async fn answered(&mut self) -> u64 {
        let Some((written, pong)) = &mut self.under_way else { return std::future::pending().await };
        let (written, answer) = (*written, pong.await);
        self.under_way = None;
        match answer {
            Ok(()) => written,
            // The link has ended; whoever reads it says why.
            Err(_) => std::future::pending().await,
        }
    }
}
