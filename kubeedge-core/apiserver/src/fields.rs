//! Fields of an object of a built-in kind that Kubernetes does not know, or knows as something else: found by
//! a round trip through its types. Unknown ones are left out, as Kubernetes does; quantities given as numbers
//! become text.

use std::fmt;

use serde_json::Value;

use super::kinds::Kind;

/// Removes unknown fields and tells their paths; none for kinds without a type. An error names the field
/// whose type is wrong.
pub(crate) fn prune(kind: &Kind, object: &mut Value) -> Result<Vec<String>, String> {
    for part in ["spec", "status"] {
        if let Some(part) = object.get_mut(part) {
            quantities(part);
        }
    }
    let Some(types) = kind.built_in().and_then(|kind| kind.types.as_ref()) else { return Ok(Vec::new()) };
    let known = (types.through)(object)?;
    let mut out = Vec::new();
    missing(object, &known, &Path::Root, &mut out);
    Ok(out)
}

/// Maps of quantities, and fields that are one.
const QUANTITIES: [&str; 8] =
    ["limits", "requests", "overhead", "capacity", "allocatable", "hard", "sizeLimit", "divisor"];

/// Kubernetes takes numbers for quantities and keeps text.
fn quantities(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::Object(map) if QUANTITIES.contains(&key.as_str()) => {
                        map.values_mut().for_each(number_to_text);
                    }
                    Value::Number(_) if QUANTITIES.contains(&key.as_str()) => number_to_text(value),
                    deeper => quantities(deeper),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities),
        _ => {}
    }
}

fn number_to_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

/// Where a value stands; written out only where somebody is told.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(around, name) => write!(f, "{around}.{name}"),
            Self::Item(list, at) => write!(f, "{list}[{at}]"),
        }
    }
}

fn missing(object: &mut Value, known: &Value, path: &Path<'_>, out: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => fields.retain(|key, value| {
            let path = Path::Field(path, key);
            match known.get(key) {
                Some(known) => {
                    missing(value, known, &path, out);
                    true
                }
                // What says nothing is left out by the types too.
                None if is_nothing(value) => true,
                None => {
                    out.push(path.to_string());
                    false
                }
            }
        }),
        (Value::Array(items), Value::Array(known)) => {
            for (at, (item, known)) in items.iter_mut().zip(known).enumerate() {
                missing(item, known, &Path::Item(path, at), out);
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
    use crate::kinds::{CONFIG_MAPS, PODS};

    #[test]
    fn a_misspelt_field_is_named_with_its_path() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "i", "comand": ["x"], "env": []}], "foo": 1}});
        let unknown = prune(&PODS, &mut pod).unwrap();
        assert_eq!(unknown, ["spec.containers[0].comand", "spec.foo"]);
        assert_eq!(pod["spec"], json!({"containers": [{"name": "a", "image": "i", "env": []}]}));
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named_and_a_number_is_a_quantity() {
        let mut map = json!({"metadata": {"name": "a"}, "data": {"b": {"c": "d"}}});
        let error = prune(&CONFIG_MAPS, &mut map).unwrap_err();
        assert!(error.starts_with("data.b: invalid type: map"), "{error}");
        let resources = json!({"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 0.5}});
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        assert_eq!(prune(&PODS, &mut pod), Ok(Vec::new()));
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(
            (&resources["limits"]["cpu"], &resources["requests"]["cpu"]),
            (&json!("2"), &json!("0.5"))
        );
    }
}
