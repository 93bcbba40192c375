//! The writing half of a tunnel. It runs beside the reading half: an edge may stop to read until we have read.

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    transport::{Frame, FrameSink},
    tunnel::TunnelFrame,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Frames that wait for a slow edge; who sends more waits then.
const OUTGOING: usize = 64;
/// How long one frame may wait for an edge that does not read.
const WRITE: Duration = Duration::from_secs(30);

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

/// Writes what waits, as long as the edge takes it; says why it ended.
pub(super) async fn write(mut tx: Box<dyn FrameSink>, mut waiting: Waiting) -> String {
    while let Some((frame, _place)) = waiting.recv().await {
        match tokio::time::timeout(WRITE, tx.send(Frame::binary(frame.encode()))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "the edge does not read".to_owned(),
        }
    }
    "nobody holds it any more".to_owned()
}
