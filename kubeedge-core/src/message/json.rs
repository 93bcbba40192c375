//! KubeEdge's JSON form of a message, byte for byte as Go writes it.
//!
//! Writing: fields in Go's order, empty ones left out as Go's tags say, `<`, `>` and `&` escaped, one newline
//! at the end. Reading: keys in any case and order, unknown keys ignored, header and route strictly typed;
//! the content is not parsed but sliced out of the frame, so a carried object costs no copy.

mod read;

use std::io;

use bytes::Bytes;
use serde::Serialize;

pub use self::read::decode;
use super::{Content, Header, Message, Millis, Route};
use crate::name::{MessageId, ResourceVersion};

/// The longest text in a header or route, in bytes: MQTT's longest topic, which is the longest resource there
/// is, and a little.
pub const MAX_TEXT: usize = (64 << 10) + 1024;

/// A frame does not hold a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Nothing in the frame; Go's encoder emits this when it fails half-way.
    #[error("empty frame")]
    Empty,
    /// Bytes that are no UTF-8, from this one on.
    #[error("not a KubeEdge message: byte {0} is not UTF-8")]
    NotText(usize),
    /// Not JSON, or header or route of the wrong type.
    #[error("not a KubeEdge message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Writes a message as Go does, newline included. The content goes out as it is, neither read nor copied
/// twice.
pub fn encode(message: &Message) -> Bytes {
    encode_as(message, message.header.id.as_str())
}

/// As [`encode`], under this identity.
pub fn encode_as(message: &Message, id: &str) -> Bytes {
    let content = message.content.as_json().trim_ascii();
    let mut out = Vec::with_capacity(384 + content.len());
    out.extend_from_slice(br#"{"header":"#);
    write_header(&message.header, id, &mut out);
    out.extend_from_slice(br#","route":"#);
    write_route(&message.route, &mut out);
    out.extend_from_slice(br#","content":"#);
    out.extend_from_slice(content);
    out.extend_from_slice(b"}\n");
    out.into()
}

/// A value as JSON text with Go's escaping; for values that JSON can always hold.
pub(crate) fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Bytes {
    try_to_bytes(value).unwrap_or_else(|_| Bytes::from_static(b"null"))
}

/// A value as JSON text with Go's escaping.
pub(crate) fn try_to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(128);
    serialize(value, &mut out)?;
    Ok(out.into())
}

fn serialize<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, GoFormatter))
}

/// Escapes what Go's encoding/json escapes beyond the standard: `<`, `>`, `&`, U+2028, U+2029.
struct GoFormatter;

impl serde_json::ser::Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            if let Some(special) = chars.next() {
                write!(out, "\\u{:04x}", u32::from(special))?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

/// An object that is being written, field by field.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Fields<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn text(&mut self, name: &str, text: &str) {
        let out = self.key(name);
        // Looking at all of them is faster than stopping at the first that is not.
        if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        } else {
            // Writing text into memory cannot fail.
            let _ = serialize(text, out);
        }
    }

    /// As Go's `omitempty`.
    fn text_unless_empty(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// Whether a byte of a text stands for itself in JSON as Go writes it.
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) & !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

fn write_header(header: &Header, id: &str, out: &mut Vec<u8>) {
    let mut fields = Fields::begin(out);
    fields.text("msg_id", id);
    fields.text_unless_empty("parent_msg_id", header.parent.as_ref().map_or("", MessageId::as_str));
    let _ = serialize(&header.timestamp.0, fields.key("timestamp"));
    let version = header.resource_version.as_ref().map_or("", ResourceVersion::as_str);
    fields.text_unless_empty("resourceversion", version);
    if header.sync {
        fields.key("sync").extend_from_slice(b"true");
    }
    fields.text_unless_empty("type", &header.kind);
    fields.end();
}

fn write_route(route: &Route, out: &mut Vec<u8>) {
    let mut fields = Fields::begin(out);
    fields.text_unless_empty("source", route.source.as_str());
    fields.text_unless_empty("destination", &route.destination);
    fields.text_unless_empty("group", route.group.as_str());
    fields.text_unless_empty("operation", route.operation.as_str());
    fields.text_unless_empty("resource", route.resource.as_str());
    fields.end();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::{Group, ModuleName, Operation};

    const KEEPALIVE: &str = r#"{"header":{"msg_id":"8f2a3c1e-0b7d-4a55-9c1f-1d2e3f405162","timestamp":1700000000123},"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},"content":"ping"}
"#;

    #[test]
    fn a_keepalive_is_196_bytes_as_go_writes_it() {
        let message = decode(&Bytes::from_static(KEEPALIVE.as_bytes())).unwrap();
        assert_eq!(message.route.operation, Operation::KEEPALIVE);
        assert_eq!(message.content.as_text().unwrap(), "ping");
        let again = encode(&message);
        assert_eq!(again, KEEPALIVE.as_bytes());
        assert_eq!(again.len(), 196);
    }

    #[test]
    fn keys_match_in_any_case_unknown_keys_are_ignored_and_trailing_bytes_too() {
        let frame = Bytes::from_static(
            br#"{"Header":{"MSG_ID":"a","Timestamp":5,"x":[1]},"ROUTE":{"Source":"s","nope":1},"more":{},"Content":{"a":[1,2]}} {garbage"#,
        );
        let message = decode(&frame).unwrap();
        assert_eq!(message.header.id, "a");
        assert_eq!(message.route.source, "s");
        assert_eq!(message.content.as_json(), br#"{"a":[1,2]}"#);
    }

    #[test]
    fn wrong_header_types_empty_frames_and_broken_json_are_errors() {
        for bad in [
            "",
            "  \n",
            "[]",
            "0",
            "{",
            r#"{"header":{"timestamp":1.5}}"#,
            r#"{"header":{"timestamp":1e3}}"#,
            r#"{"header":{"msg_id":7}}"#,
            r#"{"route":[]}"#,
            r#"{"content":{"a":}}"#,
        ] {
            assert!(decode(&Bytes::from(bad)).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named_where_they_are_and_ignored_after_the_message() {
        let bad = Bytes::from_static(b"{\"content\":\"a\xffb\"}");
        assert_eq!(decode(&bad).unwrap_err().to_string(), "not a KubeEdge message: byte 13 is not UTF-8");
        let after = Bytes::from_static(b"{\"content\":\"ab\"}\n\xff");
        assert_eq!(decode(&after).unwrap().content.as_text().unwrap(), "ab");
    }

    #[test]
    fn a_part_that_comes_twice_is_read_into_the_same_as_go_does() {
        let twice = Bytes::from_static(
            br#"{"header":{"msg_id":"a","timestamp":1},"HEADER":{"Timestamp":2},"header":null}"#,
        );
        let message = decode(&twice).unwrap();
        assert_eq!((message.header.id.as_str(), message.header.timestamp), ("a", Millis(2)));
    }

    #[test]
    fn a_text_of_header_or_route_that_is_too_long_is_refused() {
        for (field, good) in
            [("msg_id", true), ("resourceversion", true), ("resource", false), ("group", false)]
        {
            let part = if good { "header" } else { "route" };
            let frame =
                |length| Bytes::from(format!(r#"{{"{part}":{{"{field}":"{}"}}}}"#, "x".repeat(length)));
            assert!(decode(&frame(MAX_TEXT)).is_ok());
            let error = decode(&frame(MAX_TEXT + 1)).unwrap_err().to_string();
            assert!(error.contains("66561 bytes long; at most 66560") && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn absent_and_null_parts_are_empty() {
        for frame in ["{}", r#"{"header":null,"route":null,"content":null}"#] {
            let message = decode(&Bytes::from(frame)).unwrap();
            assert!(
                message.content.is_empty() && message.header.id.is_empty() && message.route.source.is_empty()
            );
        }
    }

    #[test]
    fn html_characters_are_escaped_as_go_does() {
        let message =
            Message::new(ModuleName::EDGED, Operation::INSERT, "a/<b>&c").with(Content::text("<&>"));
        let text = String::from_utf8(encode(&message).to_vec()).unwrap();
        assert!(text.contains(r#""resource":"a/\u003cb\u003e\u0026c""#), "{text}");
        assert!(text.contains(r#""content":"\u003c\u0026\u003e""#), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            id in ".*", parent in proptest::option::of(".+"), at in any::<i64>(), version in proptest::option::of(".+"),
            source in ".*", group in ".*", operation in ".*", resource in ".*", content in ".*",
        ) {
            let message = Message {
                header: Header {
                    id: id.into(), parent: parent.map(Into::into), timestamp: Millis(at),
                    resource_version: version.map(Into::into), sync: false, kind: String::new(),
                },
                route: Route {
                    source: source.into(), destination: String::new(), group: Group::from(group),
                    operation: operation.into(), resource: resource.into(),
                },
                content: Content::text(&content),
            };
            prop_assert_eq!(decode(&encode(&message)).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
