//! The scheduler: a node for every pod that has none.

use std::sync::Arc;

use kubeedge_common::quantity;
use serde_json::{Value, json};

use super::{
    super::{
        admission::Part,
        kinds::{NODES, PODS},
        object::Object,
        status::Refusal,
    },
    Context, place,
};

pub(super) async fn reconcile(ctx: &Context) -> Result<(), Refusal> {
    let pods = ctx.list(&PODS, "");
    let waiting = pods.iter().filter(|pod| {
        pod.node_name().is_empty()
            && pod.is_active()
            && pod.text(&["spec", "schedulerName"]) == "default-scheduler"
    });
    let mut first = None;
    for pod in waiting {
        // One pod that cannot be placed for now must not keep the others waiting.
        if let Err(refusal) = place_one(ctx, pod).await {
            first.get_or_insert(refusal);
        }
    }
    first.map_or(Ok(()), Err)
}

async fn place_one(ctx: &Context, pod: &Arc<Value>) -> Result<(), Refusal> {
    let nodes = ctx.list(&NODES, "");
    let pods = ctx.list(&PODS, "");
    let mut reasons: Vec<(&'static str, usize)> = Vec::new();
    let mut best: Option<(i64, String)> = None;
    for node in &nodes {
        let name = node.name();
        let there: Vec<&Value> =
            pods.iter().map(|p| &**p).filter(|p| p.node_name() == name && p.is_active()).collect();
        match fits(pod, node, &there) {
            Ok(spare) => {
                if best.as_ref().is_none_or(|(most, _)| spare > *most) {
                    best = Some((spare, name.to_owned()));
                }
            }
            Err(reason) => match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => reasons.push((reason, 1)),
            },
        }
    }
    let (namespace, name) = place(pod);
    if let Some((_, node)) = best {
        ctx.registry.bind(&namespace, &name, &node).await?;
        let message = format!("Successfully assigned {namespace}/{name} to {node}");
        ctx.event(pod, "default-scheduler", "Normal", "Scheduled", &message).await;
        return Ok(());
    }
    let why: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let why = if nodes.is_empty() {
        "no nodes available to schedule pods".to_owned()
    } else {
        format!("0/{} nodes are available: {}.", nodes.len(), why.join(", "))
    };
    unschedulable(ctx, pod, &why).await
}

async fn unschedulable(ctx: &Context, pod: &Value, why: &str) -> Result<(), Refusal> {
    if pod.condition("PodScheduled").is_some_and(|condition| condition.text(&["message"]) == why) {
        return Ok(());
    }
    ctx.event(pod, "default-scheduler", "Warning", "FailedScheduling", why).await;
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastTransitionTime": ctx.now()});
    ctx.change(&PODS, &place(pod), Part::Status, |before| {
        let mut new = before.clone();
        new.set(&["status", "conditions"], json!([condition]));
        new
    })
    .await
    .map(drop)
}

/// Whether a pod may go to a node: what would be left, or why not, in the scheduler's words.
fn fits(pod: &Value, node: &Value, there: &[&Value]) -> Result<i64, &'static str> {
    if node.is(&["spec", "unschedulable"]) {
        return Err("node(s) were unschedulable");
    }
    if !node.condition_is("Ready", "True") {
        return Err("node(s) were not ready");
    }
    if !selected(pod, node) {
        return Err("node(s) didn't match Pod's node affinity/selector");
    }
    let repels = |taint: &Value| taint.text(&["effect"]) != "PreferNoSchedule" && !tolerates(pod, taint);
    if node.list(&["spec", "taints"]).iter().any(repels) {
        return Err("node(s) had untolerated taint(s)");
    }
    let wanted_ports = host_ports(pod);
    if there.iter().any(|other| host_ports(other).iter().any(|port| wanted_ports.contains(port))) {
        return Err("node(s) didn't have free ports for the requested pod ports");
    }
    room(pod, node, there)
}

fn room(pod: &Value, node: &Value, there: &[&Value]) -> Result<i64, &'static str> {
    let offers = |name: &str| {
        node.at(&["status", "allocatable", name]).and_then(Value::as_str).map_or(i64::MAX, milli)
    };
    if there.len() as i64 >= offers("pods") / 1000 {
        return Err("Too many pods");
    }
    let mut spare = i64::MAX;
    for (name, why) in [("cpu", "Insufficient cpu"), ("memory", "Insufficient memory")] {
        let used = sum(there.iter().map(|other| requests(other, name)));
        let left = offers(name).saturating_sub(used).saturating_sub(requests(pod, name));
        if left < 0 && requests(pod, name) > 0 {
            return Err(why);
        }
        if name == "cpu" {
            spare = left;
        }
    }
    // Among equals the emptier node is better.
    Ok(spare.saturating_sub(there.len() as i64))
}

fn requests(pod: &Value, name: &str) -> i64 {
    let of = |list: &str| -> Vec<i64> {
        let containers = pod.list(&["spec", list]).iter();
        containers.filter_map(|c| c.at(&["resources", "requests", name])?.as_str()).map(milli).collect()
    };
    let mains = sum(of("containers").into_iter());
    mains.max(of("initContainers").into_iter().max().unwrap_or(0))
}

/// A quantity in thousandths.
fn milli(text: &str) -> i64 {
    i64::try_from(quantity::milli(text)).unwrap_or(i64::MAX)
}

fn sum(amounts: impl Iterator<Item = i64>) -> i64 {
    amounts.fold(0, i64::saturating_add)
}

fn host_ports(pod: &Value) -> Vec<(i64, String)> {
    let containers = pod.list(&["spec", "containers"]).iter();
    let ports = containers.filter_map(|c| c.get("ports")?.as_array()).flatten();
    ports
        .filter(|port| port.integer(&["hostPort"]) > 0)
        .map(|port| (port.integer(&["hostPort"]), port.text(&["protocol"]).to_owned()))
        .collect()
}

fn selected(pod: &Value, node: &Value) -> bool {
    let selector = pod.fields(&["spec", "nodeSelector"]);
    let simple = selector.into_iter().flatten().all(|(key, value)| node.label(key) == value.as_str());
    let terms = pod.at(&[
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ]);
    let terms = terms.and_then(Value::as_array);
    let term = |term: &Value| {
        let list = |name: &str| term.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let fields = list("matchFields");
        let name = Some(node.name());
        list("matchExpressions").iter().all(|e| expression(e, node.label(e.text(&["key"]))))
            && fields.iter().all(|e| expression(e, name))
    };
    simple && terms.is_none_or(|terms| terms.iter().any(term))
}

fn expression(expression: &Value, value: Option<&str>) -> bool {
    let values: Vec<_> = expression
        .get("values")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().copied());
    match expression.text(&["operator"]) {
        "In" => value.is_some_and(|value| values.contains(&value)),
        "NotIn" => value.is_none_or(|value| !values.contains(&value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Whether a pod tolerates a taint.
pub(super) fn tolerates(pod: &Value, taint: &Value) -> bool {
    toleration(pod, taint).is_some()
}

/// The toleration of a pod that answers a taint.
pub(super) fn toleration<'a>(pod: &'a Value, taint: &Value) -> Option<&'a Value> {
    let list = pod.list(&["spec", "tolerations"]).iter();
    list.into_iter().find(|toleration| {
        let (key, effect) = (toleration.text(&["key"]), toleration.text(&["effect"]));
        let exists = toleration.text(&["operator"]) == "Exists";
        let same_key = if key.is_empty() { exists } else { key == taint.text(&["key"]) };
        let same_effect = effect.is_empty() || effect == taint.text(&["effect"]);
        same_key && same_effect && (exists || toleration.text(&["value"]) == taint.text(&["value"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(extra: Value) -> Value {
        let mut node = json!({"metadata": {"name": "n", "labels": {"zone": "a"}}, "status": {
            "allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        json_patch::merge(&mut node, &extra);
        node
    }

    fn pod(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn a_pod_goes_only_where_it_may_and_fits() {
        let cpu = |cpu: &str| pod(json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]}));
        let plain = pod(json!({}));
        assert!(fits(&plain, &node(json!({})), &[]).is_ok());
        assert_eq!(
            fits(&plain, &node(json!({"spec": {"unschedulable": true}})), &[]),
            Err("node(s) were unschedulable")
        );
        let tainted = node(json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
        assert!(fits(&plain, &tainted, &[]).is_err());
        assert!(
            fits(&pod(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})), &tainted, &[]).is_ok()
        );
        assert!(fits(&pod(json!({"nodeSelector": {"zone": "b"}})), &node(json!({})), &[]).is_err());
        assert_eq!(fits(&cpu("3"), &node(json!({})), &[]), Err("Insufficient cpu"));
        assert!(fits(&cpu("500m"), &node(json!({})), &[&cpu("1500m")]).is_ok());
        assert_eq!(fits(&cpu("501m"), &node(json!({})), &[&cpu("1500m")]), Err("Insufficient cpu"));
        let endless = cpu("9e30");
        assert_eq!(fits(&plain, &node(json!({})), &[&endless, &endless]).map(|_| ()), Ok(()));
        assert_eq!(fits(&cpu("1e3"), &node(json!({})), &[]), Err("Insufficient cpu"));
        assert_eq!(fits(&plain, &node(json!({})), &[&plain, &plain, &plain]), Err("Too many pods"));
    }
}
