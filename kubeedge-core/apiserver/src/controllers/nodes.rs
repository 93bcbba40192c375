//! Node lifecycle: a node whose lease runs out is not ready; its taints say so, and pods that do not tolerate
//! them end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    super::{
        admission::Part,
        kinds::{LEASES, NODES, PODS},
        object::Object,
        status::Refusal,
        storage::{Change, Happened},
    },
    Context, place,
    scheduler::toleration,
};

/// How old a lease may be: Kubernetes' nodeMonitorGracePeriod, as it is since 1.32.
const GRACE: Duration = Duration::from_secs(50);
const NO_EXECUTE: &str = "NoExecute";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The namespace of the leases of nodes.
pub(super) const LEASES_IN: &str = "kube-node-lease";

/// What is known of all nodes, so that nobody has to look at each of them again and again.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    heard: HashMap<String, Heard>,
    /// Those with a taint that drives pods out, at once or after a while.
    driving_out: BTreeSet<String>,
}

/// The version of a node's lease, and since when it is that: the clock of the node may be wrong, as
/// Kubernetes takes into account too.
#[derive(Debug)]
struct Heard {
    lease: u64,
    since: Instant,
}

impl Ledger {
    /// Notes what a change says of a node.
    pub(super) fn note(&mut self, change: &Change) {
        let key = &change.key;
        let is_gone = change.happened == Happened::Deleted;
        if NODES.has(key) && is_gone {
            // A lease outlives its node.
            self.heard.remove(&key.name);
            self.driving_out.remove(&key.name);
        } else if NODES.has(key) {
            self.is_there(&key.name, &change.object);
        } else if LEASES.has(key) && key.namespace == LEASES_IN && !is_gone {
            self.hear(&key.name, change.version);
        }
    }

    /// Compares what is known with all there is.
    pub(super) fn take_stock(&mut self, nodes: &[Arc<Value>], leases: &[Arc<Value>]) {
        let names: BTreeSet<&str> = nodes.iter().map(|node| node.name()).collect();
        self.heard.retain(|name, _| names.contains(name.as_str()));
        self.driving_out.retain(|name| names.contains(name.as_str()));
        nodes.iter().for_each(|node| self.is_there(node.name(), node));
        for lease in leases {
            let version = lease.resource_version().parse().unwrap_or_default();
            self.hear(lease.name(), version);
        }
    }

    fn is_there(&mut self, name: &str, node: &Value) {
        if !self.heard.contains_key(name) {
            self.heard.insert(name.to_owned(), Heard { lease: 0, since: Instant::now() });
        }
        if taints(node).any(|taint| taint.text(&["effect"]) == NO_EXECUTE) {
            self.driving_out.insert(name.to_owned());
        } else {
            self.driving_out.remove(name);
        }
    }

    /// A lease is at this version.
    fn hear(&mut self, name: &str, version: u64) {
        if let Some(heard) = self.heard.get_mut(name).filter(|heard| heard.lease < version) {
            *heard = Heard { lease: version, since: Instant::now() };
        }
    }

    /// Whether a node was heard of lately.
    fn is_alive(&self, name: &str) -> bool {
        self.heard.get(name).is_none_or(|heard| heard.since.elapsed() < GRACE)
    }

    /// The nodes that time alone may change something for.
    pub(super) fn unfinished(&self) -> Vec<String> {
        let late = self.heard.iter().filter(|(_, heard)| heard.since.elapsed() >= GRACE);
        late.map(|(name, _)| name).chain(&self.driving_out).cloned().collect()
    }
}

/// The active pods of each node, listed for all nodes once, and only where a node drives pods out.
#[derive(Debug, Default)]
pub(super) struct PodsOfNodes(OnceLock<HashMap<String, Vec<Arc<Value>>>>);

impl PodsOfNodes {
    fn on(&self, ctx: &Context, node: &str) -> impl Iterator<Item = &Arc<Value>> {
        let pods = self.0.get_or_init(|| {
            let mut pods: HashMap<String, Vec<Arc<Value>>> = HashMap::new();
            for pod in ctx.list(&PODS, "").into_iter().filter(|pod| pod.is_active()) {
                pods.entry(pod.node_name().to_owned()).or_default().push(pod);
            }
            pods
        });
        pods.get(node).into_iter().flatten()
    }
}

pub(super) async fn reconcile(ctx: &Context, pods: &PodsOfNodes, name: &str) -> Result<(), Refusal> {
    match ctx.get(&NODES, &(String::new(), name.to_owned())) {
        Some(node) => watch_over(ctx, pods, &node).await,
        None => Ok(()),
    }
}

async fn watch_over(ctx: &Context, pods: &PodsOfNodes, node: &Value) -> Result<(), Refusal> {
    let name = node.name().to_owned();
    if !ctx.nodes.lock().is_alive(&name) && !node.condition_is("Ready", "Unknown") {
        tracing::warn!(node = %name, "node has stopped renewing its lease");
        ctx.change(&NODES, &place(node), Part::Status, |before| unknown(before, &ctx.now())).await?;
        ctx.event(
            node,
            "node-controller",
            "Normal",
            "NodeNotReady",
            &format!("Node {name} status is now: NodeNotReady"),
        )
        .await;
        return Ok(());
    }
    let wanted = if node.condition_is("Ready", "Unknown") {
        Some(UNREACHABLE)
    } else if node.condition_is("Ready", "True") {
        None
    } else {
        Some(NOT_READY)
    };
    taint(ctx, node, wanted).await?;
    evict(ctx, pods, &name).await
}

fn taints(node: &Value) -> impl Iterator<Item = &Value> {
    node.list(&["spec", "taints"]).iter()
}

fn unknown(before: &Value, now: &str) -> Value {
    let mut node = before.clone();
    if before.condition("Ready").is_none() {
        // A node that never said anything: without this it would be found anew at every look.
        let mut list = before.conditions().to_vec();
        list.push(json!({"type": "Ready"}));
        node.set(&["status", "conditions"], list);
    }
    for condition in node.list_mut(&["status", "conditions"]).into_iter().flatten() {
        condition.set(&["status"], "Unknown");
        condition.set(&["reason"], "NodeStatusUnknown");
        condition.set(&["message"], "Kubelet stopped posting node status.");
        condition.set(&["lastTransitionTime"], now);
    }
    node
}

async fn taint(ctx: &Context, node: &Value, wanted: Option<&str>) -> Result<(), Refusal> {
    let ours = |taint: &Value| matches!(taint.text(&["key"]), UNREACHABLE | NOT_READY);
    let has: Vec<_> = taints(node).filter(|taint| ours(taint)).map(|taint| taint.text(&["key"])).collect();
    let right = match wanted {
        Some(key) => has.len() == 2 && has.iter().all(|known| *known == key),
        None => has.is_empty(),
    };
    if right {
        return Ok(());
    }
    let mut new: Vec<Value> = taints(node).filter(|taint| !ours(taint)).cloned().collect();
    if let Some(key) = wanted {
        let now = ctx.now();
        new.push(json!({"key": key, "effect": "NoSchedule", "timeAdded": now}));
        new.push(json!({"key": key, "effect": NO_EXECUTE, "timeAdded": now}));
    }
    ctx.change(&NODES, &place(node), Part::Main, |before| {
        let mut node = before.clone();
        node.set(&["spec", "taints"], new);
        node
    })
    .await
    .map(drop)
}

/// Ends pods that do not tolerate their node's NoExecute taints, or no longer. What runs on a node that is
/// cut off goes on there until the node is back and learns of it.
async fn evict(ctx: &Context, pods: &PodsOfNodes, name: &str) -> Result<(), Refusal> {
    let Some(node) = ctx.get(&NODES, &(String::new(), name.to_owned())) else {
        return Ok(());
    };
    if taints(&node).next().is_none() {
        return Ok(());
    }
    for pod in pods.on(ctx, name) {
        if taints(&node).any(|taint| drives_out(taint, pod, ctx.moment())) {
            let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
            ctx.event(pod, "taint-eviction-controller", "Normal", "TaintManagerEviction", &message).await;
            ctx.delete(&PODS, pod, None).await?;
        }
    }
    Ok(())
}

/// Whether a pod must leave because of a taint, or must by now.
fn drives_out(taint: &Value, pod: &Value, now: OffsetDateTime) -> bool {
    if taint.text(&["effect"]) != NO_EXECUTE {
        return false;
    }
    let Some(toleration) = toleration(pod, taint) else { return true };
    let Some(seconds) = toleration.get("tolerationSeconds").and_then(Value::as_i64) else {
        return false;
    };
    taint.moment(&["timeAdded"]).is_some_and(|since| (now - since).whole_seconds() > seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kinds::Kind, times};

    fn node(name: &str, taints: Value) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name}, "spec": {"taints": taints}}))
    }

    fn lease(name: &str, version: u64) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "resourceVersion": version.to_string()}}))
    }

    fn change(version: u64, kind: &Kind, happened: Happened, object: Arc<Value>) -> Change {
        let key = kind.key(LEASES_IN, object.name());
        Change::new(version, key, happened, object, None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_late_when_its_lease_has_not_changed_for_the_grace_period() {
        let mut ledger = Ledger::default();
        ledger.note(&change(1, &NODES, Happened::Added, node("a", json!([]))));
        ledger.note(&change(2, &NODES, Happened::Added, node("b", json!([]))));
        tokio::time::advance(GRACE / 2).await;
        ledger.note(&change(3, &LEASES, Happened::Modified, lease("a", 3)));
        ledger.note(&change(4, &LEASES, Happened::Modified, lease("nobody", 4)));
        ledger.note(&change(5, &NODES, Happened::Modified, node("b", json!([]))));
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(ledger.unfinished(), ["b"]);
        assert!(ledger.is_alive("a") && !ledger.is_alive("b"));
        ledger.note(&change(6, &LEASES, Happened::Deleted, lease("b", 6)));
        assert!(!ledger.is_alive("b"), "that a lease is gone is no sign of life");
        ledger.note(&change(7, &NODES, Happened::Deleted, node("b", json!([]))));
        ledger.note(&change(8, &NODES, Happened::Added, node("b", json!([]))));
        assert!(ledger.unfinished().is_empty() && ledger.is_alive("b"), "it is another node now");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_change_told_is_found_when_stock_is_taken() {
        let mut ledger = Ledger::default();
        ledger.take_stock(
            &[node("a", json!([])), node("b", json!([])), node("gone", json!([]))],
            &[lease("a", 7)],
        );
        tokio::time::advance(GRACE).await;
        ledger.take_stock(
            &[node("a", json!([])), node("b", json!([])), node("new", json!([]))],
            &[lease("a", 7), lease("b", 9)],
        );
        assert_eq!(ledger.unfinished(), ["a"], "only its lease is the one of long ago");
    }

    #[test]
    fn nodes_that_drive_pods_out_are_looked_at_until_they_no_longer_do() {
        let mut ledger = Ledger::default();
        let taint = |effect: &str| json!([{"key": "k", "effect": effect}]);
        ledger.note(&change(1, &NODES, Happened::Added, node("a", taint("NoExecute"))));
        ledger.note(&change(2, &NODES, Happened::Added, node("b", taint("NoSchedule"))));
        assert_eq!(ledger.unfinished(), ["a"]);
        ledger.note(&change(3, &NODES, Happened::Modified, node("a", taint("NoSchedule"))));
        assert!(ledger.unfinished().is_empty());
    }

    #[test]
    fn a_node_that_never_said_anything_gets_a_ready_condition_that_is_unknown() {
        assert!(unknown(&json!({"metadata": {"name": "n"}}), "").condition_is("Ready", "Unknown"));
        let spoke = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]}});
        let lost = unknown(&spoke, "");
        assert!(lost.condition_is("Ready", "Unknown") && lost.condition_is("DiskPressure", "Unknown"));
        assert_eq!(lost["status"]["conditions"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_taint_drives_out_what_does_not_tolerate_it_and_others_in_their_time() {
        let start = times::parse("2026-01-01T00:00:00Z").unwrap();
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
