//! KubeEdge's JSON form of a message, byte for byte as Go writes it.
//!
//! Writing: fields in Go's order, empty ones left out as Go's tags say, `<`, `>` and `&` escaped, one newline at
//! the end. Reading: keys in any case and order, unknown keys ignored, header and route strictly typed; the
//! content is not parsed but sliced out of the frame, so a carried object costs no copy.

use std::{borrow::Cow, fmt, io};

use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Content, Header, Message, Millis, Route};
use crate::name::{MessageId, ResourceVersion};

/// The longest text in a header or route, in bytes: MQTT's longest topic, which is the longest resource there is, and
/// a little.
pub const MAX_TEXT: usize = (64 << 10) + 1024;

/// A frame does not hold a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Nothing in the frame; Go's encoder emits this when it fails half-way.
    #[error("empty frame")]
    Empty,
    /// Not JSON, or header or route of the wrong type.
    #[error("not a KubeEdge message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Writes a message as Go does, newline included. The content goes out as it is, neither read nor copied twice.
pub fn encode(message: &Message) -> Bytes {
    let content = message.content.as_json().trim_ascii();
    let mut out = Vec::with_capacity(384 + content.len());
    out.extend_from_slice(br#"{"header":"#);
    write_header(&message.header, &mut out);
    out.extend_from_slice(br#","route":"#);
    write_route(&message.route, &mut out);
    out.extend_from_slice(br#","content":"#);
    out.extend_from_slice(content);
    out.extend_from_slice(b"}\n");
    out.into()
}

/// Reads one message from a frame. Bytes after the first JSON value are ignored, as Go ignores them.
pub fn decode(frame: &Bytes) -> Result<Message, JsonError> {
    if frame.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    let mut documents = serde_json::Deserializer::from_slice(frame).into_iter::<Parts<'_>>();
    let parts = documents.next().ok_or(JsonError::Empty)??;
    let content = match parts.content {
        Some(raw) if raw.get() != "null" => Content::Json(frame.slice_ref(raw.get().as_bytes())),
        _ => Content::Empty,
    };
    Ok(Message { header: parts.header, route: parts.route, content })
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

fn write_header(header: &Header, out: &mut Vec<u8>) {
    let mut fields = Fields::begin(out);
    fields.text("msg_id", header.id.as_str());
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

struct Parts<'a> {
    header: Header,
    route: Route,
    content: Option<&'a RawValue>,
}

/// A text of a frame; copied only where it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(text.into()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

/// A key in lower case; copied only where it was not.
struct LowerCase<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for LowerCase<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(key) = Text::deserialize(deserializer)?;
        let is_lower = !key.bytes().any(|byte| byte.is_ascii_uppercase());
        Ok(Self(if is_lower { key } else { key.to_ascii_lowercase().into() }))
    }
}

/// A visitor over an object whose keys are matched in any case, as Go's decoder does.
macro_rules! any_case_object {
    ($visitor:ident<$lt:lifetime> -> $value:ty, $what:literal, |$key:ident, $map:ident, $into:ident| $body:expr, $start:expr) => {
        struct $visitor;
        impl<$lt> Visitor<$lt> for $visitor {
            type Value = $value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok($start)
            }
            fn visit_map<A: MapAccess<$lt>>(self, mut $map: A) -> Result<Self::Value, A::Error> {
                let mut $into: $value = $start;
                while let Some(LowerCase($key)) = $map.next_key()? {
                    $body
                }
                Ok($into)
            }
        }
    };
}

any_case_object!(HeaderVisitor<'de> -> Header, "a message header", |key, map, into| match &*key {
    "msg_id" => into.id = text(&mut map)?.as_ref().into(),
    "parent_msg_id" => into.parent = some(&text(&mut map)?).map(MessageId::from),
    "timestamp" => into.timestamp = Millis(map.next_value::<Option<i64>>()?.unwrap_or_default()),
    "resourceversion" => into.resource_version = some(&text(&mut map)?).map(ResourceVersion::from),
    "sync" => into.sync = map.next_value::<Option<bool>>()?.unwrap_or_default(),
    "type" => into.kind = text(&mut map)?.into_owned(),
    _ => drop(map.next_value::<IgnoredAny>()?),
}, empty_header());

any_case_object!(RouteVisitor<'de> -> Route, "a message route", |key, map, into| match &*key {
    "source" => into.source = text(&mut map)?.as_ref().into(),
    "destination" => into.destination = text(&mut map)?.into_owned(),
    "group" => into.group = text(&mut map)?.as_ref().into(),
    "operation" => into.operation = text(&mut map)?.as_ref().into(),
    "resource" => into.resource = text(&mut map)?.as_ref().into(),
    _ => drop(map.next_value::<IgnoredAny>()?),
}, Route::default());

any_case_object!(PartsVisitor<'de> -> Parts<'de>, "a KubeEdge message", |key, map, into| match &*key {
    "header" => into.header = map.next_value::<HeaderIn>()?.0,
    "route" => into.route = map.next_value::<RouteIn>()?.0,
    "content" => into.content = Some(map.next_value::<&RawValue>()?),
    _ => drop(map.next_value::<IgnoredAny>()?),
}, Parts { header: empty_header(), route: Route::default(), content: None });

fn empty_header() -> Header {
    Header {
        id: MessageId::default(),
        parent: None,
        timestamp: Millis(0),
        resource_version: None,
        sync: false,
        kind: String::new(),
    }
}

/// An empty text is as good as none.
fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Cow<'de, str>, A::Error> {
    let Text(text) = map.next_value::<Option<Text<'de>>>()?.unwrap_or(Text(Cow::Borrowed("")));
    if text.len() > MAX_TEXT {
        let why =
            format!("a text of header or route is {} bytes long; at most {MAX_TEXT} are allowed", text.len());
        return Err(de::Error::custom(why));
    }
    Ok(text)
}

struct HeaderIn(Header);
struct RouteIn(Route);

impl<'de> Deserialize<'de> for HeaderIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeaderVisitor).map(Self)
    }
}
impl<'de> Deserialize<'de> for RouteIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RouteVisitor).map(Self)
    }
}
impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartsVisitor)
    }
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
