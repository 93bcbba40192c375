//! ReplicaSets: as many pods as wished.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    super::{
        admission::Part,
        kinds::{PODS, REPLICA_SETS},
        object::Object,
        status::Refusal,
    },
    Context, Place,
};

/// How many pods are made or removed in one go.
const BURST: usize = 100;

pub(super) async fn reconcile(ctx: &Context, at: &Place) -> Result<(), Refusal> {
    let kind = REPLICA_SETS;
    let Some(set) = ctx.get(&kind, at) else { return Ok(()) };
    let uid = set.uid();
    let pods = ctx.list(&PODS, &at.0);
    let mine: Vec<_> = pods.iter().filter(|pod| pod.is_controlled_by(uid) && pod.is_active()).collect();
    if !set.is_deleting() {
        let wished = usize::try_from(set.replicas()).unwrap_or(0);
        if mine.len() < wished {
            for _ in 0..(wished - mine.len()).min(BURST) {
                make(ctx, &set, at).await?;
            }
        } else if mine.len() > wished {
            let mut order: Vec<&Value> = mine.iter().map(|pod| &***pod).collect();
            order.sort_by_key(|pod| worth(pod));
            for pod in order.into_iter().take((mine.len() - wished).min(BURST)) {
                ctx.delete(&PODS, pod, None).await?;
                let message = format!("Deleted pod: {}", pod.name());
                ctx.event(&set, "replicaset-controller", "Normal", "SuccessfulDelete", &message).await;
            }
        }
    }
    let active: Vec<&Value> = mine.iter().map(|pod| &***pod).collect();
    let ready = active.iter().filter(|pod| pod.condition_is("Ready", "True")).count();
    let (patience, moment) = (set.integer(&["spec", "minReadySeconds"]), ctx.moment());
    let available = active.iter().filter(|pod| is_available(pod, patience, moment)).count();
    ctx.change(&kind, at, Part::Status, |before| {
        let mut new = before.clone();
        new.set(&["status"], json!({
            "replicas": active.len(), "fullyLabeledReplicas": active.len(), "readyReplicas": ready, "availableReplicas": available,
            "observedGeneration": set.copy(&["metadata", "generation"]),
        }));
        new
    })
    .await
    .map(drop)
}

/// Whether a pod has been ready for so many seconds.
fn is_available(pod: &Value, patience: i64, now: OffsetDateTime) -> bool {
    let ready = pod.condition("Ready").filter(|ready| ready.text(&["status"]) == "True");
    let since = ready.and_then(|ready| ready.moment(&["lastTransitionTime"]));
    ready.is_some() && (patience <= 0 || since.is_some_and(|since| (now - since).whole_seconds() >= patience))
}

/// What is given up first: what does not run, then what is not ready, then what is youngest.
fn worth(pod: &Value) -> (bool, bool, bool, i64, std::cmp::Reverse<String>) {
    let placed = !pod.node_name().is_empty();
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost");
    let cost = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let age = std::cmp::Reverse(pod.created().to_owned());
    (placed, pod.phase() == "Running", pod.condition_is("Ready", "True"), cost, age)
}

async fn make(ctx: &Context, set: &Value, at: &Place) -> Result<(), Refusal> {
    let mut pod = set.copy(&["spec", "template"]);
    pod.set(&["metadata", "generateName"], format!("{}-", at.1));
    pod.set(&["metadata", "ownerReferences"], json!([owner(set)]));
    let made = ctx.create(&PODS, &at.0, pod).await?;
    let message = format!("Created pod: {}", made.name());
    ctx.event(set, "replicaset-controller", "Normal", "SuccessfulCreate", &message).await;
    Ok(())
}

/// The reference to an owner that manages.
pub(super) fn owner(object: &Value) -> Value {
    json!({
        "apiVersion": object.copy(&["apiVersion"]), "kind": object.copy(&["kind"]), "name": object.copy(&["metadata", "name"]),
        "uid": object.copy(&["metadata", "uid"]), "controller": true, "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times;

    #[test]
    fn a_pod_is_available_once_it_has_been_ready_long_enough() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let at = |time: &str| times::parse(time).unwrap();
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
