//! Field managers and server-side apply.
//!
//! Who set a field is kept in `metadata.managedFields` as Kubernetes keeps it (FieldsV1: `f:` fields, `k:` items by
//! key, `v:` items of sets). Applying an object sets its fields, refuses to take fields that others set to other
//! values unless forced, and removes fields that the same manager applied before and nobody else wants.

use kubeedge_core::clock::Clock;
use serde_json::{Map, Value, json};

use crate::apiserver::edit::At as _;
use crate::{
    apiserver::edit::{field, put},
    cluster,
};

use super::{
    kinds::Kind,
    layout::{Layout, List, ListKey, identity, merge},
    registry,
    status::{Refusal, Subject},
};

type Set = Map<String, Value>;

/// Kinds written so often, and by one writer each, that ownership would only cost.
fn is_tracked(kind: &Kind) -> bool {
    !matches!(kind.plural.as_str(), "events" | "leases" | "objectsyncs" | "clusterobjectsyncs")
}

/// Notes in `new` which fields this write changed and by whom.
pub(super) fn track(
    kind: &Kind,
    before: Option<&Value>,
    new: &mut Value,
    manager: &str,
    operation: &str,
    sub: &str,
) {
    if !is_tracked(kind) || !new.is_object() {
        return;
    }
    let changed = changes(before.unwrap_or(&Value::Null), new, Layout::of(kind), Part::of(sub));
    let mut entries = before.map(entries).unwrap_or_default();
    let there = set_of(new, Layout::of(kind), Part::of(sub));
    for entry in entries.iter_mut().filter(|entry| entry.sub == sub) {
        // Nobody owns what was removed.
        entry.fields = present(&entry.fields, &there);
    }
    if !changed.is_empty() {
        for entry in &mut entries {
            entry.fields = minus(&entry.fields, &changed);
        }
        let at = entries.iter().position(|e| e.is(manager, operation, sub));
        let mine = at.map(|at| entries.remove(at).fields).unwrap_or_default();
        entries.push(Entry::new(kind, manager, operation, sub, union(&mine, &changed)));
    }
    store(new, entries);
}

/// Server-side apply on an object that exists.
pub(super) fn apply(
    kind: &Kind,
    before: &Value,
    applied: Value,
    manager: &str,
    force: bool,
    sub: &str,
    subject: &Subject<'_>,
) -> Result<Value, Refusal> {
    let wanted = set_of(&applied, Layout::of(kind), Part::of(sub));
    let mut all = entries(before);
    let at = all.iter().position(|entry| entry.is(manager, "Apply", sub));
    let mine = at.map(|at| all.remove(at));
    let previous = mine.as_ref().map(|entry| entry.fields.clone()).unwrap_or_default();
    let differing = minus(&changes(before, &applied, Layout::of(kind), Part::of(sub)), &Set::new());
    let contested = intersect(&wanted, &differing);
    let conflicts: Vec<_> = all
        .iter()
        .map(|entry| (entry, intersect(&entry.fields, &contested)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflict(subject, &conflicts));
    }
    let taken: Set = conflicts.iter().fold(Set::new(), |sum, (_, set)| union(&sum, set));
    for entry in &mut all {
        entry.fields = minus(&entry.fields, &taken);
    }
    let others = all.iter().fold(wanted.clone(), |sum, entry| union(&sum, &entry.fields));
    let mut new = before.clone();
    remove(&mut new, &minus(&previous, &others));
    let version = registry::text(&applied, "/metadata/resourceVersion").to_owned();
    let mut merged = merge(Some(new), applied, Layout::of(kind), true);
    put(&mut merged, &["metadata", "resourceVersion"], version);
    let mut entry = Entry::new(kind, manager, "Apply", sub, wanted);
    if let Some(mine) = mine.filter(|mine| mine.fields == entry.fields && same_content(before, &merged)) {
        // Applied once more without a change: no new time, so no new version for every watcher to look at.
        entry.time = mine.time;
    }
    all.insert(at.unwrap_or(all.len()).min(all.len()), entry);
    store(&mut merged, all);
    Ok(merged)
}

/// Whether two versions of an object say the same, but for who said it.
fn same_content(a: &Value, b: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
        object
    };
    plain(a) == plain(b)
}

/// Refuses what no configuration may say.
pub(super) fn check_applied(applied: &Value) -> Result<(), Refusal> {
    let managed = applied.at("/metadata/managedFields").and_then(Value::as_array);
    if managed.is_some_and(|list| !list.is_empty()) {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn conflict(subject: &Subject<'_>, conflicts: &[(&Entry, Set)]) -> Refusal {
    let mut causes = Vec::new();
    for (entry, set) in conflicts {
        let mut paths = Vec::new();
        print(set, "", &mut paths);
        let who = format!("conflict with {:?} using {}", entry.manager, entry.api_version);
        causes.extend(
            paths
                .into_iter()
                .map(|path| json!({"reason": "FieldManagerConflict", "message": who, "field": path})),
        );
    }
    let list: Vec<_> = causes
        .iter()
        .map(|cause| {
            format!(
                "{}: {}",
                field(cause, "/message").as_str().unwrap_or_default(),
                field(cause, "/field").as_str().unwrap_or_default()
            )
        })
        .collect();
    let plural = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", causes.len(), list.join("\n"));
    let mut refusal = Refusal::conflict(subject, "");
    refusal.message = message;
    put(&mut refusal.details, &["causes"], causes);
    refusal
}

fn print(set: &Set, path: &str, out: &mut Vec<String>) {
    for (key, inner) in set {
        let here = match key.split_once(':') {
            Some(("f", name)) => format!("{path}.{name}"),
            Some((_, item)) => format!("{path}[{}]", shown(item)),
            None => path.to_owned(),
        };
        match inner.as_object() {
            Some(inner) if !inner.is_empty() => print(inner, &here, out),
            _ => out.push(here),
        }
    }
}

/// An item as Kubernetes names it: `name="main"`, `="value"`.
fn shown(item: &str) -> String {
    let pairs = |(key, value): (&String, &Value)| format!("{key}={value}");
    match serde_json::from_str(item) {
        Ok(Value::Object(keys)) => keys.iter().map(pairs).collect::<Vec<_>>().join(","),
        _ => format!("={item}"),
    }
}

/// The part of an object that one is in. Fields of the others have no owners: its identity, the server's own fields, what
/// belongs to another subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Main,
    Status,
    Metadata,
    Within,
}

impl Part {
    /// The whole object, as one writes it through this subresource.
    fn of(sub: &str) -> Self {
        if sub == "status" { Self::Status } else { Self::Main }
    }

    fn is_root(self) -> bool {
        matches!(self, Self::Main | Self::Status)
    }

    /// Where a field leads that has an owner.
    fn field(self, name: &str) -> Option<Self> {
        let kept = ["labels", "annotations", "finalizers", "ownerReferences", "generateName"];
        match (self, name) {
            (Self::Main, "apiVersion" | "kind" | "status") => None,
            (Self::Main, "metadata") => Some(Self::Metadata),
            (Self::Metadata, name) if !kept.contains(&name) => None,
            (Self::Status, name) if name != "status" => None,
            _ => Some(Self::Within),
        }
    }
}

fn item_key(item: &Value, keys: &[ListKey]) -> String {
    format!("k:{}", Value::Object(identity(item, keys)))
}

/// All fields of an object.
fn set_of(object: &Value, layout: Layout<'_>, part: Part) -> Set {
    let mut set = Set::new();
    for (field, value) in object.as_object().into_iter().flatten() {
        let Some(below) = part.field(field) else { continue };
        let layout = layout.field(field, part.is_root());
        let inner = match value {
            Value::Null => continue,
            Value::Object(_) if below == Part::Metadata => match set_of(value, layout, below) {
                // An identity alone says nothing.
                set if set.is_empty() => continue,
                set => set,
            },
            Value::Object(_) if !layout.is_atomic() => set_of(value, layout, below),
            Value::Array(list) => match layout.list() {
                // A list of items that has none says nothing of the items others add.
                List::Map(_) | List::Set if list.is_empty() => continue,
                List::Map(keys) => list
                    .iter()
                    .map(|item| (item_key(item, &keys), Value::Object(item_set(item, layout))))
                    .collect(),
                List::Set => list.iter().map(|item| (format!("v:{item}"), json!({}))).collect(),
                List::Atomic => Set::new(),
            },
            _ => Set::new(),
        };
        set.insert(format!("f:{field}"), Value::Object(inner));
    }
    set
}

/// All fields of an item, and the item itself.
fn item_set(item: &Value, layout: Layout<'_>) -> Set {
    let mut set = set_of(item, layout.item(), Part::Within);
    set.insert(".".to_owned(), json!({}));
    set
}

/// The fields of `new` that are not so in `old`.
fn changes(old: &Value, new: &Value, layout: Layout<'_>, part: Part) -> Set {
    let mut set = Set::new();
    for (field, value) in new.as_object().into_iter().flatten() {
        let Some(below) = part.field(field) else { continue };
        let before = old.get(field);
        if before == Some(value) || value.is_null() {
            continue;
        }
        let nothing = Value::Null;
        let before = before.unwrap_or(&nothing);
        let layout = layout.field(field, part.is_root());
        let inner = match value {
            Value::Object(_) if below == Part::Metadata => {
                Some((changes(before, value, layout, below), true))
            }
            Value::Object(_) if !layout.is_atomic() => {
                Some((changes(before, value, layout, below), before.is_object()))
            }
            Value::Array(list) => list_changes(before, list, layout).map(|set| (set, true)),
            _ => None,
        };
        match inner {
            // An object or list that differs only by what it lacks sets nothing.
            Some((inner, true)) if inner.is_empty() => {}
            Some((inner, _)) => drop(set.insert(format!("f:{field}"), Value::Object(inner))),
            None => drop(set.insert(format!("f:{field}"), json!({}))),
        }
    }
    set
}

/// The items of a list that are not so in `before`; `None` when the list is one value.
fn list_changes(before: &Value, list: &[Value], layout: Layout<'_>) -> Option<Set> {
    let old = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let new = list.iter().filter(|item| !old.contains(item));
    match layout.list() {
        List::Map(keys) => {
            let changed = new.filter_map(|item| {
                let known = old.iter().find(|known| identity(known, &keys) == identity(item, &keys));
                let inner = match known {
                    Some(known) => changes(known, item, layout.item(), Part::Within),
                    None => item_set(item, layout),
                };
                (!inner.is_empty()).then(|| (item_key(item, &keys), Value::Object(inner)))
            });
            Some(changed.collect())
        }
        List::Set => Some(new.map(|item| (format!("v:{item}"), json!({}))).collect()),
        List::Atomic => None,
    }
}

fn inner(value: &Value) -> Set {
    value.as_object().cloned().unwrap_or_default()
}

fn union(a: &Set, b: &Set) -> Set {
    let mut out = a.clone();
    for (key, value) in b {
        let merged = out
            .get(key)
            .map_or_else(|| value.clone(), |known| Value::Object(union(&inner(known), &inner(value))));
        out.insert(key.clone(), merged);
    }
    out
}

/// The leaves both have. A leaf of one says nothing of what is below it in the other: an empty map is no owner of
/// what others put into it.
fn intersect(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (key, value) in a {
        let Some(other) = b.get(key) else { continue };
        let (x, y) = (inner(value), inner(other));
        let both = intersect(&x, &y);
        if !both.is_empty() || x.is_empty() && y.is_empty() {
            out.insert(key.clone(), Value::Object(both));
        }
    }
    out
}

/// The fields of a set that are there.
fn present(fields: &Set, there: &Set) -> Set {
    let mut out = Set::new();
    for (key, value) in fields {
        let Some(other) = there.get(key) else { continue };
        let below = inner(value);
        let left = present(&below, &inner(other));
        if below.is_empty() || !left.is_empty() {
            out.insert(key.clone(), Value::Object(left));
        }
    }
    out
}

fn minus(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (key, value) in a {
        match b.get(key) {
            None => drop(out.insert(key.clone(), value.clone())),
            Some(other) => {
                let (x, y) = (inner(value), inner(other));
                let left = minus(&x, &y);
                if !x.is_empty() && !left.is_empty() {
                    out.insert(key.clone(), Value::Object(left));
                }
            }
        }
    }
    out
}

/// Removes the fields of a set from an object.
fn remove(object: &mut Value, set: &Set) {
    for (key, value) in set {
        let below = inner(value);
        let Some((what, name)) = key.split_once(':') else { continue };
        match (what, object.as_object_mut()) {
            ("f", Some(fields)) if below.is_empty() => drop(fields.remove(name)),
            ("f", Some(fields)) => {
                let Some(field) = fields.get_mut(name) else { continue };
                match field.as_array_mut() {
                    Some(list) => remove_items(list, &below),
                    None => remove(field, &below),
                }
                if matches!(&*field, Value::Object(left) if left.is_empty()) {
                    fields.remove(name);
                }
            }
            _ => {}
        }
    }
}

fn remove_items(list: &mut Vec<Value>, set: &Set) {
    for (key, value) in set {
        match key.split_once(':') {
            Some(("v", item)) => list.retain(|known| known.to_string().as_str() != item),
            Some(("k", wanted)) => {
                let Ok(Value::Object(wanted)) = serde_json::from_str(wanted) else { continue };
                let is_it = |item: &Value| wanted.iter().all(|(key, value)| item.get(key) == Some(value));
                let below = inner(value);
                if below.contains_key(".") {
                    list.retain(|item| !is_it(item));
                } else if let Some(item) = list.iter_mut().find(|item| is_it(item)) {
                    remove(item, &below);
                }
            }
            _ => {}
        }
    }
}

/// One manager's fields.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    sub: String,
    api_version: String,
    time: String,
    fields: Set,
}

impl Entry {
    fn new(kind: &Kind, manager: &str, operation: &str, sub: &str, fields: Set) -> Self {
        let (manager, operation, sub) = (manager.to_owned(), operation.to_owned(), sub.to_owned());
        Self {
            manager,
            operation,
            sub,
            api_version: kind.api_version(),
            time: cluster::stamp(&Clock::wall()),
            fields,
        }
    }

    fn is(&self, manager: &str, operation: &str, sub: &str) -> bool {
        self.manager == manager && self.operation == operation && self.sub == sub
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object.at("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
    let text =
        |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.map(|entry| Entry {
        manager: text(entry, "manager"),
        operation: text(entry, "operation"),
        sub: text(entry, "subresource"),
        api_version: text(entry, "apiVersion"),
        time: text(entry, "time"),
        fields: entry.get("fieldsV1").map(inner).unwrap_or_default(),
    })
    .collect()
}

fn store(object: &mut Value, entries: Vec<Entry>) {
    let list: Vec<_> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": entry.fields,
            });
            if !entry.sub.is_empty() {
                put(&mut value, &["subresource"], entry.sub);
            }
            value
        })
        .collect();
    if !object["metadata"].is_object() {
        put(object, &["metadata"], json!({}));
    }
    put(object, &["metadata", "managedFields"], list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::kinds::built_in_kind;

    fn deployment(replicas: Option<i64>, image: &str) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = replicas.into();
        }
        object
    }

    fn kind() -> Kind {
        built_in_kind("apps", "deployments")
    }

    fn made(by: &str, mut object: Value) -> Value {
        track(&kind(), None, &mut object, by, "Apply", "");
        object
    }

    fn applied(before: &Value, object: Value, by: &str, force: bool) -> Result<Value, Refusal> {
        apply(
            &kind(),
            before,
            object,
            by,
            force,
            "",
            &Subject { group: "apps", plural: "deployments", name: "d" },
        )
    }

    #[test]
    fn a_field_no_longer_applied_is_removed() {
        let first = made("alice", deployment(Some(3), "1"));
        let second = applied(&first, deployment(None, "1"), "alice", false).unwrap();
        assert!(second["spec"].get("replicas").is_none());
        assert_eq!(second["spec"]["template"]["spec"]["containers"][0]["image"], "1");
    }

    #[test]
    fn taking_a_field_of_another_is_a_conflict_unless_forced() {
        let first = made("alice", deployment(Some(3), "1"));
        let refusal = applied(&first, deployment(Some(5), "1"), "bob", false).unwrap_err();
        assert_eq!(refusal.code, 409);
        assert!(
            refusal.message.contains("conflict with \"alice\" using apps/v1: .spec.replicas"),
            "{}",
            refusal.message
        );
        let forced = applied(&first, deployment(Some(5), "1"), "bob", true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 5);
        let after = applied(&forced, deployment(None, "1"), "alice", false).unwrap();
        assert_eq!(after["spec"]["replicas"], 5, "alice no longer owns it");
    }

    #[test]
    fn a_field_two_managers_want_alike_stays_until_both_let_go() {
        let first = made("alice", deployment(Some(3), "1"));
        let shared = applied(&first, deployment(Some(3), "1"), "bob", false).unwrap();
        let one = applied(&shared, deployment(None, "1"), "alice", false).unwrap();
        assert_eq!(one["spec"]["replicas"], 3);
        let none = applied(&one, deployment(None, "1"), "bob", false).unwrap();
        assert!(none["spec"].get("replicas").is_none());
    }

    #[test]
    fn applying_twice_changes_nothing_but_times() {
        let first = made("alice", deployment(Some(3), "1"));
        let again = applied(&first, deployment(Some(3), "1"), "alice", false).unwrap();
        assert_eq!(again["spec"], first["spec"]);
        assert_eq!(entries(&again)[0].fields, entries(&first)[0].fields);
        let mut earlier = again.clone();
        earlier["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:00Z".into();
        let third = applied(&earlier, deployment(Some(3), "1"), "alice", false).unwrap();
        assert_eq!(third["metadata"]["managedFields"], earlier["metadata"]["managedFields"]);
    }

    #[test]
    fn an_update_moves_what_it_changed_to_its_manager() {
        let first = made("alice", deployment(Some(3), "1"));
        let mut new = deployment(Some(4), "1");
        track(&kind(), Some(&first), &mut new, "kubectl", "Update", "");
        let owners: Vec<_> = entries(&new).iter().map(|e| (e.manager.clone(), e.fields.clone())).collect();
        assert_eq!(owners[1], ("kubectl".to_owned(), inner(&json!({"f:spec": {"f:replicas": {}}}))));
        assert!(owners[0].1["f:spec"].get("f:replicas").is_none());
    }
}
