//! Reading a message.

use std::{fmt, marker::PhantomData};

use bytes::Bytes;
use serde::{
    Deserialize,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Content, Header, JsonError, MAX_TEXT, Message, Millis, Route};
use crate::name::{MessageId, ResourceVersion};

/// Reads one message from a frame. Bytes after the first JSON value are ignored, as Go ignores them.
pub fn decode(frame: &Bytes) -> Result<Message, JsonError> {
    if frame.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    // Looked at once as a whole, it need not be looked at string by string.
    let text = match std::str::from_utf8(frame) {
        Ok(text) => text,
        Err(_) => frame.utf8_chunks().next().map_or("", |chunk| chunk.valid()),
    };
    let (mut message, mut content) = (empty(), None);
    let parts = Parts { message: &mut message, content: &mut content };
    match parts.deserialize(&mut serde_json::Deserializer::from_str(text)) {
        Err(error) if error.is_eof() && text.len() < frame.len() => {
            return Err(JsonError::NotText(text.len()));
        }
        read => read?,
    }
    if let Some(raw) = content.filter(|raw| raw.get() != "null") {
        message.content = Content::read(frame.slice_ref(raw.get().as_bytes()));
    }
    Ok(message)
}

fn empty() -> Message {
    let header = Header {
        id: MessageId::default(),
        parent: None,
        timestamp: Millis(0),
        resource_version: None,
        sync: false,
        kind: String::new(),
    };
    Message { header, route: Route::default(), content: Content::empty() }
}

/// Where the parts of a frame are read to. In place: moved from one to the next, they would cost more than
/// reading them.
struct Parts<'a, 'm> {
    message: &'m mut Message,
    content: &'m mut Option<&'a RawValue>,
}

struct HeaderIn<'m>(&'m mut Header);
struct RouteIn<'m>(&'m mut Route);

/// The keys of the three objects, matched in any case as Go's decoder does.
#[derive(Clone, Copy)]
enum Key {
    Header,
    Route,
    Content,
    Id,
    Parent,
    Timestamp,
    Version,
    Sync,
    Kind,
    Source,
    Destination,
    Group,
    Operation,
    Resource,
    Unknown,
}

impl Key {
    /// The length of the longest, in bytes.
    const LONGEST: usize = "resourceversion".len();

    fn of(lower_case: &str) -> Option<Self> {
        Some(match lower_case {
            "header" => Self::Header,
            "route" => Self::Route,
            "content" => Self::Content,
            "msg_id" => Self::Id,
            "parent_msg_id" => Self::Parent,
            "timestamp" => Self::Timestamp,
            "resourceversion" => Self::Version,
            "sync" => Self::Sync,
            "type" => Self::Kind,
            "source" => Self::Source,
            "destination" => Self::Destination,
            "group" => Self::Group,
            "operation" => Self::Operation,
            "resource" => Self::Resource,
            _ => return None,
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyCase;
        impl Visitor<'_> for AnyCase {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
                // A key longer than any of ours is not copied.
                let short = Some(key).filter(|key| key.len() <= Key::LONGEST);
                let in_lower_case = || Key::of(&short?.to_ascii_lowercase());
                Ok(Key::of(key).or_else(in_lower_case).unwrap_or(Key::Unknown))
            }
        }
        deserializer.deserialize_identifier(AnyCase)
    }
}

/// A text of header or route, or null, which is as good as an empty one.
struct Text<T>(T);

impl<'de, T: Default + for<'a> From<&'a str>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText<T>(PhantomData<T>);
        impl<T: Default + for<'a> From<&'a str>> Visitor<'_> for AnyText<T> {
            type Value = Text<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Text<T>, E> {
                Ok(Text(T::default()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
                if text.len() > MAX_TEXT {
                    let long = text.len();
                    let why = format!(
                        "a text of header or route is {long} bytes long; at most {MAX_TEXT} are allowed"
                    );
                    return Err(E::custom(why));
                }
                Ok(Text(text.into()))
            }
        }
        deserializer.deserialize_any(AnyText(PhantomData))
    }
}

/// Reads an object field by field, or null, which is as good as an empty one.
macro_rules! object {
    ($into:ty, $what:literal, |$self:ident, $key:ident, $map:ident| $body:expr) => {
        impl<'de> DeserializeSeed<'de> for $into {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $into {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($what)
            }
            fn visit_unit<E: de::Error>(self) -> Result<(), E> {
                Ok(())
            }
            fn visit_map<A: MapAccess<'de>>($self, mut $map: A) -> Result<(), A::Error> {
                while let Some($key) = $map.next_key::<Key>()? {
                    $body
                }
                Ok(())
            }
        }
    };
}

object!(HeaderIn<'_>, "a message header", |self, key, map| match key {
    Key::Id => self.0.id = text(&mut map)?,
    Key::Parent => self.0.parent = Some(text(&mut map)?).filter(|id: &MessageId| !id.is_empty()),
    Key::Timestamp => self.0.timestamp = Millis(map.next_value::<Option<i64>>()?.unwrap_or_default()),
    Key::Version => {
        self.0.resource_version =
            Some(text(&mut map)?).filter(|version: &ResourceVersion| !version.is_empty());
    }
    Key::Sync => self.0.sync = map.next_value::<Option<bool>>()?.unwrap_or_default(),
    Key::Kind => self.0.kind = text(&mut map)?,
    _ => drop(map.next_value::<IgnoredAny>()?),
});

object!(RouteIn<'_>, "a message route", |self, key, map| match key {
    Key::Source => self.0.source = text(&mut map)?,
    Key::Destination => self.0.destination = text(&mut map)?,
    Key::Group => self.0.group = text(&mut map)?,
    Key::Operation => self.0.operation = text(&mut map)?,
    Key::Resource => self.0.resource = text(&mut map)?,
    _ => drop(map.next_value::<IgnoredAny>()?),
});

object!(Parts<'de, '_>, "a KubeEdge message", |self, key, map| match key {
    Key::Header => map.next_value_seed(HeaderIn(&mut self.message.header))?,
    Key::Route => map.next_value_seed(RouteIn(&mut self.message.route))?,
    Key::Content => *self.content = Some(map.next_value()?),
    _ => drop(map.next_value::<IgnoredAny>()?),
});

fn text<'de, T, A>(map: &mut A) -> Result<T, A::Error>
where
    T: Default + for<'a> From<&'a str>,
    A: MapAccess<'de>,
{
    map.next_value::<Text<T>>().map(|Text(text)| text)
}
