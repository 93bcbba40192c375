//! Setting fields of JSON objects whatever they hold now.

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

/// A field by its path; null when it is not there.
pub(super) fn field(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or_default()
}
