//! Lists of pods and usage of containers, in the kubelet's forms.

use std::{collections::BTreeMap, fmt::Write};

use http::{Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kubeedge_core::{
    failure::chain,
    runtime::{Container, ContainerState, Usage},
};
use serde_json::{Value, json};

use super::{Answer, Body, Local, PLAIN, Refusal, text};

const JSON: &str = "application/json";

fn pod_list(items: Vec<Value>) -> Response<Body> {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    text(StatusCode::OK, JSON, list.to_string())
}

/// The pods of the node with their newest status.
pub(super) fn pods(local: &Local) -> Response<Body> {
    let items = local.pods.all().into_iter().filter_map(|pod| serde_json::to_value(&*pod).ok());
    pod_list(items.collect())
}

/// Who a container belongs to, by the labels of the kubelet.
fn owner(container: &Container) -> Option<[String; 3]> {
    let label = |name: &str| container.labels.get(name).cloned();
    let (namespace, name) = (label("io.kubernetes.pod.namespace")?, label("io.kubernetes.pod.name")?);
    Some([namespace, name, label("io.kubernetes.pod.uid")?])
}

/// Running containers by pod.
async fn running_by_pod(local: &Local) -> Result<BTreeMap<[String; 3], Vec<Container>>, Refusal> {
    let listed = local.runtime.list_all().await.map_err(|error| {
        let why = format!("the container runtime does not answer: {}", chain(&error));
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    })?;
    let mut pods: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for container in listed.1.into_iter().filter(|container| container.state.is_running()) {
        if let Some(owner) = owner(&container) {
            pods.entry(owner).or_default().push(container);
        }
    }
    Ok(pods)
}

/// What the runtime runs, whoever wants it.
pub(super) async fn running(local: &Local) -> Answer {
    let pods = running_by_pod(local).await?;
    let items = pods.into_iter().map(|([namespace, name, uid], containers)| {
        let containers = containers.into_iter();
        let containers: Vec<_> =
            containers.map(|c| json!({"name": c.name, "image": c.image, "resources": {}})).collect();
        json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"containers": containers},
            "status": {},
        })
    });
    Ok(pod_list(items.collect()))
}

/// A running container's usage.
struct Used {
    pod: [String; 3],
    container: Container,
    usage: Usage,
}

/// Usage of every running container the runtime tells of.
async fn usage(local: &Local) -> Result<Vec<Used>, Refusal> {
    let stats = local.runtime.stats().ok_or_else(|| {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "the container runtime of this node tells no usage")
    })?;
    let mut all = Vec::new();
    for (pod, containers) in running_by_pod(local).await? {
        for container in containers {
            // One that ended just now has no usage any more.
            if let Ok(usage) = stats.usage(&container.id).await {
                all.push(Used { pod: pod.clone(), container, usage });
            }
        }
    }
    Ok(all)
}

fn at(now: Timestamp, usage: Usage) -> (Value, Value) {
    let time = now.to_string();
    (
        json!({"time": time, "usageCoreNanoSeconds": usage.cpu_nanos}),
        json!({"time": time, "workingSetBytes": usage.memory_working_set}),
    )
}

/// The kubelet's summary, as far as the runtime tells: CPU time and working set.
pub(super) async fn summary(local: &Local) -> Answer {
    let now = local.now();
    let mut pods: BTreeMap<[String; 3], (Usage, Vec<Value>)> = BTreeMap::new();
    for Used { pod, container, usage } in usage(local).await? {
        let (sum, containers) = pods.entry(pod).or_default();
        sum.cpu_nanos += usage.cpu_nanos;
        sum.memory_working_set += usage.memory_working_set;
        let (cpu, memory) = at(now, usage);
        containers.push(
            json!({"name": container.name, "startTime": started(&container), "cpu": cpu, "memory": memory}),
        );
    }
    let pods = pods.into_iter().map(|([namespace, name, uid], (sum, containers))| {
        let (cpu, memory) = at(now, sum);
        let reference = json!({"name": name, "namespace": namespace, "uid": uid});
        json!({"podRef": reference, "containers": containers, "cpu": cpu, "memory": memory})
    });
    let pods: Vec<_> = pods.collect();
    let summary = json!({"node": {"nodeName": local.node.as_str()}, "pods": pods});
    Ok(text(StatusCode::OK, JSON, summary.to_string()))
}

fn started(container: &Container) -> Option<String> {
    let ContainerState::Running { started_at } = container.state else { return None };
    Timestamp::from_millisecond(started_at.0).ok().map(|at| at.to_string())
}

/// What metrics-server reads, in Prometheus' text format.
pub(super) async fn resource_metrics(local: &Local) -> Answer {
    let now = local.clock.now().0;
    let all = usage(local).await?;
    let (mut cpu, mut memory) = (String::new(), String::new());
    for Used { pod: [namespace, name, _], container, usage } in &all {
        let of = format!("{{container={:?},namespace={namespace:?},pod={name:?}}}", container.name);
        let seconds = usage.cpu_nanos as f64 / 1e9;
        // Writing to a String does not fail.
        let _ = writeln!(cpu, "container_cpu_usage_seconds_total{of} {seconds} {now}");
        let _ = writeln!(memory, "container_memory_working_set_bytes{of} {} {now}", usage.memory_working_set);
    }
    let metrics = format!(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds\n\
         # TYPE container_cpu_usage_seconds_total counter\n{cpu}\
         # HELP container_memory_working_set_bytes Current working set of the container in bytes\n\
         # TYPE container_memory_working_set_bytes gauge\n{memory}"
    );
    Ok(text(StatusCode::OK, PLAIN, metrics))
}
