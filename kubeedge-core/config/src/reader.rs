//! Serde over the tree: keys without regard to case, unknown ones noted, every error with path and place.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::{
    de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
    forward_to_deserialize_any,
};
use serde_json::Value as Json;

use super::{
    problem::{Place, Problem, Warning},
    tree::{Key, Node, Value},
};

/// Warnings beyond this many are not kept.
const MAX_WARNINGS: usize = 50;

/// Up to here a float stands for one whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// What is noted while a tree is read.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    known: &'a Json,
    skip: HashSet<String>,
    warnings: RefCell<Vec<Warning>>,
}

impl<'a> Notes<'a> {
    /// `known` has all keys there are, for hints; values at the paths in `skip` count as left out.
    pub(super) fn new(known: &'a Json, skip: HashSet<String>) -> Self {
        Self { known, skip, warnings: RefCell::default() }
    }

    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings.into_inner()
    }

    pub(super) fn into_skipped(self) -> HashSet<String> {
        self.skip
    }

    fn unknown(&self, key: &Key, path: String, siblings: &[&str]) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() >= MAX_WARNINGS {
            return;
        }
        let hint = match nearest(&key.name, siblings).map(str::to_owned).or_else(|| self.elsewhere(&key.name))
        {
            Some(known) => format!("; did you mean {known}?"),
            None => String::new(),
        };
        let what = format!("no such key, it is ignored{hint}");
        warnings.push(Warning(Problem::new(path, what).at(key.place)));
    }

    /// A key of this name in another section, such as one that older files have a level higher.
    fn elsewhere(&self, name: &str) -> Option<String> {
        fn find(value: &Json, path: &str, name: &str) -> Option<String> {
            let map = value.as_object()?;
            let own = map.keys().find(|key| key.eq_ignore_ascii_case(name));
            let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            own.map(|key| full(key))
                .or_else(|| map.iter().find_map(|(key, value)| find(value, &full(key), name)))
        }
        // `enable` and the like stand everywhere: no help.
        find(self.known, "", name).filter(|_| name.len() > 6)
    }
}

/// The sibling that differs in the fewest letters, if they are few.
fn nearest<'s>(name: &str, siblings: &[&'s str]) -> Option<&'s str> {
    let lower = name.to_lowercase();
    let limit = name.chars().count() / 3;
    let distances = siblings.iter().map(|sibling| (distance(&lower, &sibling.to_lowercase()), *sibling));
    distances.filter(|(distance, _)| *distance <= limit.max(1)).min().map(|(_, sibling)| sibling)
}

/// How many letters must be put in, taken out or changed. A long name, which can only be nonsense, is far
/// from all.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 100 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut left = line + 1;
        let mut next = vec![left];
        for (b, pair) in other.chars().zip(row.windows(2)) {
            let [diagonal, above] = pair else { continue };
            left = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A value that cannot be used.
#[derive(Debug)]
pub(super) struct ReadError {
    /// Path and place of the innermost value that was tried; known once an error has left it.
    source: Option<(String, Option<Place>)>,
    what: String,
}

impl ReadError {
    pub(super) fn into_problem(self) -> Problem {
        let (path, place) = self.source.unwrap_or_default();
        Problem::new(path, self.what).at(place)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self { source: None, what: what.to_string() }
    }
    fn invalid_type(is: Unexpected<'_>, must: &dyn de::Expected) -> Self {
        Self::custom(format!("is {}, must be {}", shown(is), wanted(&must.to_string())))
    }
    fn invalid_value(is: Unexpected<'_>, must: &dyn de::Expected) -> Self {
        Self::invalid_type(is, must)
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("has the key {field} twice, in different cases: keep one"))
    }
}

fn shown(is: Unexpected<'_>) -> String {
    match is {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) if text.len() > 80 => "a long text".to_owned(),
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a block of keys".to_owned(),
        other => other.to_string(),
    }
}

fn wanted(must: &str) -> &str {
    match must {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text; put it in quotes",
        "a sequence" => "a list",
        other if other == "a map" || other.starts_with("struct ") => "a block of keys",
        other => other,
    }
}

/// Deserializes from a node.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    node: &'a Node,
    path: String,
    notes: &'a Notes<'a>,
}

impl<'a> Reader<'a> {
    /// From the whole document.
    pub(super) fn root(node: &'a Node, notes: &'a Notes<'a>) -> Self {
        Self { node, path: String::new(), notes }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// A value below this one; `None` when it counts as left out.
    fn below(&self, path: String, node: &'a Node) -> Option<Self> {
        let out = matches!(node.value, Value::Null) || self.notes.skip.contains(&path);
        (!out).then_some(Self { node, path, notes: self.notes })
    }

    /// The entries with a value. With `fields`, keys become the fields they stand for, and others are noted.
    fn entries(&self, entries: &'a [(Key, Node)], fields: Option<&[&'static str]>) -> Vec<(String, Self)> {
        let name_of = |key: &Key| {
            let Some(fields) = fields else { return Some(key.name.clone()) };
            let exact = fields.iter().find(|field| **field == key.name);
            let field = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key.name)));
            if field.is_none() {
                self.notes.unknown(key, self.key(&key.name), fields);
            }
            field.map(|field| (*field).to_owned())
        };
        let named = entries.iter().filter_map(|(key, node)| Some((name_of(key)?, node)));
        let read = named.filter_map(|(name, node)| Some((name.clone(), self.below(self.key(&name), node)?)));
        read.collect()
    }

    fn items(&self, items: &'a [Node]) -> Vec<Self> {
        let paths = items.iter().enumerate().map(|(at, node)| (format!("{}[{at}]", self.path), node));
        paths.filter_map(|(path, node)| self.below(path, node)).collect()
    }

    fn visit<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        fields: Option<&[&'static str]>,
    ) -> Result<V::Value, ReadError> {
        let visited = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Big(value) => visitor.visit_u64(*value),
            // `30.0` is a whole number to JSON, which Go goes through.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < MAX_EXACT => {
                visitor.visit_i64(*value as i64)
            }
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) if fields.is_some() => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            Value::List(items) => visitor.visit_seq(Items(self.items(items).into_iter())),
            Value::Map(entries) => {
                let entries = self.entries(entries, fields).into_iter();
                visitor.visit_map(Entries { entries, value: None })
            }
        };
        visited.map_err(|mut error| {
            error.source.get_or_insert_with(|| (self.path.clone(), self.node.place));
            error
        })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.visit(visitor, None)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.visit(visitor, Some(fields))
    }
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Items<'a>(std::vec::IntoIter<Reader<'a>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<(String, Reader<'a>)>,
    value: Option<Reader<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(name.into_deserializer()).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let value = self.value.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        seed.deserialize(value)
    }
}
