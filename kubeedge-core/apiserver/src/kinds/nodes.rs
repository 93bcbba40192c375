//! Nodes.

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::{
    built_in::{BuiltIn, Lifecycle, Selectable, Types},
    columns::{AGE, Column, NAME, Row, or_none},
};
use crate::object::Object;

/// A node brings its status along.
pub(super) const NODE: BuiltIn = BuiltIn {
    short_names: &["no"],
    status: true,
    types: Types::of::<Node>(),
    selectable: &[Selectable { path: "spec.unschedulable", absent: "false" }],
    lifecycle: Lifecycle { brings_status: true, ..Lifecycle::PLAIN },
    ..BuiltIn::cluster(("", "v1", "Node", "nodes"), COLUMNS, |request| {
        request.creates() || request.is_own() || request.reads()
    })
};

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", status),
    Column::new("Roles", roles),
    AGE,
    Column::new("Version", |row| row.text(&["status", "nodeInfo", "kubeletVersion"])),
    Column::wide("Internal-IP", internal_ip),
    Column::wide("External-IP", |_| "<none>".into()),
    Column::wide("OS-Image", |row| row.text(&["status", "nodeInfo", "osImage"])),
    Column::wide("Kernel-Version", |row| row.text(&["status", "nodeInfo", "kernelVersion"])),
    Column::wide("Container-Runtime", |row| row.text(&["status", "nodeInfo", "containerRuntimeVersion"])),
];

fn status(row: &Row<'_>) -> Value {
    let status = match row.object.condition("Ready").map(|ready| ready.text(&["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = row.object.is(&["spec", "unschedulable"]);
    if cordoned { format!("{status},SchedulingDisabled").into() } else { status.into() }
}

fn roles(row: &Row<'_>) -> Value {
    let labels = row.object.labels().into_iter().flatten();
    let roles: Vec<_> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    or_none(&roles.join(","))
}

fn internal_ip(row: &Row<'_>) -> Value {
    let addresses = row.object.list(&["status", "addresses"]);
    let internal = addresses.iter().find(|address| address.text(&["type"]) == "InternalIP");
    internal.map_or("<none>", |address| address.text(&["address"])).into()
}
