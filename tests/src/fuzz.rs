//! What reads bytes of peers, one function for each reader: for the fuzzers of `tests/fuzz`, and with a
//! bounded number of mutated recordings for every run of the tests.
//!
//! A target must neither panic nor hang nor take memory out of proportion to its input, and keeps what it
//! says beside it.

mod api;
mod edit;
mod pki;
mod seeds;

use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use kubeedge_core::{
    message::resource,
    name::NodeName,
    transport::{Frame, Peer},
    tunnel::{Connector, TunnelFrame},
    wire::{Codec, GoJson},
};
use kubeedge_transport::Adaptive;
use serde_json::Value;

pub use self::{
    api::api,
    edit::{HOSTILE, edited},
    pki::{join, pki},
    seeds::seeds,
};

/// The largest frame that the target `websocket` lets in, in bytes.
const MAX_FRAME: usize = 64 << 10;

/// A reader of foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, that of its file in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Reads.
    pub run: fn(&[u8]),
}

/// All there are.
pub const TARGETS: [Target; 9] = [
    Target { name: "websocket", run: websocket },
    Target { name: "message", run: message },
    Target { name: "resource", run: resource },
    Target { name: "pki", run: pki },
    Target { name: "join", run: join },
    Target { name: "api", run: api },
    Target { name: "protobuf", run: protobuf },
    Target { name: "exec", run: exec },
    Target { name: "tunnel", run: tunnel },
];

/// WebSocket: no payload beyond the limit, nothing after an error; heads of requests keep their claims apart.
pub fn websocket(bytes: &[u8]) {
    let frames = block_on(kubeedge_transport::fuzz::frames(bytes, MAX_FRAME));
    for (at, frame) in frames.iter().enumerate() {
        match frame {
            Ok(frame) => assert!(frame.payload.len() <= MAX_FRAME),
            Err(_) => assert_eq!(at + 1, frames.len(), "something came after an error"),
        }
    }
    if let Ok(head) = std::str::from_utf8(bytes)
        && let Ok(claims) = kubeedge_transport::fuzz::upgrade(head)
    {
        assert!(claims.iter().all(|(name, value)| !name.contains('\n') && !value.contains('\n')));
    }
}

/// A codec that speaks the compact form with its peer.
fn compact() -> Arc<dyn Codec> {
    let claims = Adaptive::default().offer().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let peer = Peer::default().with_claims(claims);
    Adaptive::default().for_link(&peer).expect("the codec has one for each link")
}

/// A message in either form: what was read is written in both and read again as the same; every rule of both
/// sides decides without a panic.
pub fn message(bytes: &[u8]) {
    let (node, codec) = (NodeName::from("edge-1"), compact());
    let Ok(message) = codec.decode(Frame::binary(bytes.to_vec())) else { return };
    let forms =
        [GoJson.encode(&message), codec.encode(&message)].map(|frame| frame.expect("a message is written"));
    for again in forms.map(|frame| codec.decode(frame).expect("what was written is read")) {
        assert_eq!((&again.header.id, &again.header.parent), (&message.header.id, &message.header.parent));
        assert_eq!(again.header.resource_version, message.header.resource_version);
        assert_eq!(again.route, message.route);
        // The same value, if not the same bytes: white space between its parts is kept.
        assert_eq!(again.content.data(), message.content.data());
    }
    let _ = (message.content.as_text(), message.content.is_ok_text());
    let _ = message.content.decode::<Value>();
    let _ = kubeedge_edge::fuzz::target(&message);
    kubeedge_edge::fuzz::pod(&message.content.clone().into_data());
    kubeedge_cloud::fuzz::delivery(&node, message.clone());
    if let Some((_, sent)) = kubeedge_cloud::fuzz::upstream(&node, message) {
        assert_eq!(resource::target_node(&sent.route.resource), Some(node), "a message in another's name");
    }
}

/// The path of a resource: what is parsed prints as it was; a prefix that is put on comes off again.
pub fn resource(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let node = NodeName::from("edge-1");
    if let Some(path) = resource::ObjectPath::parse(text) {
        let printed = path.to_resource();
        assert_eq!(printed.as_str(), text.strip_suffix('/').filter(|_| path.name.is_empty()).unwrap_or(text));
        assert_eq!(resource::ObjectPath::parse(printed.as_str()), Some(path));
    }
    let full = resource::for_node(&node, &text.into());
    assert_eq!(resource::trimmed(&full), text);
    assert_eq!(resource::target_node(&full), Some(node));
    let _ = (resource::trimmed(&text.into()), resource::target_node(&text.into()));
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let (parts, _) = kubeedge_edge::fuzz::request_line(path, query);
    assert!(parts.iter().all(|part| !part.is_empty() || path.contains('%')));
}

/// A protobuf body of kubectl: what is read is an object.
pub fn protobuf(bytes: &[u8]) {
    if let Some(object) = kubeedge_apiserver::fuzz::object(bytes) {
        assert!(object.is_object());
    }
}

/// What a command's client sends: a first byte for the protocol, then messages after their lengths in two
/// bytes. The command hears at most what was sent.
pub fn exec(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let mut messages = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (message, more) = more.split_at(usize::from(u16::from_be_bytes(*length)).min(more.len()));
        messages.push(message.to_vec());
        rest = more;
    }
    let (input, sizes) = block_on(kubeedge_edge::fuzz::channels(messages.clone(), first & 1 == 1));
    assert!(input.len() <= messages.iter().map(Vec::len).sum() && sizes.len() <= messages.len());
}

/// A frame of the tunnel: what was read is written and read again as the same; a connector becomes one
/// request, with nothing smuggled into it.
pub fn tunnel(bytes: &[u8]) {
    let Ok(frame) = TunnelFrame::decode(&Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(TunnelFrame::decode(&frame.encode()).as_ref(), Ok(&frame));
    if let Ok(connector) = serde_json::from_slice::<Connector>(&frame.data) {
        let written = TunnelFrame::open(frame.kind, &connector);
        assert_eq!(serde_json::from_slice::<Connector>(&written.data).ok(), Some(connector));
    }
    for head in kubeedge_edge::fuzz::tunnel_request(&frame.data).into_iter().flatten() {
        let ends = head.windows(4).filter(|four| four == b"\r\n\r\n").count();
        assert!(ends == 1 && head.ends_with(b"\r\n\r\n"), "a second request");
        let lines = head.split(|byte| *byte == b'\n');
        assert!(lines.filter(|line| !line.is_empty()).all(|line| line.ends_with(b"\r")), "a line of its own");
    }
}
