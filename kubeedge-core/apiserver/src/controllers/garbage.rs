//! Garbage collection: what belongs to an object that is gone goes too; and pods of nodes that are gone.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    super::{
        kinds,
        registry::{Part, text},
        status::Refusal,
        storage::ObjectKey,
    },
    Desk, place,
};
use crate::edit::At as _;

pub(super) async fn reconcile(desk: &Desk) -> Result<(), Refusal> {
    let all = desk.server.storage.find(|_, _| true);
    let uids: HashSet<&str> = all.iter().map(|(_, object)| text(object, "/metadata/uid")).collect();
    let foreground: HashSet<&str> = ending(&all, "foregroundDeletion");
    for (key, object) in &all {
        let owners = object.at("/metadata/ownerReferences").and_then(Value::as_array);
        let Some(owners) = owners.filter(|owners| !owners.is_empty()) else { continue };
        let gone = |owner: &Value| {
            let uid = text(owner, "/uid");
            !uids.contains(uid) || foreground.contains(uid)
        };
        if owners.iter().all(gone) && object.at("/metadata/deletionTimestamp").is_none() {
            remove(desk, key, object).await?;
        }
    }
    for uid in foreground {
        let waits = all.iter().any(|(_, object)| owned_by(object, uid));
        if !waits {
            finish(desk, &all, uid, "foregroundDeletion").await?;
        }
    }
    for uid in ending(&all, "orphan") {
        orphan(desk, &all, uid).await?;
        finish(desk, &all, uid, "orphan").await?;
    }
    lost_pods(desk).await
}

type All = [(ObjectKey, std::sync::Arc<Value>)];

/// The uids of objects that are being deleted and hold this finalizer.
fn ending<'a>(all: &'a All, finalizer: &str) -> HashSet<&'a str> {
    let held = |object: &Value| {
        let list = object.at("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
        object.at("/metadata/deletionTimestamp").is_some() && list.into_iter().any(|item| item == finalizer)
    };
    all.iter().filter(|(_, object)| held(object)).map(|(_, object)| text(object, "/metadata/uid")).collect()
}

fn owned_by(object: &Value, uid: &str) -> bool {
    let owners = object.at("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    owners.into_iter().any(|owner| text(owner, "/uid") == uid)
}

fn kind_of(desk: &Desk, object: &Value, plural: &str) -> Option<kinds::Kind> {
    let api = text(object, "/apiVersion");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    kinds::find(&desk.server.storage, group, version, plural)
}

async fn remove(desk: &Desk, key: &ObjectKey, object: &Value) -> Result<(), Refusal> {
    match kind_of(desk, object, &key.plural) {
        Some(kind) => desk.delete(&kind, object, None).await,
        None => Ok(()),
    }
}

async fn finish(desk: &Desk, all: &All, uid: &str, finalizer: &str) -> Result<(), Refusal> {
    for (key, object) in all.iter().filter(|(_, object)| text(object, "/metadata/uid") == uid) {
        let Some(kind) = kind_of(desk, object, &key.plural) else { continue };
        let without = |before: &Value| {
            let mut new = before.clone();
            if let Some(list) = new.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
                list.retain(|item| item != finalizer);
            }
            new
        };
        match desk.change(&kind, &place(object), Part::Main, without).await {
            Err(refusal) if refusal.reason != "NotFound" => return Err(refusal),
            _ => {}
        }
    }
    Ok(())
}

async fn orphan(desk: &Desk, all: &All, uid: &str) -> Result<(), Refusal> {
    for (key, object) in all.iter().filter(|(_, object)| owned_by(object, uid)) {
        let Some(kind) = kind_of(desk, object, &key.plural) else { continue };
        desk.change(&kind, &place(object), Part::Main, |before| {
            let mut new = before.clone();
            if let Some(list) = new.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) {
                list.retain(|owner| text(owner, "/uid") != uid);
            }
            new
        })
        .await?;
    }
    Ok(())
}

/// A pod whose node was removed from the cluster is nobody's.
async fn lost_pods(desk: &Desk) -> Result<(), Refusal> {
    let nodes: HashSet<String> = desk.list("", "nodes", "").iter().map(|node| place(node).1).collect();
    for pod in desk.list("", "pods", "") {
        let node = text(&pod, "/spec/nodeName");
        if !node.is_empty() && !nodes.contains(node) {
            desk.delete(&kinds::built_in_kind("", "pods"), &pod, Some(0)).await?;
        }
    }
    Ok(())
}
