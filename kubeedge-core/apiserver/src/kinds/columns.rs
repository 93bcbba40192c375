//! The columns of built-in kinds: a name and a function each, so that a table has as many cells as columns.

use serde_json::Value;
use time::OffsetDateTime;

use crate::{object::Object, times};

/// An object that is shown, and the moment it is shown at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub object: &'a Value,
    pub now: OffsetDateTime,
}

/// A column.
#[derive(Debug)]
pub(crate) struct Column {
    pub name: &'static str,
    /// 0 for those always shown, 1 for those of `-o wide`.
    pub priority: i64,
    pub cell: fn(&Row<'_>) -> Value,
}

impl Column {
    pub(super) const fn new(name: &'static str, cell: fn(&Row<'_>) -> Value) -> Self {
        Self { name, priority: 0, cell }
    }

    pub(super) const fn wide(name: &'static str, cell: fn(&Row<'_>) -> Value) -> Self {
        Self { name, priority: 1, cell }
    }
}

impl Row<'_> {
    /// How old the object is.
    pub(super) fn age(&self) -> String {
        times::since(self.object.created(), self.now)
    }

    /// A field as text; this where it is absent.
    pub(super) fn field(&self, path: &[&str], absent: &str) -> Value {
        plain(self.object.at(path), absent).into()
    }

    /// A text, empty where it is absent.
    pub(super) fn text(&self, path: &[&str]) -> Value {
        self.object.text(path).into()
    }

    /// A text, `<none>` where it is empty or absent.
    pub(super) fn text_or_none(&self, path: &[&str]) -> Value {
        or_none(self.object.text(path))
    }

    /// A number, zero where it is absent.
    pub(super) fn integer(&self, path: &[&str]) -> Value {
        self.object.integer(path).into()
    }

    /// How many fields an object below has.
    pub(super) fn count(&self, path: &[&str]) -> usize {
        self.object.fields(path).map_or(0, serde_json::Map::len)
    }
}

pub(crate) const NAME: Column = Column::new("Name", |row| row.object.name().into());
pub(crate) const AGE: Column = Column::new("Age", |row| row.age().into());
pub(super) const CREATED_AT: Column = Column::new("Created At", |row| row.object.created().into());

/// What kinds have that no columns were named for.
pub(crate) const NAME_AND_AGE: &[Column] = &[NAME, AGE];
pub(super) const NAME_AND_CREATED_AT: &[Column] = &[NAME, CREATED_AT];

pub(super) fn plain(value: Option<&Value>, absent: &str) -> String {
    match value {
        None | Some(Value::Null) => absent.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// The pairs of a map.
pub(super) fn pairs(map: Option<&Value>) -> Value {
    let pair = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    let list: Vec<_> = map.and_then(Value::as_object).into_iter().flatten().map(pair).collect();
    or_none(&list.join(","))
}

/// The types of conditions that are not False.
pub(super) fn conditions(object: &Value) -> Vec<&str> {
    let holds = |condition: &&Value| condition.text(&["status"]) != "False";
    object.conditions().iter().filter(holds).map(|condition| condition.text(&["type"])).collect()
}

/// Access modes of volumes in their short form.
pub(super) fn access_modes(list: &[Value]) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "?",
    };
    list.iter().map(short).collect::<Vec<_>>().join(",").into()
}

const CONTAINERS: [&str; 4] = ["spec", "template", "spec", "containers"];

fn of_containers(row: &Row<'_>, field: &str) -> Value {
    let list: Vec<_> =
        row.object.list(&CONTAINERS).iter().map(|container| container.text(&[field])).collect();
    list.join(",").into()
}

/// Containers of a workload's template.
pub(super) const TEMPLATE_CONTAINERS: Column = Column::wide("Containers", |row| of_containers(row, "name"));
/// Their images.
pub(super) const TEMPLATE_IMAGES: Column = Column::wide("Images", |row| of_containers(row, "image"));
/// What a workload selects its pods by.
pub(super) const SELECTOR: Column =
    Column::wide("Selector", |row| pairs(row.object.at(&["spec", "selector", "matchLabels"])));
