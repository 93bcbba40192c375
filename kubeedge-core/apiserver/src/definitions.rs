//! What the server itself says of a CustomResourceDefinition, and what ends with one.

use kubeedge_core::{clock::Clock, store::StoreError};
use serde_json::{Value, json};

use crate::edit::At as _;
use kubeedge_common::stamp;

use super::{
    edit::{field, put},
    registry::text,
    storage::{Storage, Write},
};

/// Fills in names that were left out, and the status: a definition is served from the moment it is stored.
pub(super) fn fill(definition: &mut Value) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    for (name, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if text(definition, &format!("/spec/names/{name}")).is_empty() {
            put(definition, &["spec", "names", name], value);
        }
    }
    put(definition, &["status", "acceptedNames"], field(definition, "/spec/names"));
    let versions = definition.at("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let stored: Vec<_> = versions
        .filter(|version| version.get("storage") == Some(&Value::Bool(true)))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    put(definition, &["status", "storedVersions"], stored);
    if definition.at("/status/conditions").is_none() {
        let condition = |of: &str, reason: &str, message: &str| json!({"type": of, "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp::stamp(&Clock::wall())});
        let conditions = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]);
        put(definition, &["status", "conditions"], conditions);
    }
}

/// Removes all objects of a kind whose definition is gone. Finalizers do not hold them: nobody could reach the objects
/// to take them away.
pub(super) async fn purge(storage: &Storage, definition: &Value) -> Result<(), StoreError> {
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    for (key, _) in storage.find(|key, _| key.group == group && key.plural == plural) {
        storage.write::<StoreError>(&key, |_| Ok(Write::Delete)).await?;
    }
    Ok(())
}
