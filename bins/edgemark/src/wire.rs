//! What an edge says, in the shapes of Go's edge.

use kubeedge_core::{
    message::{Content, Message, Millis, resource},
    name::{Group, ModuleName, Operation, Resource},
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The namespace of nodes' leases.
const LEASES: &str = "kube-node-lease";
/// How long a lease holds, in seconds; Go's nodeLeaseDurationSeconds.
pub(crate) const LEASE_SECONDS: u64 = 40;

/// The present time as Kubernetes writes it.
fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

fn content(value: &Value) -> Content {
    Content::json(value).unwrap_or_default()
}

/// A request of Edged.
fn asked(operation: Operation, resource: Resource, content: Content) -> Message {
    Message::new(ModuleName::EDGED, operation, resource).in_group(Group::META).with(content)
}

/// Go's keepalive, which is not answered.
pub(crate) fn keepalive() -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::KEEPALIVE, "node")
        .in_group(Group::RESOURCE)
        .with(Content::text("ping"))
}

/// What DeviceTwin says after each connect; not answered.
pub(crate) fn greeting(node: &str) -> Message {
    let body = json!({
        "event_type": "group_membership_event", "event_id": "", "group_id": node, "operation": "detail",
        "timestamp": Millis::now().0,
    });
    Message::new(ModuleName::TWIN, Operation::GET, "membership/detail")
        .in_group(Group::RESOURCE)
        .with(Content::text(&body.to_string()))
}

/// A confirmation of what the cloud sent.
pub(crate) fn confirmation(of: &Message) -> Message {
    of.answer(Content::ok())
}

/// Registers the node.
pub(crate) fn registration(node: &str) -> Message {
    let body = json!({
        "metadata": {"name": node, "labels": {
            "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": node, "kubernetes.io/os": "linux", "node-role.kubernetes.io/agent": "",
            "node-role.kubernetes.io/edge": "", "edgemark": "",
        }},
        "spec": {},
        "status": status(),
    });
    asked(Operation::INSERT, resource::object("", "node", node), content(&body))
}

/// Says that the node is ready.
pub(crate) fn node_status(node: &str) -> Message {
    let patch = json!({"status": status()}).to_string();
    asked(Operation::PATCH, resource::object("", "nodepatch", node), Content::text(&patch))
}

fn status() -> Value {
    let now = now();
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now});
    let capacity =
        json!({"cpu": "2", "memory": "2097152Ki", "ephemeral-storage": "8388608Ki", "pods": "110"});
    json!({
        "capacity": capacity, "allocatable": capacity,
        "conditions": [
            condition("MemoryPressure", "False", "EdgeHasSufficientMemory"),
            condition("DiskPressure", "False", "EdgeHasNoDiskPressure"),
            condition("PIDPressure", "False", "EdgeHasSufficientPID"),
            condition("Ready", "True", "EdgeReady"),
        ],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}},
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "edgemark",
            "containerRuntimeVersion": "edgemark://1", "kubeletVersion": "v1.33.0-kubeedge", "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}

/// What an edge must remember of its lease to renew it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LeaseMeta {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

/// Asks for the node's lease.
pub(crate) fn lease_query(node: &str) -> Message {
    asked(Operation::QUERY, resource::object(LEASES, "lease", node), Content::empty())
}

/// Renews the node's lease, or makes it.
pub(crate) fn lease(node: &str, known: Option<&LeaseMeta>) -> Message {
    let mut metadata = json!({"name": node, "namespace": LEASES});
    if let (Some(known), Some(metadata)) = (known, metadata.as_object_mut()) {
        metadata.insert("uid".to_owned(), known.uid.as_str().into());
        metadata.insert("resourceVersion".to_owned(), known.resource_version.as_str().into());
    }
    let body = json!({
        "metadata": metadata,
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now()},
    });
    let operation = if known.is_some() { Operation::UPDATE } else { Operation::INSERT };
    asked(operation, resource::object(LEASES, "lease", node), content(&body))
}

/// A question to the link itself, which Go's and our hub answer at once; its content is of this size.
pub(crate) fn echo(size: usize) -> Message {
    Message::new(ModuleName::EDGE_HUB, Operation::of("ping"), "edgemark")
        .in_group(Group::RESOURCE)
        .with(Content::text(&"x".repeat(size)))
}

/// What an edge must know of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: PodMeta,
    pub(crate) spec: PodSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodMeta {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodSpec {
    pub(crate) containers: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
}

/// Says that a pod runs.
pub(crate) fn pod_running(pod: &Pod) -> Message {
    let now = now();
    let containers = pod.spec.containers.iter().flatten().map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": container.image, "ready": true,
            "started": true, "restartCount": 0, "containerID": format!("edgemark://{}", pod.metadata.uid),
            "state": {"running": {"startedAt": now}},
        })
    });
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let status = json!({
        "phase": "Running", "startTime": now, "podIP": "127.0.0.1", "hostIP": "127.0.0.1",
        "conditions": conditions,
        "containerStatuses": containers.collect::<Vec<_>>(),
    });
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status}).to_string();
    let resource = resource::object(&pod.metadata.namespace, "podpatch", &pod.metadata.name);
    asked(Operation::PATCH, resource, Content::text(&patch))
}

/// Says that a pod that is to go has stopped.
pub(crate) fn pod_stopped(pod: &PodMeta) -> Message {
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}});
    asked(Operation::DELETE, resource::object(&pod.namespace, "pod", &pod.name), content(&options))
}

/// What an edge must know of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    pub(crate) spec: DeviceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeviceSpec {
    pub(crate) properties: Option<Vec<Property>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) desired: Option<Desired>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Desired {
    pub(crate) value: String,
}

/// Reports the twins of a device (`<namespace>/<name>`): what is wished for, and a count where nothing is.
pub(crate) fn twins(device: &str, known: &Device, round: u64) -> Message {
    let now = Millis::now().0;
    let twin = known.spec.properties.iter().flatten().map(|property| {
        let wished = property.desired.as_ref().map(|desired| desired.value.clone());
        let value = wished.filter(|value| !value.is_empty()).unwrap_or_else(|| round.to_string());
        let actual = json!({"value": value, "metadata": {"timestamp": now}});
        (property.name.clone(), json!({"actual": actual, "metadata": {"type": "string"}}))
    });
    let twin: serde_json::Map<_, _> = twin.collect();
    let body = json!({"event_id": "", "timestamp": now, "twin": twin});
    Message::new(ModuleName::TWIN, Operation::UPDATE, format!("device/{device}/twin/edge_updated"))
        .in_group(Group::RESOURCE)
        .with(content(&body))
}

/// `{"Object":…,"Err":…}`, as the cloud answers what wants an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    #[serde(rename = "Object")]
    object: Option<Versioned>,
    #[serde(rename = "Err")]
    error: Option<ErrStatus>,
}

/// The part of an object that its next version is written with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Versioned {
    metadata: LeaseMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrStatus {
    #[serde(rename = "ErrStatus")]
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
}

impl Answer {
    /// Reads it; `None` where it is of another shape, as that to the deletion of a pod.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        message.content.decode().ok()
    }

    /// The reason of a refusal, such as `AlreadyExists`; empty when there was none.
    pub(crate) fn reason(&self) -> &str {
        self.error.as_ref().map_or("", |error| error.status.reason.as_str())
    }

    /// What the cloud says of a refusal.
    pub(crate) fn why(&self) -> &str {
        self.error.as_ref().map_or("", |error| error.status.message.as_str())
    }

    /// What the object's next version is written with.
    pub(crate) fn meta(self) -> Option<LeaseMeta> {
        self.object.map(|object| object.metadata).filter(|meta| !meta.uid.is_empty())
    }
}
