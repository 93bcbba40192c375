//! Status and deletion of pods.

use http::Method;
use kube::core::Status;
use kubeedge_core::{
    clock::Clock,
    message::{Content, Message, resource},
    name::{Group, ModuleName, Operation},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Answered},
    upstream::{Ask, CORE, not_yours},
};
use crate::{
    cluster::{Media, failure, namespaced},
    informer::{Informer, ObjectKey},
};

#[derive(Deserialize)]
struct PodPlace {
    spec: PlaceSpec,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceSpec {
    node_name: Option<String>,
}

/// One status in the form of old edges.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodStatusRequest {
    #[serde(rename = "UID", default)]
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: Value,
}

/// Patches the status as the node itself.
pub(super) async fn patch_status(pods: &Informer, ask: &Ask<'_>) -> Answered {
    own_pod(pods, ask)?;
    let path = namespaced(CORE, ask.namespace, "pods", &[ask.name, "status"]);
    ask.client.call(Method::PATCH, &path, Media::StrategicPatch, ask.body()).await
}

/// Deletes a pod the edge has stopped; one that is gone or was made anew counts as deleted.
pub(super) async fn delete(pods: &Informer, ask: &Ask<'_>) -> Result<(), Box<Status>> {
    own_pod(pods, ask)?;
    let body = match ask.message.content.as_text() {
        // Old edges send the bare UID.
        Some(text) if !text.trim_start().starts_with('{') => {
            json!({"gracePeriodSeconds": 0, "preconditions": {"uid": text}}).to_string().into_bytes()
        }
        _ => ask.body(),
    };
    let path = namespaced(CORE, ask.namespace, "pods", &[ask.name]);
    match ask.client.call(Method::DELETE, &path, Media::Json, body).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) if status.message.contains("The object might have been deleted and then recreated") => {
            Ok(())
        }
        Err(status) => Err(status),
    }
}

/// A pod known to be on another node is none of this node's business.
fn own_pod(pods: &Informer, ask: &Ask<'_>) -> Result<(), Box<Status>> {
    let Some(pod) = pods.get(&ObjectKey::new(ask.namespace, ask.name)) else { return Ok(()) };
    match pod.view::<PodPlace>() {
        Ok(PodPlace { spec: PlaceSpec { node_name: Some(node) } }) if node != ask.node.as_str() => {
            Err(not_yours("pod", ask))
        }
        _ => Ok(()),
    }
}

/// Statuses in the form of old edges, one or many; one answer each.
pub(super) async fn put_statuses(clock: &Clock, ask: &Ask<'_>) -> Vec<Message> {
    let content = &ask.message.content;
    let requests: Vec<PodStatusRequest> = if ask.name.is_empty() {
        content.decode().unwrap_or_default()
    } else {
        content.decode().into_iter().collect()
    };
    let mut answers = Vec::new();
    for mut request in requests {
        if request.name.is_empty() {
            request.name = ask.name.to_owned();
        }
        answers.extend(answers_to(clock, ask, &request).await);
    }
    answers
}

/// The answer to one status; for a pod that is gone also the word that it is.
async fn answers_to(clock: &Clock, ask: &Ask<'_>, request: &PodStatusRequest) -> Vec<Message> {
    let path = namespaced(CORE, ask.namespace, "pods", &[&request.name]);
    let pod = ask.client.get(&path).await.and_then(|bytes| read(&bytes));
    match pod {
        Ok((pod, known)) if known.metadata.uid == request.uid => {
            let done = put_status(ask, &path, (pod, &known), request, clock).await;
            vec![answer::confirmation(ask.message, done)]
        }
        Err(status) if !status.is_not_found() => vec![answer::confirmation(ask.message, Err(status))],
        _ => vec![answer::confirmation(ask.message, Ok(())), stale_pod(ask, &request.name)],
    }
}

/// A pod as it came from the API server, and what is read of it.
fn read(bytes: &[u8]) -> Result<(Value, Known), Box<Status>> {
    let bad = |error: serde_json::Error| failure(502, "InternalError", error.to_string());
    let pod: Value = serde_json::from_slice(bytes).map_err(bad)?;
    let known = Known::deserialize(&pod).map_err(bad)?;
    Ok((pod, known))
}

/// What is read of a pod as the cluster has it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Known {
    #[serde(deserialize_with = "null_is_default")]
    metadata: KnownMeta,
    #[serde(deserialize_with = "null_is_default")]
    spec: KnownSpec,
    #[serde(deserialize_with = "null_is_default")]
    status: KnownStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KnownMeta {
    uid: String,
    deletion_timestamp: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KnownSpec {
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<KnownContainer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KnownContainer {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KnownStatus {
    /// As the API server wrote it.
    start_time: Option<Value>,
    #[serde(deserialize_with = "null_is_default")]
    conditions: Vec<Value>,
}

/// Go writes `null` for what is empty.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(of: D) -> Result<T, D::Error> {
    Option::deserialize(of).map(Option::unwrap_or_default)
}

async fn put_status(
    ask: &Ask<'_>,
    path: &str,
    (mut pod, known): (Value, &Known),
    request: &PodStatusRequest,
    clock: &Clock,
) -> Result<(), Box<Status>> {
    let mut status = request.status.clone();
    if let Some(status) = status.as_object_mut() {
        settle(status, known, clock);
    }
    let finished = is_finished(&status) && known.metadata.deletion_timestamp.is_some();
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("status".to_owned(), status);
    }
    let to = format!("{path}/status");
    ask.client.call(Method::PUT, &to, Media::Json, pod.to_string()).await?;
    if finished {
        let options = br#"{"gracePeriodSeconds":0}"#.to_vec();
        ask.client.call(Method::DELETE, path, Media::Json, options).await?;
    }
    Ok(())
}

/// Fits a reported status to what was known of the pod: when it started, since when its conditions hold, and
/// the containers in the order users know.
fn settle(status: &mut Map<String, Value>, pod: &Known, clock: &Clock) {
    let now = || Value::String(kubeedge_common::stamp::stamp(clock));
    match (&pod.status.start_time, status.get("startTime")) {
        (Some(started), _) => drop(status.insert("startTime".to_owned(), started.clone())),
        (None, None | Some(Value::Null)) => drop(status.insert("startTime".to_owned(), now())),
        _ => {}
    }
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if !matches!(condition["type"].as_str(), Some("Ready" | "Initialized")) {
            continue;
        }
        let before = pod.status.conditions.iter().find(|known| known["type"] == condition["type"]);
        let unchanged = before.filter(|before| before["status"] == condition["status"]);
        let since = unchanged.map_or_else(now, |before| before["lastTransitionTime"].clone());
        if let Some(condition) = condition.as_object_mut() {
            condition.insert("lastTransitionTime".to_owned(), since);
        }
    }
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    if let Some(containers) = status.get_mut("containerStatuses").and_then(Value::as_array_mut) {
        containers.sort_by_key(name);
    }
    if let Some(containers) = status.get_mut("initContainerStatuses").and_then(Value::as_array_mut) {
        let order = &pod.spec.init_containers;
        let place = |container: &Value| {
            let name = container["name"].as_str();
            order.iter().position(|known| Some(known.name.as_str()) == name)
        };
        containers.sort_by_key(place);
    }
}

/// No container runs any more, and the phase says so.
fn is_finished(status: &Value) -> bool {
    let running = |container: &Value| container["state"].get("running").is_some();
    matches!(status.get("phase").and_then(Value::as_str), Some("Succeeded" | "Failed"))
        && !status.get("containerStatuses").and_then(Value::as_array).into_iter().flatten().any(running)
}

/// The edge runs a pod that is gone: told by its name alone, as Go does.
fn stale_pod(ask: &Ask<'_>, name: &str) -> Message {
    let path = resource::for_node(&ask.node, &resource::object(ask.namespace, "pod", name));
    let stub = json!({"metadata": {"name": name, "namespace": ask.namespace, "creationTimestamp": null}, "spec": {"containers": null}, "status": {}});
    Message::new(ModuleName::EDGE_CONTROLLER, Operation::DELETE, path)
        .in_group(Group::RESOURCE)
        .with(Content::json(&stub).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kubeedge_core::message::Millis;

    use super::*;

    #[test]
    fn a_pod_is_read_whatever_go_left_empty() {
        let pod = br#"{"metadata":{"uid":"u","deletionTimestamp":null},"spec":{"initContainers":null},"status":null}"#;
        let (_, known) = read(pod).unwrap();
        assert_eq!((known.metadata.uid.as_str(), known.metadata.deletion_timestamp), ("u", None));
        assert!(read(b"{}").unwrap().1.metadata.uid.is_empty() && read(b"[").is_err());
    }

    #[test]
    fn a_reported_status_keeps_what_the_cluster_knew() {
        let pod = json!({
            "metadata": {"uid": "u"},
            "spec": {"initContainers": [{"name": "first"}, {"name": "second"}]},
            "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T00:00:00Z"}]},
        });
        let (_, known) = read(pod.to_string().as_bytes()).unwrap();
        let mut status = json!({
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
            "containerStatuses": [{"name": "b"}, {"name": "a"}],
            "initContainerStatuses": [{"name": "second"}, {"name": "first"}],
        });
        settle(status.as_object_mut().unwrap(), &known, &Clock::of(|| Millis(1_800_000_000_000)));
        assert_eq!(status["startTime"], "2026-01-01T00:00:00Z");
        assert_eq!(status["conditions"][0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
        assert_eq!(status["conditions"][1]["lastTransitionTime"], "2027-01-15T08:00:00Z");
        assert_eq!(status["containerStatuses"], json!([{"name": "a"}, {"name": "b"}]));
        assert_eq!(status["initContainerStatuses"], json!([{"name": "first"}, {"name": "second"}]));
    }
}
