//! Node lifecycle: a node whose lease runs out is not ready; its taints say so, and pods that do not tolerate them end.

use serde_json::{Value, json};

use crate::apiserver::edit::put;
use time::OffsetDateTime;

use super::{
    super::{
        kinds::built_in_kind,
        registry::{Part, now, parse_time, text},
        status::Refusal,
    },
    Desk, condition_is, is_active, place,
    scheduler::toleration,
};

/// How old a lease may be: Kubernetes' nodeMonitorGracePeriod.
const GRACE: i64 = 40;
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) async fn reconcile(desk: &Desk) -> Result<(), Refusal> {
    for node in desk.list("", "nodes", "") {
        watch_over(desk, &node).await?;
    }
    Ok(())
}

async fn watch_over(desk: &Desk, node: &Value) -> Result<(), Refusal> {
    let name = text(node, "/metadata/name").to_owned();
    if !is_alive(desk, node, &name) && !condition_is(node, "Ready", "Unknown") {
        tracing::warn!(node = %name, "node has stopped renewing its lease");
        desk.change(&built_in_kind("", "nodes"), &place(node), Part::Status, unknown).await?;
        desk.event(
            node,
            "node-controller",
            "Normal",
            "NodeNotReady",
            &format!("Node {name} status is now: NodeNotReady"),
        )
        .await;
        return Ok(());
    }
    let wanted = if condition_is(node, "Ready", "Unknown") {
        Some(UNREACHABLE)
    } else if condition_is(node, "Ready", "True") {
        None
    } else {
        Some(NOT_READY)
    };
    taint(desk, node, wanted).await?;
    match wanted {
        Some(_) => evict(desk, &name).await,
        None => Ok(()),
    }
}

fn is_alive(desk: &Desk, node: &Value, name: &str) -> bool {
    let lease = desk.get(
        &built_in_kind("coordination.k8s.io", "leases"),
        &("kube-node-lease".to_owned(), name.to_owned()),
    );
    let renewed = lease.as_ref().and_then(|lease| parse_time(text(lease, "/spec/renewTime")));
    let made = parse_time(text(node, "/metadata/creationTimestamp"));
    let last = renewed.max(made);
    last.is_none_or(|last| (OffsetDateTime::now_utc() - last).whole_seconds() < GRACE)
}

fn unknown(before: &Value) -> Value {
    let mut node = before.clone();
    for condition in
        node.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten()
    {
        put(condition, &["status"], "Unknown");
        put(condition, &["reason"], "NodeStatusUnknown");
        put(condition, &["message"], "Kubelet stopped posting node status.");
        put(condition, &["lastTransitionTime"], now());
    }
    node
}

async fn taint(desk: &Desk, node: &Value, wanted: Option<&str>) -> Result<(), Refusal> {
    let ours = |taint: &Value| matches!(text(taint, "/key"), UNREACHABLE | NOT_READY);
    let taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let has: Vec<_> = taints.iter().filter(|taint| ours(taint)).map(|taint| text(taint, "/key")).collect();
    let right = match wanted {
        Some(key) => has.len() == 2 && has.iter().all(|known| *known == key),
        None => has.is_empty(),
    };
    if right {
        return Ok(());
    }
    let mut new: Vec<Value> = taints.iter().filter(|taint| !ours(taint)).cloned().collect();
    if let Some(key) = wanted {
        new.push(json!({"key": key, "effect": "NoSchedule", "timeAdded": now()}));
        new.push(json!({"key": key, "effect": "NoExecute", "timeAdded": now()}));
    }
    desk.change(&built_in_kind("", "nodes"), &place(node), Part::Main, |before| {
        let mut node = before.clone();
        put(&mut node, &["spec", "taints"], new);
        node
    })
    .await
    .map(drop)
}

/// Ends pods that do not tolerate their node's NoExecute taints, or no longer. What runs on a node that is cut off
/// goes on there until the node is back and learns of it.
async fn evict(desk: &Desk, name: &str) -> Result<(), Refusal> {
    let Some(node) = desk.get(&built_in_kind("", "nodes"), &(String::new(), name.to_owned())) else {
        return Ok(());
    };
    let taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let pods = desk.list("", "pods", "");
    for pod in pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name && is_active(pod)) {
        let over = taints.iter().filter(|taint| text(taint, "/effect") == "NoExecute").any(|taint| {
            let Some(toleration) = toleration(pod, taint) else { return true };
            let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_i64) else {
                return false;
            };
            parse_time(text(taint, "/timeAdded"))
                .is_some_and(|since| (OffsetDateTime::now_utc() - since).whole_seconds() > seconds)
        });
        if over {
            let message = format!(
                "Marking for deletion Pod {}/{}",
                text(pod, "/metadata/namespace"),
                text(pod, "/metadata/name")
            );
            desk.event(pod, "taint-eviction-controller", "Normal", "TaintManagerEviction", &message).await;
            desk.delete(&built_in_kind("", "pods"), pod, None).await?;
        }
    }
    Ok(())
}
