//! How discovery tells of a kind.

use serde_json::{Value, json};

use super::{BuiltIn, Kind};
use crate::object::Object;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const WRITE: [&str; 3] = ["get", "patch", "update"];

/// The entry of a kind, and those of its subresources.
pub(super) fn entries(kind: &Kind) -> Vec<Value> {
    if kind.built_in().is_some_and(|kind| kind.answer.is_some()) {
        return vec![main(kind, &["create"])];
    }
    let mut entries = vec![main(kind, &VERBS)];
    if kind.has_status() {
        entries.push(entry(kind, format!("{}/status", kind.plural()), &WRITE));
    }
    if kind.has_scale() {
        let mut scale = entry(kind, format!("{}/scale", kind.plural()), &WRITE);
        scale.set(&["kind"], "Scale");
        scale.set(&["group"], "autoscaling");
        scale.set(&["version"], "v1");
        entries.push(scale);
    }
    if let Kind::BuiltIn(built_in) = kind {
        entries.extend(others(kind, built_in));
    }
    entries
}

fn entry(kind: &Kind, name: String, verbs: &[&str]) -> Value {
    json!({"name": name, "singularName": "", "namespaced": kind.is_namespaced(), "kind": kind.name(), "verbs": verbs})
}

fn main(kind: &Kind, verbs: &[&str]) -> Value {
    let mut main = entry(kind, kind.plural().to_owned(), verbs);
    main.set(&["singularName"], kind.name().to_lowercase());
    let (short_names, categories) = match kind {
        Kind::BuiltIn(kind) => {
            (json!(kind.short_names), if kind.in_all { json!(["all"]) } else { json!([]) })
        }
        Kind::Custom(kind) => (json!(kind.short_names), json!(kind.categories)),
    };
    for (name, list) in [("shortNames", short_names), ("categories", categories)] {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            main.set(&[name], list);
        }
    }
    main
}

fn others(kind: &Kind, built_in: &BuiltIn) -> impl Iterator<Item = Value> {
    built_in.subresources.iter().map(|sub| {
        let mut other = entry(kind, format!("{}/{}", kind.plural(), sub.name), sub.verbs);
        other.set(&["kind"], sub.kind);
        if !sub.group.is_empty() {
            other.set(&["group"], sub.group);
            other.set(&["version"], "v1");
        }
        other
    })
}
