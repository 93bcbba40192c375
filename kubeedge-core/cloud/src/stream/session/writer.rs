//! The writing half of a tunnel. It runs beside the reading half: an edge may stop to read until we have
//! read.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kubeedge_core::{
    transport::{Frame, FrameSink, Pong, TransportError},
    tunnel::TunnelFrame,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{self, Instant, MissedTickBehavior},
};

/// Frames that wait for a slow edge; who sends more waits then.
const OUTGOING: usize = 64;
/// How long one frame may wait for an edge that does not read.
const WRITE: Duration = Duration::from_secs(30);
/// How often an edge is asked for a sign of life. Go's edge sends pings of its own, but no transport shows
/// them.
const BEAT: Duration = Duration::from_secs(20);
/// After so many beats without frame or pong the edge counts as gone.
const SILENT: u32 = 3;

/// A place among the frames that wait.
pub(super) type Place = OwnedSemaphorePermit;

/// The frames that wait to be written, in their order.
pub(super) struct Outgoing {
    frames: mpsc::UnboundedSender<(TunnelFrame, Option<Place>)>,
    places: Arc<Semaphore>,
}

/// Where they are taken out.
pub(super) type Waiting = mpsc::UnboundedReceiver<(TunnelFrame, Option<Place>)>;

impl Outgoing {
    pub(super) fn new() -> (Self, Waiting) {
        let (frames, waiting) = mpsc::unbounded_channel();
        (Self { frames, places: Arc::new(Semaphore::new(OUTGOING)) }, waiting)
    }

    /// The places; who takes one may send a frame.
    pub(super) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }

    /// Queues a frame. Ends of streams need no place: each follows its stream's opening, which had one.
    pub(super) fn push(&self, frame: TunnelFrame, place: Option<Place>) {
        // Without a writer the session is over.
        let _ = self.frames.send((frame, place));
    }
}

/// Writes what waits, as long as the edge takes it and is there; says why it ended. `heard` is set by whoever
/// reads the edge's frames.
pub(super) async fn write(tx: Box<dyn FrameSink>, mut waiting: Waiting, heard: &AtomicBool) -> String {
    let mut writer = Writer { tx, pong: None, silent: 0 };
    let mut beat = time::interval_at(Instant::now() + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            Some((frame, _place)) = waiting.recv() => {
                in_time(writer.tx.send(Frame::binary(frame.encode()))).await
            }
            () = writer.answered() => {
                heard.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ = beat.tick() => writer.beat(heard.swap(false, Ordering::Relaxed)).await,
        };
        if let Err(why) = result {
            return why;
        }
    }
}

struct Writer {
    tx: Box<dyn FrameSink>,
    /// The answer to the ping under way.
    pong: Option<Pong>,
    /// For how many beats there was no sign of life, though one was asked for.
    silent: u32,
}

impl Writer {
    /// Asks the edge for a sign of life. Over a transport without pings an edge may be silent for as long as
    /// it likes.
    async fn beat(&mut self, heard: bool) -> Result<(), String> {
        if self.pong.is_none() {
            self.silent = 0;
            if let Some(health) = self.tx.health() {
                self.pong = Some(in_time(health.ping()).await?);
            }
            return Ok(());
        }
        self.silent = if heard { 0 } else { self.silent + 1 };
        if self.silent < SILENT { Ok(()) } else { Err("the edge gives no sign of life".to_owned()) }
    }

    /// Waits for the answer. Never completes when no ping is under way. Cancel-safe.
    async fn answered(&mut self) {
        let Some(pong) = &mut self.pong else { return pending().await };
        let answer = pong.await;
        self.pong = None;
        if answer.is_err() {
            // The link has ended; whoever reads it says why.
            pending().await
        }
    }
}

async fn in_time<T>(writing: impl Future<Output = Result<T, TransportError>>) -> Result<T, String> {
    let written = time::timeout(WRITE, writing).await.map_err(|_| "the edge does not read".to_owned())?;
    written.map_err(|error| error.to_string())
}
