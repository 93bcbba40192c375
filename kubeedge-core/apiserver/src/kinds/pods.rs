//! Pods.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    access::NodeRequest,
    built_in::{Action, BuiltIn, Lifecycle, Selectable, Subresource, Types, field},
    columns::{AGE, Column, NAME, Row},
    pod_spec,
};
use crate::{
    object::{Fields, Object},
    status::Problem,
    times,
};

pub(super) const POD: BuiltIn = BuiltIn {
    short_names: &["po"],
    in_all: true,
    status: true,
    subresources: SUBRESOURCES,
    types: Types::of::<Pod>(),
    selectable: SELECTABLE,
    defaults,
    check: |pod, out| pod_spec::check(pod.at(&["spec"]), "spec", out),
    check_update,
    lifecycle: Lifecycle { grace, is_kept, answers_object: true, ..Lifecycle::PLAIN },
    ..BuiltIn::namespaced(("", "v1", "Pod", "pods"), COLUMNS, node_may)
};

const SUBRESOURCES: &[Subresource] = &[
    Subresource { name: "log", verbs: &["get"], kind: "Pod", group: "", action: Action::Log },
    Subresource {
        name: "exec",
        verbs: &["create", "get"],
        kind: "PodExecOptions",
        group: "",
        action: Action::Stream,
    },
    Subresource {
        name: "attach",
        verbs: &["create", "get"],
        kind: "PodAttachOptions",
        group: "",
        action: Action::Stream,
    },
    Subresource { name: "binding", verbs: &["create"], kind: "Binding", group: "", action: Action::Bind },
    Subresource {
        name: "eviction",
        verbs: &["create"],
        kind: "Eviction",
        group: "policy",
        action: Action::Evict,
    },
];

const SELECTABLE: &[Selectable] = &[
    field("spec.nodeName"),
    field("spec.restartPolicy"),
    field("spec.schedulerName"),
    field("spec.serviceAccountName"),
    Selectable { path: "spec.hostNetwork", absent: "false" },
    field("status.phase"),
    field("status.podIP"),
    field("status.nominatedNodeName"),
];

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", ready),
    Column::new("Status", |row| shown_status(row.object).into()),
    Column::new("Restarts", restarts),
    AGE,
    Column::wide("IP", |row| row.text_or_none(&["status", "podIP"])),
    Column::wide("Node", |row| row.text_or_none(&["spec", "nodeName"])),
    Column::wide("Nominated Node", |_| "<none>".into()),
    Column::wide("Readiness Gates", |_| "<none>".into()),
];

/// A node runs commands in no container and binds no pod.
fn node_may(request: &NodeRequest<'_>) -> bool {
    match request.sub {
        "" => request.reads() || request.creates() || request.verb == "delete",
        sub => matches!(sub, "status" | "eviction"),
    }
}

/// Pods on a node end in their time; all others at once.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    if pod.node_name().is_empty() || pod.is_finished() {
        return 0;
    }
    let own = pod.number(&["spec", "terminationGracePeriodSeconds"]);
    asked.or(own).unwrap_or(30).max(0)
}

/// Its node says when it is over.
fn is_kept(pod: &Value) -> bool {
    pod.integer(&["metadata", "deletionGracePeriodSeconds"]) > 0
}

fn defaults(pod: &mut Value) {
    pod_spec::fill(pod, &["spec"]);
    if let Some(spec) = pod.at_mut(&["spec"]).and_then(Value::as_object_mut) {
        pod_spec::fill_of_pod(spec);
    }
    if pod.at(&["status", "phase"]).is_none() {
        let status = json!({"phase": "Pending", "qosClass": pod_spec::quality_of_service(pod)});
        pod.set(&["status"], status);
    }
}

const IMMUTABLE: &str = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn check_update(before: &Value, new: &Value) -> Option<Problem> {
    let mut comparable = new.copy(&["spec"]);
    put_back_mutable(before.at(&["spec"]), &mut comparable);
    (Some(&comparable) != before.at(&["spec"])).then(|| Problem::new("spec", IMMUTABLE))
}

/// Puts the old values of what may change into the new specification, so that the rest can be compared.
fn put_back_mutable(before: Option<&Value>, new: &mut Value) {
    let Some(before) = before else { return };
    let remove = |new: &mut Value, field: &str| {
        drop(new.as_object_mut().and_then(|fields: &mut Fields| fields.remove(field)))
    };
    for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
        match before.get(field) {
            Some(value) => new.set(&[field], value.clone()),
            None => remove(new, field),
        }
    }
    // A binding that travels as an update.
    if before.get("nodeName").is_none() {
        remove(new, "nodeName");
    }
    for list in ["containers", "initContainers"] {
        let containers = new.list_mut(&[list]).into_iter().flatten();
        for (container, old) in containers.zip(before.list(&[list])) {
            if let Some(image) = old.get("image") {
                container.set(&["image"], image.clone());
            }
        }
    }
}

const STATUSES: [&str; 2] = ["status", "containerStatuses"];

fn ready(row: &Row<'_>) -> Value {
    let ready = row.object.list(&STATUSES).iter().filter(|status| status.is(&["ready"])).count();
    format!("{ready}/{}", row.object.list(&["spec", "containers"]).len()).into()
}

fn restarts(row: &Row<'_>) -> Value {
    let statuses = row.object.list(&STATUSES).iter();
    let restarts: i64 = statuses.clone().map(|status| status.integer(&["restartCount"])).sum();
    let last = statuses.filter_map(|status| status.moment(&["lastState", "terminated", "finishedAt"])).max();
    match last {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", times::human(row.now - last)).into(),
        _ => restarts.to_string().into(),
    }
}

/// The STATUS column, as kubectl computes it: what went wrong last, else the phase.
fn shown_status(pod: &Value) -> String {
    let of_all = pod.text(&["status", "reason"]);
    if pod.is_deleting() {
        return if of_all == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    let whole = if of_all.is_empty() { pod.phase() } else { of_all };
    initialising(pod).unwrap_or_else(|| of_containers(pod, whole))
}

/// What the first init container that is not done says.
fn initialising(pod: &Value) -> Option<String> {
    let inits = pod.list(&["status", "initContainerStatuses"]);
    let exit = |status: &Value| status.number(&["state", "terminated", "exitCode"]);
    let is_done =
        |status: &Value| exit(status) == Some(0) || status.is(&["started"]) && status.is(&["ready"]);
    let (at, status) = inits.iter().enumerate().find(|(_, status)| !is_done(status))?;
    let waiting = status.text(&["state", "waiting", "reason"]);
    let ended = status.text(&["state", "terminated", "reason"]);
    Some(match exit(status) {
        Some(code) if ended.is_empty() => format!("Init:ExitCode:{code}"),
        Some(_) => format!("Init:{ended}"),
        None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
        None => format!("Init:{at}/{}", inits.len()),
    })
}

fn of_containers(pod: &Value, whole: &str) -> String {
    let mut reason = whole.to_owned();
    let mut any_running = false;
    for status in pod.list(&STATUSES).iter().rev() {
        let waiting = status.text(&["state", "waiting", "reason"]);
        let ended = status.text(&["state", "terminated", "reason"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut reason);
        } else if !ended.is_empty() {
            ended.clone_into(&mut reason);
        } else if let Some(code) = status.number(&["state", "terminated", "exitCode"]) {
            reason = format!("ExitCode:{code}");
        } else if status.at(&["state", "running"]).is_some() && status.is(&["ready"]) {
            any_running = true;
        }
    }
    if reason == "Completed" && any_running { "Running".to_owned() } else { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pod: &Value) -> Vec<Value> {
        let row = Row { object: pod, now: time::OffsetDateTime::UNIX_EPOCH };
        COLUMNS.iter().map(|column| (column.cell)(&row)).collect()
    }

    #[test]
    fn a_pod_shows_what_kubectl_users_know() {
        let running = json!({"metadata": {"name": "a"}, "spec": {"containers": [{}, {}]}, "status": {"phase": "Running", "containerStatuses": [
            {"ready": true, "restartCount": 2, "state": {"running": {}}}, {"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        assert_eq!(row(&running)[1..4], [json!("1/2"), json!("CrashLoopBackOff"), json!("2")]);
        let done = json!({"metadata": {}, "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}});
        assert_eq!(row(&done)[2], "Completed");
        let init = json!({"metadata": {}, "status": {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}});
        assert_eq!(row(&init)[2], "Init:0/1");
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        assert_eq!(row(&ending)[2], "Terminating");
    }
}
