//! Field managers and server-side apply.
//!
//! Who set a field is kept in `metadata.managedFields` as Kubernetes keeps it (FieldsV1: `f:` fields, `k:`
//! items by key, `v:` items of sets). Applying an object sets its fields, refuses to take fields that others
//! set to other values unless forced, and removes fields that the same manager applied before and nobody else
//! wants.

mod fields;

use serde_json::{Value, json};

use self::fields::{Part, Set, changes, inner, intersect, minus, present, print, remove, set_of, union};
use super::{
    kinds::Kind,
    layout::{Layout, merge},
    object::Object,
    status::{Refusal, Subject},
};

/// Who writes an object, and how.
#[derive(Debug)]
pub(super) struct By<'a> {
    pub kind: &'a Kind,
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: &'static str,
    /// The subresource; empty for the object itself.
    pub sub: &'a str,
    /// The present moment, as Kubernetes writes it.
    pub time: String,
}

/// Notes in `new` which fields this write changed and by whom.
pub(super) fn track(before: Option<&Value>, new: &mut Value, by: &By<'_>) {
    if !by.kind.is_managed() || !new.is_object() {
        return;
    }
    let (layout, part) = (Layout::of(by.kind), Part::of(by.sub));
    let changed = changes(before.unwrap_or(&Value::Null), new, layout, part);
    let mut entries = before.map(entries).unwrap_or_default();
    let there = set_of(new, layout, part);
    for entry in entries.iter_mut().filter(|entry| entry.sub == by.sub) {
        // Nobody owns what was removed.
        entry.fields = present(&entry.fields, &there);
    }
    if !changed.is_empty() {
        for entry in &mut entries {
            entry.fields = minus(&entry.fields, &changed);
        }
        let at = entries.iter().position(|entry| entry.is(by));
        let mine = at.map(|at| entries.remove(at).fields).unwrap_or_default();
        entries.push(Entry::new(by, union(&mine, &changed)));
    }
    store(new, entries);
}

/// Server-side apply on an object that exists.
pub(super) fn apply(
    before: &Value,
    applied: Value,
    by: &By<'_>,
    force: bool,
    subject: &Subject<'_>,
) -> Result<Value, Refusal> {
    let (layout, part) = (Layout::of(by.kind), Part::of(by.sub));
    let wanted = set_of(&applied, layout, part);
    let mut all = entries(before);
    let at = all.iter().position(|entry| entry.is(by));
    let mine = at.map(|at| all.remove(at));
    let previous = mine.as_ref().map(|entry| entry.fields.clone()).unwrap_or_default();
    let differing = minus(&changes(before, &applied, layout, part), &Set::new());
    take_over(&mut all, &intersect(&wanted, &differing), force, subject)?;
    let others = all.iter().fold(wanted.clone(), |sum, entry| union(&sum, &entry.fields));
    let mut new = before.clone();
    remove(&mut new, &minus(&previous, &others));
    let version = applied.resource_version().to_owned();
    let mut merged = merge(Some(new), applied, layout, true);
    merged.set(&["metadata", "resourceVersion"], version);
    let mut entry = Entry::new(by, wanted);
    if let Some(mine) = mine.filter(|mine| mine.fields == entry.fields && same_content(before, &merged)) {
        // Applied once more without a change: no new time, so no new version for every watcher to look at.
        entry.time = mine.time;
    }
    all.insert(at.unwrap_or(all.len()).min(all.len()), entry);
    store(&mut merged, all);
    Ok(merged)
}

/// Takes contested fields from the others who own them; refuses to unless forced.
fn take_over(all: &mut [Entry], contested: &Set, force: bool, subject: &Subject<'_>) -> Result<(), Refusal> {
    let conflicts: Vec<_> = all
        .iter()
        .map(|entry| (entry, intersect(&entry.fields, contested)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflict(subject, &conflicts));
    }
    let taken: Set = conflicts.iter().fold(Set::new(), |sum, (_, set)| union(&sum, set));
    for entry in all {
        entry.fields = minus(&entry.fields, &taken);
    }
    Ok(())
}

/// Whether two versions of an object say the same, but for who said it.
fn same_content(a: &Value, b: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
        object
    };
    plain(a) == plain(b)
}

/// Refuses what no configuration may say.
pub(super) fn check_applied(applied: &Value) -> Result<(), Refusal> {
    if !applied.list(&["metadata", "managedFields"]).is_empty() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

fn conflict(subject: &Subject<'_>, conflicts: &[(&Entry, Set)]) -> Refusal {
    let mut causes = Vec::new();
    for (entry, set) in conflicts {
        let mut paths = Vec::new();
        print(set, "", &mut paths);
        let who = format!("conflict with {:?} using {}", entry.manager, entry.api_version);
        causes.extend(
            paths
                .into_iter()
                .map(|path| json!({"reason": "FieldManagerConflict", "message": who, "field": path})),
        );
    }
    let list: Vec<_> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.text(&["message"]), cause.text(&["field"])))
        .collect();
    let plural = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", causes.len(), list.join("\n"));
    let mut refusal = Refusal::conflict(subject, "");
    refusal.message = message;
    refusal.details.set(&["causes"], causes);
    refusal
}

/// One manager's fields.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    operation: String,
    sub: String,
    api_version: String,
    time: String,
    fields: Set,
}

impl Entry {
    fn new(by: &By<'_>, fields: Set) -> Self {
        Self {
            manager: by.manager.clone(),
            operation: by.operation.to_owned(),
            sub: by.sub.to_owned(),
            api_version: by.kind.api_version(),
            time: by.time.clone(),
            fields,
        }
    }

    fn is(&self, by: &By<'_>) -> bool {
        self.manager == by.manager && self.operation == by.operation && self.sub == by.sub
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object.list(&["metadata", "managedFields"]).iter();
    let text =
        |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    list.map(|entry| Entry {
        manager: text(entry, "manager"),
        operation: text(entry, "operation"),
        sub: text(entry, "subresource"),
        api_version: text(entry, "apiVersion"),
        time: text(entry, "time"),
        fields: entry.get("fieldsV1").map(inner).unwrap_or_default(),
    })
    .collect()
}

fn store(object: &mut Value, entries: Vec<Entry>) {
    let list: Vec<_> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": entry.fields,
            });
            if !entry.sub.is_empty() {
                value.set(&["subresource"], entry.sub);
            }
            value
        })
        .collect();
    if !object["metadata"].is_object() {
        object.set(&["metadata"], json!({}));
    }
    object.set(&["metadata", "managedFields"], list);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::DEPLOYMENTS;

    fn deployment(replicas: Option<i64>, image: &str) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = replicas.into();
        }
        object
    }

    fn writer<'a>(kind: &'a Kind, manager: &str, operation: &'static str) -> By<'a> {
        let time = "2026-01-02T00:00:00Z".to_owned();
        By { kind, manager: manager.to_owned(), operation, sub: "", time }
    }

    fn made(by: &str, mut object: Value) -> Value {
        track(None, &mut object, &writer(&DEPLOYMENTS, by, "Apply"));
        object
    }

    fn applied(before: &Value, object: Value, by: &str, force: bool) -> Result<Value, Refusal> {
        apply(before, object, &writer(&DEPLOYMENTS, by, "Apply"), force, &DEPLOYMENTS.subject("d"))
    }

    #[test]
    fn a_field_no_longer_applied_is_removed() {
        let first = made("alice", deployment(Some(3), "1"));
        let second = applied(&first, deployment(None, "1"), "alice", false).unwrap();
        assert!(second["spec"].get("replicas").is_none());
        assert_eq!(second["spec"]["template"]["spec"]["containers"][0]["image"], "1");
    }

    #[test]
    fn taking_a_field_of_another_is_a_conflict_unless_forced() {
        let first = made("alice", deployment(Some(3), "1"));
        let refusal = applied(&first, deployment(Some(5), "1"), "bob", false).unwrap_err();
        assert_eq!(refusal.code, 409);
        assert!(
            refusal.message.contains("conflict with \"alice\" using apps/v1: .spec.replicas"),
            "{}",
            refusal.message
        );
        let forced = applied(&first, deployment(Some(5), "1"), "bob", true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 5);
        let after = applied(&forced, deployment(None, "1"), "alice", false).unwrap();
        assert_eq!(after["spec"]["replicas"], 5, "alice no longer owns it");
    }

    #[test]
    fn a_field_two_managers_want_alike_stays_until_both_let_go() {
        let first = made("alice", deployment(Some(3), "1"));
        let shared = applied(&first, deployment(Some(3), "1"), "bob", false).unwrap();
        let one = applied(&shared, deployment(None, "1"), "alice", false).unwrap();
        assert_eq!(one["spec"]["replicas"], 3);
        let none = applied(&one, deployment(None, "1"), "bob", false).unwrap();
        assert!(none["spec"].get("replicas").is_none());
    }

    #[test]
    fn applying_twice_changes_nothing_but_times() {
        let first = made("alice", deployment(Some(3), "1"));
        let again = applied(&first, deployment(Some(3), "1"), "alice", false).unwrap();
        assert_eq!(again["spec"], first["spec"]);
        assert_eq!(entries(&again)[0].fields, entries(&first)[0].fields);
        let mut earlier = again.clone();
        earlier["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:00Z".into();
        let third = applied(&earlier, deployment(Some(3), "1"), "alice", false).unwrap();
        assert_eq!(third["metadata"]["managedFields"], earlier["metadata"]["managedFields"]);
    }

    #[test]
    fn an_update_moves_what_it_changed_to_its_manager() {
        let first = made("alice", deployment(Some(3), "1"));
        let mut new = deployment(Some(4), "1");
        track(Some(&first), &mut new, &writer(&DEPLOYMENTS, "kubectl", "Update"));
        let owners: Vec<_> = entries(&new).iter().map(|e| (e.manager.clone(), e.fields.clone())).collect();
        assert_eq!(owners[1], ("kubectl".to_owned(), inner(&json!({"f:spec": {"f:replicas": {}}}))));
        assert!(owners[0].1["f:spec"].get("f:replicas").is_none());
    }
}
