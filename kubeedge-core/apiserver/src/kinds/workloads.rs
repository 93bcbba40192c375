//! `apps` and `batch`: Deployments, ReplicaSets, Jobs.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
};
use serde_json::{Value, json};

use super::{
    access,
    built_in::{BuiltIn, Types, field},
    columns::{
        AGE, Column, NAME, NAME_AND_AGE, Row, SELECTOR, TEMPLATE_CONTAINERS, TEMPLATE_IMAGES, conditions,
        plain,
    },
    pod_spec::{self, default},
};
use crate::{object::Object, status::Problem, times};

pub(super) const DEPLOYMENT: BuiltIn = BuiltIn {
    short_names: &["deploy"],
    in_all: true,
    status: true,
    scale: true,
    types: Types::of::<Deployment>(),
    defaults: deployment_defaults,
    check,
    check_update,
    ..BuiltIn::namespaced(("apps", "v1", "Deployment", "deployments"), DEPLOYMENT_COLUMNS, access::nothing)
};

const DEPLOYMENT_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", |row| {
        format!("{}/{}", row.object.integer(&["status", "readyReplicas"]), row.object.replicas()).into()
    }),
    Column::new("Up-to-date", |row| row.integer(&["status", "updatedReplicas"])),
    Column::new("Available", |row| row.integer(&["status", "availableReplicas"])),
    AGE,
    TEMPLATE_CONTAINERS,
    TEMPLATE_IMAGES,
    SELECTOR,
];

const TEMPLATE: [&str; 3] = ["spec", "template", "spec"];

fn deployment_defaults(deployment: &mut Value) {
    pod_spec::fill(deployment, &TEMPLATE);
    let Some(spec) = deployment.at_mut(&["spec"]).and_then(Value::as_object_mut) else { return };
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
    let Some(Value::Object(strategy)) = spec.get_mut("strategy") else { return };
    default(strategy, &[("type", "RollingUpdate".into())]);
    if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate") {
        default(strategy, &[("rollingUpdate", json!({}))]);
    }
    if let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate") {
        default(rolling, &[("maxSurge", "25%".into()), ("maxUnavailable", "25%".into())]);
    }
}

pub(super) const REPLICA_SET: BuiltIn = BuiltIn {
    short_names: &["rs"],
    in_all: true,
    status: true,
    scale: true,
    types: Types::of::<ReplicaSet>(),
    selectable: &[field("status.replicas")],
    defaults: |set| {
        pod_spec::fill(set, &TEMPLATE);
        if let Some(spec) = set.at_mut(&["spec"]).and_then(Value::as_object_mut) {
            default(spec, &[("replicas", 1.into())]);
        }
    },
    check,
    check_update,
    ..BuiltIn::namespaced(("apps", "v1", "ReplicaSet", "replicasets"), REPLICA_SET_COLUMNS, access::nothing)
};

const REPLICA_SET_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Desired", |row| row.integer(&["spec", "replicas"])),
    Column::new("Current", |row| row.integer(&["status", "replicas"])),
    Column::new("Ready", |row| row.integer(&["status", "readyReplicas"])),
    AGE,
    TEMPLATE_CONTAINERS,
    TEMPLATE_IMAGES,
    SELECTOR,
];

pub(super) const CONTROLLER_REVISION: BuiltIn = BuiltIn::namespaced(
    ("apps", "v1", "ControllerRevision", "controllerrevisions"),
    NAME_AND_AGE,
    access::nothing,
);

fn check(workload: &Value, out: &mut Vec<Problem>) {
    let labels = workload.fields(&["spec", "template", "metadata", "labels"]);
    let matches = |(key, value): (&String, &Value)| labels.and_then(|labels| labels.get(key)) == Some(value);
    match workload.fields(&["spec", "selector", "matchLabels"]) {
        None if workload.at(&["spec", "selector", "matchExpressions"]).is_none() => {
            out.push(Problem::required("spec.selector"));
        }
        Some(selector) if !selector.iter().all(matches) => {
            let labels = Value::Object(labels.cloned().unwrap_or_default());
            let why = format!("Invalid value: {labels}: `selector` does not match template `labels`");
            out.push(Problem::new("spec.template.metadata.labels", why));
        }
        _ => {}
    }
    pod_spec::check(workload.at(&TEMPLATE), "spec.template.spec", out);
}

fn check_update(before: &Value, new: &Value) -> Option<Problem> {
    let changed = before.at(&["spec", "selector"]) != new.at(&["spec", "selector"]);
    changed.then(|| Problem::new("spec.selector", "Invalid value: field is immutable"))
}

pub(super) const JOB: BuiltIn = BuiltIn {
    in_all: true,
    status: true,
    types: Types::of::<Job>(),
    selectable: &[field("status.successful")],
    defaults: |job| pod_spec::fill(job, &TEMPLATE),
    ..BuiltIn::namespaced(("batch", "v1", "Job", "jobs"), JOB_COLUMNS, access::nothing)
};

const JOB_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", |row| job_status(row.object).into()),
    Column::new("Completions", |row| {
        let wished = plain(row.object.at(&["spec", "completions"]), "1");
        format!("{}/{wished}", plain(row.object.at(&["status", "succeeded"]), "0")).into()
    }),
    Column::new("Duration", duration),
    AGE,
];

/// What the last of Complete, Failed and Suspended says.
fn job_status(job: &Value) -> &'static str {
    let is = |kind: &str| conditions(job).contains(&kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if job.is_deleting() => "Terminating",
        () if is("Suspended") => "Suspended",
        () => "Running",
    }
}

/// From start to completion.
fn duration(row: &Row<'_>) -> Value {
    let end = row.object.moment(&["status", "completionTime"]).unwrap_or(row.now);
    let start = row.object.moment(&["status", "startTime"]);
    start.map_or_else(String::new, |start| times::human(end - start)).into()
}
