//! What a create, an update or a deletion makes of an object: metadata, generation, status, grace and
//! finalizers. Nothing here reads or writes a store.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    fields,
    kinds::Kind,
    object::{Fields, Object},
    schema,
    status::{Problem, Refusal},
    times::later,
};

/// How unknown fields are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Validation {
    Strict,
    #[default]
    Warn,
    Ignore,
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

/// How a change is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub part: Part,
    pub validation: Validation,
    pub dry_run: bool,
}

impl Mode {
    /// A change of this server's own: what it writes goes through in any case.
    pub(crate) fn ours(part: Part) -> Self {
        Self { part, validation: Validation::Ignore, dry_run: false }
    }
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    /// Seconds.
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub version: Option<String>,
    pub policy: Option<String>,
}

fn no_metadata() -> Refusal {
    Refusal::bad_request("metadata must be an object")
}

/// Checks what the body says it is.
pub(crate) fn identify(kind: &Kind, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body must be one object"));
    }
    let said = (object.api_version(), object.text(&["kind"]));
    let api_version = kind.api_version();
    if (!said.0.is_empty() && said.0 != api_version) || (!said.1.is_empty() && said.1 != kind.name()) {
        let message = format!(
            "the object provided is a {} of {:?}, but a {} of {api_version:?} is expected here",
            said.1,
            said.0,
            kind.name()
        );
        return Err(Refusal::bad_request(message));
    }
    object.set(&["apiVersion"], api_version);
    object.set(&["kind"], kind.name());
    Ok(())
}

/// What a new object gets from the server.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub uid: String,
    /// The present moment.
    pub now: String,
    /// Makes the end of a name that is made from a prefix.
    pub suffix: fn() -> String,
}

/// What is about to be created, with everything that is the server's to write.
pub(crate) fn prepare(kind: &Kind, namespace: &str, object: &mut Value, fresh: Fresh) -> Result<(), Refusal> {
    identify(kind, object)?;
    let meta = object.metadata_mut().ok_or_else(no_metadata)?;
    place(kind, namespace, meta)?;
    name(kind, meta, fresh.suffix)?;
    for own in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(own);
    }
    meta.insert("uid".to_owned(), fresh.uid.into());
    meta.insert("creationTimestamp".to_owned(), fresh.now.into());
    if object.get("spec").is_some() {
        object.set(&["metadata", "generation"], 1);
    }
    let brings_status = kind.built_in().is_some_and(|kind| kind.lifecycle.brings_status);
    if kind.has_status()
        && !brings_status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    Ok(())
}

fn place(kind: &Kind, namespace: &str, meta: &mut Fields) -> Result<(), Refusal> {
    if !kind.is_namespaced() {
        meta.remove("namespace");
        return Ok(());
    }
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta.insert("namespace".to_owned(), namespace.into());
    Ok(())
}

fn name(kind: &Kind, meta: &mut Fields, suffix: fn() -> String) -> Result<(), Refusal> {
    if meta.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
        return Ok(());
    }
    let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if prefix.is_empty() {
        let problem = Problem::new("metadata.name", "Required value: name or generateName is required");
        return Err(Refusal::invalid(kind.name(), &kind.subject(""), &[problem]));
    }
    let name = format!("{prefix}{}", suffix());
    meta.insert("name".to_owned(), name.into());
    Ok(())
}

/// Pruning, defaults and checks for what is about to be stored; returns warnings.
pub(crate) fn admit(kind: &Kind, object: &mut Value, validation: Validation) -> Result<Vec<String>, Refusal> {
    let unknown = prune(kind, object, validation)?;
    if validation == Validation::Strict && !unknown.is_empty() {
        let list: Vec<_> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        return Err(Refusal::bad_request(format!("strict decoding error: {}", list.join(", "))));
    }
    kind.fill(object);
    let problems = problems(kind, object);
    if !problems.is_empty() {
        return Err(Refusal::invalid(kind.name(), &kind.subject(object.name()), &problems));
    }
    let warn = validation == Validation::Warn;
    Ok(unknown.into_iter().filter(|_| warn).map(|path| format!("unknown field \"{path}\"")).collect())
}

/// Removes fields that a kind does not know; returns their paths.
fn prune(kind: &Kind, object: &mut Value, validation: Validation) -> Result<Vec<String>, Refusal> {
    if let Some(schema) = kind.schema() {
        let mut unknown = Vec::new();
        schema::prune(schema, object, "", &mut unknown);
        return Ok(unknown);
    }
    match fields::prune(kind, object) {
        Ok(unknown) => Ok(unknown),
        // What we write ourselves goes through in any case.
        Err(_) if validation == Validation::Ignore => Ok(Vec::new()),
        Err(error) => {
            let (kind, version) = (kind.name(), kind.api_version());
            let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}");
            Err(Refusal::bad_request(message))
        }
    }
}

/// Whether a text may name an object: a DNS subdomain, as Kubernetes has it.
fn is_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    name.len() <= 253 && edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner)
}

/// What Kubernetes would refuse.
fn problems(kind: &Kind, object: &Value) -> Vec<Problem> {
    let mut out = Vec::new();
    let name = object.name();
    if !is_name(name) && !kind.built_in().is_some_and(|kind| kind.any_name) {
        let why = format!(
            "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        );
        out.push(Problem::new("metadata.name", why));
    }
    match kind {
        Kind::BuiltIn(kind) => (kind.check)(object, &mut out),
        Kind::Custom(kind) => schema::check(&kind.schema, object, "", &mut out),
    }
    out
}

/// The fields of `metadata` that a client does not change.
const OWN: [&str; 9] = [
    "uid",
    "creationTimestamp",
    "namespace",
    "name",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "generateName",
];

/// The new object with everything a client may not change put back, and warnings.
pub(crate) fn changed(
    kind: &Kind,
    before: &Value,
    mut new: Value,
    mode: Mode,
) -> Result<(Value, Vec<String>), Refusal> {
    identify(kind, &mut new)?;
    check_identity(kind, before, &new)?;
    if mode.part == Part::Status {
        return Ok((with_status(before, new), Vec::new()));
    }
    let meta = new.metadata_mut().ok_or_else(no_metadata)?;
    for field in OWN {
        match before.at(&["metadata", field]) {
            Some(value) => drop(meta.insert(field.to_owned(), value.clone())),
            None => drop(meta.remove(field)),
        }
    }
    if kind.has_status() {
        match before.get("status") {
            Some(status) => new.set(&["status"], status.clone()),
            None => drop(new.as_object_mut().and_then(|fields| fields.remove("status"))),
        }
    }
    let warnings = admit(kind, &mut new, mode.validation)?;
    if let Some(problem) = added_finalizer(before, &new).or_else(|| kind.check_update(before, &new)) {
        return Err(Refusal::invalid(kind.name(), &kind.subject(before.name()), &[problem]));
    }
    if new.get("spec") != before.get("spec") {
        new.set(&["metadata", "generation"], before.generation().unwrap_or(0) + 1);
    }
    Ok((new, warnings))
}

/// Whether the change is meant for the object as it is.
fn check_identity(kind: &Kind, before: &Value, new: &Value) -> Result<(), Refusal> {
    let (version, uid) = (new.resource_version(), new.uid());
    if !version.is_empty() && version != before.resource_version() {
        return Err(Refusal::stale(&kind.subject(before.name())));
    }
    if !uid.is_empty() && uid != before.uid() {
        return Err(precondition(kind, before, "UID", uid, before.uid()));
    }
    Ok(())
}

fn precondition(kind: &Kind, before: &Value, what: &str, wanted: &str, is: &str) -> Refusal {
    let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}");
    Refusal::conflict(&kind.subject(before.name()), &why)
}

/// The object as it was, with the status of another.
fn with_status(before: &Value, mut new: Value) -> Value {
    let mut object = before.clone();
    object.set(&["status"], new.get_mut("status").map_or_else(|| json!({}), Value::take));
    if let Some(managed) = new.at_mut(&["metadata", "managedFields"]) {
        object.set(&["metadata", "managedFields"], managed.take());
    }
    object
}

/// What is being deleted gets no new finalizers.
fn added_finalizer(before: &Value, new: &Value) -> Option<Problem> {
    let added = new.finalizers().iter().find(|finalizer| !before.finalizers().contains(finalizer));
    let added = added.filter(|_| before.is_deleting())?;
    let why =
        format!("Forbidden: no new finalizers can be added if the object is being deleted, found {added}");
    Some(Problem::new("metadata.finalizers", why))
}

/// Whether a write changes nothing: such a write makes no new version.
pub(crate) fn same(new: &Value, before: &Value) -> bool {
    same_members(new, before, |name, new, before| match name {
        "metadata" => {
            same_members(new, before, |name, new, before| name == "resourceVersion" || new == before)
        }
        _ => new == before,
    })
}

/// Whether two objects have the same members, compared one by one; a resourceVersion may be missing.
fn same_members(a: &Value, b: &Value, same: impl Fn(&str, &Value, &Value) -> bool) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let count = |map: &Fields| map.len() - usize::from(map.contains_key("resourceVersion"));
    count(a) == count(b)
        && a.iter().all(|(name, value)| {
            name == "resourceVersion" || b.get(name).is_some_and(|other| same(name, value, other))
        })
}

/// Whether an object that is being deleted has nothing left to wait for.
pub(crate) fn is_over(kind: &Kind, object: &Value) -> bool {
    let is_kept = kind.built_in().is_some_and(|kind| (kind.lifecycle.is_kept)(object));
    object.is_deleting() && object.finalizers().is_empty() && !is_kept
}

/// Whether the object is the one that is to be deleted.
pub(crate) fn check_deletion(kind: &Kind, before: &Value, how: &Deletion) -> Result<(), Refusal> {
    let pairs =
        [("UID", &how.uid, before.uid()), ("ResourceVersion", &how.version, before.resource_version())];
    for (what, wanted, is) in pairs {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != is) {
            return Err(precondition(kind, before, what, wanted, is));
        }
    }
    Ok(())
}

/// The object with the marks of a deletion.
pub(crate) fn marked(kind: &Kind, before: &Value, how: &Deletion, now: OffsetDateTime) -> Value {
    let mut object = before.clone();
    let finalizer = match how.policy.as_deref() {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        _ => None,
    };
    if let Some(finalizer) = finalizer
        && let Some(meta) = object.metadata_mut()
        && let Value::Array(list) = meta.entry("finalizers").or_insert_with(|| json!([]))
        && !list.iter().any(|item| item == finalizer)
    {
        list.push(finalizer.into());
    }
    let lifecycle = kind.built_in().map(|kind| &kind.lifecycle);
    let grace = lifecycle.map_or(0, |lifecycle| (lifecycle.grace)(before, how.grace));
    let already = before.number(&["metadata", "deletionGracePeriodSeconds"]);
    if already.is_none_or(|already| grace < already) || !before.is_deleting() {
        object.set(&["metadata", "deletionTimestamp"], later(now, grace));
        object.set(&["metadata", "deletionGracePeriodSeconds"], grace);
        if let Some(generation) = before.generation() {
            object.set(&["metadata", "generation"], generation + 1);
        }
    }
    if let Some(lifecycle) = lifecycle {
        (lifecycle.mark)(&mut object);
    }
    object
}
