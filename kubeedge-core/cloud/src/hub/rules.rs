//! Which messages to a node want an acknowledgement, and what a session must know of their content.

use kubeedge_common::digest;
use kubeedge_core::{
    message::{Message, resource},
    name::{Group, ModuleName, Operation},
};
use serde::Deserialize;

/// How a message travels to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Sent once.
    Plain,
    /// Sent until the edge confirms that it has stored the object.
    Acked,
}

const PLAIN_RESOURCES: [&str; 5] =
    ["podlist", "membership", "twin/cloud_updated", "serviceaccounttoken", "k8s/ca.crt"];
const VOLUME_OPERATIONS: [&str; 4] =
    ["createvolume", "deletevolume", "controllerpublishvolume", "controllerunpublishvolume"];
const PLAIN_TYPES: [&str; 5] = ["lease", "nodepatch", "podpatch", "podstatus", "certificatesigningrequest"];

/// KubeEdge's order of decisions, first match wins. The tests on the resource are literal substring tests, as
/// a Go edge's cloud makes them, on the full resource, which is given beside the message.
pub(super) fn mode(text: &str, message: &Message) -> Mode {
    let route = &message.route;
    let operation = &route.operation;
    let plain = is_plain(text)
        || VOLUME_OPERATIONS.contains(&operation.as_str())
        || is_digest(text)
        || operation == "applicationResponse"
        || route.group == Group::USER
        || route.source == ModuleName::TASK_MANAGER
        || route.source == "nodeupgradejobcontroller"
        || (*operation == Operation::RESPONSE && (message.content.is_ok_text() || is_error(message)))
        || (route.source == ModuleName::EDGE_CONTROLLER && plain_of_edge_controller(text, operation));
    if plain { Mode::Plain } else { Mode::Acked }
}

/// Whether a text contains one of [`PLAIN_RESOURCES`]; asked of each message, in one pass.
fn is_plain(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let is_here =
            |part: &&str| part.as_bytes().first() == Some(first) && rest.starts_with(part.as_bytes());
        if PLAIN_RESOURCES.iter().any(is_here) {
            return true;
        }
        rest = tail;
    }
    false
}

/// An element of a resource, counted from 0.
fn element(text: &str, number: usize) -> Option<&str> {
    let mut slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    let begin = match number {
        0 => 0,
        number => slashes.nth(number - 1)? + 1,
    };
    text.get(begin..slashes.next().unwrap_or(text.len()))
}

/// A message of a comparison with an edge of ours: `node/<node>/digest`.
fn is_digest(text: &str) -> bool {
    text.starts_with("node/") && element(text, 2) == Some(digest::RESOURCE) && element(text, 3).is_none()
}

fn plain_of_edge_controller(text: &str, operation: &Operation) -> bool {
    let kind = element(text, 3).unwrap_or_default();
    (kind == "node" && *operation != Operation::UPDATE)
        || PLAIN_TYPES.contains(&kind)
        || (kind == "pod" && *operation == Operation::RESPONSE)
}

/// Whether the content is an error as Go writes one: `{"ErrStatus":…}`.
fn is_error(message: &Message) -> bool {
    message.content.as_json().trim_ascii_start().starts_with(br#"{"ErrStatus""#)
}

/// What goes first to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Pods and what they need, nodes, answers.
    Control,
    /// Devices, twins and what users send: thousands of them may wait, and none makes a pod wait.
    Later,
}

/// The priority of a message with this full resource. It is the same for all messages about one object, so
/// that they stay in order.
pub(super) fn priority(resource: &str, group: &Group) -> Priority {
    let kind = element(resource, 3);
    let later =
        *group == Group::TWIN || *group == Group::USER || matches!(kind, Some("device" | "devicemodel"));
    if later { Priority::Later } else { Priority::Control }
}

/// Whether the object may come back under its unique id: one that is taken from this node only, as a
/// DeviceModel that no device of the node uses any more.
pub(super) fn withdraws(message: &Message) -> bool {
    message.route.operation == Operation::DELETE && message.route.source == ModuleName::DEVICE_CONTROLLER
}

/// Whether the message brings such an object back.
pub(super) fn returns(message: &Message) -> bool {
    message.route.operation == Operation::INSERT && message.route.source == ModuleName::DEVICE_CONTROLLER
}

/// The deletion of the Node object: never sent, it ends the session.
pub(super) fn is_node_gone(message: &Message) -> bool {
    let mut parts = message.route.resource.as_str().split('/');
    message.route.operation == Operation::DELETE
        && message.route.source == ModuleName::EDGE_CONTROLLER
        && (parts.next(), parts.nth(1), parts.next())
            == (Some("node"), Some(resource::NO_NAMESPACE), Some("node"))
}

/// The parts of a Kubernetes object that reliable delivery needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Head {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: HeadMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HeadMeta {
    pub(super) uid: String,
    pub(super) deletion_timestamp: Option<String>,
}

/// Whether a resource is that of a CSI volume: `<word>/volume/<word>…`.
pub(super) fn is_volume(resource: &str) -> bool {
    let begins_with_word = |part: &str| part.chars().next().is_some_and(is_word);
    let parts =
        resource.split_once('/').and_then(|(first, rest)| Some((first, rest.strip_prefix("volume/")?)));
    parts.is_some_and(|(first, rest)| {
        begins_with_word(first)
            && first.chars().all(|c| is_word(c) || matches!(c, '-' | '.' | '+'))
            && begins_with_word(rest)
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use kubeedge_core::message::Content;
    use proptest::prelude::*;

    use super::*;

    fn message(source: &str, group: &str, operation: &str, resource: &str, content: &str) -> Message {
        Message::new(source.into(), operation.into(), resource)
            .in_group(group.into())
            .with(Content::from_json_bytes(content.to_owned()).unwrap())
    }

    #[test]
    fn acknowledgement_is_wanted_exactly_where_kubeedge_wants_it() {
        use Mode::{Acked, Plain};
        for (source, group, operation, resource, content, expected) in [
            ("edgecontroller", "resource", "insert", "node/n/default/pod/web", "{}", Acked),
            ("edgecontroller", "resource", "update", "node/n/default/pod/web", "{}", Acked),
            ("edgecontroller", "resource", "response", "node/n/default/pod/web", "{}", Plain),
            (
                "edgecontroller",
                "resource",
                "response",
                "node/n/default/configmap/c",
                r#"{"kind":"x"}"#,
                Acked,
            ),
            (
                "edgecontroller",
                "resource",
                "response",
                "node/n/default/configmap/c",
                r#"{"ErrStatus":{}}"#,
                Plain,
            ),
            ("edgecontroller", "resource", "response", "node/n/default/configmap/c", r#""OK""#, Plain),
            ("edgecontroller", "resource", "update", "node/n/null/node/n", "{}", Acked),
            ("edgecontroller", "resource", "delete", "node/n/null/node/n", "null", Plain),
            ("edgecontroller", "resource", "response", "node/n/null/node/n", "{}", Plain),
            ("edgecontroller", "resource", "response", "node/n/ns/lease/l", "{}", Plain),
            ("edgecontroller", "resource", "response", "node/n/ns/podpatch/p", "{}", Plain),
            ("edgecontroller", "resource", "response", "node/n/ns/serviceaccounttoken/s", "{}", Plain),
            ("edgecontroller", "resource", "update", "node/n/ns/configmap/my-membership", "{}", Plain),
            ("devicecontroller", "twin", "update", "node/n/membership", "{}", Plain),
            ("devicecontroller", "twin", "response", "node/n/twin", r#""OK""#, Plain),
            ("devicecontroller", "resource", "insert", "node/n/default/device/d", "{}", Acked),
            ("metamanager", "resource", "response", "node/n/digest", "{}", Plain),
            ("edgecontroller", "resource", "update", "node/n/digest/configmap/c", "{}", Acked),
            (
                "dynamiccontroller",
                "resource",
                "applicationResponse",
                "node/n/ignore/Application/ignore",
                "{}",
                Plain,
            ),
            ("dynamiccontroller", "resource", "update", "node/n/default/service/s", "{}", Acked),
            ("router_eventbus", "user", "publish", "node/n/topic", "{}", Plain),
            (
                "taskmanager",
                "taskmanager",
                "Check",
                "operations.kubeedge.io/v1alpha2/x/j/node/n",
                "{}",
                Plain,
            ),
            ("cloudhub", "resource", "createvolume", "node/n/default/volume/v", "{}", Plain),
            ("cloudhub", "resource", "response", "node/n/k8s/ca.crt", "{}", Plain),
            ("policycontroller", "resource", "insert", "node/n/default/serviceaccountaccess/s", "{}", Acked),
        ] {
            let message = message(source, group, operation, resource, content);
            assert_eq!(mode(resource, &message), expected, "{source} {operation} {resource}");
        }
    }

    proptest! {
        #[test]
        fn parts_and_elements_are_found_as_the_standard_library_finds_them(
            text in "[a/]{0,12}", part in 0..PLAIN_RESOURCES.len(), cut in 0..20_usize, number in 0..6_usize,
        ) {
            let part = PLAIN_RESOURCES[part];
            for text in [format!("{text}{part}{text}"), format!("{text}{}{text}", part.get(cut..).unwrap_or("pmtsk"))] {
                prop_assert_eq!(is_plain(&text), PLAIN_RESOURCES.iter().any(|part| text.contains(part)));
            }
            prop_assert_eq!(element(&text, number), text.split('/').nth(number));
        }
    }

    #[test]
    fn devices_twins_and_what_users_send_go_after_the_rest() {
        for (source, group, operation, resource, expected) in [
            ("edgecontroller", "resource", "insert", "node/n/default/pod/device", Priority::Control),
            ("edgecontroller", "resource", "response", "node/n/default/configmap/c", Priority::Control),
            ("edgecontroller", "resource", "update", "node/n/null/node/n", Priority::Control),
            ("cloudhub", "resource", "response", "k8s/ca.crt", Priority::Control),
            ("devicecontroller", "twin", "response", "node/n/twin", Priority::Later),
            ("devicecontroller", "twin", "update", "node/n/membership", Priority::Later),
            ("devicecontroller", "resource", "insert", "node/n/default/device/d", Priority::Later),
            ("edgecontroller", "resource", "update", "node/n/default/devicemodel/m", Priority::Later),
            ("router_eventbus", "user", "publish", "node/n/topic", Priority::Later),
        ] {
            let message = message(source, group, operation, resource, "null");
            assert_eq!(priority(resource, &message.route.group), expected, "{source} {operation} {resource}");
        }
    }

    #[test]
    fn the_end_of_a_node_object_is_recognised() {
        assert!(is_node_gone(&message("edgecontroller", "resource", "delete", "node/n/null/node/n", "null")));
        assert!(!is_node_gone(&message(
            "edgecontroller",
            "resource",
            "update",
            "node/n/null/node/n",
            "null"
        )));
        assert!(!is_node_gone(&message("edgecontroller", "resource", "delete", "node/n/a/pod/n", "null")));
    }

    #[test]
    fn volumes_are_recognised_by_their_path() {
        assert!(is_volume("default/volume/pvc-1"));
        assert!(!is_volume("/volume/x") && !is_volume("a/volumes/x") && !is_volume("a/volume/-x"));
    }
}
