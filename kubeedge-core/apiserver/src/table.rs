//! Objects as tables, with the columns kubectl's users know.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    kinds::Kind,
    registry::{parse_time, text},
};
use crate::edit::At as _;

/// A `Table` of these objects.
pub(crate) fn table(
    kind: &Kind,
    objects: &[impl std::borrow::Borrow<Value>],
    now: OffsetDateTime,
    version: &str,
    include: &str,
) -> Value {
    let columns = columns(kind);
    let rows: Vec<_> = objects.iter().map(|object| row(kind, object.borrow(), now, include)).collect();
    let definitions: Vec<_> = columns
        .iter()
        .map(|(name, of, priority)| {
            let format = if name == "Name" { "name" } else { "" };
            json!({"name": name, "type": of, "format": format, "description": name, "priority": priority})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version}, "columnDefinitions": definitions, "rows": rows})
}

fn columns(kind: &Kind) -> Vec<(String, String, i64)> {
    let column = |(name, priority): (&str, i64)| (name.to_owned(), "string".to_owned(), priority);
    if kind.is_custom() && !kind.columns.is_empty() {
        let name = ("Name".to_owned(), "string".to_owned(), 0);
        let own = kind.columns.iter().map(|(name, of, _, priority)| (name.clone(), of.clone(), *priority));
        return std::iter::once(name).chain(own).collect();
    }
    if let Some(names) = super::columns::names(kind) {
        return names.into_iter().map(column).collect();
    }
    let names: &[(&str, i64)] = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1),
        ],
        ("", "nodes") => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        ("apps", "deployments") => &[
            ("Name", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        ("apps", "replicasets") => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Age", 0),
            ("Containers", 1),
            ("Images", 1),
            ("Selector", 1),
        ],
        ("", "services") => &[
            ("Name", 0),
            ("Type", 0),
            ("Cluster-IP", 0),
            ("External-IP", 0),
            ("Port(s)", 0),
            ("Age", 0),
            ("Selector", 1),
        ],
        ("", "configmaps") => &[("Name", 0), ("Data", 0), ("Age", 0)],
        ("", "secrets") => &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
        ("", "namespaces") => &[("Name", 0), ("Status", 0), ("Age", 0)],
        ("" | "events.k8s.io", "events") => {
            &[("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0), ("Name", 1)]
        }
        ("coordination.k8s.io", _) => &[("Name", 0), ("Holder", 0), ("Age", 0)],
        ("", "serviceaccounts") => &[("Name", 0), ("Secrets", 0), ("Age", 0)],
        ("apiextensions.k8s.io", _) => &[("Name", 0), ("Created At", 0)],
        _ => &[("Name", 0), ("Age", 0)],
    };
    names.iter().copied().map(column).collect()
}

fn row(kind: &Kind, object: &Value, now: OffsetDateTime, include: &str) -> Value {
    let name = text(object, "/metadata/name").to_owned();
    let age = age(object, now);
    let cells: Vec<Value> = if kind.is_custom() && !kind.columns.is_empty() {
        let own = kind.columns.iter().map(|(_, of, path, _)| custom_cell(object, of, path, now));
        std::iter::once(name.into()).chain(own).collect()
    } else {
        super::columns::cells(kind, object, &age, now).unwrap_or_else(|| cells(kind, object, name, age, now))
    };
    let object = match include {
        "Object" => object.clone(),
        "None" => Value::Null,
        _ => {
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
        }
    };
    json!({"cells": cells, "object": object})
}

fn cells(kind: &Kind, object: &Value, name: String, age: String, now: OffsetDateTime) -> Vec<Value> {
    let number = |pointer: &str| object.at(pointer).and_then(Value::as_i64).unwrap_or(0);
    let entries =
        |pointer: &str| object.at(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod(object, name, age, now),
        ("", "nodes") => node(object, name, age),
        ("apps", "deployments") => {
            let ready = format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas"));
            let [containers, images, selector] = template(object);
            vec![
                name.into(),
                ready.into(),
                number("/status/updatedReplicas").into(),
                number("/status/availableReplicas").into(),
                age.into(),
                containers,
                images,
                selector,
            ]
        }
        ("apps", "replicasets") => {
            let [containers, images, selector] = template(object);
            vec![
                name.into(),
                number("/spec/replicas").into(),
                number("/status/replicas").into(),
                number("/status/readyReplicas").into(),
                age.into(),
                containers,
                images,
                selector,
            ]
        }
        ("", "services") => service(object, name, age),
        ("", "configmaps") => {
            vec![name.into(), (entries("/data") + entries("/binaryData")).into(), age.into()]
        }
        ("", "secrets") => {
            vec![name.into(), text(object, "/type").into(), entries("/data").into(), age.into()]
        }
        ("", "namespaces") => vec![name.into(), text(object, "/status/phase").into(), age.into()],
        ("" | "events.k8s.io", "events") => {
            let seen = [
                text(object, "/lastTimestamp"),
                text(object, "/eventTime"),
                text(object, "/metadata/creationTimestamp"),
            ];
            let seen = seen.into_iter().find(|time| !time.is_empty()).unwrap_or_default();
            let about = format!(
                "{}/{}",
                text(object, "/involvedObject/kind").to_lowercase(),
                text(object, "/involvedObject/name")
            );
            vec![
                since(seen, now).into(),
                text(object, "/type").into(),
                text(object, "/reason").into(),
                about.into(),
                text(object, "/message").into(),
                name.into(),
            ]
        }
        ("coordination.k8s.io", _) => {
            vec![name.into(), text(object, "/spec/holderIdentity").into(), age.into()]
        }
        ("", "serviceaccounts") => {
            let secrets = object.get("secrets").and_then(Value::as_array).map_or(0, Vec::len);
            vec![name.into(), secrets.into(), age.into()]
        }
        ("apiextensions.k8s.io", _) => vec![name.into(), text(object, "/metadata/creationTimestamp").into()],
        _ => vec![name.into(), age.into()],
    }
}

fn template(object: &Value) -> [Value; 3] {
    let containers = object.at("/spec/template/spec/containers").and_then(Value::as_array);
    let join = |field: &str| {
        let list: Vec<_> = containers
            .into_iter()
            .flatten()
            .map(|c| c.get(field).and_then(Value::as_str).unwrap_or_default())
            .collect();
        Value::from(list.join(","))
    };
    [join("name"), join("image"), pairs(object.at("/spec/selector/matchLabels"))]
}

pub(super) fn pairs(map: Option<&Value>) -> Value {
    let list: Vec<_> = map
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if list.is_empty() { "<none>".into() } else { list.join(",").into() }
}

fn service(object: &Value, name: String, age: String) -> Vec<Value> {
    let ports: Vec<_> = object.at("/spec/ports").and_then(Value::as_array).into_iter().flatten().collect();
    let port = |port: &&Value| {
        let (number, protocol) =
            (port.get("port").and_then(Value::as_i64).unwrap_or(0), text(port, "/protocol"));
        match port.get("nodePort").and_then(Value::as_i64) {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<_> = ports.iter().map(port).collect();
    let ip = Some(text(object, "/spec/clusterIP")).filter(|ip| !ip.is_empty()).unwrap_or("<none>");
    let ports = if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") };
    vec![
        name.into(),
        text(object, "/spec/type").into(),
        ip.into(),
        "<none>".into(),
        ports.into(),
        age.into(),
        pairs(object.at("/spec/selector")),
    ]
}

fn node(object: &Value, name: String, age: String) -> Vec<Value> {
    let conditions = object.at("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready =
        conditions.into_iter().find(|c| text(c, "/type") == "Ready").map(|c| text(c, "/status").to_owned());
    let mut status = match ready.as_deref() {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.at("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object.at("/metadata/labels").and_then(Value::as_object);
    let roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let addresses = object.at("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let address = addresses
        .into_iter()
        .find(|a| text(a, "/type") == "InternalIP")
        .map_or("<none>", |a| text(a, "/address"));
    let info = |field: &str| Value::from(text(object, &format!("/status/nodeInfo/{field}")));
    vec![
        name.into(),
        status.into(),
        roles.into(),
        age.into(),
        info("kubeletVersion"),
        address.into(),
        "<none>".into(),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn pod(object: &Value, name: String, age: String, now: OffsetDateTime) -> Vec<Value> {
    let list = |pointer: &str| object.at(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let statuses = list("/status/containerStatuses");
    let ready = statuses.iter().filter(|status| status.get("ready") == Some(&Value::Bool(true))).count();
    let total = list("/spec/containers").len();
    let restarts: i64 = statuses.iter().filter_map(|status| status.get("restartCount")?.as_i64()).sum();
    let last = statuses
        .iter()
        .filter_map(|status| parse_time(text(status, "/lastState/terminated/finishedAt")))
        .max();
    let restarts = match last {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", human(now - last)),
        _ => restarts.to_string(),
    };
    let or_none = |value: &str| if value.is_empty() { "<none>".to_owned() } else { value.to_owned() };
    let (ip, on) = (or_none(text(object, "/status/podIP")), or_none(text(object, "/spec/nodeName")));
    let ready = format!("{ready}/{total}");
    vec![
        name.into(),
        ready.into(),
        pod_status(object).into(),
        restarts.into(),
        age.into(),
        ip.into(),
        on.into(),
        "<none>".into(),
        "<none>".into(),
    ]
}

/// The STATUS column, as kubectl computes it: what went wrong last, else the phase.
fn pod_status(object: &Value) -> String {
    let list = |pointer: &str| object.at(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut reason = text(object, "/status/phase").to_owned();
    let whole = text(object, "/status/reason");
    if !whole.is_empty() {
        whole.clone_into(&mut reason);
    }
    let inits = list("/status/initContainerStatuses");
    let mut initialising = false;
    for (at, status) in inits.iter().enumerate() {
        let exit = status.at("/state/terminated/exitCode").and_then(Value::as_i64);
        if exit == Some(0)
            || (status.get("started") == Some(&Value::Bool(true))
                && status.get("ready") == Some(&Value::Bool(true)))
        {
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        let ended = text(status, "/state/terminated/reason");
        reason = match (exit, waiting) {
            (Some(code), _) if ended.is_empty() => format!("Init:ExitCode:{code}"),
            (Some(_), _) => format!("Init:{ended}"),
            (None, waiting) if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            _ => format!("Init:{at}/{}", inits.len()),
        };
        initialising = true;
        break;
    }
    if !initialising {
        let mut any_running = false;
        for status in list("/status/containerStatuses").iter().rev() {
            let waiting = text(status, "/state/waiting/reason");
            let ended = text(status, "/state/terminated/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if !ended.is_empty() {
                ended.clone_into(&mut reason);
            } else if let Some(code) = status.at("/state/terminated/exitCode").and_then(Value::as_i64) {
                reason = format!("ExitCode:{code}");
            } else if status.at("/state/running").is_some() && status.get("ready") == Some(&Value::Bool(true))
            {
                any_running = true;
            }
        }
        if reason == "Completed" && any_running {
            reason = "Running".to_owned();
        }
    }
    if object.at("/metadata/deletionTimestamp").is_some() {
        return if text(object, "/status/reason") == "NodeLost" { "Unknown" } else { "Terminating" }
            .to_owned();
    }
    reason
}

fn custom_cell(object: &Value, of: &str, path: &str, now: OffsetDateTime) -> Value {
    let value = super::jsonpath::first(object, path).cloned().unwrap_or_default();
    match (of, &value) {
        ("date", Value::String(time)) => since(time, now).into(),
        (_, Value::Array(_) | Value::Object(_)) => value.to_string().into(),
        _ => value,
    }
}

fn age(object: &Value, now: OffsetDateTime) -> String {
    since(text(object, "/metadata/creationTimestamp"), now)
}

fn since(moment: &str, now: OffsetDateTime) -> String {
    parse_time(moment).map_or_else(|| "<unknown>".to_owned(), |moment| human(now - moment))
}

/// A span as Kubernetes shows it: two units while they are small.
pub(super) fn human(span: time::Duration) -> String {
    let seconds = span.whole_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::built_in_kind;

    fn pod_row(pod: Value) -> Vec<Value> {
        let table = table(&built_in_kind("", "pods"), &[pod], OffsetDateTime::UNIX_EPOCH, "1", "None");
        table["rows"][0]["cells"].as_array().unwrap().clone()
    }

    #[test]
    fn a_pod_shows_what_kubectl_users_know() {
        let running = json!({"metadata": {"name": "a"}, "spec": {"containers": [{}, {}]}, "status": {"phase": "Running", "containerStatuses": [
            {"ready": true, "restartCount": 2, "state": {"running": {}}}, {"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let row = pod_row(running);
        assert_eq!((&row[1], &row[2], &row[3]), (&json!("1/2"), &json!("CrashLoopBackOff"), &json!("2")));
        let done = json!({"metadata": {}, "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]}});
        assert_eq!(pod_row(done)[2], "Completed");
        let init = json!({"metadata": {}, "status": {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}});
        assert_eq!(pod_row(init)[2], "Init:0/1");
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        assert_eq!(pod_row(ending)[2], "Terminating");
    }

    #[test]
    fn ages_are_written_as_kubernetes_writes_them() {
        for (seconds, expected) in [
            (5, "5s"),
            (119, "119s"),
            (130, "2m10s"),
            (600, "10m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
        ] {
            assert_eq!(human(time::Duration::seconds(seconds)), expected);
        }
    }
}
