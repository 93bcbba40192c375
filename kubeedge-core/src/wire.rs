//! The seam between messages and frames.

use std::{fmt, sync::Arc};

use crate::{
    failure::Failure,
    kinds,
    message::{Message, json},
    transport::{Frame, Peer},
};

kinds! {
    /// What can go wrong when a frame becomes a message or the other way round.
    CodecKind {
        Malformed => "malformed frame", GiveUp;
        TooLarge => "frame too large", GiveUp;
    }
}

/// A frame could not become a message, or a message a frame.
pub type CodecError = Failure<CodecKind>;

/// Turns messages into frames and back. One instance serves all connections, unless it makes one for each
/// ([`Codec::for_link`]).
pub trait Codec: fmt::Debug + Send + Sync + 'static {
    /// The frame that carries this message.
    fn encode(&self, message: &Message) -> Result<Frame, CodecError>;
    /// The frame that carries this message under another identity: one message for many peers need not be
    /// copied for each.
    fn encode_as(&self, message: &Message, id: &str) -> Result<Frame, CodecError> {
        let mut copy = message.clone();
        copy.header.id = id.into();
        self.encode(&copy)
    }
    /// The message in this frame; the content stays a slice of it.
    fn decode(&self, frame: Frame) -> Result<Message, CodecError>;

    /// What the dialling side claims of itself, name and value, so that a peer may choose this codec; `None`
    /// for what every peer speaks.
    fn offer(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// Whether the peer of this link has shown that it is one of ours, so that it may be sent what no Go peer
    /// knows.
    fn is_ours(&self) -> bool {
        false
    }

    /// The codec for one link to this peer, for codecs that adapt themselves; `None` when one instance serves
    /// all links.
    fn for_link(&self, _peer: &Peer) -> Option<Arc<dyn Codec>> {
        None
    }
}

/// KubeEdge's own form: one JSON document in a text frame. What every Go peer speaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct GoJson;

impl Codec for GoJson {
    fn encode(&self, message: &Message) -> Result<Frame, CodecError> {
        Ok(Frame::text(json::encode(message)))
    }

    fn encode_as(&self, message: &Message, id: &str) -> Result<Frame, CodecError> {
        Ok(Frame::text(json::encode_as(message, id)))
    }

    fn decode(&self, frame: Frame) -> Result<Message, CodecError> {
        json::decode(&frame.payload)
            .map_err(|source| Failure::new(CodecKind::Malformed, "reading a message").because(source))
    }
}
