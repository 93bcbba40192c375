//! The stream tunnel's frames: logs, exec, attach and metrics of many streams over one link.
//!
//! A frame is `uvarint id | uvarint kind | data`, the integers as in Go's `encoding/binary` (LEB128, no
//! ZigZag). The edge dials [`CONNECT_PATH`] with the claims [`CLAIM_NODE`] and [`CLAIM_ADDRESS`]; the cloud
//! opens streams with a [`Connector`] in JSON; both send [`FrameKind::DATA`] and end a stream with
//! [`FrameKind::REMOVE`].
//!
//! Go sends every frame as a WebSocket *text* message though the bytes are seldom UTF-8, and a Go cloud
//! closes the session on anything but text. We send binary frames, which a Go edge takes as well; whether
//! text frames that are not UTF-8 can be received is up to the transport.
//!
//! ```
//! use kubeedge_core::tunnel::{FrameKind, TunnelFrame};
//!
//! let frame = TunnelFrame::data(7, "hi\n");
//! assert_eq!(frame.encode().as_ref(), [0x07, 0x03, b'h', b'i', b'\n']);
//! assert_eq!(TunnelFrame::decode(&frame.encode()).unwrap(), frame);
//! ```

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

/// Where the edge connects to.
pub const CONNECT_PATH: &str = "/v1/kubeedge/connect";
/// The claim that names the node.
pub const CLAIM_NODE: &str = "SessionHostNameOverride";
/// The claim that holds the node's internal IP address.
pub const CLAIM_ADDRESS: &str = "SessionInternalIP";
/// The largest data of one frame, in bytes; Go cuts off what is beyond.
pub const MAX_DATA: usize = 1 << 20;
/// The largest frame: data and two integers.
pub const MAX_FRAME: usize = MAX_DATA + 2 * MAX_UVARINT;

const MAX_UVARINT: usize = 10;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What a frame is for. Open: unknown kinds are carried, logged and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKind(pub u64);

impl FrameKind {
    /// Cloud to edge: open a stream of logs; the data is a [`Connector`].
    pub const LOGS: Self = Self(0);
    /// Cloud to edge: run a command; the data is a [`Connector`] with a method.
    pub const EXEC: Self = Self(1);
    /// Cloud to edge: fetch metrics; the data is a [`Connector`].
    pub const METRICS: Self = Self(2);
    /// Both ways: bytes of a stream.
    pub const DATA: Self = Self(3);
    /// Both ways: the stream has ended.
    pub const REMOVE: Self = Self(4);
    /// Cloud to edge: the whole tunnel ends; the data says why.
    pub const CLOSE: Self = Self(5);
    /// Cloud to edge: attach to a container; the data is a [`Connector`] with a method.
    pub const ATTACH: Self = Self(6);

    /// Whether the data is a [`Connector`].
    pub fn opens_a_stream(self) -> bool {
        matches!(self, Self::LOGS | Self::EXEC | Self::METRICS | Self::ATTACH)
    }
}

/// A tunnel frame cannot be read or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The frame ends within one of its integers, or an integer is larger than 64 bits.
    #[error("tunnel frame without a readable {0}")]
    Integer(&'static str),
    /// More than [`MAX_DATA`] bytes.
    #[error("tunnel frame of {0} bytes of data; at most {MAX_DATA} are allowed")]
    TooLarge(usize),
}

/// One frame of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelFrame {
    /// The stream it belongs to; chosen by the cloud, from 1 up, never used twice on one tunnel.
    pub id: u64,
    /// What it is for.
    pub kind: FrameKind,
    /// Bytes of the stream, or a connector.
    pub data: Bytes,
}

impl TunnelFrame {
    /// Any frame.
    pub fn new(id: u64, kind: FrameKind, data: impl Into<Bytes>) -> Self {
        Self { id, kind, data: data.into() }
    }
    /// Bytes of a stream.
    pub fn data(id: u64, data: impl Into<Bytes>) -> Self {
        Self::new(id, FrameKind::DATA, data)
    }
    /// The end of a stream.
    pub fn remove(id: u64) -> Self {
        Self::new(id, FrameKind::REMOVE, Bytes::new())
    }
    /// The opening of a stream.
    pub fn open(kind: FrameKind, connector: &Connector) -> Self {
        // Text, numbers and maps with text keys always are JSON.
        Self::new(connector.id, kind, crate::message::json::to_bytes(connector))
    }

    /// The frame as bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(2 * MAX_UVARINT + self.data.len());
        put_uvarint(&mut out, self.id);
        put_uvarint(&mut out, self.kind.0);
        out.put_slice(&self.data);
        out.freeze()
    }

    /// Reads a frame; the data stays a slice of it.
    pub fn decode(frame: &Bytes) -> Result<Self, TunnelError> {
        let mut at = 0;
        let id = take_uvarint(frame, &mut at).ok_or(TunnelError::Integer("stream id"))?;
        let kind = take_uvarint(frame, &mut at).ok_or(TunnelError::Integer("message type"))?;
        let data = frame.slice(at.min(frame.len())..);
        if data.len() > MAX_DATA {
            return Err(TunnelError::TooLarge(data.len()));
        }
        Ok(Self { id, kind: FrameKind(kind), data })
    }
}

fn put_uvarint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_uvarint(from: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..MAX_UVARINT {
        let byte = *from.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if place == MAX_UVARINT - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What the edge is asked to open: a request to its local kubelet API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// The stream's id, the same as the frame's.
    #[serde(rename = "MessID")]
    pub id: u64,
    /// Where to; scheme and host are those of the edge's own kubelet API.
    pub url: GoUrl,
    /// The caller's headers.
    #[serde(default, deserialize_with = "or_default")]
    pub header: BTreeMap<String, Vec<String>>,
    /// The HTTP method; for exec and attach only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// Go's `url.URL` as its JSON encoder writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GoUrl {
    /// `http`.
    pub scheme: String,
    /// Unused.
    pub opaque: String,
    /// Unused; `null`.
    pub user: Option<serde_json::Value>,
    /// `host:port`.
    pub host: String,
    /// The path, percent-decoded.
    pub path: String,
    /// The path as it was encoded, where decoding and encoding it again would not give the same.
    pub raw_path: String,
    /// Unused.
    pub omit_host: bool,
    /// Whether to append `?` to an empty query.
    pub force_query: bool,
    /// The query without `?`, percent-encoded.
    pub raw_query: String,
    /// Unused.
    pub fragment: String,
    /// Unused.
    pub raw_fragment: String,
}

impl GoUrl {
    /// The URL of a request to the edge's kubelet API; `path` is percent-decoded, `query` is not.
    pub fn to_kubelet(path: &str, query: &str) -> Self {
        Self {
            scheme: "http".to_owned(),
            host: "127.0.0.1:10350".to_owned(),
            path: path.to_owned(),
            raw_query: query.to_owned(),
            ..Self::default()
        }
    }
}

fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_those_go_makes() {
        assert_eq!(TunnelFrame::data(7, "hi\n").encode().as_ref(), [0x07, 0x03, 0x68, 0x69, 0x0a]);
        assert_eq!(TunnelFrame::remove(300).encode().as_ref(), [0xac, 0x02, 0x04]);
        let exec = TunnelFrame::open(FrameKind::EXEC, &Connector { id: 300, ..Connector::default() });
        assert!(exec.encode().starts_with(&[0xac, 0x02, 0x01, 0x7b]));
        let close = TunnelFrame::new(0, FrameKind::CLOSE, "failed");
        assert!(close.encode().starts_with(&[0x00, 0x05, b'f']));
    }

    #[test]
    fn a_connector_of_go_is_read_and_written_with_its_keys() {
        let go = r#"{"MessID":7,"url":{"Scheme":"http","Opaque":"","User":null,"Host":"127.0.0.1:10350","Path":"/containerLogs/default/nginx/nginx","RawPath":"","OmitHost":false,"ForceQuery":false,"RawQuery":"follow=true\u0026tailLines=10","Fragment":"","RawFragment":""},"header":{"User-Agent":["kubectl"]}}"#;
        let connector: Connector = serde_json::from_str(go).unwrap();
        assert_eq!(connector.url.raw_query, "follow=true&tailLines=10");
        assert_eq!(
            connector.url,
            GoUrl::to_kubelet("/containerLogs/default/nginx/nginx", "follow=true&tailLines=10")
        );
        let ours = serde_json::to_string(&connector).unwrap();
        assert_eq!(ours, go.replace("\\u0026", "&"));
        assert!(serde_json::from_str::<Connector>(r#"{"MessID":1,"url":{},"header":null}"#).is_ok());
    }

    #[test]
    fn truncated_and_oversized_integers_are_refused() {
        for bad in [&[][..], &[0x80], &[0x01], &[0x01, 0xff], &[0xff; 11], &[0x80; 12]] {
            assert!(TunnelFrame::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        let large = TunnelFrame::data(1, vec![0; MAX_DATA + 1]).encode();
        assert_eq!(TunnelFrame::decode(&large), Err(TunnelError::TooLarge(MAX_DATA + 1)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            id in any::<u64>(), kind in any::<u64>(), data in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let frame = TunnelFrame::new(id, FrameKind(kind), data);
            prop_assert_eq!(TunnelFrame::decode(&frame.encode()).unwrap(), frame);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = TunnelFrame::decode(&Bytes::from(bytes));
        }
    }
}
