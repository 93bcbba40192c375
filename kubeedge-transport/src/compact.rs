//! The compact form of messages between our own peers, and the codec that finds out whether a peer speaks it.
//!
//! The edge offers the form in a header when it dials (`Kubeedge-Codec: compact/1`); a cloud that knows it
//! writes it from then on, and the first frame in it tells the edge that it may, too. Go's peers ignore the
//! header and never see such a frame: with them everything stays Go's JSON. A frame says by its first byte
//! which of the two it is, so both can be mixed.
//!
//! A compact frame is binary: 0xC1, a version byte, and the message in bincode 2's standard form. Ids that
//! are UUIDs take 16 bytes, names that KubeEdge knows two, versions that are numbers as many as they need;
//! the content is the same JSON text as ever, neither parsed nor copied.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bincode::{BorrowDecode, Encode, config};
use bytes::Bytes;
use kubeedge_core::{
    message::{Content, Header, Message, Millis, Route, json::MAX_TEXT},
    name::{Group, MessageId, ModuleName, Operation, ResourceVersion},
    transport::{Frame, Peer},
    wire::{Codec, CodecError, CodecKind, GoJson},
};
use uuid::Uuid;

/// The header in which the dialling side offers the compact form.
const CLAIM: &str = "Kubeedge-Codec";
/// What it says there: the form and its version.
const OFFER: &str = "compact/1";

/// The first byte of a compact frame: neither JSON nor UTF-8 begin with it.
const MAGIC: u8 = 0xC1;
const VERSION: u8 = 1;
/// The largest message in compact form, in bytes; nothing is allocated beyond it.
const LIMIT: usize = 64 << 20;

/// Names that travel as their place in this list. Peers rely on it: new ones come at the end.
const NAMES: [&str; 52] = [
    "",
    "websocket",
    "metamanager",
    "edged",
    "twin",
    "eventbus",
    "servicebus",
    "taskmanager",
    "edgestream",
    "metaserver",
    "bus",
    "cloudhub",
    "edgecontroller",
    "devicecontroller",
    "synccontroller",
    "dynamiccontroller",
    "policycontroller",
    "cloudStream",
    "router",
    "router_eventbus",
    "router_servicebus",
    "user",
    "resource",
    "meta",
    "hub",
    "func",
    "insert",
    "delete",
    "query",
    "update",
    "patch",
    "upload",
    "response",
    "error",
    "keepalive",
    "get",
    "get_result",
    "list",
    "detail",
    "delta",
    "document",
    "updated",
    "deleted",
    "subscribe",
    "unsubscribe",
    "message",
    "publish",
    "start",
    "stop",
    "connect",
    "applicationResponse",
    "null",
];

#[derive(Encode, BorrowDecode)]
enum Id<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

#[derive(Encode, BorrowDecode)]
enum Name<'a> {
    Known(u8),
    Text(&'a str),
}

#[derive(Encode, BorrowDecode)]
enum Version<'a> {
    None,
    Number(u64),
    Text(&'a str),
}

#[derive(Encode, BorrowDecode)]
struct Form<'a> {
    id: Id<'a>,
    parent: Option<Id<'a>>,
    timestamp: i64,
    version: Version<'a>,
    kind: &'a str,
    source: Name<'a>,
    destination: &'a str,
    group: Name<'a>,
    operation: Name<'a>,
    resource: &'a str,
    /// Empty for no content.
    content: &'a [u8],
}

impl<'a> Id<'a> {
    fn of(text: &'a str) -> Self {
        match Uuid::try_parse(text) {
            // Only what reads back as the same text.
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text => {
                Self::Uuid(uuid.into_bytes())
            }
            _ => Self::Text(text),
        }
    }

    fn into_id(self) -> MessageId {
        match self {
            Self::Uuid(bytes) => Uuid::from_bytes(bytes).hyphenated().to_string().into(),
            Self::Text(text) => text.into(),
        }
    }
}

impl<'a> Name<'a> {
    fn of(name: &'a str) -> Self {
        let known = NAMES.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok());
        known.map_or(Self::Text(name), Self::Known)
    }

    /// The name, made by `known` without a copy where it is in the list.
    fn resolve<T: From<&'a str>>(self, known: impl FnOnce(&'static str) -> T) -> Result<T, CodecError> {
        match self {
            Self::Text(name) => Ok(name.into()),
            Self::Known(at) => {
                NAMES.get(usize::from(at)).copied().map(known).ok_or_else(|| {
                    malformed(format!("name number {at} is not known here; the peer is newer"))
                })
            }
        }
    }
}

impl<'a> Version<'a> {
    fn of(version: Option<&'a ResourceVersion>) -> Self {
        let Some(version) = version else { return Self::None };
        let text = version.as_str();
        match text.parse::<u64>() {
            Ok(number) if !text.starts_with('+') && (text == "0" || !text.starts_with('0')) => {
                Self::Number(number)
            }
            _ => Self::Text(text),
        }
    }

    fn into_version(self) -> Option<ResourceVersion> {
        match self {
            Self::None => None,
            Self::Number(number) => Some(number.to_string().into()),
            Self::Text(text) => Some(text.into()),
        }
    }
}

fn malformed(why: impl Into<kubeedge_core::failure::BoxError>) -> CodecError {
    CodecError::new(CodecKind::Malformed, "reading a compact message").because(why)
}

fn encode(message: &Message, id: &str) -> Result<Frame, CodecError> {
    let Message { header, route, content, .. } = message;
    let form = Form {
        id: Id::of(id),
        parent: header.parent.as_ref().map(|parent| Id::of(parent.as_str())),
        timestamp: header.timestamp.0,
        version: Version::of(header.resource_version.as_ref()),
        kind: &header.kind,
        source: Name::of(route.source.as_str()),
        destination: &route.destination,
        group: Name::of(route.group.as_str()),
        operation: Name::of(route.operation.as_str()),
        resource: route.resource.as_str(),
        content: if content.is_empty() { &[] } else { content.as_json() },
    };
    let mut frame = Vec::with_capacity(form.content.len() + form.resource.len() + 64);
    frame.extend([MAGIC, VERSION]);
    bincode::encode_into_std_write(form, &mut frame, config::standard())
        .map_err(|error| CodecError::new(CodecKind::TooLarge, "writing a compact message").because(error))?;
    Ok(Frame::binary(frame))
}

fn decode(payload: &Bytes) -> Result<Message, CodecError> {
    let version = payload.get(1).copied().unwrap_or_default();
    if version != VERSION {
        return Err(malformed(format!("version {version} of the form, only {VERSION} is known here")));
    }
    let body = payload.get(2..).unwrap_or_default();
    let (form, read): (Form<'_>, usize) =
        bincode::borrow_decode_from_slice(body, config::standard().with_limit::<LIMIT>())
            .map_err(malformed)?;
    if read != body.len() {
        return Err(malformed(format!("{} bytes after the message", body.len() - read)));
    }
    let content = match form.content {
        [] => Content::empty(),
        text => Content::from_json_bytes(payload.slice_ref(text)).map_err(malformed)?,
    };
    let mut header = Header::new(form.id.into_id(), Millis(form.timestamp));
    // As in JSON, where an empty text is none.
    header.parent = form.parent.map(Id::into_id).filter(|parent| !parent.is_empty());
    header.resource_version = form.version.into_version().filter(|version| !version.is_empty());
    form.kind.clone_into(&mut header.kind);
    let mut route = Route::default();
    route.source = form.source.resolve(ModuleName::of)?;
    form.destination.clone_into(&mut route.destination);
    route.group = form.group.resolve(Group::of)?;
    route.operation = form.operation.resolve(Operation::of)?;
    route.resource = form.resource.into();
    let message = Message::from_parts(header, route, content);
    match message.longest_text() {
        length if length > MAX_TEXT => Err(malformed(format!(
            "a text of header or route is {length} bytes long; at most {MAX_TEXT} are allowed"
        ))),
        _ => Ok(message),
    }
}

/// Speaks Go's JSON, and the compact form with peers that do; see the module's text. One of it makes a codec
/// of its own for each link.
#[derive(Debug, Default)]
pub struct Adaptive {
    /// Whether the peer is known to read the compact form.
    compact: AtomicBool,
}

impl Codec for Adaptive {
    fn encode(&self, message: &Message) -> Result<Frame, CodecError> {
        self.encode_as(message, message.header.id.as_str())
    }

    fn encode_as(&self, message: &Message, id: &str) -> Result<Frame, CodecError> {
        if self.is_ours() { encode(message, id) } else { GoJson.encode_as(message, id) }
    }

    fn decode(&self, frame: Frame) -> Result<Message, CodecError> {
        if frame.text || frame.payload.first() != Some(&MAGIC) {
            return GoJson.decode(frame);
        }
        let message = decode(&frame.payload)?;
        self.compact.store(true, Ordering::Relaxed);
        Ok(message)
    }

    fn offer(&self) -> Option<(&'static str, &'static str)> {
        Some((CLAIM, OFFER))
    }

    fn is_ours(&self) -> bool {
        self.compact.load(Ordering::Relaxed)
    }

    fn for_link(&self, peer: &Peer) -> Option<Arc<dyn Codec>> {
        let offered = peer.claim(CLAIM).unwrap_or_default();
        let compact = offered.split(',').any(|form| form.trim() == OFFER);
        Some(Arc::new(Self { compact: compact.into() }))
    }
}

#[cfg(test)]
mod tests;
