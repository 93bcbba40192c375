//! What travels over a link.

use bytes::Bytes;

#[cfg(doc)]
use super::TransportKind;

/// Which frames need not wait for which: a lost packet or a full window of one lane must not hold up those
/// before it, as far as a transport can tell lanes apart. QUIC gives each a stream of its own; a WebSocket,
/// as Go speaks it, has one order for all.
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
#[non_exhaustive]
pub struct Frame {
    /// The lane it travels in. On what is received: the lane it was sent in, or [`Lane::Control`] where the
    /// transport does not carry it.
    pub lane: Lane,
    /// Whether the sender calls the payload text. This is a label and no promise of UTF-8: Go sends binary
    /// tunnel data as text. Whoever receives text checks it. A transport that carries only UTF-8 as text
    /// refuses to send other text with [`TransportKind::NotText`], and the link lives on.
    pub text: bool,
    /// The payload.
    pub payload: Bytes,
}

impl Frame {
    /// A frame that is called text, in [`Lane::Control`].
    pub fn text(payload: impl Into<Bytes>) -> Self {
        Self { lane: Lane::Control, text: true, payload: payload.into() }
    }
    /// A binary frame, in [`Lane::Control`].
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self { lane: Lane::Control, text: false, payload: payload.into() }
    }
    /// The same in another lane.
    #[must_use]
    pub fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }
}

/// What a transport can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest payload in bytes, both ways. Known before a byte is allocated for it.
    pub max_frame: usize,
}

impl Limits {
    /// Payloads of at most so many bytes.
    pub fn new(max_frame: usize) -> Self {
        Self { max_frame }
    }
}
