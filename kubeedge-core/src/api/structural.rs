//! From the JSON schema of a Rust type to the *structural schema* a CustomResourceDefinition holds.

use serde_json::{Map, Value, json};

/// Makes a schema structural, in depth: no references, one type for each value, no `null` beside it, and
/// `x-kubernetes-preserve-unknown-fields` where anything may stand.
pub(super) fn make(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    take_the_one_that_is_not_null(fields);
    for key in ["title", "$schema", "$defs", "writeOnly", "readOnly"] {
        fields.remove(key);
    }
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
    }
    if fields.get("additionalProperties") == Some(&Value::Bool(true)) {
        fields.remove("additionalProperties");
        fields.insert("x-kubernetes-preserve-unknown-fields".to_owned(), Value::Bool(true));
    }
    for of in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        make(of.1);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(of) = fields.get_mut(key) {
            make(of);
        }
    }
}

/// An optional value is one that may be left out; Kubernetes' kinds do not write `null`.
fn take_the_one_that_is_not_null(fields: &mut Map<String, Value>) {
    let is_null = |schema: &Value| schema.get("type").is_some_and(|of| of == "null");
    if let Some(Value::Array(choices)) = fields.get("anyOf")
        && let [one, null] = choices.as_slice()
        && is_null(null)
        && let Some(one) = one.as_object().cloned()
    {
        fields.remove("anyOf");
        for (key, value) in one {
            fields.entry(key).or_insert(value);
        }
    }
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|of| of != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            fields.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(allowed)) = fields.get_mut("enum") {
        allowed.retain(|value| !value.is_null());
    }
    if fields.get("default") == Some(&Value::Null) {
        fields.remove("default");
    }
}

/// Gives the schema of a whole object the head that every kind has.
pub(super) fn head(schema: &mut Value, required: &[&str]) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("required");
    if !required.is_empty() {
        fields.insert("required".to_owned(), json!(required));
    }
    let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        // What a Rust value starts with is no default of the kind.
        property.remove("default");
    }
    properties.insert("metadata".to_owned(), json!({"type": "object"}));
}
