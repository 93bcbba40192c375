//! Creates, changes and deletes objects: what [admission](super::admission) makes of them, stored.

use std::sync::Arc;

use kubeedge_core::store::StoreError;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    admission::{self, Deletion, Fresh, Mode, Part, Validation},
    kinds::{Kind, NAMESPACES, PODS},
    object::Object,
    patch,
    status::Refusal,
    storage::{Storage, Write},
};

/// Creates an object; returns it and warnings.
pub(crate) async fn create(
    storage: &Storage,
    kind: &Kind,
    namespace: &str,
    mut object: Value,
    validation: Validation,
    dry_run: bool,
) -> Result<(Arc<Value>, Vec<String>), Refusal> {
    let fresh = Fresh { uid: Uuid::new_v4().to_string(), now: storage.now(), suffix: random_suffix };
    admission::prepare(kind, namespace, &mut object, fresh)?;
    let warnings = admission::admit(kind, &mut object, validation)?;
    if kind.is_namespaced() {
        check_namespace(storage, kind, namespace)?;
    }
    let name = object.name().to_owned();
    let key = kind.key(namespace, &name);
    if dry_run {
        return match storage.get(&key) {
            Some(_) => Err(Refusal::exists(&kind.subject(&name))),
            None => Ok((Arc::new(object), warnings)),
        };
    }
    let made = storage.write(&key, |before| match before {
        Some(_) => Err(Refusal::exists(&kind.subject(&name))),
        None => Ok(Write::Put(object)),
    });
    let made = made.await?.ok_or_else(|| Refusal::not_found(&kind.subject(&name)))?;
    Ok((made, warnings))
}

/// Nothing is made in a namespace that is not there or is ending.
fn check_namespace(storage: &Storage, kind: &Kind, namespace: &str) -> Result<(), Refusal> {
    let found = storage.get(&NAMESPACES.key("", namespace));
    let found = found.ok_or_else(|| Refusal::not_found(&NAMESPACES.subject(namespace)))?;
    let may = kind.built_in().is_some_and(|kind| kind.lifecycle.in_ending_namespaces);
    if !found.is_deleting() || may {
        return Ok(());
    }
    let mut refusal = Refusal::forbidden("", "create", &kind.subject(""));
    refusal.message =
        format!("unable to create new content in namespace {namespace} because it is being terminated");
    Err(refusal)
}

fn random_suffix() -> String {
    use rand::RngExt;
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5)
        .filter_map(|_| LETTERS.get(random.random_range(0..LETTERS.len())).map(|b| char::from(*b)))
        .collect()
}

/// Changes an object by a function of what it is now; returns it and warnings.
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
        let before = before.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?;
        let (new, told) = admission::changed(kind, before, make(before)?, mode)?;
        warnings = told;
        if mode.dry_run {
            dry = Some(Arc::new(new));
            return Ok(Write::Keep);
        }
        if admission::is_over(kind, &new) {
            return Ok(Write::Delete);
        }
        Ok(if admission::same(&new, before) { Write::Keep } else { Write::Put(new) })
    });
    let done = done.await?;
    let object = dry.or(done);
    Ok((object.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?, warnings))
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
        let before = before.ok_or_else(|| Refusal::not_found(&kind.subject(name)))?;
        admission::check_deletion(kind, before, how)?;
        if dry_run {
            return Ok(Write::Keep);
        }
        let marked = admission::marked(kind, before, how, storage.moment());
        Ok(match marked {
            marked if admission::is_over(kind, &marked) => Write::Delete,
            marked if marked == *before => Write::Keep,
            marked => Write::Put(marked),
        })
    });
    done.await?.ok_or_else(|| Refusal::not_found(&kind.subject(name)))
}

/// Removes all objects of the kind of a definition that is gone. Finalizers do not hold them: nobody could reach the
/// objects to take them away.
pub(crate) async fn purge(storage: &Storage, definition: &Value) -> Result<(), StoreError> {
    let (group, plural) =
        (definition.text(&["spec", "group"]), definition.text(&["spec", "names", "plural"]));
    for (key, _) in storage.find(|key, _| key.group == group && key.plural == plural) {
        storage.write::<StoreError>(&key, |_| Ok(Write::Delete)).await?;
    }
    Ok(())
}

/// Gives a pod to a node.
pub(crate) async fn bind(storage: &Storage, namespace: &str, name: &str, node: &str) -> Result<(), Refusal> {
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": storage.now()});
    let on_node = |before: &Value| {
        let mut new = before.clone();
        new.set(&["spec", "nodeName"], node);
        Ok(new)
    };
    change(storage, &PODS, namespace, name, Mode::ours(Part::Main), on_node).await?;
    let told = |before: &Value| {
        patch::strategic_merge(before.clone(), json!({"status": {"conditions": [scheduled]}}))
    };
    change(storage, &PODS, namespace, name, Mode::ours(Part::Status), told).await.map(drop)
}
