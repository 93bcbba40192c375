//! Where a message from an edge goes.

use kubeedge_core::{
    message::{Message, resource},
    name::{Group, ModuleName, NodeName, Operation},
};

use super::rules;

/// The router of user messages.
pub(super) const ROUTER: ModuleName = ModuleName::of("router");

/// What is to be done with a message from an edge.
#[derive(Debug, PartialEq)]
pub(super) enum Upstream {
    /// The edge is alive.
    Keepalive,
    /// The edge has stored the message with this id.
    Ack,
    /// The edge could not do what it was told; it is told again.
    EdgeError,
    /// To this module, under this resource.
    Module(ModuleName, Message),
    /// To everyone in the group of node tasks, as it is.
    Tasks(Message),
    /// The cluster's CA certificate is asked for.
    ClusterCa,
    /// A question of the link itself, answered at once.
    Control,
    /// For nobody.
    Ignored(&'static str),
}

/// KubeEdge's order of decisions.
pub(super) fn route(node: &NodeName, message: Message) -> Upstream {
    let operation = message.route.operation.as_str();
    match operation {
        "keepalive" => return Upstream::Keepalive,
        // The frame layer of Go answers these itself, on either side.
        "config" | "ping" | "pong" => return Upstream::Control,
        _ => {}
    }
    let text = message.route.resource.as_str();
    if rules::is_volume(text) {
        return Upstream::Ignored("answers to volume requests, of which this cloud makes none");
    }
    match operation {
        "response" => return Upstream::Ack,
        "error" => return Upstream::EdgeError,
        "upload" if message.route.group == Group::USER => return for_module(ROUTER, node, message),
        "prepull" | "upgrade" | "UpdateNodeActionStatus" => return Upstream::Tasks(message),
        _ => {}
    }
    if text == "k8s/ca.crt" {
        return Upstream::ClusterCa;
    }
    match message.route.source.as_str() {
        "metaserver" => for_module(ModuleName::DYNAMIC_CONTROLLER, node, message),
        "twin" => for_module(ModuleName::DEVICE_CONTROLLER, node, message),
        source if is_cloud_module(source) => Upstream::Ignored("messages in the name of a cloud module"),
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
    fn the_order_of_decisions_is_kubeedges() {
        assert_eq!(to("twin", "resource", "keepalive", "node"), Upstream::Keepalive);
        assert_eq!(to("edgecontroller", "resource", "response", "default/pod/p"), Upstream::Ack);
        assert_eq!(to("metamanager", "resource", "error", "default/pod/p"), Upstream::EdgeError);
        assert_eq!(to("metamanager", "meta", "query", "k8s/ca.crt"), Upstream::ClusterCa);
        assert_eq!(to("x", "resource", "ping", "x"), Upstream::Control);
        assert!(matches!(to("x", "resource", "response", "default/volume/v"), Upstream::Ignored(_)));
        assert!(matches!(to("edgecontroller", "resource", "update", "default/pod/p"), Upstream::Ignored(_)));
        let tasks =
            to("taskmanager", "taskmanager", "UpdateNodeActionStatus", "operations.kubeedge.io/v1alpha2/x/j");
        assert!(
            matches!(tasks, Upstream::Tasks(m) if m.route.resource == "operations.kubeedge.io/v1alpha2/x/j")
        );
    }
}
