//! What the server itself says of a CustomResourceDefinition.

use serde_json::{Value, json};

use crate::object::Object;

/// Fills in names that were left out, and the status: a definition is served from the moment it is stored.
pub(super) fn fill(definition: &mut Value) {
    let kind = definition.text(&["spec", "names", "kind"]).to_owned();
    for (name, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if definition.text(&["spec", "names", name]).is_empty() {
            definition.set(&["spec", "names", name], value);
        }
    }
    let names = definition.copy(&["spec", "names"]);
    definition.set(&["status", "acceptedNames"], names);
    let versions = definition.list(&["spec", "versions"]).iter();
    let stored: Vec<_> = versions
        .filter(|version| version.is(&["storage"]))
        .filter_map(|version| version.get("name").cloned())
        .collect();
    definition.set(&["status", "storedVersions"], stored);
    if definition.at(&["status", "conditions"]).is_none() {
        let since = definition.created().to_owned();
        let condition = |of: &str, reason: &str, message: &str| json!({"type": of, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
        let conditions = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]);
        definition.set(&["status", "conditions"], conditions);
    }
}
