//! Patches: JSON, merge, and strategic merge with Kubernetes' merge keys.

use json_patch::PatchOperation;
use serde_json::{Map, Value};

use super::{
    call::MAX_BODY,
    kinds::{Items, merge_key},
    status::Refusal,
};

/// The longest JSON patch; Kubernetes' own limit.
const MOST_OPERATIONS: usize = 10_000;

/// Applies an RFC 6902 patch.
pub(crate) fn json_patch(mut object: Value, patch: Value) -> Result<Value, Refusal> {
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if patch.len() > MOST_OPERATIONS {
        let why =
            format!("a JSON patch of {} operations; at most {MOST_OPERATIONS} are allowed", patch.len());
        return Err(Refusal::bad_request(why));
    }
    let mut copied = 0;
    for (at, operation) in patch.0.into_iter().enumerate() {
        // A few copies of the whole into itself would make gigabytes of nothing.
        if let PatchOperation::Copy(copy) = &operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MAX_BODY {
                return Err(Refusal::too_large(MAX_BODY));
            }
        }
        json_patch::patch(&mut object, &[operation]).map_err(|mut error| {
            error.operation = at;
            Refusal::unprocessable(error.to_string())
        })?;
    }
    Ok(object)
}

/// Applies an RFC 7386 patch.
pub(crate) fn merge_patch(mut object: Value, patch: &Value) -> Value {
    json_patch::merge(&mut object, patch);
    object
}

/// Applies a strategic merge patch to an object of a built-in kind.
pub(crate) fn strategic_merge(object: Value, patch: Value) -> Result<Value, Refusal> {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => Ok(Value::Object(merge_map(object, patch, "")?)),
        (_, patch) => Err(Refusal::bad_request(format!("a patch must be an object, not {patch}"))),
    }
}

type Fields = Map<String, Value>;

fn merge_map(mut into: Fields, mut patch: Fields, around: &str) -> Result<Fields, Refusal> {
    match patch.remove("$patch").as_ref().and_then(Value::as_str) {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Fields::new()),
        _ => {}
    }
    if let Some(Value::Array(keep)) = patch.remove("$retainKeys") {
        into.retain(|key, _| keep.iter().any(|kept| kept.as_str() == Some(key)));
    }
    let mut orders = Fields::new();
    let mut deletions = Fields::new();
    for (key, value) in std::mem::take(&mut patch) {
        if let Some(field) = key.strip_prefix("$setElementOrder/") {
            orders.insert(field.to_owned(), value);
        } else if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            deletions.insert(field.to_owned(), value);
        } else {
            patch.insert(key, value);
        }
    }
    for (field, gone) in deletions {
        if let (Some(Value::Array(list)), Value::Array(gone)) = (into.get_mut(&field), gone) {
            list.retain(|item| !gone.contains(item));
        }
    }
    for (field, new) in patch {
        let old = into.remove(&field);
        if let Some(merged) = merge_value(old, new, around, &field)? {
            into.insert(field, merged);
        }
    }
    for (field, order) in orders {
        if let (Some(Value::Array(list)), Value::Array(order)) = (into.get_mut(&field), order) {
            put_in_order(list, &order, &merge_key(around, &field));
        }
    }
    Ok(into)
}

/// The new value of a field; `None` when the patch removes it.
fn merge_value(old: Option<Value>, new: Value, around: &str, field: &str) -> Result<Option<Value>, Refusal> {
    Ok(Some(match (old, new) {
        (_, Value::Null) => return Ok(None),
        (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_map(old, new, field)?),
        (_, Value::Object(new)) => Value::Object(merge_map(Fields::new(), new, field)?),
        (old, Value::Array(new)) => {
            let old = if let Some(Value::Array(old)) = old { old } else { Vec::new() };
            Value::Array(match merge_key(around, field) {
                Items::By(key) => merge_list(old, new, key, field)?,
                Items::Set => [&old[..], &new[..]].concat().into_iter().fold(Vec::new(), |mut set, item| {
                    if !set.contains(&item) {
                        set.push(item);
                    }
                    set
                }),
                Items::Atomic => new,
            })
        }
        (_, new) => new,
    }))
}

fn merge_list(mut old: Vec<Value>, new: Vec<Value>, key: &str, field: &str) -> Result<Vec<Value>, Refusal> {
    let replaces = |item: &Value| item.get("$patch").and_then(Value::as_str) == Some("replace");
    if new.iter().any(replaces) {
        return Ok(new.into_iter().filter(|item| !replaces(item)).collect());
    }
    for item in new {
        let Value::Object(item) = item else {
            return Err(Refusal::bad_request(format!("items of {field} must be objects")));
        };
        let id = item.get(key).cloned().ok_or_else(|| {
            Refusal::bad_request(format!(
                "map: {} does not contain declared merge key: {key}",
                Value::Object(item.clone())
            ))
        })?;
        let at = old.iter().position(|known| known.get(key) == Some(&id));
        let deleted = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match (at, deleted) {
            (Some(at), true) => drop(old.remove(at)),
            (None, true) => {}
            (Some(at), false) => {
                if let Some(Value::Object(known)) = old.get_mut(at) {
                    *known = merge_map(std::mem::take(known), item, field)?;
                }
            }
            (None, false) => old.push(Value::Object(merge_map(Fields::new(), item, field)?)),
        }
    }
    Ok(old)
}

/// Brings listed items into the wished order; items the order does not name stay where they stand relative to
/// those before them.
fn put_in_order(list: &mut Vec<Value>, order: &[Value], items: &Items<&str>) {
    let rank = |item: &Value| match items {
        Items::By(key) => order.iter().position(|wished| wished.get(key) == item.get(key)),
        _ => order.iter().position(|wished| wished == item),
    };
    let mut last = 0;
    let mut ranked: Vec<_> = std::mem::take(list)
        .into_iter()
        .map(|item| {
            last = rank(&item).unwrap_or(last);
            (last, item)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    list.extend(ranked.into_iter().map(|(_, item)| item));
}

fn without_directives(fields: Fields) -> Fields {
    fields.into_iter().filter(|(key, _)| !key.starts_with('$')).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_merge_by_their_keys_and_atomic_ones_are_replaced() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "args": ["x"]}, {"name": "b"}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}], "args": ["y"]}, {"name": "c"}]}});
        let merged = strategic_merge(pod, patch).unwrap();
        assert_eq!(
            merged["spec"]["containers"],
            json!([{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "args": ["y"]}, {"name": "b"}, {"name": "c"}])
        );
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let pod = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        let patch = json!({
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]},
        "spec": {
            "volumes": [{"name": "w", "$patch": "delete"}, {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}],
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
        }});
        let merged = strategic_merge(pod, patch).unwrap();
        assert_eq!(merged["metadata"]["finalizers"], json!(["b"]));
        assert_eq!(merged["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/x"}}]));
        assert_eq!(merged["spec"]["containers"], json!([{"name": "b"}, {"name": "a"}]));
        let replaced =
            strategic_merge(json!({"data": {"a": "1"}}), json!({"data": {"$patch": "replace", "b": "2"}}));
        assert_eq!(replaced.unwrap(), json!({"data": {"b": "2"}}));
    }

    #[test]
    fn the_status_patches_of_edges_merge_conditions_by_type() {
        let node = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "Other", "status": "True"}]}});
        let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}});
        let merged = strategic_merge(node, patch).unwrap();
        assert_eq!(
            merged["status"]["conditions"][0],
            json!({"type": "Ready", "status": "True", "reason": "x"})
        );
        assert_eq!(merged["status"]["conditions"].as_array().unwrap().len(), 2);
        assert!(merged["status"].get("$setElementOrder/conditions").is_none());
    }

    #[test]
    fn ports_of_containers_and_services_have_different_keys() {
        let service = json!({"spec": {"ports": [{"port": 80, "targetPort": 1}]}});
        let merged =
            strategic_merge(service, json!({"spec": {"ports": [{"port": 80, "targetPort": 2}]}})).unwrap();
        assert_eq!(merged["spec"]["ports"], json!([{"port": 80, "targetPort": 2}]));
        let missing =
            strategic_merge(json!({"spec": {"ports": []}}), json!({"spec": {"ports": [{"nodePort": 1}]}}));
        assert!(missing.unwrap_err().message.contains("merge key: port"));
    }

    #[test]
    fn a_json_patch_that_does_not_fit_is_refused() {
        let patch = json!([{"op": "test", "path": "/a", "value": 2}]);
        assert_eq!(json_patch(json!({"a": 1}), patch).unwrap_err().code, 422);
        let patched =
            json_patch(json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": 3}])).unwrap();
        assert_eq!(patched, json!({"a": 3}));
    }

    #[test]
    fn a_json_patch_that_multiplies_its_object_or_never_ends_is_refused() {
        let copies: Vec<_> =
            (0..40).map(|at| json!({"op": "copy", "from": "", "path": format!("/c{at}")})).collect();
        assert_eq!(json_patch(json!({"a": "x".repeat(1000)}), json!(copies)).unwrap_err().code, 413);
        let tests = vec![json!({"op": "test", "path": "/a", "value": 1}); MOST_OPERATIONS + 1];
        assert_eq!(json_patch(json!({"a": 1}), json!(tests)).unwrap_err().code, 400);
    }

    proptest! {
        #[test]
        fn applying_the_same_patch_twice_changes_nothing_more(names in proptest::collection::vec("[a-c]", 0..4), image in "[x-z]") {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
            let patch = json!({"spec": {"containers": containers, "paused": true}});
            let once = strategic_merge(json!({"spec": {"containers": [{"name": "a"}]}}), patch.clone()).unwrap();
            prop_assert_eq!(strategic_merge(once.clone(), patch).unwrap(), once);
        }
    }
}
