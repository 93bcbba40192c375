//! The kinds that CustomResourceDefinitions define, read once from each: a schema alone is larger than most
//! objects.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;

use super::kinds::{self, Kind};

/// What was read from definitions, by their names.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Mutex<HashMap<String, Defined>>);

#[derive(Debug)]
struct Defined {
    by: Arc<Value>,
    kinds: Vec<Kind>,
}

impl Defined {
    fn of(definition: Arc<Value>) -> Self {
        Self { kinds: kinds::of_definition(&definition), by: definition }
    }
}

impl Definitions {
    /// The kind of a definition in a version; the definition is given as it is now, if it is there. Names say
    /// the plural and the group.
    pub(crate) fn find(&self, name: String, definition: Option<Arc<Value>>, version: &str) -> Option<Kind> {
        let mut read = self.0.lock();
        let Some(definition) = definition else {
            read.remove(&name);
            return None;
        };
        let matches = |kind: &&Kind| {
            kind.version() == version
                && name.strip_prefix(kind.plural()) == Some(&format!(".{}", kind.group()))
        };
        match read.entry(name.clone()) {
            Entry::Occupied(mut known) => {
                if !Arc::ptr_eq(&known.get().by, &definition) {
                    known.insert(Defined::of(definition));
                }
                known.into_mut()
            }
            Entry::Vacant(free) => free.insert(Defined::of(definition)),
        }
        .kinds
        .iter()
        .find(matches)
        .cloned()
    }
}
