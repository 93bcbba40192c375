//! ConfigMaps and Secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use super::{
    access,
    built_in::{BuiltIn, Types, field},
    columns::{AGE, Column, NAME},
    pod_spec::default,
};
use crate::{object::Object, status::Problem};

pub(super) const CONFIG_MAP: BuiltIn = BuiltIn {
    short_names: &["cm"],
    types: Types::of::<ConfigMap>(),
    check_update,
    ..BuiltIn::namespaced(("", "v1", "ConfigMap", "configmaps"), CONFIG_MAP_COLUMNS, access::read)
};

const CONFIG_MAP_COLUMNS: &[Column] =
    &[NAME, Column::new("Data", |row| (row.count(&["data"]) + row.count(&["binaryData"])).into()), AGE];

pub(super) const SECRET: BuiltIn = BuiltIn {
    types: Types::of::<Secret>(),
    selectable: &[field("type")],
    defaults: encode,
    check_update,
    ..BuiltIn::namespaced(("", "v1", "Secret", "secrets"), SECRET_COLUMNS, access::read)
};

const SECRET_COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", |row| row.text(&["type"])),
    Column::new("Data", |row| row.count(&["data"]).into()),
    AGE,
];

/// Plain text of a Secret becomes data.
fn encode(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else { return };
    default(fields, &[("type", "Opaque".into())]);
    if let Some(Value::Object(texts)) = fields.remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| json!({}));
        for (key, text) in texts {
            data.set(&[key.as_str()], STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }
}

fn check_update(before: &Value, new: &Value) -> Option<Problem> {
    let same = |field: &str| before.get(field) == new.get(field);
    let changed = before.is(&["immutable"]) && !["data", "binaryData", "immutable"].into_iter().all(same);
    changed.then(|| Problem::new("data", "Forbidden: field is immutable when `immutable` is set"))
}
