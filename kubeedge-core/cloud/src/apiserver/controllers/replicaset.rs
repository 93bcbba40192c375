//! ReplicaSets: as many pods as wished.

use serde_json::{Value, json};

use crate::apiserver::edit::{field, put};

use super::{
    super::{
        kinds::built_in_kind,
        registry::{Part, text},
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
    if set.pointer("/metadata/deletionTimestamp").is_none() {
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
    desk.change(&kind, at, Part::Status, |before| {
        let mut new = before.clone();
        put(&mut new, &["status"], json!({
            "replicas": active.len(), "fullyLabeledReplicas": active.len(), "readyReplicas": ready, "availableReplicas": ready,
            "observedGeneration": field(before, "/metadata/generation"),
        }));
        new
    })
    .await
    .map(drop)
}

/// What is given up first: what does not run, then what is not ready, then what is youngest.
fn worth(pod: &Value) -> (bool, bool, bool, i64, std::cmp::Reverse<String>) {
    let placed = !text(pod, "/spec/nodeName").is_empty();
    let cost = pod
        .pointer("/metadata/annotations")
        .and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"));
    let cost = cost.and_then(Value::as_str).and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let age = std::cmp::Reverse(text(pod, "/metadata/creationTimestamp").to_owned());
    (placed, text(pod, "/status/phase") == "Running", condition_is(pod, "Ready", "True"), cost, age)
}

async fn make(desk: &Desk, set: &Value, at: &Place) -> Result<(), Refusal> {
    let mut pod = set.pointer("/spec/template").cloned().unwrap_or_default();
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
