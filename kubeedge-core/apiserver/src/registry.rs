//! What a create, an update or a deletion does to an object: metadata, generation, status, grace and finalizers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::edit::At as _;
use crate::edit::put;
use time::{OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339};

use super::{
    defaults,
    kinds::Kind,
    schema,
    status::{Refusal, Subject},
    storage::{Storage, Write},
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

/// How an object is to be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub version: Option<String>,
    pub policy: Option<String>,
}

/// A moment so many seconds after this one, as Kubernetes writes it; what no calendar holds is its last or first day.
pub(crate) fn later(moment: OffsetDateTime, seconds: i64) -> String {
    let end = if seconds < 0 { OffsetDateTime::UNIX_EPOCH } else { PrimitiveDateTime::MAX.assume_utc() };
    let moment = moment.checked_add(time::Duration::seconds(seconds)).unwrap_or(end);
    moment.replace_nanosecond(0).ok().and_then(|m| m.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A moment that Kubernetes wrote.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.at(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn subject<'a>(kind: &'a Kind, name: &'a str) -> Subject<'a> {
    Subject { group: &kind.group, plural: &kind.plural, name }
}

fn meta(object: &mut Value) -> Result<&mut serde_json::Map<String, Value>, Refusal> {
    if !object.at("/metadata").is_some_and(Value::is_object) {
        put(object, &["metadata"], json!({}));
    }
    let meta = object.get_mut("metadata").and_then(Value::as_object_mut);
    meta.ok_or_else(|| Refusal::bad_request("metadata must be an object"))
}

/// Checks what the body says it is.
fn identify(kind: &Kind, object: &mut Value) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body must be one object"));
    }
    let said = (text(object, "/apiVersion").to_owned(), text(object, "/kind").to_owned());
    let api_version = kind.api_version();
    if (!said.0.is_empty() && said.0 != api_version) || (!said.1.is_empty() && said.1 != kind.kind) {
        let message = format!(
            "the object provided is a {} of {:?}, but a {} of {api_version:?} is expected here",
            said.1, said.0, kind.kind
        );
        return Err(Refusal::bad_request(message));
    }
    put(object, &["apiVersion"], api_version);
    put(object, &["kind"], kind.kind.clone());
    Ok(())
}

/// Pruning, defaults and checks for what is about to be stored; returns warnings.
fn admit(kind: &Kind, object: &mut Value, validation: Validation) -> Result<Vec<String>, Refusal> {
    let mut unknown = Vec::new();
    match &kind.schema {
        Some(schema) => schema::prune(schema, object, "", &mut unknown),
        None => match super::fields::prune(kind, object) {
            Ok(found) => unknown = found,
            // What we write ourselves goes through in any case.
            Err(_) if validation == Validation::Ignore => {}
            Err(error) => {
                let (kind, version) = (&kind.kind, kind.api_version());
                let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}");
                return Err(Refusal::bad_request(message));
            }
        },
    }
    if validation == Validation::Strict && !unknown.is_empty() {
        let list: Vec<_> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        return Err(Refusal::bad_request(format!("strict decoding error: {}", list.join(", "))));
    }
    defaults::fill(kind, object);
    let problems = defaults::problems(kind, object);
    if !problems.is_empty() {
        return Err(Refusal::invalid(&kind.kind, &subject(kind, text(object, "/metadata/name")), &problems));
    }
    let warn = validation == Validation::Warn;
    Ok(unknown.into_iter().filter(|_| warn).map(|path| format!("unknown field \"{path}\"")).collect())
}

/// Creates an object; returns it and warnings.
pub(crate) async fn create(
    storage: &Storage,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
    validation: Validation,
    dry_run: bool,
) -> Result<(Arc<Value>, Vec<String>), Refusal> {
    identify(kind, &mut object)?;
    let meta = meta(&mut object)?;
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if kind.namespaced && !given.is_empty() && given != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if meta.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
        if prefix.is_empty() {
            let problem =
                ("metadata.name".to_owned(), "Required value: name or generateName is required".to_owned());
            return Err(Refusal::invalid(&kind.kind, &subject(kind, ""), &[problem]));
        }
        let name = format!("{prefix}{}", random_suffix());
        meta.insert("name".to_owned(), name.into());
    }
    if kind.namespaced {
        meta.insert("namespace".to_owned(), namespace.into());
    } else {
        meta.remove("namespace");
    }
    for own in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(own);
    }
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), storage.now().into());
    if object.get("spec").is_some() {
        put(&mut object, &["metadata", "generation"], 1);
    }
    // A node brings its status; for all others it is the controllers' to write.
    if kind.status
        && kind.plural != "nodes"
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    let warnings = admit(kind, &mut object, validation)?;
    if kind.namespaced {
        alive(storage, kind, namespace)?;
    }
    let name = text(&object, "/metadata/name").to_owned();
    let key = kind.key(namespace, &name);
    if dry_run {
        return match storage.get(&key) {
            Some(_) => Err(Refusal::exists(&subject(kind, &name))),
            None => Ok((Arc::new(object), warnings)),
        };
    }
    let made = storage.write(&key, |before| match before {
        Some(_) => Err(Refusal::exists(&subject(kind, &name))),
        None => Ok(Write::Put(object)),
    });
    let made = made.await?.ok_or_else(|| Refusal::not_found(&subject(kind, &name)))?;
    Ok((made, warnings))
}

/// Nothing is made in a namespace that is not there or is ending.
fn alive(storage: &Storage, kind: &Kind, namespace: &str) -> Result<(), Refusal> {
    let found = storage.get(&super::kinds::built_in_kind("", "namespaces").key("", namespace));
    match found {
        None => Err(Refusal::not_found(&Subject { group: "", plural: "namespaces", name: namespace })),
        Some(ns) if ns.at("/metadata/deletionTimestamp").is_some() && kind.plural != "events" => {
            let subject = Subject { group: &kind.group, plural: &kind.plural, name: "" };
            let mut refusal = Refusal::forbidden("", "create", &subject);
            refusal.message = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            Err(refusal)
        }
        Some(_) => Ok(()),
    }
}

fn random_suffix() -> String {
    use rand::RngExt;
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5)
        .filter_map(|_| LETTERS.get(random.random_range(0..LETTERS.len())).map(|b| char::from(*b)))
        .collect()
}

/// Changes an object by a function of what it is now. `create` says what to do when it is not there.
pub(crate) async fn change(
    storage: &Storage,
    kind: &Kind,
    namespace: &str,
    name: &str,
    mode: Mode,
    make: impl FnOnce(&Value) -> Result<Value, Refusal> + Send,
) -> Result<(Arc<Value>, Vec<String>), Refusal> {
    let mut warnings = Vec::new();
    let mut dry = None;
    let key = kind.key(namespace, name);
    let done = storage.write::<Refusal>(&key, |before| {
        let before = before.ok_or_else(|| Refusal::not_found(&subject(kind, name)))?;
        let (new, told) = changed(kind, before, make(before)?, name, mode.part, mode.validation)?;
        warnings = told;
        if mode.dry_run {
            dry = Some(Arc::new(new));
            return Ok(Write::Keep);
        }
        if is_over(kind, &new) {
            return Ok(Write::Delete);
        }
        Ok(if same(&new, before) { Write::Keep } else { Write::Put(new) })
    });
    let done = done.await?;
    let object = dry.or(done);
    Ok((object.ok_or_else(|| Refusal::not_found(&subject(kind, name)))?, warnings))
}

/// Whether a write changes nothing: such a write makes no new version.
fn same(new: &Value, before: &Value) -> bool {
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
    let count =
        |map: &serde_json::Map<String, Value>| map.len() - usize::from(map.contains_key("resourceVersion"));
    count(a) == count(b)
        && a.iter().all(|(name, value)| {
            name == "resourceVersion" || b.get(name).is_some_and(|other| same(name, value, other))
        })
}

/// The new object with everything a client may not change put back.
fn changed(
    kind: &Kind,
    before: &Value,
    mut new: Value,
    name: &str,
    part: Part,
    validation: Validation,
) -> Result<(Value, Vec<String>), Refusal> {
    identify(kind, &mut new)?;
    let version = text(&new, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(before, "/metadata/resourceVersion") {
        return Err(Refusal::stale(&subject(kind, name)));
    }
    let uid = text(&new, "/metadata/uid");
    if !uid.is_empty() && uid != text(before, "/metadata/uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(before, "/metadata/uid")
        );
        return Err(Refusal::conflict(&subject(kind, name), &why));
    }
    if part == Part::Status {
        let mut object = before.clone();
        put(&mut object, &["status"], new.get_mut("status").map_or_else(|| json!({}), Value::take));
        if let Some(managed) = new.pointer_mut("/metadata/managedFields") {
            put(&mut object, &["metadata", "managedFields"], managed.take());
        }
        return Ok((object, Vec::new()));
    }
    let meta = meta(&mut new)?;
    let own = [
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
    for field in own {
        match before.at(&format!("/metadata/{field}")) {
            Some(value) => drop(meta.insert(field.to_owned(), value.clone())),
            None => drop(meta.remove(field)),
        }
    }
    if kind.status {
        match before.get("status") {
            Some(status) => put(&mut new, &["status"], status.clone()),
            None => drop(new.as_object_mut().and_then(|fields| fields.remove("status"))),
        }
    }
    let warnings = admit(kind, &mut new, validation)?;
    immutable(kind, before, &new, name)?;
    if new.get("spec") != before.get("spec") {
        let generation = before.at("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        put(&mut new, &["metadata", "generation"], generation + 1);
    }
    Ok((new, warnings))
}

/// What Kubernetes lets nobody change.
fn immutable(kind: &Kind, before: &Value, new: &Value, name: &str) -> Result<(), Refusal> {
    let refuse = |path: &str, why: &str| {
        Err(Refusal::invalid(&kind.kind, &subject(kind, name), &[(path.to_owned(), why.to_owned())]))
    };
    let same = |pointer: &str| before.at(pointer) == new.at(pointer);
    if before.at("/metadata/deletionTimestamp").is_some() {
        let held = |object: &Value| object.at("/metadata/finalizers").and_then(Value::as_array).cloned();
        let (old, new) = (held(before).unwrap_or_default(), held(new).unwrap_or_default());
        if let Some(added) = new.iter().find(|finalizer| !old.contains(finalizer)) {
            let why = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found {added}"
            );
            return refuse("metadata.finalizers", &why);
        }
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => {
            let mut comparable = new.get("spec").cloned().unwrap_or_default();
            mutable_parts(before.get("spec"), &mut comparable);
            if Some(&comparable) != before.get("spec") {
                return refuse(
                    "spec",
                    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
                );
            }
        }
        ("apps", "deployments" | "replicasets") if !same("/spec/selector") => {
            return refuse("spec.selector", "Invalid value: field is immutable");
        }
        ("", "configmaps" | "secrets") if before.get("immutable") == Some(&Value::Bool(true)) => {
            let data_same = ["/data", "/binaryData", "/immutable"].iter().all(|pointer| same(pointer));
            if !data_same {
                return refuse("data", "Forbidden: field is immutable when `immutable` is set");
            }
        }
        _ => {}
    }
    Ok(())
}

/// Puts the old values of what may change into the new specification, so that the rest can be compared.
fn mutable_parts(before: Option<&Value>, new: &mut Value) {
    let Some(before) = before else { return };
    for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
        match before.get(field) {
            Some(value) => put(new, &[field], value.clone()),
            None => drop(new.as_object_mut().and_then(|fields| fields.remove(field))),
        }
    }
    // A binding that travels as an update.
    if before.get("nodeName").is_none() {
        drop(new.as_object_mut().and_then(|fields| fields.remove("nodeName")));
    }
    for list in ["containers", "initContainers"] {
        let old = before.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for (container, old) in new.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(old)
        {
            if let Some(image) = old.get("image") {
                put(container, &["image"], image.clone());
            }
        }
    }
}

/// Whether an object that is being deleted has nothing left to wait for.
fn is_over(kind: &Kind, object: &Value) -> bool {
    let deleting = object.at("/metadata/deletionTimestamp").is_some();
    let held =
        object.at("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let grace = object.at("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let lives_elsewhere =
        kind.group.is_empty() && (kind.plural == "pods" && grace > 0 || kind.plural == "namespaces");
    deleting && !held && !lives_elsewhere
}

/// Deletes an object, or marks it to be deleted; returns it as it is then.
pub(crate) async fn delete(
    storage: &Storage,
    kind: &Kind,
    namespace: &str,
    name: &str,
    how: &Deletion,
    dry_run: bool,
) -> Result<Arc<Value>, Refusal> {
    let key = kind.key(namespace, name);
    let done = storage.write::<Refusal>(&key, |before| {
        let before = before.ok_or_else(|| Refusal::not_found(&subject(kind, name)))?;
        let precondition = |wanted: &Option<String>, pointer: &str, what: &str| match wanted {
            Some(wanted) if wanted != text(before, pointer) => {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {}",
                    text(before, pointer)
                );
                Err(Refusal::conflict(&subject(kind, name), &why))
            }
            _ => Ok(()),
        };
        precondition(&how.uid, "/metadata/uid", "UID")?;
        precondition(&how.version, "/metadata/resourceVersion", "ResourceVersion")?;
        if dry_run {
            return Ok(Write::Keep);
        }
        Ok(marked(kind, before, how, storage.moment()))
    });
    done.await?.ok_or_else(|| Refusal::not_found(&subject(kind, name)))
}

fn marked(kind: &Kind, before: &Value, how: &Deletion, now: OffsetDateTime) -> Write {
    let mut object = before.clone();
    if how.policy.as_deref() == Some("Foreground") || how.policy.as_deref() == Some("Orphan") {
        let finalizer = if how.policy.as_deref() == Some("Orphan") { "orphan" } else { "foregroundDeletion" };
        let list = object
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
            .map(|meta| meta.entry("finalizers").or_insert_with(|| json!([])));
        if let Some(Value::Array(list)) = list
            && !list.iter().any(|item| item == finalizer)
        {
            list.push(finalizer.into());
        }
    }
    let grace = grace(kind, before, how);
    let already = before.at("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    if already.is_none_or(|already| grace < already) || before.at("/metadata/deletionTimestamp").is_none() {
        put(&mut object, &["metadata", "deletionTimestamp"], later(now, grace));
        put(&mut object, &["metadata", "deletionGracePeriodSeconds"], grace);
        let generation = before.at("/metadata/generation").and_then(Value::as_i64);
        if let Some(generation) = generation {
            put(&mut object, &["metadata", "generation"], generation + 1);
        }
    }
    if kind.group.is_empty() && kind.plural == "namespaces" {
        put(&mut object, &["status", "phase"], "Terminating");
    }
    if is_over(kind, &object) {
        return Write::Delete;
    }
    if object == *before { Write::Keep } else { Write::Put(object) }
}

/// Pods on a node end in their time; everything else ends at once.
fn grace(kind: &Kind, object: &Value, how: &Deletion) -> i64 {
    let is_pod = kind.group.is_empty() && kind.plural == "pods";
    let over = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if !is_pod || text(object, "/spec/nodeName").is_empty() || over {
        return 0;
    }
    let own = object.at("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    how.grace.or(own).unwrap_or(30).max(0)
}
