//! Registration and status of nodes.

use http::Method;
use kube::core::Status;
use kubeedge_core::{
    clock::Clock,
    message::{Content, Message, resource},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Answered},
    upstream::{Ask, CORE, not_yours},
};
use crate::{
    cluster::{Clients, Media, api_path, failure},
    instance::Instance,
};

/// Creates the Node as the node itself; labels which a node may not set itself are set by us afterwards.
pub(super) async fn register(clients: &Clients, instance: &Instance, ask: &Ask<'_>) -> Answered {
    own_node(ask)?;
    let mut node: Value = decoded(ask, "a Node")?;
    let reserved = prepare(&mut node, ask.name, instance)
        .ok_or_else(|| failure(400, "BadRequest", "not a Node: no object"))?;
    let path = api_path(CORE, &["nodes"]);
    let made = ask.client.post(&path, node.to_string()).await?;
    if reserved.is_empty() {
        return Ok(made);
    }
    let patch = json!({"metadata": {"labels": reserved}});
    clients.ours().merge(&api_path(CORE, &["nodes", ask.name]), &patch).await
}

/// Patches the status as the node itself.
pub(super) async fn patch_status(ask: &Ask<'_>) -> Answered {
    own_node(ask)?;
    let path = api_path(CORE, &["nodes", ask.name, "status"]);
    ask.client.call(Method::PATCH, &path, Media::StrategicPatch, ask.body()).await
}

/// Merges labels and annotations into the Node, and nothing else of what the edge says.
pub(super) async fn update(ask: &Ask<'_>) -> Answered {
    own_node(ask)?;
    let node: Update = decoded(ask, "a Node")?;
    let mut metadata = Map::new();
    let UpdatedMeta { labels, annotations } = node.metadata.unwrap_or_default();
    for (name, part) in [("labels", labels), ("annotations", annotations)] {
        if part.is_object() {
            metadata.insert(name.to_owned(), part);
        }
    }
    let path = api_path(CORE, &["nodes", ask.name]);
    ask.client.merge(&path, &json!({"metadata": metadata})).await
}

/// The registration of old edges, which are told in words what became of it.
pub(super) async fn register_old(clients: &Clients, instance: &Instance, ask: &Ask<'_>) -> Message {
    let there = ask.client.get(&api_path(CORE, &["nodes", ask.name])).await;
    let done = if there.is_ok() { there } else { register(clients, instance, ask).await };
    let text = done.map_or_else(|status| status.message, |_| "OK".to_owned());
    renamed(ask, answer::response(ask.message, Content::text(&text)))
}

/// An answer to an old edge, under the resource that it expects.
pub(super) fn renamed(ask: &Ask<'_>, mut answer: Message) -> Message {
    let path = resource::object(ask.namespace, "node", ask.name);
    answer.route.resource = resource::for_node(&ask.node, &path);
    answer
}

/// Replaces the status by the whole one of an old edge.
pub(super) async fn put_status(clients: &Clients, ask: &Ask<'_>) -> Answered {
    own_node(ask)?;
    let body: OldStatus = decoded(ask, "a node status")?;
    if let Some(extended) = body.extend_resources.filter(|extended| !extended.is_empty()) {
        let patch = json!({"metadata": {"annotations": described(&extended)}});
        clients.ours().merge(&api_path(CORE, &["nodes", ask.name]), &patch).await?;
    }
    let there = ask.client.get(&api_path(CORE, &["nodes", ask.name])).await?;
    let mut node: Value = serde_json::from_slice(&there)
        .map_err(|error| failure(502, "InternalError", format!("not a Node: {error}")))?;
    let mut status = body.status;
    refresh_heartbeats(&mut status, clients.clock());
    keep_what_is_the_clusters(&mut status, node.get("status"));
    if let Some(node) = node.as_object_mut() {
        node.insert("status".to_owned(), Value::Object(status));
    }
    let path = api_path(CORE, &["nodes", ask.name, "status"]);
    ask.client.call(Method::PUT, &path, Media::Json, node.to_string()).await
}

/// The content of a request as what it should be.
fn decoded<T: DeserializeOwned>(ask: &Ask<'_>, what: &str) -> Result<T, Box<Status>> {
    let content = &ask.message.content;
    content.decode().map_err(|error| failure(400, "BadRequest", format!("not {what}: {error}")))
}

/// What is taken over of a Node that an edge sends.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Update {
    metadata: Option<UpdatedMeta>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UpdatedMeta {
    labels: Value,
    annotations: Value,
}

/// A whole status in the form of old edges.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OldStatus {
    #[serde(default)]
    status: Map<String, Value>,
    #[serde(default)]
    extend_resources: Option<Map<String, Value>>,
}

/// Go's name for a resource it describes in a second annotation.
const GPU: (&str, &str) = ("nvidia.com/gpu", "huawei.com/gpu-status");

/// Extended resources as annotations.
fn described(extended: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| Value::String(value.to_string());
    let mut annotations: Map<_, _> =
        extended.iter().map(|(name, resources)| (name.clone(), text(resources))).collect();
    let gpus: Vec<_> = extended.get(GPU.0).and_then(Value::as_array).into_iter().flatten().collect();
    if !gpus.is_empty() {
        let healthy: Vec<_> = gpus.iter().map(|gpu| json!({"id": gpu["name"], "healthy": true})).collect();
        annotations.insert(GPU.1.to_owned(), text(&Value::Array(healthy)));
    }
    annotations
}

/// A status that was long on its way says nothing of how long ago the node was heard of.
fn refresh_heartbeats(status: &mut Map<String, Value>, clock: &Clock) {
    let (now, moment) = (kubeedge_common::stamp::moment(clock), kubeedge_common::stamp::stamp(clock));
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        let at = condition.get("lastHeartbeatTime").and_then(Value::as_str).unwrap_or_default();
        let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339);
        if at.is_ok_and(|at| now - at > HEARTBEAT) {
            condition.insert("lastHeartbeatTime".to_owned(), moment.as_str().into());
        }
    }
}

/// Go's nodeUpdateFrequency.
const HEARTBEAT: time::Duration = time::Duration::seconds(10);

/// Attached volumes and the tunnel's port are written by the cluster and the cloud, not by nodes.
fn keep_what_is_the_clusters(status: &mut Map<String, Value>, there: Option<&Value>) {
    status.remove("volumesAttached");
    if let Some(volumes) = there.and_then(|there| there.get("volumesAttached")) {
        status.insert("volumesAttached".to_owned(), volumes.clone());
    }
    let endpoints = there.and_then(|there| there.get("daemonEndpoints"));
    let port = endpoints.and_then(|endpoints| endpoints.get("kubeletEndpoint")?.get("Port"));
    if let (Some(endpoints), Some(1..)) = (endpoints, port.and_then(Value::as_u64)) {
        status.insert("daemonEndpoints".to_owned(), endpoints.clone());
    }
}

/// A node reads and writes no Node but its own.
pub(super) fn own_node(ask: &Ask<'_>) -> Result<(), Box<Status>> {
    if ask.name == ask.node.as_str() { Ok(()) } else { Err(not_yours("node", ask)) }
}

/// Fills in name and annotations; takes out and returns the labels a node may not set itself.
fn prepare(node: &mut Value, name: &str, instance: &Instance) -> Option<Map<String, Value>> {
    let node = node.as_object_mut()?;
    node.insert("apiVersion".to_owned(), "v1".into());
    node.insert("kind".to_owned(), "Node".into());
    let metadata = node.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    metadata.insert("name".to_owned(), name.into());
    if let Some(annotations) = child(metadata, "annotations") {
        annotations.extend(instance.annotations());
    }
    let mut reserved = Map::new();
    if let Some(labels) = child(metadata, "labels") {
        for (key, value) in std::mem::take(labels) {
            let into = if is_reserved(&key) { &mut reserved } else { &mut *labels };
            into.insert(key, value);
        }
    }
    Some(reserved)
}

fn child<'a>(of: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let value = of.entry(name).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// `kubernetes.io/…` and `….kubernetes.io/…`: guarded by the NodeRestriction admission plugin.
fn is_reserved(label: &str) -> bool {
    let mut parts = label.split('/');
    let (prefix, name, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    name.is_some() && more.is_none() && (prefix == "kubernetes.io" || prefix.ends_with(".kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use kubeedge_core::message::Millis;

    use super::*;

    #[test]
    fn a_status_of_an_old_edge_leaves_the_clusters_fields_alone_and_tells_of_gpus() {
        let mut status = json!({"volumesAttached": [1], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}},
            "conditions": [{"type": "Ready", "lastHeartbeatTime": "2020-01-01T00:00:00Z"}]});
        let status = status.as_object_mut().unwrap();
        let there = json!({"daemonEndpoints": {"kubeletEndpoint": {"Port": 10351}}});
        keep_what_is_the_clusters(status, Some(&there));
        refresh_heartbeats(status, &Clock::of(|| Millis(1_800_000_000_000)));
        assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10351);
        assert_eq!(status.get("volumesAttached"), None);
        assert_eq!(status["conditions"][0]["lastHeartbeatTime"], "2027-01-15T08:00:00Z");
        let extended = json!({"nvidia.com/gpu": [{"name": "gpu-0", "type": "t", "capacity": "1"}]});
        let annotations = described(extended.as_object().unwrap());
        assert_eq!(annotations["huawei.com/gpu-status"], r#"[{"healthy":true,"id":"gpu-0"}]"#);
        assert!(annotations["nvidia.com/gpu"].as_str().unwrap().contains("gpu-0"));
    }

    #[test]
    fn labels_guarded_by_node_restriction_are_kept_apart() {
        let mut node = json!({"metadata": {"labels": {
            "node-role.kubernetes.io/edge": "", "kubernetes.io/arch": "amd64", "rack": "7", "acme.io/x": "y"}}});
        let reserved = prepare(&mut node, "n", &Instance::new("10.0.0.1")).unwrap();
        assert_eq!(
            reserved.keys().collect::<Vec<_>>(),
            ["kubernetes.io/arch", "node-role.kubernetes.io/edge"]
        );
        assert_eq!(node["metadata"]["labels"], json!({"rack": "7", "acme.io/x": "y"}));
        assert_eq!(node["metadata"]["name"], "n");
        assert_eq!(node["metadata"]["annotations"]["cloudcore"], "10.0.0.1");
    }
}
