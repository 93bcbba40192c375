//! Names on the bus and on the wire: open string types, so that a vendor's own values pass through unharmed.
//!
//! Names of up to 23 bytes are held in place, longer ones are shared: a copy of a name costs no memory.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

macro_rules! names {
    ($($(#[$meta:meta])* $name:ident)*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// A name known when the program is written.
            pub const fn of(name: &'static str) -> Self {
                Self(SmolStr::new_static(name))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// Whether the name is empty, which on the wire means absent.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }
        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }
        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}

names! {
    /// The name of a module, which is also the `source` of the messages it makes.
    ModuleName
    /// A group of modules; on the wire it selects the handler at the edge.
    Group
    /// What a message asks for: `insert`, `query`, `response`, …
    Operation
    /// The `/`-separated path a message is about; see [`crate::message::resource`].
    Resource
    /// The name of a node, as in Kubernetes.
    NodeName
    /// The identity of a message: a UUID v4 in lower case.
    MessageId
    /// A Kubernetes resourceVersion: opaque text, compared as a decimal number where KubeEdge does so.
    ResourceVersion
}

impl MessageId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).into())
    }
}

impl ResourceVersion {
    /// The version as the number KubeEdge compares; `None` when it is not one.
    pub fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

/// The operations of KubeEdge's message model.
impl Operation {
    /// An object is new.
    pub const INSERT: Self = Self::of("insert");
    /// An object is gone.
    pub const DELETE: Self = Self::of("delete");
    /// An object is asked for.
    pub const QUERY: Self = Self::of("query");
    /// An object changed.
    pub const UPDATE: Self = Self::of("update");
    /// A patch for an object.
    pub const PATCH: Self = Self::of("patch");
    /// User data on its way to the cloud.
    pub const UPLOAD: Self = Self::of("upload");
    /// The answer to a message.
    pub const RESPONSE: Self = Self::of("response");
    /// The answer that something failed.
    pub const ERROR: Self = Self::of("error");
    /// The edge is alive.
    pub const KEEPALIVE: Self = Self::of("keepalive");
    /// The link came up or went down (inside the edge).
    pub const CONNECT: Self = Self::of("connect");
    /// Publish on MQTT.
    pub const PUBLISH: Self = Self::of("publish");
    /// Subscribe on MQTT.
    pub const SUBSCRIBE: Self = Self::of("subscribe");
    /// Unsubscribe on MQTT.
    pub const UNSUBSCRIBE: Self = Self::of("unsubscribe");
    /// Fetch, in the device protocol.
    pub const GET: Self = Self::of("get");
}

/// The modules of KubeEdge; the same text is the group of a cloud module.
impl ModuleName {
    /// CloudHub, the cloud end of the link.
    pub const CLOUD_HUB: Self = Self::of("cloudhub");
    /// EdgeController: nodes, pods, ConfigMaps, Secrets.
    pub const EDGE_CONTROLLER: Self = Self::of("edgecontroller");
    /// DeviceController: devices and device models.
    pub const DEVICE_CONTROLLER: Self = Self::of("devicecontroller");
    /// SyncController: reconciles what the edge has with what it should have.
    pub const SYNC_CONTROLLER: Self = Self::of("synccontroller");
    /// DynamicController: serves the edge's MetaServer.
    pub const DYNAMIC_CONTROLLER: Self = Self::of("dynamiccontroller");
    /// PolicyController: service account access.
    pub const POLICY_CONTROLLER: Self = Self::of("policycontroller");
    /// EdgeHub, the edge end of the link (named so whatever the transport).
    pub const EDGE_HUB: Self = Self::of("websocket");
    /// MetaManager: the edge's copy of what it should run.
    pub const META_MANAGER: Self = Self::of("metamanager");
    /// Edged, the edge's kubelet.
    pub const EDGED: Self = Self::of("edged");
    /// DeviceTwin.
    pub const TWIN: Self = Self::of("twin");
    /// EventBus, the bridge to MQTT.
    pub const EVENT_BUS: Self = Self::of("eventbus");
    /// ServiceBus, the bridge to HTTP on the edge.
    pub const SERVICE_BUS: Self = Self::of("servicebus");
    /// EdgeStream: logs, exec and metrics through the tunnel.
    pub const EDGE_STREAM: Self = Self::of("edgestream");
    /// The task manager, of the same name on both sides.
    pub const TASK_MANAGER: Self = Self::of("taskmanager");
}

/// The groups of edge modules, and those used on the wire.
impl Group {
    /// EdgeHub.
    pub const HUB: Self = Self::of("hub");
    /// MetaManager.
    pub const META: Self = Self::of("meta");
    /// Edged.
    pub const EDGED: Self = Self::of("edged");
    /// DeviceTwin.
    pub const TWIN: Self = Self::of("twin");
    /// EventBus and ServiceBus.
    pub const BUS: Self = Self::of("bus");
    /// Kubernetes objects, cloud to edge.
    pub const RESOURCE: Self = Self::of("resource");
    /// User traffic of the router.
    pub const USER: Self = Self::of("user");
    /// Node tasks.
    pub const TASK_MANAGER: Self = Self::of("taskmanager");
}

/// Whether a text can be the name of a node: a DNS-1123 subdomain of at most 253 bytes.
pub fn is_node_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_dns_subdomains() {
        for good in ["edge-1", "edge-1.lab", "10.0.0.1", "a", &"a".repeat(253)] {
            assert!(is_node_name(good), "{good}");
        }
        for bad in ["", "a/b", "..", "a..b", "Edge", "a_b", "-a", "a-", "a.-b", "a b", &"a".repeat(254)] {
            assert!(!is_node_name(bad), "{bad}");
        }
    }
}
