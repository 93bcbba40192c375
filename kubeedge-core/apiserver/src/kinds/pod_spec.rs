//! The specification of pods, alone or in the template of a workload: what Kubernetes fills in and what it
//! refuses.

use serde_json::{Value, json};

use crate::{
    object::{Fields, Object},
    status::Problem,
};

/// Sets what was left out, or is null.
pub(super) fn default(fields: &mut Fields, defaults: &[(&str, Value)]) {
    for (key, value) in defaults {
        let entry = fields.entry((*key).to_owned()).or_insert(Value::Null);
        if entry.is_null() {
            *entry = value.clone();
        }
    }
}

/// The objects in a list of an object.
fn items<'a>(fields: &'a mut Fields, list: &str) -> impl Iterator<Item = &'a mut Fields> + use<'a> {
    let list = fields.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Fills in the specification at a path.
pub(super) fn fill(object: &mut Value, path: &[&str]) {
    let Some(spec) = object.at_mut(path).and_then(Value::as_object_mut) else { return };
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
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
}

/// What admission adds to a pod, and not to a template.
pub(super) fn fill_of_pod(spec: &mut Fields) {
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

fn volume(volume: &mut Fields) {
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(kind).and_then(Value::as_object_mut) {
            default(source, &[("defaultMode", 420.into())]);
        }
    }
    if let Some(source) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(source, &[("type", "".into())]);
    }
}

/// A node that is away keeps its pods for five minutes, as Kubernetes' admission says.
fn tolerations(spec: &mut Fields) {
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |item: &Value| {
            matches!(item.text(&["key"]), known if known.is_empty() || known == key)
                && matches!(item.text(&["effect"]), "" | "NoExecute")
        };
        if !list.iter().any(tolerated) {
            list.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

fn container(container: &mut Fields) {
    let policy = pull_policy(container);
    default(
        container,
        &[
            ("imagePullPolicy", policy.into()),
            ("terminationMessagePath", "/dev/termination-log".into()),
            ("terminationMessagePolicy", "File".into()),
            ("resources", json!({})),
        ],
    );
    items(container, "ports").for_each(|port| default(port, &[("protocol", "TCP".into())]));
    if let Some(Value::Object(resources)) = container.get_mut("resources") {
        quantities(resources);
    }
}

fn pull_policy(container: &Fields) -> &'static str {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
    // `localhost/…` names what is on the node already: there is no registry to ask.
    if latest && !image.starts_with("localhost/") { "Always" } else { "IfNotPresent" }
}

/// Requests are as limits where they are left out. YAML's `cpu: 1` arrives as a number; a quantity is a text
/// everywhere else.
fn quantities(resources: &mut Fields) {
    for side in ["limits", "requests"] {
        let quantities = resources.get_mut(side).and_then(Value::as_object_mut);
        for quantity in quantities.into_iter().flat_map(Fields::values_mut).filter(|value| value.is_number())
        {
            *quantity = quantity.to_string().into();
        }
    }
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    for (name, limit) in limits {
        if requests.get(&name).is_none() {
            requests.set(&[name.as_str()], limit);
        }
    }
}

/// The class that eviction goes by.
pub(super) fn quality_of_service(pod: &Value) -> &'static str {
    let containers = ["initContainers", "containers"].into_iter().flat_map(|list| pod.list(&["spec", list]));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        for name in ["cpu", "memory"] {
            let of = |side: &str| container.at(&["resources", side, name]);
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

/// Adds what Kubernetes would refuse of a specification that stands at `path`.
pub(super) fn check(spec: Option<&Value>, path: &str, out: &mut Vec<Problem>) {
    let Some(spec) = spec else { return out.push(Problem::required(path)) };
    if spec.list(&["containers"]).is_empty() {
        out.push(Problem::required(&format!("{path}.containers")));
    }
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (at, container) in spec.list(&[list]).iter().enumerate() {
            check_container(container, &format!("{path}.{list}[{at}]"), &names, out);
            names.push(container.text(&["name"]));
            check_mounts(container, spec.list(&["volumes"]), &format!("{path}.{list}[{at}]"), out);
        }
    }
}

/// `names` are those of the containers before.
fn check_container(container: &Value, path: &str, names: &[&str], out: &mut Vec<Problem>) {
    let name = container.text(&["name"]);
    if name.is_empty() {
        out.push(Problem::required(&format!("{path}.name")));
    } else if names.contains(&name) {
        out.push(Problem::new(format!("{path}.name"), format!("Duplicate value: {name:?}")));
    }
    if container.text(&["image"]).is_empty() {
        out.push(Problem::required(&format!("{path}.image")));
    }
}

fn check_mounts(container: &Value, volumes: &[Value], path: &str, out: &mut Vec<Problem>) {
    for (at, mount) in container.list(&["volumeMounts"]).iter().enumerate() {
        let name = mount.copy(&["name"]);
        if !volumes.iter().any(|volume| volume.get("name") == Some(&name)) {
            out.push(Problem::new(format!("{path}.volumeMounts[{at}].name"), format!("Not found: {name}")));
        }
    }
}
