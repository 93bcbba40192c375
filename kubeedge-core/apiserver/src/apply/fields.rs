//! Sets of fields (FieldsV1), and what they have in common.

use serde_json::{Map, Value, json};

use crate::layout::{Layout, List, ListKey, identity};

/// Names of fields and items, and below each what of it is meant: nothing for all of it.
pub(super) type Set = Map<String, Value>;

pub(super) fn print(set: &Set, path: &str, out: &mut Vec<String>) {
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

/// The part of an object that one is in. Fields of the others have no owners: its identity, the server's own
/// fields, what belongs to another subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
    Metadata,
    Within,
}

impl Part {
    /// The whole object, as one writes it through this subresource.
    pub(super) fn of(sub: &str) -> Self {
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
pub(super) fn set_of(object: &Value, layout: Layout<'_>, part: Part) -> Set {
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
pub(super) fn changes(old: &Value, new: &Value, layout: Layout<'_>, part: Part) -> Set {
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

pub(super) fn inner(value: &Value) -> Set {
    value.as_object().cloned().unwrap_or_default()
}

pub(super) fn union(a: &Set, b: &Set) -> Set {
    let mut out = a.clone();
    for (key, value) in b {
        let merged = out
            .get(key)
            .map_or_else(|| value.clone(), |known| Value::Object(union(&inner(known), &inner(value))));
        out.insert(key.clone(), merged);
    }
    out
}

/// The leaves both have. A leaf of one says nothing of what is below it in the other: an empty map is no
/// owner of what others put into it.
pub(super) fn intersect(a: &Set, b: &Set) -> Set {
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
pub(super) fn present(fields: &Set, there: &Set) -> Set {
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

pub(super) fn minus(a: &Set, b: &Set) -> Set {
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
pub(super) fn remove(object: &mut Value, set: &Set) {
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
