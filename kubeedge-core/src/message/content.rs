//! The content of a message: JSON text as it came, parsed late.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::json;

/// What a message says: nothing (`null`), or one JSON value kept as the bytes it came in. Only the
/// constructors here and the reader of frames make one, so it is always valid JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content(Inner);

#[derive(Clone, Default, PartialEq, Eq)]
enum Inner {
    /// JSON `null`.
    #[default]
    Empty,
    /// One JSON value, verbatim.
    Json(Bytes),
}

/// The content of a message is not what was expected.
#[derive(Debug, thiserror::Error)]
#[error("content of {expected} expected: {source}")]
pub struct ContentError {
    expected: &'static str,
    #[source]
    source: serde_json::Error,
}

impl Content {
    /// Nothing: JSON `null`.
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// A JSON string.
    pub fn text(text: &str) -> Self {
        Self(Inner::Json(json::to_bytes(text)))
    }

    /// What a JSON reader has found to be one JSON value other than `null`, and UTF-8.
    pub(super) fn read(bytes: Bytes) -> Self {
        Self(Inner::Json(bytes))
    }

    /// KubeEdge's plain confirmation, the string `OK`.
    pub fn ok() -> Self {
        Self(Inner::Json(Bytes::from_static(br#""OK""#)))
    }

    /// Any value, as JSON; a value that JSON cannot hold (a map with keys that are not text) is an error.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, ContentError> {
        let bytes = json::try_to_bytes(value)
            .map_err(|source| ContentError { expected: std::any::type_name::<T>(), source })?;
        Ok(if bytes.as_ref() == b"null" { Self::empty() } else { Self(Inner::Json(bytes)) })
    }

    /// A JSON document made elsewhere, checked to be one.
    pub fn from_json_bytes(bytes: impl Into<Bytes>) -> Result<Self, ContentError> {
        let bytes = bytes.into();
        // Parsed as text, not skipped: strings that are no UTF-8 could not be written again.
        serde_json::from_slice::<&serde_json::value::RawValue>(&bytes)
            .map_err(|source| ContentError { expected: "a JSON document", source })?;
        Ok(if bytes.trim_ascii() == b"null" { Self::empty() } else { Self(Inner::Json(bytes)) })
    }

    /// The JSON text of the value; `null` when empty.
    pub fn as_json(&self) -> &[u8] {
        match &self.0 {
            Inner::Empty => b"null",
            Inner::Json(bytes) => bytes,
        }
    }

    /// KubeEdge's "content data": the characters of a JSON string, or else the JSON text itself.
    ///
    /// The same object may travel as JSON or as a string that holds JSON; this evens out the two.
    pub fn data(&self) -> Cow<'_, [u8]> {
        match self.as_text() {
            Some(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            Some(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            None => Cow::Borrowed(self.as_json()),
        }
    }

    /// As [`Content::data`], sharing the bytes where they need no unescaping.
    pub fn into_data(self) -> Bytes {
        match self.data() {
            Cow::Owned(bytes) => bytes.into(),
            Cow::Borrowed(slice) => match &self.0 {
                Inner::Json(bytes) => bytes.slice_ref(slice),
                Inner::Empty => Bytes::from_static(b"null"),
            },
        }
    }

    /// The text of a JSON string; `None` for any other value.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        let Inner::Json(bytes) = &self.0 else { return None };
        let inner = bytes.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !inner.contains(&b'\\') {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice::<String>(bytes).ok().map(Cow::Owned)
    }

    /// Whether this is [`Content::ok`], however it is written.
    pub fn is_ok_text(&self) -> bool {
        self.as_text().as_deref() == Some("OK")
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Inner::Empty)
    }

    /// Parses the content, whether it travelled as JSON or as a string that holds JSON.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ContentError> {
        let plain = serde_json::from_slice(self.as_json());
        let parsed = match (plain, self.as_text()) {
            (Err(_), Some(text)) => serde_json::from_str(&text),
            (plain, _) => plain,
        };
        parsed.map_err(|source| ContentError { expected: std::any::type_name::<T>(), source })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let bytes = self.as_json();
        let head = bytes.get(..SHOWN).unwrap_or(bytes);
        f.write_str(&String::from_utf8_lossy(head))?;
        if bytes.len() > SHOWN { write!(f, "… ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_and_a_string_holding_the_object_decode_alike() {
        let object = Content::from_json_bytes(r#"{"a":1}"#).unwrap();
        let text = Content::text(r#"{"a":1}"#);
        assert_eq!(object.decode::<serde_json::Value>().unwrap()["a"], 1);
        #[derive(serde::Deserialize)]
        struct A {
            a: i32,
        }
        assert_eq!(text.decode::<A>().unwrap().a, 1);
        assert_eq!(text.data().as_ref(), br#"{"a":1}"#);
        assert_eq!(text.into_data().as_ref(), br#"{"a":1}"#);
    }

    #[test]
    fn content_that_is_not_json_is_refused() {
        assert!(Content::from_json_bytes("{").is_err());
        assert!(Content::from_json_bytes("").is_err());
        assert!(Content::from_json_bytes(&b"\"\xff\""[..]).is_err());
        assert!(Content::from_json_bytes(" null ").unwrap().is_empty());
    }

    #[test]
    fn a_string_without_escapes_is_shared_not_copied() {
        let content = Content::from_json_bytes(&b"\"ping\""[..]).unwrap();
        assert!(matches!(content.as_text(), Some(Cow::Borrowed("ping"))));
    }
}
