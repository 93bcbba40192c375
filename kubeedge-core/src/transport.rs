//! The seam to the network: links that carry opaque frames in both directions.
//!
//! *For users*: take an `Arc<dyn Transport>`, dial or listen, act on [`TransportKind`].
//! *For implementers*: write [`Transport`], [`Listener`], [`Incoming`] and [`FrameSink`]; run
//! `kubeedge_core::transport_conformance!` over it (feature `conformance`).
//!
//! A transport knows nothing of messages but their [`Lane`]. Back-pressure is awaiting: [`FrameSink::send`] waits while the peer does
//! not read, and no implementation buffers without bound. Verification of the peer cannot be switched off.
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

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use tokio::time::Instant;

use crate::{failure::Failure, kinds};

kinds! {
    /// What can go wrong on a link.
    TransportKind {
        Unreachable => "peer unreachable", Retry;
        Refused => "peer refused the connection", GiveUp;
        Untrusted => "peer not trusted", GiveUp;
        Closed => "link closed", Reconnect;
        TooLarge => "frame too large", GiveUp;
        Timeout => "timed out", Retry;
        Protocol => "peer broke the protocol", Reconnect;
        Misconfigured => "transport misconfigured", GiveUp;
    }
}

/// A link or a dial failed.
pub type TransportError = Failure<TransportKind>;

/// Which frames need not wait for which: a lost packet or a full window of one lane must not hold up those before it, as
/// far as a transport can tell lanes apart. QUIC gives each a stream of its own; a WebSocket, as Go speaks it, has one
/// order for all.
///
/// Frames of one lane arrive in the order they were sent; frames of different lanes may pass each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Keepalives, answers, confirmations, pods and all other objects. The first in rank.
    #[default]
    Control,
    /// Twins of devices.
    Twins,
    /// Uploads, events and what users send each other. The last.
    Bulk,
}

impl Lane {
    /// All of them, by rank.
    pub const ALL: [Self; 3] = [Self::Control, Self::Twins, Self::Bulk];
}

/// One frame, kept whole: what one side sends at once, the other receives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The lane it travels in. On what is received: the lane it was sent in, or [`Lane::Control`] where the transport
    /// does not carry it.
    pub lane: Lane,
    /// Whether the payload is text by the peer's word. Go sends binary tunnel data as text, so this is a label,
    /// not a promise of UTF-8.
    pub text: bool,
    /// The payload.
    pub payload: Bytes,
}

impl Frame {
    /// A text frame.
    pub fn text(payload: impl Into<Bytes>) -> Self {
        Self { lane: Lane::Control, text: true, payload: payload.into() }
    }
    /// A binary frame.
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self { lane: Lane::Control, text: false, payload: payload.into() }
    }
    /// The same in another lane.
    #[must_use]
    pub fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }
}

/// Where to dial or listen: `host:port` with an optional path (`10.0.0.1:10000/project/node/events`); for the memory
/// transport any name. Port 0 listens on a free port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub String);

impl Endpoint {
    /// The part before the first `/`.
    pub fn authority(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
    /// The part from the first `/` on; `/` when there is none.
    pub fn path(&self) -> &str {
        self.0.find('/').and_then(|at| self.0.get(at..)).unwrap_or("/")
    }
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who we are and whom we trust; everything in DER.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Certificates of the authorities that peers must chain to.
    pub roots: Vec<Bytes>,
    /// Our certificate chain, leaf first; empty for none.
    pub chain: Vec<Bytes>,
    /// The private key of the leaf: PKCS#8 or SEC1.
    pub key: Bytes,
    /// What the dialling side says of itself: header names and values, such as `node_id`.
    pub claims: Vec<(String, String)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("roots", &self.roots.len())
            .field("chain", &self.chain.len())
            .field("key", &"…")
            .field("claims", &self.claims)
            .finish()
    }
}

/// What is known of the other side.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its network address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// What it said of itself when dialling; unverified. Names in lower case; the first of repeated ones counts.
    pub claims: Vec<(String, String)>,
    /// The path it asked for.
    pub path: String,
    /// Its verified certificate chain in DER, leaf first; empty without TLS.
    pub certificates: Vec<Bytes>,
}

impl Peer {
    /// The first claim of this name (names are compared without case).
    pub fn claim(&self, name: &str) -> Option<&str> {
        let found = self.claims.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// An established link.
pub struct Link {
    /// The other side.
    pub peer: Peer,
    /// Frames to it.
    pub tx: Box<dyn FrameSink>,
    /// Frames from it: `None` after an orderly end, one `Err` after a broken one, nothing after either.
    pub rx: BoxStream<'static, Result<Frame, TransportError>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What a transport can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload in bytes, both ways. Known before a byte is allocated for it.
    pub max_frame: usize,
}

/// The peer's answer to a ping; see [`FrameSink::ping`].
pub type Pong = BoxFuture<'static, Result<(), TransportError>>;

/// The sending half of a link.
#[async_trait]
pub trait FrameSink: Send {
    /// Hands over one frame, waiting while the peer does not read. A frame larger than [`Limits::max_frame`] is
    /// refused with [`TransportKind::TooLarge`] and the link lives on. Frames of one lane arrive in order. Returned
    /// `Ok` does not mean received. Dropped before it returns: the frame may or may not have been sent, and the
    /// link must be given up.
    async fn send(&mut self, frame: Frame) -> Result<(), TransportError>;

    /// Puts a frame into the outgoing buffer without pushing it out, for senders that have more at hand; ends with
    /// [`FrameSink::flush`]. The default sends at once.
    async fn feed(&mut self, frame: Frame) -> Result<(), TransportError> {
        self.send(frame).await
    }

    /// Pushes out what was fed.
    async fn flush(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    /// Whether a frame of this lane is taken now, without waiting for frames before it in its lane. For senders that
    /// choose what goes next; [`FrameSink::send`] waits by itself. Without lanes of its own, as is the default, a
    /// transport always says yes. So does every transport of [`Lane::Control`].
    fn has_room(&self, lane: Lane) -> bool {
        let _ = lane;
        true
    }

    /// Waits until a lane that has no room has some; returns at once while all have. Cancel-safe.
    async fn more_room(&mut self) {}

    /// Asks the peer for a sign of life, without a frame. The [`Pong`] completes when the peer's stream has given out
    /// every frame that was sent on this sink before, and with an error when the link ended first; it stays open while
    /// the peer does not read. Our own stream has to be read for it to complete. `None`, the default: this transport
    /// cannot tell.
    async fn ping(&mut self) -> Result<Option<Pong>, TransportError> {
        Ok(None)
    }

    /// When the peer last gave a sign of life that is neither a frame nor a pong, such as word that it has a ping and still
    /// waits for the frames before it. `None`, the default: there was none.
    fn last_sign(&self) -> Option<Instant> {
        None
    }

    /// Ends the link in order; the peer's stream ends after the frames sent before, of all lanes. May be called twice.
    async fn close(&mut self) -> Result<(), TransportError>;
}

/// A way to make links.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The name configuration uses: `wss`, `quic`, `mem`.
    fn scheme(&self) -> &'static str;

    /// What it can carry.
    fn limits(&self) -> Limits;

    /// Makes a link. [`TransportKind::Unreachable`] when nobody listens, [`TransportKind::Refused`] with the peer's
    /// reason, [`TransportKind::Untrusted`] when either side's certificate does not hold. Dropping the future leaves
    /// nothing open.
    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError>;

    /// Starts to listen. Fails with [`TransportKind::Misconfigured`] when the address is in use or the credentials
    /// are unusable.
    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError>;
}

/// A listening endpoint; dropping it stops listening and leaves established links alone.
#[async_trait]
pub trait Listener: Send {
    /// Where it listens, with the real port.
    fn local(&self) -> Endpoint;

    /// The next peer that wants in. A peer that fails its handshake is no error here: it is logged and skipped, and
    /// a slow handshake does not hold up other peers. An error means that listening is over. Cancel-safe.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_splits_into_authority_and_path() {
        let endpoint = Endpoint::from("10.0.0.1:10000/project/node/events");
        assert_eq!((endpoint.authority(), endpoint.path()), ("10.0.0.1:10000", "/project/node/events"));
        assert_eq!(Endpoint::from("h:1").path(), "/");
    }

    #[test]
    fn credentials_do_not_print_their_key() {
        let who = Credentials { key: Bytes::from_static(b"very secret"), ..Credentials::default() };
        assert!(!format!("{who:?}").contains("secret"));
    }
}
