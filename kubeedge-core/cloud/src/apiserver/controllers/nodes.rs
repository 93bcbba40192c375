//! Node lifecycle: a node whose lease runs out is not ready; its taints say so, and pods that do not tolerate them end.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::apiserver::edit::put;

use super::{
    super::{
        kinds::built_in_kind,
        registry::{Part, parse_time, text},
        status::Refusal,
    },
    Desk, condition_is, is_active, place,
    scheduler::toleration,
};

/// How old a lease may be: Kubernetes' nodeMonitorGracePeriod.
const GRACE: Duration = Duration::from_secs(40);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) async fn reconcile(desk: &Desk, name: &str) -> Result<(), Refusal> {
    match desk.get(&built_in_kind("", "nodes"), &(String::new(), name.to_owned())) {
        Some(node) => watch_over(desk, &node).await,
        // A lease outlives its node.
        None => {
            desk.heard.lock().remove(name);
            Ok(())
        }
    }
}

async fn watch_over(desk: &Desk, node: &Value) -> Result<(), Refusal> {
    let name = text(node, "/metadata/name").to_owned();
    if !is_alive(desk, node, &name) && !condition_is(node, "Ready", "Unknown") {
        tracing::warn!(node = %name, "node has stopped renewing its lease");
        desk.change(&built_in_kind("", "nodes"), &place(node), Part::Status, |before| {
            unknown(before, &desk.now())
        })
        .await?;
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
    evict(desk, &name).await
}

/// Whether the lease was renewed of late, by when we saw it change: the clock of the node may be wrong, as Kubernetes
/// takes into account too.
fn is_alive(desk: &Desk, node: &Value, name: &str) -> bool {
    let lease = desk.get(
        &built_in_kind("coordination.k8s.io", "leases"),
        &("kube-node-lease".to_owned(), name.to_owned()),
    );
    let lease = lease.as_ref().map_or("", |lease| text(lease, "/metadata/resourceVersion"));
    let sign = format!("{} {lease}", text(node, "/metadata/uid"));
    let (now, mut heard) = (Instant::now(), desk.heard.lock());
    let (last, since) = heard.entry(name.to_owned()).or_insert_with(|| (sign.clone(), now));
    if *last != sign {
        (*last, *since) = (sign, now);
    }
    now.duration_since(*since) < GRACE
}

fn unknown(before: &Value, now: &str) -> Value {
    let mut node = before.clone();
    let list = before.pointer("/status/conditions").and_then(Value::as_array);
    if !list.is_some_and(|list| list.iter().any(|condition| text(condition, "/type") == "Ready")) {
        // A node that never said anything: without this it would be found anew at every look.
        let mut list = list.cloned().unwrap_or_default();
        list.push(json!({"type": "Ready"}));
        put(&mut node, &["status", "conditions"], list);
    }
    for condition in
        node.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten()
    {
        put(condition, &["status"], "Unknown");
        put(condition, &["reason"], "NodeStatusUnknown");
        put(condition, &["message"], "Kubelet stopped posting node status.");
        put(condition, &["lastTransitionTime"], now);
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
        let now = desk.now();
        new.push(json!({"key": key, "effect": "NoSchedule", "timeAdded": now}));
        new.push(json!({"key": key, "effect": "NoExecute", "timeAdded": now}));
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
    if taints.is_empty() {
        return Ok(());
    }
    let pods = desk.list("", "pods", "");
    for pod in pods.iter().filter(|pod| text(pod, "/spec/nodeName") == name && is_active(pod)) {
        if taints.iter().any(|taint| drives_out(taint, pod, desk.moment())) {
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

/// Whether a pod must leave because of a taint, or must by now.
fn drives_out(taint: &Value, pod: &Value, now: OffsetDateTime) -> bool {
    if text(taint, "/effect") != "NoExecute" {
        return false;
    }
    let Some(toleration) = toleration(pod, taint) else { return true };
    let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_i64) else {
        return false;
    };
    parse_time(text(taint, "/timeAdded")).is_some_and(|since| (now - since).whole_seconds() > seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_never_said_anything_gets_a_ready_condition_that_is_unknown() {
        assert!(condition_is(&unknown(&json!({"metadata": {"name": "n"}}), ""), "Ready", "Unknown"));
        let spoke = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}});
        let lost = unknown(&spoke, "");
        assert!(condition_is(&lost, "Ready", "Unknown") && condition_is(&lost, "DiskPressure", "Unknown"));
        assert_eq!(lost["status"]["conditions"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_taint_drives_out_what_does_not_tolerate_it_and_others_in_their_time() {
        let start = parse_time("2026-01-01T00:00:00Z").unwrap();
        let at = |seconds| start + time::Duration::seconds(seconds);
        let taint = json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
        let pod = |tolerations: Value| json!({"spec": {"tolerations": tolerations}});
        let for_a_while = pod(json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]));
        assert!(drives_out(&taint, &pod(json!([])), at(0)));
        assert!(!drives_out(&taint, &for_a_while, at(300)));
        assert!(drives_out(&taint, &for_a_while, at(301)));
        assert!(!drives_out(&taint, &pod(json!([{"operator": "Exists"}])), at(86_400)));
        assert!(!drives_out(&json!({"key": "k", "effect": "NoSchedule"}), &pod(json!([])), at(86_400)));
    }
}
