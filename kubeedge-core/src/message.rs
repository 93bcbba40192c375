//! The message: what modules say to each other, and what travels between cloud and edge.
//!
//! A [`Message`] is KubeEdge's: a header (identity and correlation), a route (who says what about which
//! resource) and a content. The content is opaque text as it came from the wire; it is parsed only where
//! somebody acts on it ([`Content::decode`]).
//!
//! ```
//! use kubeedge_core::message::{Content, Message};
//! use kubeedge_core::name::{Group, ModuleName, Operation};
//!
//! let query = Message::new(ModuleName::EDGED, Operation::QUERY, "default/configmap/app")
//!     .in_group(Group::META);
//! let answer = query.answer(Content::ok());
//! assert_eq!(answer.header.parent.as_ref(), Some(&query.header.id));
//! assert!(answer.content.is_ok_text());
//! ```

mod content;
pub mod json;
pub mod resource;

use std::fmt;

pub use content::{Content, ContentError};

pub use crate::clock::Millis;
use crate::name::{Group, MessageId, ModuleName, Operation, Resource, ResourceVersion};

/// One message. Cheap to clone: names known at compile time and contents are shared, not copied.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Identity and correlation.
    pub header: Header,
    /// Who says what about which resource.
    pub route: Route,
    /// What is said.
    pub content: Content,
}

/// Identity and correlation of a message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// This message's own id; kept when an unacknowledged message is sent again.
    pub id: MessageId,
    /// The id of the message this one answers. The only correlation there is.
    pub parent: Option<MessageId>,
    /// When it was made.
    pub timestamp: Millis,
    /// The resourceVersion of the object in the content; drives reliable delivery.
    pub resource_version: Option<ResourceVersion>,
    /// Whether the sender waits for the answer; meaningful inside one process, absent on the wire.
    pub sync: bool,
    /// KubeEdge's context type; empty in practice, carried when a peer sets it.
    pub kind: String,
}

/// Who says what about which resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The module that made the message.
    pub source: ModuleName,
    /// Unused by KubeEdge; carried when a peer sets it.
    pub destination: String,
    /// The group of modules it is for.
    pub group: Group,
    /// What is asked or told.
    pub operation: Operation,
    /// What it is about.
    pub resource: Resource,
}

impl Message {
    /// A new message with a fresh id, the present time, no group and no content.
    pub fn new(source: ModuleName, operation: Operation, resource: impl Into<Resource>) -> Self {
        let route = Route { source, operation, resource: resource.into(), ..Route::default() };
        Self { header: Header::fresh(), route, content: Content::empty() }
    }

    /// A message as it was received: what a codec makes.
    pub fn from_parts(header: Header, route: Route, content: Content) -> Self {
        Self { header, route, content }
    }

    /// Sets the group.
    #[must_use]
    pub fn in_group(mut self, group: Group) -> Self {
        self.route.group = group;
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn with(mut self, content: Content) -> Self {
        self.content = content;
        self
    }

    /// Sets the resourceVersion of the object in the content.
    #[must_use]
    pub fn at_version(mut self, version: impl Into<ResourceVersion>) -> Self {
        self.header.resource_version = Some(version.into());
        self
    }

    /// Makes it an answer to the message with this id.
    #[must_use]
    pub fn answering(mut self, parent: MessageId) -> Self {
        self.header.parent = Some(parent);
        self
    }

    /// The response to this message: source, group and resource copied, operation `response`, as Go builds
    /// it.
    #[must_use]
    pub fn answer(&self, content: Content) -> Self {
        let mut route = self.route.clone();
        route.operation = Operation::RESPONSE;
        let header = Header {
            parent: Some(self.header.id.clone()),
            kind: self.header.kind.clone(),
            ..Header::fresh()
        };
        Self { header, route, content }
    }

    /// The error answer to this message: no source, no group, operation `error`, the reason as text.
    #[must_use]
    pub fn error_answer(&self, why: impl fmt::Display) -> Self {
        let route =
            Route { operation: Operation::ERROR, resource: self.route.resource.clone(), ..Route::default() };
        let header = Header { parent: Some(self.header.id.clone()), ..Header::fresh() };
        Self { header, route, content: Content::text(&why.to_string()) }
    }

    /// What it weighs in a queue, in bytes: its content, its texts, and a little for the rest.
    pub fn size(&self) -> usize {
        const REST: usize = 256;
        REST + self.texts().iter().map(|text| text.len()).sum::<usize>() + self.content.as_json().len()
    }

    /// The longest text of header and route, in bytes; no frame with more than [`json::MAX_TEXT`] is a
    /// message.
    pub fn longest_text(&self) -> usize {
        self.texts().iter().map(|text| text.len()).max().unwrap_or(0)
    }

    fn texts(&self) -> [&str; 9] {
        let Header { id, parent, resource_version, kind, .. } = &self.header;
        let Route { source, destination, group, operation, resource } = &self.route;
        [
            id.as_str(),
            parent.as_ref().map_or("", |id| id.as_str()),
            resource_version.as_ref().map_or("", |version| version.as_str()),
            kind,
            source.as_str(),
            destination,
            group.as_str(),
            operation.as_str(),
            resource.as_str(),
        ]
    }

    /// Whether this message answers another.
    pub fn is_answer(&self) -> bool {
        self.header.parent.is_some()
    }
}

impl Header {
    /// The header of a message with this id, made at this time, that answers none.
    pub fn new(id: MessageId, timestamp: Millis) -> Self {
        Self { id, parent: None, timestamp, resource_version: None, sync: false, kind: String::new() }
    }

    fn fresh() -> Self {
        Self::new(MessageId::random(), Millis::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_source_group_and_resource_and_names_its_question() {
        let question = Message::new(ModuleName::EDGE_CONTROLLER, Operation::INSERT, "default/pod/web")
            .in_group(Group::RESOURCE)
            .at_version("7");
        let answer = question.answer(Content::ok());
        assert_ne!(answer.header.id, question.header.id);
        assert_eq!(answer.header.parent, Some(question.header.id));
        assert_eq!(answer.header.resource_version, None);
        assert_eq!(answer.route.operation, Operation::RESPONSE);
        assert_eq!(answer.route.source, ModuleName::EDGE_CONTROLLER);
        assert_eq!(answer.route.group, Group::RESOURCE);
    }

    #[test]
    fn every_text_of_a_message_weighs() {
        let small = Message::new(ModuleName::EDGED, Operation::QUERY, "a/b/c").size();
        let long = "x".repeat(1000);
        let mut message = Message::new(long.clone().into(), long.clone().into(), long.clone())
            .in_group(long.clone().into())
            .with(Content::text(&long))
            .at_version(long.clone())
            .answering(long.clone().into());
        message.route.destination = long.clone();
        message.header.kind = long.clone();
        message.header.id = long.into();
        assert!(small < 512 && message.size() >= 10_000, "{small} {}", message.size());
        assert_eq!(message.longest_text(), 1000);
    }

    #[test]
    fn an_error_answer_carries_the_reason_as_text_and_no_source() {
        let question = Message::new(ModuleName::EDGED, Operation::QUERY, "a/b/c").in_group(Group::META);
        let answer = question.error_answer("no such thing");
        assert_eq!(answer.route.operation, Operation::ERROR);
        assert!(answer.route.source.is_empty() && answer.route.group.is_empty());
        assert_eq!(answer.content.data().as_ref(), b"no such thing");
    }
}
