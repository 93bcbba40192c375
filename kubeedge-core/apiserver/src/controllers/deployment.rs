//! Deployments: one ReplicaSet per template, and a rolling change from the old ones to the new.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::edit::{At as _, field, put};

use super::{
    super::{
        kinds::{Kind, built_in_kind},
        registry::{Part, parse_time, text},
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
    if deployment.at("/metadata/deletionTimestamp").is_some() {
        return Ok(());
    }
    let uid = text(&deployment, "/metadata/uid");
    let sets = desk.list("apps", "replicasets", &at.0);
    let mine = sets.into_iter().filter(|set| controller(set).is_some_and(|owner| text(owner, "/uid") == uid));
    let (new, old): (Vec<_>, Vec<_>) = mine.partition(|set| same_template(set, &deployment));
    let paused = deployment.at("/spec/paused") == Some(&Value::Bool(true));
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
    publish(desk, &kind, at, &deployment, new.as_deref(), &old).await
}

fn template(object: &Value) -> Value {
    let mut template = field(object, "/spec/template");
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
    let annotations = object.at("/metadata/annotations");
    annotations.and_then(|a| a.get(REVISION)?.as_str()?.parse().ok()).unwrap_or(0)
}

/// A short, stable name for a template.
fn hash(template: &Value) -> String {
    const LETTERS: [char; 16] =
        ['b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', '4', '5', '6', '7', '8'];
    let number = super::digest(&template.to_string());
    (0..10).filter_map(|at| LETTERS.get((number >> (at * 4)) as usize & 15)).collect()
}

async fn make(
    desk: &Desk,
    kind: &Kind,
    deployment: &Value,
    old: &[Arc<Value>],
    at: &Place,
) -> Result<Arc<Value>, Refusal> {
    let mut template = template(deployment);
    let hash = hash(&template);
    put(&mut template, &["metadata", "labels", HASH], hash.clone());
    let mut selector = field(deployment, "/spec/selector");
    put(&mut selector, &["matchLabels", HASH], hash.clone());
    let (surge, _) = room(deployment);
    let running: i64 = old.iter().map(|set| integer(set, "/spec/replicas")).sum();
    let wished = integer(deployment, "/spec/replicas");
    let recreate = text(deployment, "/spec/strategy/type") == "Recreate";
    let first = if recreate && running > 0 { 0 } else { (wished + surge - running).clamp(0, wished) };
    let revision = old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    let mut annotations = deployment.at("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
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
async fn raise_revision(
    desk: &Desk,
    kind: &Kind,
    new: &mut Arc<Value>,
    old: &[Arc<Value>],
) -> Result<(), Refusal> {
    let newest = old.iter().map(|set| revision(set)).max().unwrap_or(0);
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
        let value = deployment.at(&format!("/spec/strategy/rollingUpdate/{name}"));
        match value {
            Some(Value::String(text)) => {
                let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(25.0);
                let exact = wished as f64 * percent / 100.0;
                (if up { exact.ceil() } else { exact.floor() }) as i64
            }
            Some(value) => value.as_i64().unwrap_or(0),
            // Kubernetes' default for what is left out, also when the other one is given.
            None => {
                let quarter = wished as f64 / 4.0;
                (if up { quarter.ceil() } else { quarter.floor() }) as i64
            }
        }
    };
    let (surge, missing) = (part("maxSurge", true), part("maxUnavailable", false));
    if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
}

async fn roll(
    desk: &Desk,
    kind: &Kind,
    deployment: &Value,
    new: &mut Arc<Value>,
    old: &[Arc<Value>],
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
    let up: i64 = available(new) + old.iter().map(|set| available(set)).sum::<i64>();
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

async fn scale(
    desk: &Desk,
    kind: &Kind,
    deployment: &Value,
    set: &Arc<Value>,
    to: i64,
) -> Result<Arc<Value>, Refusal> {
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
async fn prune(desk: &Desk, kind: &Kind, deployment: &Value, old: &[Arc<Value>]) -> Result<(), Refusal> {
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
    looked_at: &Value,
    new: Option<&Value>,
    old: &[Arc<Value>],
) -> Result<(), Refusal> {
    let all: Vec<&Value> = new.into_iter().chain(old.iter().map(|set| &**set)).collect();
    let sum = |pointer: &str| -> i64 { all.iter().map(|set| integer(set, pointer)).sum() };
    let (replicas, ready, available) =
        (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = new.map_or(0, |set| integer(set, "/status/replicas"));
    let (revision, name) =
        (new.map_or(0, revision), new.map(|set| text(set, "/metadata/name").to_owned()).unwrap_or_default());
    let (stamp, moment) = (desk.now(), desk.moment());
    let status = |before: &Value| {
        let wished = integer(before, "/spec/replicas");
        let (_, missing) = room(before);
        let enough = available >= wished - missing;
        let complete = updated == wished && replicas == wished && available >= wished;
        let numbers = Numbers { replicas, updated, ready, available };
        let progress = progress(before, &numbers, complete, moment);
        let (reason, message) = match progress {
            Progress::Complete => {
                ("NewReplicaSetAvailable", format!("ReplicaSet {name:?} has successfully progressed."))
            }
            Progress::Paused => ("DeploymentPaused", "Deployment is paused".to_owned()),
            Progress::Late => {
                ("ProgressDeadlineExceeded", format!("ReplicaSet {name:?} has timed out progressing."))
            }
            Progress::Moving | Progress::Waiting => {
                ("ReplicaSetUpdated", format!("ReplicaSet {name:?} is progressing."))
            }
        };
        let availability = if enough {
            ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
            let status = if holds { "True" } else { "False" };
            let list = before.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let old = list.into_iter().find(|c| text(c, "/type") == kind);
            let kept = |field: &str, same: bool| {
                old.filter(|_| same && !(kind == "Progressing" && progress == Progress::Moving))
                    .and_then(|c| c.get(field).cloned())
                    .unwrap_or_else(|| stamp.clone().into())
            };
            let same_status = old.is_some_and(|c| text(c, "/status") == status);
            let same = same_status && old.is_some_and(|c| text(c, "/reason") == reason);
            json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": old.filter(|_| same_status).and_then(|c| c.get("lastTransitionTime").cloned()).unwrap_or_else(|| stamp.clone().into()), "lastUpdateTime": kept("lastUpdateTime", same)})
        };
        let mut new = before.clone();
        // The generation that was looked at, not the one there by now: clients take it as "the controller has seen
        // this" and the counts as its outcome.
        put(
            &mut new,
            &["status"],
            json!({
                "observedGeneration": field(looked_at, "/metadata/generation"), "replicas": replicas, "updatedReplicas": updated,
                "readyReplicas": ready, "availableReplicas": available, "unavailableReplicas": (wished - available).max(0),
                "conditions": [condition("Available", enough, availability.0, availability.1), condition("Progressing", progress != Progress::Late, reason, &message)],
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

/// The counts of a status.
struct Numbers {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

/// How a rollout gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Complete,
    Paused,
    /// Something came nearer since the last look.
    Moving,
    /// Nothing did, and there is time left.
    Waiting,
    /// Nothing did for `progressDeadlineSeconds`: `kubectl rollout status` fails with this.
    Late,
}

fn progress(before: &Value, numbers: &Numbers, complete: bool, now: OffsetDateTime) -> Progress {
    let was = |field: &str| integer(before, &format!("/status/{field}"));
    if before.at("/spec/paused") == Some(&Value::Bool(true)) {
        return Progress::Paused;
    }
    if complete {
        return Progress::Complete;
    }
    let moved = numbers.updated > was("updatedReplicas")
        || numbers.replicas - numbers.updated < was("replicas") - was("updatedReplicas")
        || numbers.ready > was("readyReplicas")
        || numbers.available > was("availableReplicas");
    let renewed = integer(before, "/metadata/generation") != was("observedGeneration");
    let list = before.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let known = list.into_iter().find(|condition| text(condition, "/type") == "Progressing");
    let reason = known.map_or("", |condition| text(condition, "/reason"));
    if moved || renewed || matches!(reason, "" | "DeploymentPaused") {
        return Progress::Moving;
    }
    // A complete rollout that loses a pod later is not late: only a change starts the clock.
    if reason == "NewReplicaSetAvailable" {
        return Progress::Complete;
    }
    let deadline = before.at("/spec/progressDeadlineSeconds").and_then(Value::as_i64).unwrap_or(600);
    let since = known.and_then(|condition| parse_time(text(condition, "/lastUpdateTime")));
    match since {
        Some(since) if reason == "ProgressDeadlineExceeded" || (now - since).whole_seconds() >= deadline => {
            Progress::Late
        }
        _ => Progress::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-01-01T00:00:00Z";

    fn deployment(reason: &str) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"progressDeadlineSeconds": 60}, "status": {
            "observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "reason": reason, "lastUpdateTime": START}]}})
    }

    fn after(seconds: i64, reason: &str, updated: i64) -> Progress {
        let now = parse_time(START).unwrap() + time::Duration::seconds(seconds);
        progress(&deployment(reason), &Numbers { replicas: 2, updated, ready: 1, available: 1 }, false, now)
    }

    #[test]
    fn a_rollout_that_stands_still_is_late_after_its_deadline() {
        assert_eq!(after(59, "ReplicaSetUpdated", 1), Progress::Waiting);
        assert_eq!(after(60, "ReplicaSetUpdated", 1), Progress::Late);
        assert_eq!(after(60, "ReplicaSetUpdated", 2), Progress::Moving);
        assert_eq!(after(1, "ProgressDeadlineExceeded", 1), Progress::Late);
        assert_eq!(
            after(999, "NewReplicaSetAvailable", 1),
            Progress::Complete,
            "a pod lost later is no rollout"
        );
    }

    #[test]
    fn surge_and_missing_round_as_kubernetes_rounds() {
        let of = |surge: Value, missing: Value| {
            room(
                &json!({"spec": {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}}}),
            )
        };
        assert_eq!(of(json!("25%"), json!("25%")), (1, 0));
        assert_eq!(of(json!(0), json!("10%")), (0, 1), "one of both must be possible");
        assert_eq!(of(json!(2), json!(1)), (2, 1));
        let one_given = json!({"spec": {"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 0}}}});
        assert_eq!(room(&one_given), (0, 1));
    }
}
