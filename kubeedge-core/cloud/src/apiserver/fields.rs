//! Fields of an object of a built-in kind that Kubernetes does not know: found by a round trip through its types, and
//! left out, as Kubernetes does.

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    batch::v1::Job,
    core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::kinds::Kind;

/// Removes unknown fields and tells their paths; none for kinds without a check and for objects that the types refuse.
pub(crate) fn prune(kind: &Kind, object: &mut Value) -> Vec<String> {
    let object_of = &*object;
    let known = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => through::<Pod>(object_of),
        ("", "configmaps") => through::<ConfigMap>(object_of),
        ("", "secrets") => through::<Secret>(object_of),
        ("", "services") => through::<Service>(object_of),
        ("", "serviceaccounts") => through::<ServiceAccount>(object_of),
        ("", "namespaces") => through::<Namespace>(object_of),
        ("", "nodes") => through::<Node>(object_of),
        ("apps", "deployments") => through::<Deployment>(object_of),
        ("apps", "replicasets") => through::<ReplicaSet>(object_of),
        ("batch", "jobs") => through::<Job>(object_of),
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

fn missing(object: &mut Value, known: &Value, path: &str, out: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => fields.retain(|key, value| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match known.get(key) {
                Some(known) => {
                    missing(value, known, &path, out);
                    true
                }
                // What says nothing is left out by the types too.
                None if is_nothing(value) => true,
                None => {
                    out.push(path);
                    false
                }
            }
        }),
        (Value::Array(items), Value::Array(known)) => {
            for (at, (item, known)) in items.iter_mut().zip(known).enumerate() {
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
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "i", "comand": ["x"], "env": []}], "foo": 1}});
        assert_eq!(prune(&built_in_kind("", "pods"), &mut pod), ["spec.containers[0].comand", "spec.foo"]);
        assert_eq!(pod["spec"], json!({"containers": [{"name": "a", "image": "i", "env": []}]}));
    }
}
