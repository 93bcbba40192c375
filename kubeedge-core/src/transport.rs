//! The seam to the network: links that carry opaque frames in both directions.
//!
//! *For users*: take an `Arc<dyn Transport>`, dial or listen, act on [`TransportKind`].
//! *For implementers*: write [`Transport`], [`Listener`], [`Incoming`] and [`FrameSink`], and [`LinkHealth`]
//! and [`Lanes`] where the link has them; run `kubeedge_core::transport_conformance!` over it (feature
//! `conformance`). *For wrappers*: [`each_link`] makes a transport of another one and of what is to become of
//! each of its links; a wrapped [`FrameSink`] forwards every method, [`FrameSink::health`] and
//! [`FrameSink::lanes`] too.
//!
//! A transport knows nothing of messages but their [`Lane`]. Back-pressure is awaiting: [`FrameSink::send`]
//! waits while the peer does not read, and no implementation buffers without bound. Verification of the peer
//! cannot be switched off.
//!
//! A peer that takes in whoever says its name and sends back what it hears, over any transport:
//!
//! ```
//! use futures::StreamExt;
//! use kubeedge_core::transport::{Credentials, Endpoint, Transport, TransportError};
//!
//! async fn echo(transport: &dyn Transport, who: &Credentials) -> Result<(), TransportError> {
//!     let mut door = transport.listen(&Endpoint::from("127.0.0.1:0"), who).await?;
//!     loop {
//!         let incoming = door.next().await?;
//!         if incoming.peer().claim("node_id").is_none() {
//!             incoming.refuse("say your name in node_id".to_owned()).await;
//!             continue;
//!         }
//!         let mut link = incoming.accept().await?;
//!         while let Some(frame) = link.rx.next().await {
//!             link.tx.send(frame?).await?;
//!         }
//!     }
//! }
//! ```

mod each;
mod frame;
mod peer;
mod sink;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use self::{
    each::{EachLink, each_link},
    frame::{Frame, Lane, Limits},
    peer::{Credentials, Endpoint, Peer},
    sink::{FrameSink, Lanes, LinkHealth, Pong},
};
use crate::{failure::Failure, kinds};

kinds! {
    /// What can go wrong on a link.
    TransportKind {
        Unreachable => "peer unreachable", Retry;
        Refused => "peer refused the connection", GiveUp;
        Untrusted => "peer not trusted", GiveUp;
        Closed => "link closed", Reconnect;
        TooLarge => "frame too large", GiveUp;
        NotText => "text that is not UTF-8", GiveUp;
        Timeout => "timed out", Retry;
        Protocol => "peer broke the protocol", Reconnect;
        Misconfigured => "transport misconfigured", GiveUp;
    }
}

impl TransportKind {
    /// Whether a frame was refused for what it is. Nothing of it was sent, and the link lives on.
    pub fn is_of_the_frame(self) -> bool {
        matches!(self, Self::TooLarge | Self::NotText)
    }
}

/// A link or a dial failed.
pub type TransportError = Failure<TransportKind>;

/// The frames that come over a link: `None` after an orderly end, one `Err` after a broken one, nothing after
/// either.
pub type FrameStream = BoxStream<'static, Result<Frame, TransportError>>;

/// An established link.
#[non_exhaustive]
pub struct Link {
    /// The other side.
    pub peer: Peer,
    /// Frames to it.
    pub tx: Box<dyn FrameSink>,
    /// Frames from it.
    pub rx: FrameStream,
}

impl Link {
    /// A link of its two halves.
    pub fn new(peer: Peer, tx: impl FrameSink + 'static, rx: FrameStream) -> Self {
        Self { peer, tx: Box::new(tx), rx }
    }

    /// The same link with its sending half wrapped.
    #[must_use]
    pub fn with_sink<S: FrameSink + 'static>(self, wrap: impl FnOnce(Box<dyn FrameSink>) -> S) -> Self {
        Self { tx: Box::new(wrap(self.tx)), ..self }
    }

    /// The same link with its receiving half wrapped.
    #[must_use]
    pub fn with_frames(self, wrap: impl FnOnce(FrameStream) -> FrameStream) -> Self {
        Self { rx: wrap(self.rx), ..self }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A way to make links.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The name configuration uses: `wss`, `quic`, `mem`.
    fn scheme(&self) -> &'static str;

    /// What it can carry.
    fn limits(&self) -> Limits;

    /// Makes a link. [`TransportKind::Unreachable`] when nobody listens, [`TransportKind::Refused`] with the
    /// peer's reason, [`TransportKind::Untrusted`] when either side's certificate does not hold. Dropping the
    /// future leaves nothing open.
    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError>;

    /// Starts to listen. Fails with [`TransportKind::Misconfigured`] when the address is in use or the
    /// credentials are unusable.
    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError>;
}

/// A listening endpoint; dropping it stops listening and leaves established links alone.
#[async_trait]
pub trait Listener: Send {
    /// Where it listens, with the real port.
    fn local(&self) -> Endpoint;

    /// The next peer that wants in. A peer that fails its handshake is no error here: it is logged and
    /// skipped, and a slow handshake does not hold up other peers. An error means that listening is over.
    /// Cancel-safe.
    async fn next(&mut self) -> Result<Box<dyn Incoming>, TransportError>;
}

/// A peer at the door, its certificate verified.
#[async_trait]
pub trait Incoming: Send {
    /// Who it is.
    fn peer(&self) -> &Peer;
    /// Lets it in.
    async fn accept(self: Box<Self>) -> Result<Link, TransportError>;
    /// Turns it away; the reason reaches the dialler.
    async fn refuse(self: Box<Self>, why: String);
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn scheme(&self) -> &'static str {
        (**self).scheme()
    }
    fn limits(&self) -> Limits {
        (**self).limits()
    }
    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        (**self).dial(to, who).await
    }
    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        (**self).listen(on, who).await
    }
}
