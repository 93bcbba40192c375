//! What Kubernetes fills in and what it refuses, for the kinds people write.

use serde_json::{Map, Value, json};

use crate::edit::At as _;
use crate::edit::put;

use super::kinds::{self, Kind};

/// A problem: the path of the field and what is wrong with it.
pub(crate) type Problem = (String, String);

fn object<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    value.pointer_mut(path).and_then(Value::as_object_mut)
}

fn default(fields: &mut Map<String, Value>, defaults: &[(&str, Value)]) {
    for (key, value) in defaults {
        let entry = fields.entry((*key).to_owned()).or_insert(Value::Null);
        if entry.is_null() {
            *entry = value.clone();
        }
    }
}

/// Fills in what was left out.
pub(crate) fn fill(kind: &Kind, value: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            pod_spec(value, "/spec");
            if value.get("status").is_none_or(|status| status.get("phase").is_none()) {
                put(value, &["status"], json!({"phase": "Pending", "qosClass": qos(value)}));
            }
        }
        ("apps", "deployments") => {
            pod_spec(value, "/spec/template/spec");
            if let Some(spec) = object(value, "/spec") {
                default(
                    spec,
                    &[
                        ("replicas", 1.into()),
                        ("revisionHistoryLimit", 10.into()),
                        ("progressDeadlineSeconds", 600.into()),
                        ("strategy", json!({})),
                    ],
                );
                // kubectl writes an empty strategy.
                if let Some(Value::Object(strategy)) = spec.get_mut("strategy") {
                    default(strategy, &[("type", "RollingUpdate".into())]);
                    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
                        default(strategy, &[("rollingUpdate", json!({}))]);
                    }
                    if let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate") {
                        default(rolling, &[("maxSurge", "25%".into()), ("maxUnavailable", "25%".into())]);
                    }
                }
            }
        }
        ("apps", "replicasets") => {
            pod_spec(value, "/spec/template/spec");
            if let Some(spec) = object(value, "/spec") {
                default(spec, &[("replicas", 1.into())]);
            }
        }
        ("batch", "jobs") => pod_spec(value, "/spec/template/spec"),
        ("", "services") => {
            if let Some(spec) = object(value, "/spec") {
                default(spec, &[("type", "ClusterIP".into()), ("sessionAffinity", "None".into())]);
                for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                    let number = port.get("port").cloned().unwrap_or_default();
                    if let Some(port) = port.as_object_mut() {
                        default(port, &[("protocol", "TCP".into()), ("targetPort", number)]);
                    }
                }
            }
        }
        ("", "secrets") => secret(value),
        (kinds::CRD_GROUP, kinds::CRDS) => super::definitions::fill(value),
        ("", "namespaces") => {
            let name = value.at("/metadata/name").cloned().unwrap_or_default();
            put(value, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
            if value.get("status").is_none_or(|status| status.get("phase").is_none()) {
                put(value, &["spec"], json!({"finalizers": ["kubernetes"]}));
                put(value, &["status"], json!({"phase": "Active"}));
            }
        }
        _ => {}
    }
}

/// Plain text of a Secret becomes data.
fn secret(value: &mut Value) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if let Some(fields) = value.as_object_mut() {
        default(fields, &[("type", "Opaque".into())]);
        if let Some(Value::Object(texts)) = fields.remove("stringData") {
            let data = fields.entry("data").or_insert_with(|| json!({}));
            for (key, text) in texts {
                put(data, &[&key], STANDARD.encode(text.as_str().unwrap_or_default()));
            }
        }
    }
}

fn pod_spec(value: &mut Value, path: &str) {
    let is_pod = path == "/spec";
    let Some(spec) = object(value, path) else { return };
    default(
        spec,
        &[
            ("restartPolicy", "Always".into()),
            ("dnsPolicy", "ClusterFirst".into()),
            ("terminationGracePeriodSeconds", 30.into()),
            ("schedulerName", "default-scheduler".into()),
            ("securityContext", json!({})),
        ],
    );
    if is_pod {
        default(
            spec,
            &[
                ("serviceAccountName", "default".into()),
                ("enableServiceLinks", true.into()),
                ("preemptionPolicy", "PreemptLowerPriority".into()),
                ("priority", 0.into()),
            ],
        );
        tolerations(spec);
    }
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container_defaults(container);
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for kind in ["configMap", "secret", "downwardAPI", "projected"] {
            if let Some(source) = volume.get_mut(kind).and_then(Value::as_object_mut) {
                default(source, &[("defaultMode", 420.into())]);
            }
        }
        if let Some(source) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
            default(source, &[("type", "".into())]);
        }
    }
}

/// A node that is away keeps its pods for five minutes, as Kubernetes' admission says.
fn tolerations(spec: &mut Map<String, Value>) {
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |item: &Value| {
            let same_key = item.get("key").and_then(Value::as_str).is_none_or(|k| k.is_empty() || k == key);
            let effect =
                item.get("effect").and_then(Value::as_str).is_none_or(|e| e.is_empty() || e == "NoExecute");
            same_key && effect
        };
        if !list.iter().any(tolerated) {
            list.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

fn container_defaults(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
    // `localhost/…` names what is on the node already: there is no registry to ask.
    let policy = if latest && !image.starts_with("localhost/") { "Always" } else { "IfNotPresent" };
    default(
        container,
        &[
            ("imagePullPolicy", policy.into()),
            ("terminationMessagePath", "/dev/termination-log".into()),
            ("terminationMessagePolicy", "File".into()),
            ("resources", json!({})),
        ],
    );
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            default(port, &[("protocol", "TCP".into())]);
        }
    }
    // YAML's `cpu: 1` arrives as a number; a quantity is a text everywhere else.
    for side in ["limits", "requests"] {
        let quantities = container.get_mut("resources").and_then(|resources| resources.get_mut(side));
        for quantity in quantities.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            if quantity.is_number() {
                *quantity = quantity.to_string().into();
            }
        }
    }
    let limits = container.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).cloned();
    if let (Some(limits), Some(Value::Object(resources))) = (limits, container.get_mut("resources")) {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        for (name, limit) in limits {
            if requests.get(&name).is_none() {
                put(requests, &[&name], limit);
            }
        }
    }
}

fn qos(pod: &Value) -> &'static str {
    let all = ["initContainers", "containers"].into_iter();
    let containers = all.filter_map(|list| pod.at("/spec")?.get(list)?.as_array()).flatten();
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let of = |side: &str| container.at(&format!("/resources/{side}/{name}"));
            any |= of("limits").is_some() || of("requests").is_some();
            guaranteed &= of("limits").is_some() && of("limits") == of("requests");
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether a text may name an object: a DNS subdomain, as Kubernetes has it.
fn is_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    name.len() <= 253 && edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner)
}

/// What Kubernetes would refuse.
pub(crate) fn problems(kind: &Kind, value: &Value) -> Vec<Problem> {
    let mut out = Vec::new();
    let name = value.at("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    // RBAC names and event names may hold more.
    if !is_name(name) && kind.group != "rbac.authorization.k8s.io" {
        let why = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        out.push(("metadata.name".to_owned(), why));
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => pod_problems(value.get("spec"), "spec", &mut out),
        ("apps", "deployments" | "replicasets") => workload_problems(value, &mut out),
        _ => {}
    }
    if let Some(schema) = &kind.schema {
        super::schema::check(schema, value, "", &mut out);
    }
    out
}

fn required(path: &str) -> Problem {
    (path.to_owned(), "Required value".to_owned())
}

fn workload_problems(value: &Value, out: &mut Vec<Problem>) {
    let selector = value.at("/spec/selector/matchLabels").and_then(Value::as_object);
    let labels = value.at("/spec/template/metadata/labels").and_then(Value::as_object);
    match selector {
        None if value.at("/spec/selector/matchExpressions").is_none() => out.push(required("spec.selector")),
        Some(selector)
            if selector
                .iter()
                .any(|(key, value)| labels.and_then(|labels| labels.get(key)) != Some(value)) =>
        {
            let labels = Value::Object(labels.cloned().unwrap_or_default());
            let why = format!("Invalid value: {labels}: `selector` does not match template `labels`");
            out.push(("spec.template.metadata.labels".to_owned(), why));
        }
        _ => {}
    }
    pod_problems(value.at("/spec/template/spec"), "spec.template.spec", out);
}

fn pod_problems(spec: Option<&Value>, path: &str, out: &mut Vec<Problem>) {
    let Some(spec) = spec else { return out.push(required(path)) };
    let list = |name: &str| spec.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    if list("containers").is_empty() {
        out.push(required(&format!("{path}.containers")));
    }
    let volumes: Vec<_> = list("volumes").iter().filter_map(|v| v.get("name").cloned()).collect();
    let mut names = Vec::new();
    for kind in ["initContainers", "containers"] {
        for (at, container) in list(kind).iter().enumerate() {
            let here = format!("{path}.{kind}[{at}]");
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if name.is_empty() {
                out.push(required(&format!("{here}.name")));
            } else if names.contains(&name.to_owned()) {
                out.push((format!("{here}.name"), format!("Duplicate value: {name:?}")));
            }
            names.push(name.to_owned());
            if container.get("image").and_then(Value::as_str).is_none_or(str::is_empty) {
                out.push(required(&format!("{here}.image")));
            }
            let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
            for (n, mount) in mounts.enumerate() {
                let volume = mount.get("name").cloned().unwrap_or_default();
                if !volumes.contains(&volume) {
                    out.push((format!("{here}.volumeMounts[{n}].name"), format!("Not found: {volume}")));
                }
            }
        }
    }
}
