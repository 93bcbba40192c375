//! The kinds that CustomResourceDefinitions in a storage define, read once from each: a schema alone is larger than most
//! objects.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    kinds::{self, DEFINITIONS, Kind},
    storage::{ObjectKey, Storage},
};

/// All kinds served now that are stored.
pub(crate) fn all(storage: &Storage) -> Vec<Kind> {
    let key = DEFINITIONS.key("", "");
    let (definitions, _) = storage.list(&key.group, &key.plural, "");
    kinds::stored()
        .chain(definitions.iter().flat_map(|definition| kinds::of_definition(definition)))
        .collect()
}

/// The kind with this group, version and plural.
pub(crate) fn find(storage: &Storage, group: &str, version: &str, plural: &str) -> Option<Kind> {
    kinds::built_in(group, version, plural).or_else(|| {
        let key = DEFINITIONS.key("", &format!("{plural}.{group}"));
        let matches =
            |kind: &Kind| kind.group() == group && kind.version() == version && kind.plural() == plural;
        storage.definitions().find(storage, &key, matches)
    })
}

/// What was read from definitions.
#[derive(Debug, Default)]
pub(crate) struct Definitions(Mutex<HashMap<ObjectKey, Defined>>);

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
    /// The kind that matches among those of a definition as it is now; `None` if there is none.
    fn find(&self, storage: &Storage, key: &ObjectKey, matches: impl Fn(&Kind) -> bool) -> Option<Kind> {
        let mut read = self.0.lock();
        let Some(definition) = storage.get(key) else {
            read.remove(key);
            return None;
        };
        let defined = read.entry(key.clone()).or_insert_with(|| Defined::of(definition.clone()));
        if !Arc::ptr_eq(&defined.by, &definition) {
            *defined = Defined::of(definition);
        }
        defined.kinds.iter().find(|kind| matches(kind)).cloned()
    }
}
