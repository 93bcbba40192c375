//! Where a message from an edge goes.

use kubeedge_common::digest;
use kubeedge_core::{
    message::{Message, resource},
    name::{Group, MessageId, ModuleName, NodeName, Operation},
    routes,
};

use super::rules;

/// The router of user messages.
pub(super) const ROUTER: ModuleName = ModuleName::of("router");

/// The modules that messages of edges go to, one each.
pub(super) const RECEIVERS: [ModuleName; 5] = [
    ModuleName::EDGE_CONTROLLER,
    ModuleName::DEVICE_CONTROLLER,
    ModuleName::DYNAMIC_CONTROLLER,
    ModuleName::SYNC_CONTROLLER,
    ROUTER,
];

/// What is to be done with a message from an edge.
#[derive(Debug, PartialEq)]
pub(super) enum Upstream {
    /// The edge is alive.
    Keepalive,
    /// The edge has stored the message with this id.
    Ack(Option<MessageId>),
    /// The edge could not do what it was told; it is told again.
    EdgeError(Message),
    /// To this module, under this resource.
    Module(ModuleName, Message),
    /// Of a vendor's group: to the module that takes it, or an answer to one.
    Vendors(Message),
    /// To everyone in the group of node tasks, as it is.
    Tasks(Message),
    /// The cluster's CA certificate is asked for.
    ClusterCa(Message),
    /// A question of the link itself, answered at once.
    Control(Message),
    /// For nobody, and why.
    Ignored(&'static str, Message),
}

/// KubeEdge's order of decisions, on a message that its node may send.
pub(super) fn route(node: &NodeName, message: Message) -> Upstream {
    let operation = message.route.operation.as_str();
    match operation {
        "keepalive" => return Upstream::Keepalive,
        // The frame layer of Go answers these itself, on either side.
        "config" | "ping" | "pong" => return Upstream::Control(message),
        _ => {}
    }
    let text = message.route.resource.as_str();
    if routes::is_vendors(&message.route.group) {
        return Upstream::Vendors(message);
    }
    if rules::is_volume(text) {
        return Upstream::Ignored("answers to volume requests, of which this cloud makes none", message);
    }
    match operation {
        "response" => return Upstream::Ack(message.header.parent),
        "error" => return Upstream::EdgeError(message),
        "upload" if message.route.group == Group::USER => return for_module(ROUTER, node, message),
        "prepull" | "upgrade" | "UpdateNodeActionStatus" => return Upstream::Tasks(message),
        _ => {}
    }
    // What an edge of ours has, which it was asked for; a Go edge says no such thing.
    if text == digest::RESOURCE && operation == "get" {
        return for_module(ModuleName::SYNC_CONTROLLER, node, message);
    }
    if text == "k8s/ca.crt" {
        return Upstream::ClusterCa(message);
    }
    match message.route.source.as_str() {
        "metaserver" => for_module(ModuleName::DYNAMIC_CONTROLLER, node, message),
        "twin" => for_module(ModuleName::DEVICE_CONTROLLER, node, message),
        source if is_cloud_module(source) => {
            Upstream::Ignored("messages in the name of a cloud module", message)
        }
        _ => for_module(ModuleName::EDGE_CONTROLLER, node, message),
    }
}

fn for_module(module: ModuleName, node: &NodeName, mut message: Message) -> Upstream {
    message.route.resource = resource::for_node(node, &message.route.resource);
    Upstream::Module(module, message)
}

fn is_cloud_module(source: &str) -> bool {
    matches!(
        source,
        "cloudhub"
            | "edgecontroller"
            | "devicecontroller"
            | "synccontroller"
            | "dynamiccontroller"
            | "policycontroller"
            | "taskmanager"
            | "nodeupgradejobcontroller"
            | "router"
            | "cloudStream"
    )
}

/// The answer of the link itself to `config`, `ping` and `pong`.
pub(super) fn control_answer(message: &Message) -> Message {
    let mut answer = message.answer(kubeedge_core::message::Content::text("ack"));
    answer.route.operation = Operation::RESPONSE;
    answer
}

/// A word that asks nothing and says nothing but that we are there.
pub(super) fn word() -> Message {
    Message::new(ModuleName::CLOUD_HUB, Operation::of("pong"), "node").in_group(Group::RESOURCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(source: &str, group: &str, operation: &str, text: &str) -> Upstream {
        let message = Message::new(source.into(), operation.into(), text).in_group(group.into());
        route(&"n".into(), message)
    }

    #[test]
    fn messages_reach_the_module_kubeedge_sends_them_to() {
        for (source, group, operation, text, module) in [
            ("edged", "meta", "insert", "null/node/n", "edgecontroller"),
            ("metamanager", "meta", "query", "default/configmap/c", "edgecontroller"),
            ("metaserver", "dynamiccontroller", "null", "null", "dynamiccontroller"),
            ("twin", "resource", "update", "device/default/d/twin/edge_updated", "devicecontroller"),
            ("eventbus", "user", "upload", "rest/topic", "router"),
            ("metamanager", "resource", "get", "digest", "synccontroller"),
        ] {
            match to(source, group, operation, text) {
                Upstream::Module(to, message) => {
                    assert_eq!(to, module);
                    assert_eq!(message.route.resource, format!("node/n/{text}").as_str());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_in_a_vendors_group_is_for_vendors_modules() {
        for operation in ["update", "response", "error", "upload"] {
            assert!(matches!(to("acme", "acme", operation, "default/volume/v"), Upstream::Vendors(_)));
        }
        assert_eq!(to("acme", "acme", "keepalive", "node"), Upstream::Keepalive);
    }

    #[test]
    fn the_order_of_decisions_is_kubeedges() {
        assert_eq!(to("twin", "resource", "keepalive", "node"), Upstream::Keepalive);
        assert_eq!(to("edgecontroller", "resource", "response", "default/pod/p"), Upstream::Ack(None));
        assert!(matches!(to("metamanager", "resource", "error", "default/pod/p"), Upstream::EdgeError(_)));
        assert!(matches!(to("metamanager", "meta", "query", "k8s/ca.crt"), Upstream::ClusterCa(_)));
        assert!(matches!(to("x", "resource", "ping", "x"), Upstream::Control(_)));
        assert!(matches!(to("x", "resource", "response", "default/volume/v"), Upstream::Ignored(..)));
        assert!(matches!(to("edgecontroller", "resource", "update", "default/pod/p"), Upstream::Ignored(..)));
        let path = "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/n";
        let tasks = to("taskmanager", "taskmanager", "UpdateNodeActionStatus", path);
        assert!(matches!(tasks, Upstream::Tasks(m) if m.route.resource == path));
    }
}
