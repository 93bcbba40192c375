//! Checking objects of custom kinds against their structural schema, and pruning what the schema does not
//! know.

use serde_json::{Map, Value};

use super::status::Problem;

fn keeps_unknown(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

/// Removes fields the schema does not know and fills in its defaults; says which fields were removed.
pub(crate) fn prune(schema: &Value, value: &mut Value, path: &str, removed: &mut Vec<String>) {
    match value {
        Value::Object(fields) => prune_object(schema, fields, path, removed),
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                for (at, item) in items.iter_mut().enumerate() {
                    prune(of, item, &format!("{path}[{at}]"), removed);
                }
            }
        }
        _ => {}
    }
}

fn prune_object(schema: &Value, fields: &mut Map<String, Value>, path: &str, removed: &mut Vec<String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    let is_root = path.is_empty();
    fields.retain(|key, value| {
        let known = properties.and_then(|properties| properties.get(key)).or(others);
        match known {
            _ if is_root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") => true,
            Some(schema) => {
                prune(schema, value, &join(key), removed);
                true
            }
            None if keeps_unknown(schema) || schema.get("x-kubernetes-embedded-resource").is_some() => true,
            None => {
                removed.push(join(key));
                false
            }
        }
    });
    for (key, schema) in properties.into_iter().flatten() {
        if let (None, Some(default)) = (fields.get(key), schema.get("default")) {
            fields.insert(key.clone(), default.clone());
        }
    }
}

/// Adds what is wrong with a value to `out`.
pub(crate) fn check(schema: &Value, value: &Value, path: &str, out: &mut Vec<Problem>) {
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    if let Some(why) = wrong_type(schema, value) {
        return out.push(Problem::new(path, why));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let list: Vec<_> = allowed.iter().map(Value::to_string).collect();
        let why = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        out.push(Problem::new(path, why));
    }
    check_bounds(schema, value, path, out);
    match value {
        Value::Object(fields) => check_object(schema, fields, path, out),
        Value::Array(items) => {
            if let Some(of) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    check(of, item, &format!("{path}[{at}]"), out);
                }
            }
        }
        _ => {}
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, out: &mut Vec<Problem>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for key in
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !fields.contains_key(key) {
            out.push(Problem::required(&join(key)));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    for (key, value) in fields {
        if path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(schema) = properties.and_then(|properties| properties.get(key)).or(others) {
            check(schema, value, &join(key), out);
        }
    }
}

fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return (!value.is_i64() && !value.is_string()).then(|| "must be an integer or a string".to_owned());
    }
    let wanted = schema.get("type").and_then(Value::as_str)?;
    let fits = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    (!fits).then(|| format!("Invalid value: {:?}: must be of type {wanted}", type_of(value)))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_bounds(schema: &Value, value: &Value, path: &str, out: &mut Vec<Problem>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(number) = value.as_f64() {
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            let why = format!("Invalid value: {value}: should be greater than or equal to {least}");
            out.push(Problem::new(path, why));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            let why = format!("Invalid value: {value}: should be less than or equal to {most}");
            out.push(Problem::new(path, why));
        }
    }
    let length = match value {
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength")),
        Value::Array(items) => Some((items.len(), "minItems", "maxItems")),
        _ => None,
    };
    if let Some((length, least, most)) = length {
        let length = length as f64;
        if bound(least).is_some_and(|least| length < least) || bound(most).is_some_and(|most| length > most) {
            let why = format!("Invalid value: its length is outside of {least} and {most}");
            out.push(Problem::new(path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "data": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}
        }}}})
    }

    #[test]
    fn unknown_fields_are_pruned_and_defaults_filled_in() {
        let mut object = json!({"metadata": {"x": 1}, "spec": {"name": "n", "typo": 1, "data": {"any": {}}, "list": [{"n": 1, "m": 2}]}});
        let mut removed = Vec::new();
        prune(&schema(), &mut object, "", &mut removed);
        assert_eq!(removed, ["spec.list[0].m", "spec.typo"]);
        assert_eq!(object["spec"]["mode"], "a");
        assert_eq!(object["spec"]["data"], json!({"any": {}}));
    }

    #[test]
    fn wrong_types_missing_fields_and_values_out_of_range_are_named_with_their_path() {
        let object = json!({"spec": {"mode": "c", "port": 0, "list": [{"n": "x"}]}});
        let mut problems = Vec::new();
        check(&schema(), &object, "", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["spec.name", "spec.list[0].n", "spec.mode", "spec.port"]);
    }
}
