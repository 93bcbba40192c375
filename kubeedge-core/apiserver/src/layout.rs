//! How the parts of an object are owned and merged by server-side apply: as Kubernetes' types say of their
//! lists and maps, and as the schema of a custom kind says (`x-kubernetes-list-type`, `-list-map-keys`,
//! `-map-type`).

use serde_json::{Map, Value};

use super::kinds::{Items, Kind, is_atomic_map, map_keys};

/// A field that tells the items of a list apart, and its value where it is left out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListKey {
    pub name: String,
    pub default: Option<Value>,
}

impl ListKey {
    fn new(name: &str) -> Self {
        // The only key of Kubernetes' own types that may be left out.
        let default = (name == "protocol").then(|| "TCP".into());
        Self { name: name.to_owned(), default }
    }

    /// Its value in an item.
    fn of(&self, item: &Value) -> Value {
        item.get(&self.name).cloned().or_else(|| self.default.clone()).unwrap_or_default()
    }
}

/// What a list is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum List {
    /// Objects, told apart by these fields together.
    Map(Vec<ListKey>),
    /// Plain values, each once.
    Set,
    /// One value.
    Atomic,
}

/// The values of an item's keys: what it is known by.
pub(super) fn identity(item: &Value, keys: &[ListKey]) -> Map<String, Value> {
    keys.iter().map(|key| (key.name.clone(), key.of(item))).collect()
}

/// A place in an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout<'a> {
    /// A field of one of Kubernetes' own types, by its name and that of the field around it.
    Known { around: &'a str, field: &'a str },
    /// What this schema describes.
    Schema(&'a Value),
    /// What nobody describes: maps are of fields, lists are one value.
    Free,
}

impl<'a> Layout<'a> {
    /// That of a whole object.
    pub(super) fn of(kind: &'a Kind) -> Self {
        match kind.schema() {
            Some(schema) => Self::Schema(schema),
            None => Self::Known { around: "", field: "" },
        }
    }

    /// That of a field of an object.
    pub(super) fn field(self, name: &'a str, is_root: bool) -> Self {
        match self {
            Self::Known { field, .. } => Self::Known { around: field, field: name },
            Self::Schema(_) if is_root && name == "metadata" => Self::Known { around: "", field: name },
            Self::Schema(schema) => {
                let named = schema.get("properties").and_then(|properties| properties.get(name));
                let found = named.or_else(|| schema.get("additionalProperties"));
                found.filter(|schema| schema.is_object()).map_or(Self::Free, Self::Schema)
            }
            Self::Free => Self::Free,
        }
    }

    /// That of the items of a list.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Schema(schema) => schema.get("items").map_or(Self::Free, Self::Schema),
            other => other,
        }
    }

    /// Whether an object here is one value.
    pub(super) fn is_atomic(self) -> bool {
        match self {
            Self::Known { field, .. } => is_atomic_map(field),
            Self::Schema(schema) => {
                schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
            }
            Self::Free => false,
        }
    }

    /// What a list here is.
    pub(super) fn list(self) -> List {
        match self {
            Self::Known { around, field } => known_list(around, field),
            Self::Schema(schema) => schema_list(schema),
            Self::Free => List::Atomic,
        }
    }
}

fn known_list(around: &str, field: &str) -> List {
    match map_keys(around, field) {
        Items::By(keys) => List::Map(keys.iter().map(|key| ListKey::new(key)).collect()),
        Items::Set => List::Set,
        Items::Atomic => List::Atomic,
    }
}

fn schema_list(schema: &Value) -> List {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => List::Set,
        Some("map") => {
            let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let key = |name: &Value| {
                let name = name.as_str()?;
                let default =
                    schema.get("items")?.get("properties")?.get(name).and_then(|s| s.get("default"));
                Some(ListKey { name: name.to_owned(), default: default.cloned() })
            };
            List::Map(names.into_iter().flatten().filter_map(key).collect())
        }
        _ => List::Atomic,
    }
}

/// What an object becomes when another is applied to it.
pub(super) fn merge(old: Option<Value>, new: Value, layout: Layout<'_>, is_root: bool) -> Value {
    match new {
        Value::Object(new) if !layout.is_atomic() => {
            let mut fields = if let Some(Value::Object(old)) = old { old } else { Map::new() };
            for (name, value) in new {
                let before = fields.remove(&name);
                if !value.is_null() {
                    let merged = merge(before, value, layout.field(&name, is_root), false);
                    fields.insert(name, merged);
                }
            }
            Value::Object(fields)
        }
        Value::Array(new) => {
            let old = if let Some(Value::Array(old)) = old { old } else { Vec::new() };
            Value::Array(merge_list(old, new, layout))
        }
        plain => plain,
    }
}

fn merge_list(mut old: Vec<Value>, new: Vec<Value>, layout: Layout<'_>) -> Vec<Value> {
    match layout.list() {
        List::Atomic => return new,
        List::Set => {
            for item in new {
                if !old.contains(&item) {
                    old.push(item);
                }
            }
        }
        List::Map(keys) => {
            for item in new {
                let id = identity(&item, &keys);
                match old.iter_mut().find(|known| identity(known, &keys) == id) {
                    Some(known) => *known = merge(Some(known.take()), item, layout.item(), false),
                    None => old.push(merge(None, item, layout.item(), false)),
                }
            }
        }
    }
    old
}
