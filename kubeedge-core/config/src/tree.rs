//! A YAML document as a tree in which everything knows its place.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Budget, Location, Spanned};

use super::problem::{ConfigError, Place};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Option<Place>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Big(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) place: Option<Place>,
    pub(super) name: String,
}

/// Reads YAML as Go's Kubernetes parser does: `0644` is octal, `yes` is true. A file without content is an
/// empty map.
pub(super) fn parse(name: &str, text: &str) -> Result<Node, ConfigError> {
    let mut budget = Budget::default();
    (budget.max_nodes, budget.max_aliases, budget.max_anchors) = (50_000, 100, 100);
    let options = serde_saphyr::options! {
        budget: Some(budget),
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let root = serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let place = error.location().and_then(place);
        ConfigError::Yaml { name: name.to_owned(), place, what: without_place(&error.to_string()) }
    })?;
    Ok(match root.value {
        Value::Null => Node { value: Value::Map(Vec::new()), ..root },
        _ => root,
    })
}

/// The parser's text ends with the place, which we have already.
fn without_place(text: &str) -> String {
    let text = text.lines().next().unwrap_or_default();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text.get(..end).unwrap_or(text).trim_end_matches([',', ':']).to_owned()
}

fn place(location: Location) -> Option<Place> {
    let known = location.line() > 0;
    known.then(|| Place { line: location.line(), column: location.column() })
}

impl Node {
    /// The text of a key of this map.
    pub(super) fn text(&self, name: &str) -> Option<(Place, &str)> {
        match &self.entry(name)?.1 {
            Node { value: Value::Text(text), place: Some(place) } => Some((*place, text)),
            _ => None,
        }
    }

    fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(key, _)| key.name.eq_ignore_ascii_case(name))
    }

    /// Where the key of this path stands; `None` when the file leaves it out.
    pub(super) fn place_of(&self, path: &str) -> Option<Place> {
        let mut found = (None, self);
        for part in path.split('.') {
            let (name, index) = part.split_once('[').unwrap_or((part, ""));
            let (key, node) = found.1.entry(name)?;
            found = (key.place, node);
            if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
                let Value::List(items) = &found.1.value else { return None };
                let item = items.get(index)?;
                found = (item.place, item);
            }
        }
        found.0
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Big(value), Value::Int))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, node)) = entries.next_entry::<Spanned<String>, Node>()? {
            map.push((Key { place: place(key.referenced), name: key.value }, node));
        }
        Ok(Value::Map(map))
    }
}
