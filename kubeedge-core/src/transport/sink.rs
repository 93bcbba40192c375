//! The sending half of a link, and what some links can do beside.

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Frame, Lane, TransportError};
#[cfg(doc)]
use super::{Limits, TransportKind};

/// The sending half of a link.
///
/// A wrapper forwards every method. One that answers `None` to [`FrameSink::health`] hides that the peer has
/// died, and one that answers `None` to [`FrameSink::lanes`] lets a slow upload hold up everything else.
#[async_trait]
pub trait FrameSink: Send {
    /// Hands over one frame, waiting while the peer does not read. A frame larger than [`Limits::max_frame`]
    /// is refused with [`TransportKind::TooLarge`] and the link lives on. Frames of one lane arrive in order.
    /// Returned `Ok` does not mean received. Dropped before it returns: the frame may or may not have been
    /// sent, whole or not at all, and the link must be given up.
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError>;

    /// Puts a frame into the outgoing buffer without pushing it out, for senders that have more at hand; ends
    /// with [`FrameSink::flush`]. Waits and fails as [`FrameSink::send`] does. A buffer that is full is
    /// pushed out. A transport without a buffer sends.
    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError>;

    /// Pushes out what was fed.
    async fn flush(&mut self) -> Result<(), TransportError>;

    /// Ends the link in order; the peer's stream ends after the frames sent before, of all lanes. May be
    /// called twice.
    async fn close(&mut self) -> Result<(), TransportError>;

    /// How to ask whether the peer lives. `None` where that cannot be told. The same for the whole life of a
    /// link.
    fn health(&mut self) -> Option<&mut dyn LinkHealth>;

    /// The lanes, where frames of one need not wait for those of another. `None` where there is one order for
    /// all. The same for the whole life of a link.
    fn lanes(&mut self) -> Option<&mut dyn Lanes>;
}

/// The peer's answer to a ping; see [`LinkHealth::ping`].
pub type Pong = BoxFuture<'static, Result<(), TransportError>>;

/// Signs of life of a link's peer. Every method takes `&mut self`, so that a wrapper reaches the one below by
/// [`FrameSink::health`].
#[async_trait]
pub trait LinkHealth: Send {
    /// Asks the peer for a sign of life, without a frame. The [`Pong`] completes when the peer's stream has
    /// given out every frame that was sent on this sink before, and with an error when the link ended first;
    /// it stays open while the peer does not read. Our own stream has to be read for it to complete.
    async fn ping(&mut self) -> Result<Pong, TransportError>;

    /// When the peer last gave a sign of life that is neither a frame nor a pong, such as word that it has a
    /// ping and still waits for the frames before it. `None`: there was none.
    fn last_sign(&mut self) -> Option<Instant>;
}

/// The lanes of a link, for senders that choose what goes next; [`FrameSink::send`] waits by itself. Every
/// method takes `&mut self`, so that a wrapper reaches the one below by [`FrameSink::lanes`].
#[async_trait]
pub trait Lanes: Send {
    /// Whether a frame of this lane is taken now, without waiting for frames before it in its lane.
    /// [`Lane::Control`] always has room.
    fn has_room(&mut self, lane: Lane) -> bool;

    /// Waits until a lane that has no room has some; returns at once while all have. Cancel-safe.
    async fn more_room(&mut self);
}
