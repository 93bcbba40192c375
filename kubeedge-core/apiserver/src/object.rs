//! Objects as they are kept, parsed JSON, behind one accessor: typed getters for what Kubernetes gives every
//! object and for what more than one part asks of pods, nodes and workloads; paths of field names for the
//! rest.
//!
//! A path is a slice of names, so that nothing is parsed, escaped or copied to read a field. What is absent,
//! or of another type, reads as nothing: empty text, zero, an empty list.

use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::times;

/// The fields of a JSON object.
pub(crate) type Fields = Map<String, Value>;

/// Reads and sets fields of an object.
#[cfg_attr(not(feature = "controllers"), allow(dead_code, reason = "controllers read more than the server"))]
pub(crate) trait Object {
    /// What stands at a path.
    fn at(&self, path: &[&str]) -> Option<&Value>;

    /// What stands at a path, to be changed.
    fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value>;

    /// Sets a field, making objects on the way; what is no object there is replaced by one.
    fn set(&mut self, path: &[&str], new: impl Into<Value>);

    /// The fields of `metadata`, which is made if it is not there; what is no object is replaced by one.
    fn metadata_mut(&mut self) -> Option<&mut Fields>;

    /// A text.
    fn text(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// A whole number, if it is there.
    fn number(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    /// A whole number; zero if it is not there.
    fn integer(&self, path: &[&str]) -> i64 {
        self.number(path).unwrap_or(0)
    }

    /// Whether a flag is set.
    fn is(&self, path: &[&str]) -> bool {
        self.at(path) == Some(&Value::Bool(true))
    }

    /// The items of a list.
    fn list(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The items of a list, to be changed; nothing if it is not there.
    fn list_mut(&mut self, path: &[&str]) -> Option<&mut Vec<Value>> {
        self.at_mut(path).and_then(Value::as_array_mut)
    }

    /// The fields of an object below.
    fn fields(&self, path: &[&str]) -> Option<&Fields> {
        self.at(path).and_then(Value::as_object)
    }

    /// A copy of what stands at a path; null if it is not there.
    fn copy(&self, path: &[&str]) -> Value {
        self.at(path).cloned().unwrap_or_default()
    }

    /// A moment, as Kubernetes writes it.
    fn moment(&self, path: &[&str]) -> Option<OffsetDateTime> {
        times::parse(self.text(path))
    }

    /// `apiVersion`.
    fn api_version(&self) -> &str {
        self.text(&["apiVersion"])
    }

    /// `metadata.name`.
    fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    /// `metadata.namespace`; empty for objects of the whole cluster.
    fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    /// `metadata.uid`.
    fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }

    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }

    /// `metadata.generation`.
    fn generation(&self) -> Option<i64> {
        self.number(&["metadata", "generation"])
    }

    /// `metadata.creationTimestamp`.
    fn created(&self) -> &str {
        self.text(&["metadata", "creationTimestamp"])
    }

    /// `metadata.labels`.
    fn labels(&self) -> Option<&Fields> {
        self.fields(&["metadata", "labels"])
    }

    /// A label.
    fn label(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "labels", key])?.as_str()
    }

    /// An annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "annotations", key])?.as_str()
    }

    /// `metadata.finalizers`.
    fn finalizers(&self) -> &[Value] {
        self.list(&["metadata", "finalizers"])
    }

    /// `metadata.ownerReferences`.
    fn owners(&self) -> &[Value] {
        self.list(&["metadata", "ownerReferences"])
    }

    /// The owner that manages this object: its controller.
    fn controller(&self) -> Option<&Value> {
        self.owners().iter().find(|owner| owner.is(&["controller"]))
    }

    /// Whether its controller is the object with this uid.
    fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|owner| owner.text(&["uid"]) == uid)
    }

    /// Whether it is being deleted.
    fn is_deleting(&self) -> bool {
        self.at(&["metadata", "deletionTimestamp"]).is_some()
    }

    /// `status.phase`.
    fn phase(&self) -> &str {
        self.text(&["status", "phase"])
    }

    /// `status.conditions`.
    fn conditions(&self) -> &[Value] {
        self.list(&["status", "conditions"])
    }

    /// The condition of a type.
    fn condition(&self, kind: &str) -> Option<&Value> {
        self.conditions().iter().find(|condition| condition.text(&["type"]) == kind)
    }

    /// Whether a condition has a status.
    fn condition_is(&self, kind: &str, status: &str) -> bool {
        let same =
            |condition: &&Value| condition.text(&["type"]) == kind && condition.text(&["status"]) == status;
        self.conditions().iter().any(|condition| same(&condition))
    }

    /// The node a pod is on; empty if it has none.
    fn node_name(&self) -> &str {
        self.text(&["spec", "nodeName"])
    }

    /// Whether a pod is over.
    fn is_finished(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether a pod counts as one that runs or will.
    fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_deleting()
    }

    /// `spec.replicas`.
    fn replicas(&self) -> i64 {
        self.integer(&["spec", "replicas"])
    }
}

impl Object for Value {
    fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.as_object()?.get(*key))
    }

    fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        path.iter().try_fold(self, |value, key| value.as_object_mut()?.get_mut(*key))
    }

    fn set(&mut self, path: &[&str], new: impl Into<Value>) {
        let mut at = self;
        for key in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Some(fields) = at.as_object_mut() else { return };
            at = fields.entry((*key).to_owned()).or_insert(Value::Null);
        }
        *at = new.into();
    }

    fn metadata_mut(&mut self) -> Option<&mut Fields> {
        if !self.at(&["metadata"]).is_some_and(Value::is_object) {
            self.set(&["metadata"], Fields::new());
        }
        self.at_mut(&["metadata"]).and_then(Value::as_object_mut)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_fields_and_other_types_read_as_nothing() {
        let object = json!({"metadata": {"name": 5, "labels": {"a/b": "c"}}, "spec": "text"});
        assert_eq!((object.name(), object.node_name(), object.replicas()), ("", "", 0));
        assert_eq!(object.label("a/b"), Some("c"), "a name is taken as it is");
        assert!(object.owners().is_empty() && object.controller().is_none() && !object.is_deleting());
    }

    #[test]
    fn a_set_field_replaces_what_is_no_object_on_its_way() {
        let mut object = json!({"spec": 1});
        object.set(&["spec", "a", "b"], 2);
        assert_eq!(object, json!({"spec": {"a": {"b": 2}}}));
        let mut empty = Value::Null;
        assert!(empty.metadata_mut().is_some_and(|fields| fields.is_empty()));
    }
}
