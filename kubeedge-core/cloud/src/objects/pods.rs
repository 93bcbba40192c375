//! Status and deletion of pods.

use http::Method;
use kube::core::Status;
use kubeedge_core::{
    clock::Clock,
    message::{Content, Message, resource},
    name::{Group, ModuleName, Operation},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Answered},
    upstream::{Ask, CORE, Upstream, not_yours},
};
use crate::{
    cluster::{Media, failure, namespaced},
    informer::ObjectKey,
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

impl Upstream {
    pub(super) async fn patch_pod_status(&self, ask: &Ask<'_>) -> Answered {
        self.own_pod(ask)?;
        let path = namespaced(CORE, ask.namespace, "pods", &[ask.name, "status"]);
        ask.client.call(Method::PATCH, &path, Media::StrategicPatch, ask.body()).await
    }

    /// Deletes a pod the edge has stopped; one that is gone or was made anew counts as deleted.
    pub(super) async fn delete_pod(&self, ask: &Ask<'_>) -> Result<(), Box<Status>> {
        self.own_pod(ask)?;
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
            Err(status)
                if status.message.contains("The object might have been deleted and then recreated") =>
            {
                Ok(())
            }
            Err(status) => Err(status),
        }
    }

    /// A pod known to be on another node is none of this node's business.
    fn own_pod(&self, ask: &Ask<'_>) -> Result<(), Box<Status>> {
        let Some(pod) = self.caches.pods.get(&ObjectKey::new(ask.namespace, ask.name)) else { return Ok(()) };
        match pod.view::<PodPlace>() {
            Ok(PodPlace { spec: PlaceSpec { node_name: Some(node) } }) if node != ask.node.as_str() => {
                Err(not_yours("pod", ask))
            }
            _ => Ok(()),
        }
    }

    /// Statuses in the form of old edges, one or many; one answer each.
    pub(super) async fn pod_statuses(&self, ask: &Ask<'_>) -> Vec<Message> {
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
            self.pod_status(ask, &request, &mut answers).await;
        }
        answers
    }

    async fn pod_status(&self, ask: &Ask<'_>, request: &PodStatusRequest, answers: &mut Vec<Message>) {
        let path = namespaced(CORE, ask.namespace, "pods", &[&request.name]);
        let pod = match ask.client.get(&path).await {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes)
                .map_err(|error| failure(502, "InternalError", error.to_string())),
            Err(status) => Err(status),
        };
        let uid = |pod: &Value| pod.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        match pod {
            Ok(pod) if uid(&pod).as_deref() == Some(&request.uid) => {
                let done = put_status(ask, &path, pod, request, self.clients.clock()).await;
                answers.push(answer::confirmation(ask.message, done));
            }
            Err(status) if !status.is_not_found() => {
                answers.push(answer::confirmation(ask.message, Err(status)));
            }
            _ => {
                answers.push(answer::confirmation(ask.message, Ok(())));
                answers.push(stale_pod(ask, &request.name));
            }
        }
    }
}

async fn put_status(
    ask: &Ask<'_>,
    path: &str,
    mut pod: Value,
    request: &PodStatusRequest,
    clock: &Clock,
) -> Result<(), Box<Status>> {
    let mut status = request.status.clone();
    if let Some(status) = status.as_object_mut() {
        settle(status, &pod, clock);
    }
    let finished = is_finished(&status) && pod.pointer("/metadata/deletionTimestamp").is_some();
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

/// Fits a reported status to what was known of the pod: when it started, since when its conditions hold, and the
/// containers in the order users know.
fn settle(status: &mut Map<String, Value>, pod: &Value, clock: &Clock) {
    let now = || Value::String(kubeedge_common::stamp::stamp(clock));
    let started = pod.pointer("/status/startTime").filter(|time| !time.is_null());
    match (started, status.get("startTime")) {
        (Some(started), _) => drop(status.insert("startTime".to_owned(), started.clone())),
        (None, None | Some(Value::Null)) => drop(status.insert("startTime".to_owned(), now())),
        _ => {}
    }
    let known = pod.pointer("/status/conditions").and_then(Value::as_array);
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if !matches!(condition["type"].as_str(), Some("Ready" | "Initialized")) {
            continue;
        }
        let before = known.into_iter().flatten().find(|known| known["type"] == condition["type"]);
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
        let order = pod.pointer("/spec/initContainers").and_then(Value::as_array);
        let place = |container: &Value| {
            order.into_iter().flatten().position(|known| known["name"] == container["name"])
        };
        containers.sort_by_key(place);
    }
}

/// No container runs any more, and the phase says so.
fn is_finished(status: &Value) -> bool {
    let running = |container: &Value| container.pointer("/state/running").is_some();
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
