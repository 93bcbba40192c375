//! Which fields of an object of a built-in kind Kubernetes does not know: found by a round trip through its types.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::kinds::Kind;

/// The paths of unknown fields; empty for kinds without a check and for objects that the types refuse.
pub(crate) fn unknown(kind: &Kind, object: &Value) -> Vec<String> {
    let known = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => through::<Pod>(object),
        ("", "configmaps") => through::<ConfigMap>(object),
        ("", "secrets") => through::<Secret>(object),
        ("", "services") => through::<Service>(object),
        ("", "serviceaccounts") => through::<ServiceAccount>(object),
        ("", "namespaces") => through::<Namespace>(object),
        ("", "nodes") => through::<Node>(object),
        ("apps", "deployments") => through::<Deployment>(object),
        ("apps", "replicasets") => through::<ReplicaSet>(object),
        ("batch", "jobs") => through::<Job>(object),
        _ => None,
    };
    let mut out = Vec::new();
    if let Some(known) = known {
        missing(object, &known, "", &mut out);
    }
    out
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Option<Value> {
    serde_json::to_value(T::deserialize(object).ok()?).ok()
}

fn missing(object: &Value, known: &Value, path: &str, out: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => missing(value, known, &path, out),
                    // What says nothing is left out by the types too.
                    None if is_nothing(value) => {}
                    None => out.push(path),
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (at, (item, known)) in items.iter().zip(known).enumerate() {
                missing(item, known, &format!("{path}[{at}]"), out);
            }
        }
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apiserver::kinds::built_in_kind;

    #[test]
    fn a_misspelt_field_is_named_with_its_path() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "i", "comand": ["x"], "env": []}], "foo": 1}});
        assert_eq!(unknown(&built_in_kind("", "pods"), &pod), ["spec.containers[0].comand", "spec.foo"]);
    }
}
