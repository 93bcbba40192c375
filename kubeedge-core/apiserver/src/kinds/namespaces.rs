//! Namespaces.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::{
    access,
    built_in::{BuiltIn, Lifecycle, Types, field},
    columns::{AGE, Column, NAME},
};
use crate::object::Object;

/// A namespace is kept until what is in it is gone; its controller removes it.
pub(super) const NAMESPACE: BuiltIn = BuiltIn {
    short_names: &["ns"],
    status: true,
    types: Types::of::<Namespace>(),
    selectable: &[field("status.phase")],
    defaults,
    lifecycle: Lifecycle {
        is_kept: |_| true,
        mark: |namespace| namespace.set(&["status", "phase"], "Terminating"),
        ..Lifecycle::PLAIN
    },
    ..BuiltIn::cluster(("", "v1", "Namespace", "namespaces"), COLUMNS, access::nothing)
};

const COLUMNS: &[Column] = &[NAME, Column::new("Status", |row| row.text(&["status", "phase"])), AGE];

fn defaults(namespace: &mut Value) {
    let name = namespace.copy(&["metadata", "name"]);
    namespace.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
    if namespace.at(&["status", "phase"]).is_none() {
        namespace.set(&["spec"], json!({"finalizers": ["kubernetes"]}));
        namespace.set(&["status"], json!({"phase": "Active"}));
    }
}
