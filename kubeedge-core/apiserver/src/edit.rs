//! Fields of JSON objects, by paths of our own: setting them whatever they hold now, and reading them.

use serde_json::{Map, Value};

/// Sets a field by its path, making objects on the way; what is no object there is replaced by one.
pub(super) fn put(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let mut at = value;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(fields) = at.as_object_mut() else { return };
        at = fields.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *at = new.into();
}

/// Reads fields.
pub(crate) trait At {
    /// What is at a path such as `/metadata/name`. No JSON pointer: nothing in it is escaped, and nothing is copied for it.
    fn at(&self, path: &str) -> Option<&Value>;
}

impl At for Value {
    fn at(&self, path: &str) -> Option<&Value> {
        path.split('/').skip(1).try_fold(self, |value, key| value.as_object()?.get(key))
    }
}

/// A field by its path; null when it is not there.
pub(super) fn field(value: &Value, path: &str) -> Value {
    value.at(path).cloned().unwrap_or_default()
}
