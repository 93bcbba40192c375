//! The shapes of answers to edges.

use bytes::Bytes;
use kube::core::{Status, response::StatusDetails};
use kubeedge_core::{
    message::{Content, Message},
    name::{Group, ModuleName},
};
use serde::{Deserialize, Serialize};

/// A result of the API server: the object's bytes, or why not.
pub(super) type Answered = Result<Bytes, Box<Status>>;

/// The response to a request, under the same resource.
pub(super) fn response(question: &Message, content: Content) -> Message {
    let mut answer = question.answer(content);
    answer.route.source = ModuleName::EDGE_CONTROLLER;
    answer.route.group = Group::RESOURCE;
    answer
}

/// The plain confirmation, or the error as Go writes it.
pub(super) fn confirmation(question: &Message, done: Result<(), Box<Status>>) -> Message {
    match done {
        Ok(()) => response(question, Content::ok()),
        Err(status) => response(question, error_content(&status)),
    }
}

/// The plain confirmation, with the version of what was written.
pub(super) fn versioned_confirmation(question: &Message, written: &Bytes) -> Message {
    let version = serde_json::from_slice::<Versioned>(written).unwrap_or_default().metadata.resource_version;
    versioned(response(question, Content::ok()), version)
}

/// The bare object with its version, or the error as Go writes it.
pub(super) fn bare(question: &Message, answered: Answered) -> Message {
    match answered.and_then(checked) {
        Ok((content, version)) => versioned(response(question, content), version),
        Err(status) => response(question, error_content(&status)),
    }
}

/// `{"Object":…,"Err":…}`; `empty` is the object sent along with an error.
pub(super) fn object_response(question: &Message, answered: Answered, empty: &'static str) -> Message {
    let (object, error, version) = match answered.and_then(checked) {
        Ok((content, version)) => (content.as_json().to_vec(), b"null".to_vec(), version),
        Err(status) => (empty.as_bytes().to_vec(), error_content(&status).as_json().to_vec(), String::new()),
    };
    let mut bytes = br#"{"Object":"#.to_vec();
    bytes.extend(object);
    bytes.extend(br#","Err":"#);
    bytes.extend(error);
    bytes.push(b'}');
    // Made of valid documents, so it is one.
    let content = Content::from_json_bytes(bytes).unwrap_or_default();
    versioned(response(question, content), version)
}

/// As [`object_response`] without the version, for requests whose answers Go sends without.
pub(super) fn unversioned(mut answer: Message) -> Message {
    answer.header.resource_version = None;
    answer
}

fn versioned(answer: Message, version: String) -> Message {
    if version.is_empty() { answer } else { answer.at_version(version) }
}

/// `{"ErrStatus":{…}}`, keys in Go's order.
pub(super) fn error_content(status: &Status) -> Content {
    #[derive(Serialize)]
    struct Error<'a> {
        #[serde(rename = "ErrStatus")]
        status: Body<'a>,
    }
    #[derive(Serialize)]
    struct Body<'a> {
        metadata: serde_json::Map<String, serde_json::Value>,
        status: &'static str,
        message: &'a str,
        reason: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<&'a StatusDetails>,
        code: u16,
    }
    let body = Body {
        metadata: serde_json::Map::new(),
        status: "Failure",
        message: &status.message,
        reason: &status.reason,
        details: status.details.as_ref(),
        code: status.code,
    };
    Content::json(&Error { status: body }).unwrap_or_default()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Versioned {
    metadata: Meta,
}
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    resource_version: String,
}

/// What an API server sent is JSON, or that is an error too.
fn checked(bytes: Bytes) -> Result<(Content, String), Box<Status>> {
    let unreadable =
        |error: &dyn std::fmt::Display| crate::cluster::failure(502, "InternalError", error.to_string());
    let content = Content::from_json_bytes(bytes).map_err(|error| unreadable(&error))?;
    let head: Versioned = content.decode().map_err(|error| unreadable(&error))?;
    Ok((content, head.metadata.resource_version))
}

#[cfg(test)]
mod tests {
    use kubeedge_core::name::Operation;

    use super::*;
    use crate::cluster::not_found;

    fn question() -> Message {
        Message::new(ModuleName::EDGED, Operation::QUERY, "node/n/default/configmap/cm1")
            .in_group(Group::META)
    }

    #[test]
    fn an_error_is_byte_for_byte_gos() {
        let answer = bare(&question(), Err(not_found("configmaps", "cm1")));
        assert_eq!(
            std::str::from_utf8(answer.content.as_json()).unwrap(),
            r#"{"ErrStatus":{"metadata":{},"status":"Failure","message":"configmaps \"cm1\" not found","reason":"NotFound","details":{"name":"cm1","kind":"configmaps"},"code":404}}"#
        );
        assert_eq!(answer.route.source, "edgecontroller");
        assert_eq!(answer.route.group, "resource");
        assert_eq!(answer.route.operation, "response");
        assert_eq!(answer.route.resource, "node/n/default/configmap/cm1");
    }

    #[test]
    fn an_object_response_has_both_keys_and_the_objects_version() {
        let object = Bytes::from_static(br#"{"kind":"Node","metadata":{"resourceVersion":"7"}}"#);
        let answer = object_response(&question(), Ok(object), "null");
        assert_eq!(
            answer.content.as_json(),
            br#"{"Object":{"kind":"Node","metadata":{"resourceVersion":"7"}},"Err":null}"#
        );
        assert_eq!(answer.header.resource_version.unwrap(), "7");
        let answer = object_response(&question(), Err(not_found("nodes", "n")), "{}");
        let text = String::from_utf8(answer.content.as_json().to_vec()).unwrap();
        assert!(text.starts_with(r#"{"Object":{},"Err":{"ErrStatus":{"metadata""#), "{text}");
    }

    #[test]
    fn an_api_server_that_talks_nonsense_is_an_error_to_the_edge() {
        let answer = bare(&question(), Ok(Bytes::from_static(b"<html>")));
        assert!(answer.content.as_json().starts_with(br#"{"ErrStatus""#));
    }
}
