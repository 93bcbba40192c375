//! Deployments: one ReplicaSet per template, and a rolling change from the old ones to the new.

use std::sync::Arc;

use kubeedge_common::fnv::fnv64;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    super::{
        admission::Part,
        kinds::{DEPLOYMENTS, Kind, REPLICA_SETS},
        object::Object,
        status::Refusal,
    },
    Context, Place,
    replicaset::owner,
};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) async fn reconcile(ctx: &Context, at: &Place) -> Result<(), Refusal> {
    let (kind, sets_kind) = (DEPLOYMENTS, REPLICA_SETS);
    let Some(deployment) = ctx.get(&kind, at) else { return Ok(()) };
    if deployment.is_deleting() {
        return Ok(());
    }
    let uid = deployment.uid();
    let sets = ctx.list(&REPLICA_SETS, &at.0);
    let mine = sets.into_iter().filter(|set| set.is_controlled_by(uid));
    let (new, old): (Vec<_>, Vec<_>) = mine.partition(|set| same_template(set, &deployment));
    let paused = deployment.is(&["spec", "paused"]);
    let mut new = new.into_iter().next();
    if !paused {
        if new.is_none() {
            new = Some(make(ctx, &sets_kind, &deployment, &old, at).await?);
        }
        if let Some(new) = &mut new {
            raise_revision(ctx, &sets_kind, new, &old).await?;
            roll(ctx, &sets_kind, &deployment, new, &old).await?;
        }
        prune(ctx, &sets_kind, &deployment, &old).await?;
    }
    publish(ctx, &kind, at, &deployment, new.as_deref(), &old).await
}

fn template(object: &Value) -> Value {
    let mut template = object.copy(&["spec", "template"]);
    if let Some(labels) = template.at_mut(&["metadata", "labels"]).and_then(Value::as_object_mut) {
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
    let annotations = object.at(&["metadata", "annotations"]);
    annotations.and_then(|a| a.get(REVISION)?.as_str()?.parse().ok()).unwrap_or(0)
}

/// A short, stable name for a template.
fn hash(template: &Value) -> String {
    const LETTERS: [char; 16] =
        ['b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', '4', '5', '6', '7', '8'];
    let number = fnv64(template.to_string().as_bytes());
    (0..10).filter_map(|at| LETTERS.get((number >> (at * 4)) as usize & 15)).collect()
}

async fn make(
    ctx: &Context,
    kind: &Kind,
    deployment: &Value,
    old: &[Arc<Value>],
    at: &Place,
) -> Result<Arc<Value>, Refusal> {
    let mut template = template(deployment);
    let hash = hash(&template);
    template.set(&["metadata", "labels", HASH], hash.clone());
    let mut selector = deployment.copy(&["spec", "selector"]);
    selector.set(&["matchLabels", HASH], hash.clone());
    let (surge, _) = room(deployment);
    let running: i64 = old.iter().map(|set| set.replicas()).sum();
    let wished = deployment.replicas();
    let recreate = deployment.text(&["spec", "strategy", "type"]) == "Recreate";
    let first = if recreate && running > 0 { 0 } else { (wished + surge - running).clamp(0, wished) };
    let revision = old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    let mut annotations = deployment.at(&["metadata", "annotations"]).cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = annotations.as_object_mut() {
        map.remove("kubectl.kubernetes.io/last-applied-configuration");
        map.insert(REVISION.to_owned(), revision.to_string().into());
    }
    let set = json!({
        "metadata": {"name": format!("{}-{hash}", at.1), "labels": template.copy(&["metadata", "labels"]), "annotations": annotations, "ownerReferences": [owner(deployment)]},
        "spec": {"replicas": first, "selector": selector, "template": template, "minReadySeconds": deployment.copy(&["spec", "minReadySeconds"])},
    });
    let made = ctx.create(kind, &at.0, set).await?;
    let message = format!("Scaled up replica set {} from 0 to {first}", made.name());
    ctx.event(deployment, "deployment-controller", "Normal", "ScalingReplicaSet", &message).await;
    Ok(made)
}

/// A template that comes back (an undo) gets the newest revision.
async fn raise_revision(
    ctx: &Context,
    kind: &Kind,
    new: &mut Arc<Value>,
    old: &[Arc<Value>],
) -> Result<(), Refusal> {
    let newest = old.iter().map(|set| revision(set)).max().unwrap_or(0);
    if revision(new) > newest {
        return Ok(());
    }
    let at = super::place(new);
    *new = ctx
        .change(kind, &at, Part::Main, |before| {
            let mut set = before.clone();
            set.set(&["metadata", "annotations", REVISION], (newest + 1).to_string());
            set
        })
        .await?;
    Ok(())
}

/// How many pods there may be above, and how many may be missing below the wished number.
fn room(deployment: &Value) -> (i64, i64) {
    let wished = deployment.replicas();
    let part = |name: &str, up: bool| {
        let value = deployment.at(&["spec", "strategy", "rollingUpdate", name]);
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
    ctx: &Context,
    kind: &Kind,
    deployment: &Value,
    new: &mut Arc<Value>,
    old: &[Arc<Value>],
) -> Result<(), Refusal> {
    let wished = deployment.replicas();
    let old_wished: i64 = old.iter().map(|set| set.replicas()).sum();
    if deployment.text(&["spec", "strategy", "type"]) == "Recreate" {
        for set in old.iter().filter(|set| set.replicas() > 0) {
            scale(ctx, kind, deployment, set, 0).await?;
        }
        let left: i64 = old.iter().map(|set| set.integer(&["status", "replicas"])).sum();
        if old_wished == 0 && left == 0 {
            *new = scale(ctx, kind, deployment, new, wished).await?;
        }
        return Ok(());
    }
    let (surge, missing) = room(deployment);
    let now = new.replicas();
    let target =
        if now > wished { wished } else { now + (wished + surge - now - old_wished).clamp(0, wished - now) };
    if target != now {
        *new = scale(ctx, kind, deployment, new, target).await?;
    }
    let available = |set: &Value| set.integer(&["status", "availableReplicas"]).min(set.replicas());
    let up: i64 = available(new) + old.iter().map(|set| available(set)).sum::<i64>();
    let mut spare = up - (wished - missing);
    for set in old {
        let size = set.replicas();
        // What is not available may go at once: it serves nobody.
        let dead = size - available(set);
        let fewer = (dead + spare.clamp(0, available(set))).min(size);
        if fewer > 0 {
            spare -= fewer - dead.min(fewer);
            scale(ctx, kind, deployment, set, size - fewer).await?;
        }
    }
    Ok(())
}

async fn scale(
    ctx: &Context,
    kind: &Kind,
    deployment: &Value,
    set: &Arc<Value>,
    to: i64,
) -> Result<Arc<Value>, Refusal> {
    let from = set.replicas();
    if from == to {
        return Ok(set.clone());
    }
    let scaled = ctx
        .change(kind, &super::place(set), Part::Main, |before| {
            let mut new = before.clone();
            new.set(&["spec", "replicas"], to);
            new
        })
        .await?;
    let way = if to > from { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {} from {from} to {to}", set.name());
    ctx.event(deployment, "deployment-controller", "Normal", "ScalingReplicaSet", &message).await;
    Ok(scaled)
}

/// Removes empty ReplicaSets beyond the history that is wished.
async fn prune(ctx: &Context, kind: &Kind, deployment: &Value, old: &[Arc<Value>]) -> Result<(), Refusal> {
    let keep = usize::try_from(deployment.integer(&["spec", "revisionHistoryLimit"])).unwrap_or(10);
    let mut empty: Vec<_> =
        old.iter().filter(|set| set.replicas() == 0 && set.integer(&["status", "replicas"]) == 0).collect();
    empty.sort_by_key(|set| revision(set));
    for set in empty.iter().take(empty.len().saturating_sub(keep)) {
        ctx.delete(kind, set, None).await?;
    }
    Ok(())
}

/// Tells in the status how the rollout gets on, and which revision it is of.
async fn publish(
    ctx: &Context,
    kind: &Kind,
    at: &Place,
    looked_at: &Value,
    new: Option<&Value>,
    old: &[Arc<Value>],
) -> Result<(), Refusal> {
    let (numbers, stamp, moment) = (Numbers::of(new, old), ctx.now(), ctx.moment());
    let set = new.map(Object::name).unwrap_or_default();
    let status = |before: &Value| {
        let mut new = before.clone();
        new.set(&["status"], status(before, looked_at, &numbers, set, (&stamp, moment)));
        new
    };
    ctx.change(kind, at, Part::Status, status).await?;
    let revision = new.map_or(0, revision);
    if revision > 0 {
        ctx.change(kind, at, Part::Main, |before| {
            let mut new = before.clone();
            new.set(&["metadata", "annotations", REVISION], revision.to_string());
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

impl Numbers {
    /// Those of the newest ReplicaSet and all older ones.
    fn of(new: Option<&Value>, old: &[Arc<Value>]) -> Self {
        let all: Vec<&Value> = new.into_iter().chain(old.iter().map(|set| &**set)).collect();
        let sum = |field: &str| all.iter().map(|set| set.integer(&["status", field])).sum();
        Self {
            replicas: sum("replicas"),
            updated: new.map_or(0, |set| set.integer(&["status", "replicas"])),
            ready: sum("readyReplicas"),
            available: sum("availableReplicas"),
        }
    }
}

/// The status of a Deployment whose newest ReplicaSet is `set`.
fn status(
    before: &Value,
    looked_at: &Value,
    numbers: &Numbers,
    set: &str,
    (stamp, moment): (&str, OffsetDateTime),
) -> Value {
    let Numbers { replicas, updated, ready, available } = *numbers;
    let wished = before.replicas();
    let enough = available >= wished - room(before).1;
    let complete = updated == wished && replicas == wished && available >= wished;
    let progress = progress(before, numbers, complete, moment);
    let availability = if enough {
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let (reason, message) = progress.told(set);
    let renewed = progress == Progress::Moving;
    let conditions = [
        condition(before, "Available", enough, availability, false, stamp),
        condition(before, "Progressing", progress != Progress::Late, (reason, &message), renewed, stamp),
    ];
    // The generation that was looked at, not the one there by now: clients take it as "the controller has
    // seen this" and the counts as its outcome.
    json!({
        "observedGeneration": looked_at.copy(&["metadata", "generation"]), "replicas": replicas, "updatedReplicas": updated,
        "readyReplicas": ready, "availableReplicas": available, "unavailableReplicas": (wished - available).max(0),
        "conditions": conditions,
    })
}

/// A condition; its times stay as they were where it says the same as before. `renewed`: it was updated even
/// so.
fn condition(
    before: &Value,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    renewed: bool,
    stamp: &str,
) -> Value {
    let status = if holds { "True" } else { "False" };
    let old = before.condition(kind).filter(|old| old.text(&["status"]) == status);
    let same = old.filter(|old| old.text(&["reason"]) == reason && !renewed);
    let time = |known: Option<&Value>, field: &str| {
        known.and_then(|known| known.get(field).cloned()).unwrap_or_else(|| stamp.into())
    };
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": time(old, "lastTransitionTime"), "lastUpdateTime": time(same, "lastUpdateTime"),
    })
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

impl Progress {
    /// Reason and message of the condition.
    fn told(self, set: &str) -> (&'static str, String) {
        match self {
            Self::Complete => {
                ("NewReplicaSetAvailable", format!("ReplicaSet {set:?} has successfully progressed."))
            }
            Self::Paused => ("DeploymentPaused", "Deployment is paused".to_owned()),
            Self::Late => {
                ("ProgressDeadlineExceeded", format!("ReplicaSet {set:?} has timed out progressing."))
            }
            Self::Moving | Self::Waiting => {
                ("ReplicaSetUpdated", format!("ReplicaSet {set:?} is progressing."))
            }
        }
    }
}

fn progress(before: &Value, numbers: &Numbers, complete: bool, now: OffsetDateTime) -> Progress {
    let was = |field: &str| before.integer(&["status", field]);
    if before.is(&["spec", "paused"]) {
        return Progress::Paused;
    }
    if complete {
        return Progress::Complete;
    }
    let moved = numbers.updated > was("updatedReplicas")
        || numbers.replicas - numbers.updated < was("replicas") - was("updatedReplicas")
        || numbers.ready > was("readyReplicas")
        || numbers.available > was("availableReplicas");
    let renewed = before.integer(&["metadata", "generation"]) != was("observedGeneration");
    let list = before.conditions().iter();
    let known = list.into_iter().find(|condition| condition.text(&["type"]) == "Progressing");
    let reason = known.map_or("", |condition| condition.text(&["reason"]));
    if moved || renewed || matches!(reason, "" | "DeploymentPaused") {
        return Progress::Moving;
    }
    // A complete rollout that loses a pod later is not late: only a change starts the clock.
    if reason == "NewReplicaSetAvailable" {
        return Progress::Complete;
    }
    let deadline = before.number(&["spec", "progressDeadlineSeconds"]).unwrap_or(600);
    let since = known.and_then(|condition| condition.moment(&["lastUpdateTime"]));
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
    use crate::times;

    const START: &str = "2026-01-01T00:00:00Z";

    fn deployment(reason: &str) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"progressDeadlineSeconds": 60}, "status": {
            "observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": [{"type": "Progressing", "reason": reason, "lastUpdateTime": START}]}})
    }

    fn after(seconds: i64, reason: &str, updated: i64) -> Progress {
        let now = times::parse(START).unwrap() + time::Duration::seconds(seconds);
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
