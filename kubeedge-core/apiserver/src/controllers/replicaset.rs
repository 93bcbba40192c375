//! ReplicaSets: as many pods as wished.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::edit::{At as _, field, put};

use super::{
    super::{
        kinds::built_in_kind,
        registry::{Part, parse_time, text},
        status::Refusal,
    },
    Desk, Place, condition_is, controller, integer, is_active,
};

/// How many pods are made or removed in one go.
const BURST: usize = 100;

pub(super) async fn reconcile(desk: &Desk, at: &Place) -> Result<(), Refusal> {
    let kind = built_in_kind("apps", "replicasets");
    let Some(set) = desk.get(&kind, at) else { return Ok(()) };
    let uid = text(&set, "/metadata/uid");
    let pods = desk.list("", "pods", &at.0);
    let mine: Vec<_> = pods
        .iter()
        .filter(|pod| controller(pod).is_some_and(|owner| text(owner, "/uid") == uid) && is_active(pod))
        .collect();
    if set.at("/metadata/deletionTimestamp").is_none() {
        let wished = usize::try_from(integer(&set, "/spec/replicas")).unwrap_or(0);
        if mine.len() < wished {
            for _ in 0..(wished - mine.len()).min(BURST) {
                make(desk, &set, at).await?;
            }
        } else if mine.len() > wished {
            let mut order: Vec<&Value> = mine.iter().map(|pod| &***pod).collect();
            order.sort_by_key(|pod| worth(pod));
            for pod in order.into_iter().take((mine.len() - wished).min(BURST)) {
                desk.delete(&built_in_kind("", "pods"), pod, None).await?;
                let message = format!("Deleted pod: {}", text(pod, "/metadata/name"));
                desk.event(&set, "replicaset-controller", "Normal", "SuccessfulDelete", &message).await;
            }
        }
    }
    let active: Vec<&Value> = mine.iter().map(|pod| &***pod).collect();
    let ready = active.iter().filter(|pod| condition_is(pod, "Ready", "True")).count();
    let (patience, moment) = (integer(&set, "/spec/minReadySeconds"), desk.moment());
    let available = active.iter().filter(|pod| is_available(pod, patience, moment)).count();
    desk.change(&kind, at, Part::Status, |before| {
        let mut new = before.clone();
        put(&mut new, &["status"], json!({
            "replicas": active.len(), "fullyLabeledReplicas": active.len(), "readyReplicas": ready, "availableReplicas": available,
            "observedGeneration": field(&set, "/metadata/generation"),
        }));
        new
    })
    .await
    .map(drop)
}

/// Whether a pod has been ready for so many seconds.
fn is_available(pod: &Value, patience: i64, now: OffsetDateTime) -> bool {
    let list = pod.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = list
        .into_iter()
        .find(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    let since = ready.and_then(|ready| parse_time(text(ready, "/lastTransitionTime")));
    ready.is_some() && (patience <= 0 || since.is_some_and(|since| (now - since).whole_seconds() >= patience))
}

/// What is given up first: what does not run, then what is not ready, then what is youngest.
fn worth(pod: &Value) -> (bool, bool, bool, i64, std::cmp::Reverse<String>) {
    let placed = !text(pod, "/spec/nodeName").is_empty();
    let cost =
        pod.at("/metadata/annotations").and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    let cost = cost.and_then(Value::as_str).and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let age = std::cmp::Reverse(text(pod, "/metadata/creationTimestamp").to_owned());
    (placed, text(pod, "/status/phase") == "Running", condition_is(pod, "Ready", "True"), cost, age)
}

async fn make(desk: &Desk, set: &Value, at: &Place) -> Result<(), Refusal> {
    let mut pod = field(set, "/spec/template");
    put(&mut pod, &["metadata", "generateName"], format!("{}-", at.1));
    put(&mut pod, &["metadata", "ownerReferences"], json!([owner(set)]));
    let made = desk.create(&built_in_kind("", "pods"), &at.0, pod).await?;
    let message = format!("Created pod: {}", text(&made, "/metadata/name"));
    desk.event(set, "replicaset-controller", "Normal", "SuccessfulCreate", &message).await;
    Ok(())
}

/// The reference to an owner that manages.
pub(super) fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": field(object, "/apiVersion"), "kind": field(object, "/kind"), "name": field(object, "/metadata/name"),
        "uid": field(object, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_available_once_it_has_been_ready_long_enough() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let at = |time: &str| parse_time(time).unwrap();
        assert!(is_available(&pod, 0, at("2026-01-01T00:00:00Z")));
        assert!(!is_available(&pod, 10, at("2026-01-01T00:00:09Z")));
        assert!(is_available(&pod, 10, at("2026-01-01T00:00:10Z")));
        assert!(!is_available(&json!({}), 0, at("2026-01-01T00:00:10Z")));
    }

    #[test]
    fn what_does_not_run_is_given_up_before_what_serves() {
        let serving = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let waiting = json!({"status": {"phase": "Pending"}});
        let cheap = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}, "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(worth(&waiting) < worth(&cheap) && worth(&cheap) < worth(&serving));
    }
}
