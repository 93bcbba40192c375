//! A codec of a vendor's own: messages carry a number, so that a gap in what a gateway forwards is seen in
//! the log.
//!
//! Two peers use it only after both have offered it, so that a Go peer, or one of ours without it, gets Go's
//! JSON.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use kubeedge_core::{
    failure::Failure,
    message::Message,
    transport::{Frame, Peer},
    wire::{Codec, CodecError, CodecKind, GoJson},
};

/// The header of the handshake in which a dialler offers the codec, and its value.
const OFFER: (&str, &str) = ("x-acme-numbered", "1");
/// The first byte of a numbered frame. No JSON document begins with it.
const MAGIC: u8 = 0xAC;
/// The magic byte and a number of eight bytes, the most significant first.
const HEAD: usize = 9;

/// The codec; each link gets one of its own.
#[derive(Debug, Default)]
pub(crate) struct Numbered {
    /// Whether the peer has shown that it reads numbered frames.
    agreed: AtomicBool,
    sent: AtomicU64,
    missing: AtomicU64,
    newest: AtomicU64,
}

impl Numbered {
    /// How many messages of the peer did not arrive.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    fn note(&self, number: u64) {
        let before = self.newest.swap(number, Ordering::Relaxed);
        let gap = number.saturating_sub(before + 1);
        if gap > 0 {
            self.missing.fetch_add(gap, Ordering::Relaxed);
            tracing::warn!(gap, "messages of the peer did not arrive");
        }
    }
}

impl Codec for Numbered {
    fn encode(&self, message: &Message) -> Result<Frame, CodecError> {
        let plain = GoJson.encode(message)?;
        if !self.agreed.load(Ordering::Relaxed) {
            return Ok(plain);
        }
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mut bytes = Vec::with_capacity(HEAD + plain.payload.len());
        bytes.push(MAGIC);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&plain.payload);
        Ok(Frame::binary(bytes))
    }

    fn decode(&self, frame: Frame) -> Result<Message, CodecError> {
        let Some(([MAGIC, number @ ..], _)) = frame.payload.split_first_chunk::<HEAD>() else {
            return GoJson.decode(frame);
        };
        let number = <[u8; 8]>::try_from(number.as_slice())
            .map_err(|error| Failure::new(CodecKind::Malformed, "reading a number").because(error))?;
        self.note(u64::from_be_bytes(number));
        self.agreed.store(true, Ordering::Relaxed);
        GoJson.decode(Frame::binary(frame.payload.slice(HEAD..)))
    }

    fn offer(&self) -> Option<(&'static str, &'static str)> {
        Some(OFFER)
    }

    fn for_link(&self, peer: &Peer) -> Option<Arc<dyn Codec>> {
        let agreed = peer.claim(OFFER.0) == Some(OFFER.1);
        Some(Arc::new(Self { agreed: agreed.into(), ..Self::default() }))
    }
}
