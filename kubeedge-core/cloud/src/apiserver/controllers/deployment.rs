//! Deployments: one ReplicaSet per template, and a rolling change from the old ones to the new.

use serde_json::{Value, json};

use crate::apiserver::edit::{field, put};

use super::{
    super::{
        kinds::{Kind, built_in_kind},
        registry::{Part, now, text},
        status::Refusal,
    },
    Desk, Place, controller, integer,
    replicaset::owner,
};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) async fn reconcile(desk: &Desk, at: &Place) -> Result<(), Refusal> {
    let (kind, sets_kind) = (built_in_kind("apps", "deployments"), built_in_kind("apps", "replicasets"));
    let Some(deployment) = desk.get(&kind, at) else { return Ok(()) };
    if deployment.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(());
    }
    let uid = text(&deployment, "/metadata/uid");
    let sets = desk.list("apps", "replicasets", &at.0);
    let mine: Vec<Value> = sets
        .iter()
        .filter(|set| controller(set).is_some_and(|owner| text(owner, "/uid") == uid))
        .map(|set| Value::clone(set))
        .collect();
    let (new, old): (Vec<_>, Vec<_>) = mine.into_iter().partition(|set| same_template(set, &deployment));
    let paused = deployment.pointer("/spec/paused") == Some(&Value::Bool(true));
    let mut new = new.into_iter().next();
    if !paused {
        if new.is_none() {
            new = Some(make(desk, &sets_kind, &deployment, &old, at).await?);
        }
        if let Some(new) = &mut new {
            raise_revision(desk, &sets_kind, new, &old).await?;
            roll(desk, &sets_kind, &deployment, new, &old).await?;
        }
        prune(desk, &sets_kind, &deployment, &old).await?;
    }
    publish(desk, &kind, at, new.as_ref(), &old).await
}

fn template(object: &Value) -> Value {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    if let Some(meta) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("creationTimestamp");
    }
    template
}

fn same_template(set: &Value, deployment: &Value) -> bool {
    template(set) == template(deployment)
}

fn revision(object: &Value) -> i64 {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|a| a.get(REVISION)?.as_str()?.parse().ok()).unwrap_or(0)
}

/// A short, stable name for a template.
fn hash(template: &Value) -> String {
    const LETTERS: [char; 16] =
        ['b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', '4', '5', '6', '7', '8'];
    let number = template.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..10).filter_map(|at| LETTERS.get((number >> (at * 4)) as usize & 15)).collect()
}

async fn make(
    desk: &Desk,
    kind: &Kind,
    deployment: &Value,
    old: &[Value],
    at: &Place,
) -> Result<Value, Refusal> {
    let mut template = template(deployment);
    let hash = hash(&template);
    put(&mut template, &["metadata", "labels", HASH], hash.clone());
    let mut selector = deployment.pointer("/spec/selector").cloned().unwrap_or_default();
    put(&mut selector, &["matchLabels", HASH], hash.clone());
    let (surge, _) = room(deployment);
    let running: i64 = old.iter().map(|set| integer(set, "/spec/replicas")).sum();
    let wished = integer(deployment, "/spec/replicas");
    let recreate = text(deployment, "/spec/strategy/type") == "Recreate";
    let first = if recreate && running > 0 { 0 } else { (wished + surge - running).clamp(0, wished) };
    let revision = old.iter().map(revision).max().unwrap_or(0) + 1;
    let mut annotations = deployment.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = annotations.as_object_mut() {
        map.remove("kubectl.kubernetes.io/last-applied-configuration");
        map.insert(REVISION.to_owned(), revision.to_string().into());
    }
    let set = json!({
        "metadata": {"name": format!("{}-{hash}", at.1), "labels": field(&template, "/metadata/labels"), "annotations": annotations, "ownerReferences": [owner(deployment)]},
        "spec": {"replicas": first, "selector": selector, "template": template, "minReadySeconds": field(deployment, "/spec/minReadySeconds")},
    });
    let made = desk.create(kind, &at.0, set).await?;
    let message = format!("Scaled up replica set {} from 0 to {first}", text(&made, "/metadata/name"));
    desk.event(deployment, "deployment-controller", "Normal", "ScalingReplicaSet", &message).await;
    Ok(made)
}

/// A template that comes back (an undo) gets the newest revision.
async fn raise_revision(desk: &Desk, kind: &Kind, new: &mut Value, old: &[Value]) -> Result<(), Refusal> {
    let newest = old.iter().map(revision).max().unwrap_or(0);
    if revision(new) > newest {
        return Ok(());
    }
    let at = super::place(new);
    *new = desk
        .change(kind, &at, Part::Main, |before| {
            let mut set = before.clone();
            put(&mut set, &["metadata", "annotations", REVISION], (newest + 1).to_string());
            set
        })
        .await?;
    Ok(())
}

/// How many pods there may be above, and how many may be missing below the wished number.
fn room(deployment: &Value) -> (i64, i64) {
    let wished = integer(deployment, "/spec/replicas");
    let part = |name: &str, up: bool| {
        let value = deployment.pointer(&format!("/spec/strategy/rollingUpdate/{name}"));
        match value {
            Some(Value::String(text)) => {
                let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(25.0);
                let exact = wished as f64 * percent / 100.0;
                (if up { exact.ceil() } else { exact.floor() }) as i64
            }
            Some(value) => value.as_i64().unwrap_or(0),
            None => 0,
        }
    };
    let (surge, missing) = (part("maxSurge", true), part("maxUnavailable", false));
    if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
}

async fn roll(
    desk: &Desk,
    kind: &Kind,
    deployment: &Value,
    new: &mut Value,
    old: &[Value],
) -> Result<(), Refusal> {
    let wished = integer(deployment, "/spec/replicas");
    let old_wished: i64 = old.iter().map(|set| integer(set, "/spec/replicas")).sum();
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        for set in old.iter().filter(|set| integer(set, "/spec/replicas") > 0) {
            scale(desk, kind, deployment, set, 0).await?;
        }
        let left: i64 = old.iter().map(|set| integer(set, "/status/replicas")).sum();
        if old_wished == 0 && left == 0 {
            *new = scale(desk, kind, deployment, new, wished).await?;
        }
        return Ok(());
    }
    let (surge, missing) = room(deployment);
    let now = integer(new, "/spec/replicas");
    let target =
        if now > wished { wished } else { now + (wished + surge - now - old_wished).clamp(0, wished - now) };
    if target != now {
        *new = scale(desk, kind, deployment, new, target).await?;
    }
    let available =
        |set: &Value| integer(set, "/status/availableReplicas").min(integer(set, "/spec/replicas"));
    let up: i64 = available(new) + old.iter().map(available).sum::<i64>();
    let mut spare = up - (wished - missing);
    for set in old {
        let size = integer(set, "/spec/replicas");
        // What is not available may go at once: it serves nobody.
        let dead = size - available(set);
        let fewer = (dead + spare.clamp(0, available(set))).min(size);
        if fewer > 0 {
            spare -= fewer - dead.min(fewer);
            scale(desk, kind, deployment, set, size - fewer).await?;
        }
    }
    Ok(())
}

async fn scale(desk: &Desk, kind: &Kind, deployment: &Value, set: &Value, to: i64) -> Result<Value, Refusal> {
    let from = integer(set, "/spec/replicas");
    if from == to {
        return Ok(set.clone());
    }
    let scaled = desk
        .change(kind, &super::place(set), Part::Main, |before| {
            let mut new = before.clone();
            put(&mut new, &["spec", "replicas"], to);
            new
        })
        .await?;
    let way = if to > from { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {} from {from} to {to}", text(set, "/metadata/name"));
    desk.event(deployment, "deployment-controller", "Normal", "ScalingReplicaSet", &message).await;
    Ok(scaled)
}

/// Removes empty ReplicaSets beyond the history that is wished.
async fn prune(desk: &Desk, kind: &Kind, deployment: &Value, old: &[Value]) -> Result<(), Refusal> {
    let keep = usize::try_from(integer(deployment, "/spec/revisionHistoryLimit")).unwrap_or(10);
    let mut empty: Vec<_> = old
        .iter()
        .filter(|set| integer(set, "/spec/replicas") == 0 && integer(set, "/status/replicas") == 0)
        .collect();
    empty.sort_by_key(|set| revision(set));
    for set in empty.iter().take(empty.len().saturating_sub(keep)) {
        desk.delete(kind, set, None).await?;
    }
    Ok(())
}

async fn publish(
    desk: &Desk,
    kind: &Kind,
    at: &Place,
    new: Option<&Value>,
    old: &[Value],
) -> Result<(), Refusal> {
    let all: Vec<&Value> = new.into_iter().chain(old).collect();
    let sum = |pointer: &str| -> i64 { all.iter().map(|set| integer(set, pointer)).sum() };
    let (replicas, ready, available) =
        (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = new.map_or(0, |set| integer(set, "/status/replicas"));
    let (revision, name) =
        (new.map_or(0, revision), new.map(|set| text(set, "/metadata/name").to_owned()).unwrap_or_default());
    let stamp = now();
    let status = |before: &Value| {
        let wished = integer(before, "/spec/replicas");
        let (_, missing) = room(before);
        let enough = available >= wished - missing;
        let complete = updated == wished && replicas == wished && available >= wished;
        let (progress, message) = if complete {
            ("NewReplicaSetAvailable", format!("ReplicaSet {name:?} has successfully progressed."))
        } else {
            ("ReplicaSetUpdated", format!("ReplicaSet {name:?} is progressing."))
        };
        let availability = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            let status = if holds { "True" } else { "False" };
            let list = before.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let old = list.into_iter().find(|c| text(c, "/type") == kind);
            let kept = |field: &str, same: bool| {
                old.filter(|_| same)
                    .and_then(|c| c.get(field).cloned())
                    .unwrap_or_else(|| stamp.clone().into())
            };
            let same_status = old.is_some_and(|c| text(c, "/status") == status);
            let same = same_status && old.is_some_and(|c| text(c, "/reason") == reason);
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": kept("lastTransitionTime", same_status), "lastUpdateTime": kept("lastUpdateTime", same)})
        };
        let mut new = before.clone();
        put(
            &mut new,
            &["status"],
            json!({
                "observedGeneration": field(before, "/metadata/generation"), "replicas": replicas, "updatedReplicas": updated,
                "readyReplicas": ready, "availableReplicas": available, "unavailableReplicas": (wished - available).max(0),
                "conditions": [condition("Available", enough, availability.0, availability.1), condition("Progressing", true, progress, &message)],
            }),
        );
        new
    };
    desk.change(kind, at, Part::Status, status).await?;
    if revision > 0 {
        desk.change(kind, at, Part::Main, |before| {
            let mut new = before.clone();
            put(&mut new, &["metadata", "annotations", REVISION], revision.to_string());
            new
        })
        .await?;
    }
    Ok(())
}
