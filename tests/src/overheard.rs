//! A codec that tells what is written.

use std::{fmt, sync::Arc};

use kubeedge_core::{
    message::Message,
    transport::{Frame, Peer},
    wire::{Codec, CodecError},
};

type Tell = dyn Fn(&Message, &Frame) + Send + Sync;

/// A codec that tells of every frame it writes, in whatever form both sides agree on.
#[derive(Clone)]
pub struct Overheard {
    codec: Arc<dyn Codec>,
    tell: Arc<Tell>,
}

impl Overheard {
    /// Frames of this codec are told before they are sent.
    pub fn new(codec: impl Codec, tell: impl Fn(&Message, &Frame) + Send + Sync + 'static) -> Self {
        Self { codec: Arc::new(codec), tell: Arc::new(tell) }
    }
}

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Overheard").field(&self.codec).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Codec for Overheard {
    fn encode(&self, message: &Message) -> Result<Frame, CodecError> {
        let frame = self.codec.encode(message)?;
        (self.tell)(message, &frame);
        Ok(frame)
    }
    fn encode_as(&self, message: &Message, id: &str) -> Result<Frame, CodecError> {
        let frame = self.codec.encode_as(message, id)?;
        let mut told = message.clone();
        told.header.id = id.into();
        (self.tell)(&told, &frame);
        Ok(frame)
    }
    fn decode(&self, frame: Frame) -> Result<Message, CodecError> {
        self.codec.decode(frame)
    }
    fn offer(&self) -> Option<(&'static str, &'static str)> {
        self.codec.offer()
    }
    fn is_ours(&self) -> bool {
        self.codec.is_ours()
    }
    fn for_link(&self, peer: &Peer) -> Option<Arc<dyn Codec>> {
        let codec = self.codec.for_link(peer)?;
        Some(Arc::new(Self { codec, tell: self.tell.clone() }))
    }
}
