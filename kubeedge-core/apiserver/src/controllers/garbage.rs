//! Garbage collection: what belongs to an object that is gone goes too; and pods of nodes that are gone.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    super::{
        admission::Part,
        definitions,
        kinds::{Kind, NODES, PODS},
        object::Object,
        status::Refusal,
        storage::ObjectKey,
    },
    Desk, place,
};

pub(super) async fn reconcile(desk: &Desk) -> Result<(), Refusal> {
    let all = desk.server.storage.find(|_, _| true);
    let uids: HashSet<&str> = all.iter().map(|(_, object)| object.uid()).collect();
    let foreground: HashSet<&str> = ending(&all, "foregroundDeletion");
    for (key, object) in &all {
        let owners = object.owners();
        let gone = |owner: &Value| {
            let uid = owner.text(&["uid"]);
            !uids.contains(uid) || foreground.contains(uid)
        };
        if !owners.is_empty() && owners.iter().all(gone) && !object.is_deleting() {
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
        let list = object.finalizers().iter();
        object.is_deleting() && list.into_iter().any(|item| item == finalizer)
    };
    all.iter().filter(|(_, object)| held(object)).map(|(_, object)| object.uid()).collect()
}

fn owned_by(object: &Value, uid: &str) -> bool {
    let owners = object.owners().iter();
    owners.into_iter().any(|owner| owner.text(&["uid"]) == uid)
}

fn kind_of(desk: &Desk, object: &Value, plural: &str) -> Option<Kind> {
    let api = object.api_version();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    definitions::find(&desk.server.storage, group, version, plural)
}

async fn remove(desk: &Desk, key: &ObjectKey, object: &Value) -> Result<(), Refusal> {
    match kind_of(desk, object, &key.plural) {
        Some(kind) => desk.delete(&kind, object, None).await,
        None => Ok(()),
    }
}

async fn finish(desk: &Desk, all: &All, uid: &str, finalizer: &str) -> Result<(), Refusal> {
    for (key, object) in all.iter().filter(|(_, object)| object.uid() == uid) {
        let Some(kind) = kind_of(desk, object, &key.plural) else { continue };
        let without = |before: &Value| {
            let mut new = before.clone();
            if let Some(list) = new.list_mut(&["metadata", "finalizers"]) {
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
            if let Some(list) = new.list_mut(&["metadata", "ownerReferences"]) {
                list.retain(|owner| owner.text(&["uid"]) != uid);
            }
            new
        })
        .await?;
    }
    Ok(())
}

/// A pod whose node was removed from the cluster is nobody's.
async fn lost_pods(desk: &Desk) -> Result<(), Refusal> {
    let nodes: HashSet<String> = desk.list(&NODES, "").iter().map(|node| place(node).1).collect();
    for pod in desk.list(&PODS, "") {
        let node = pod.node_name();
        if !node.is_empty() && !nodes.contains(node) {
            desk.delete(&PODS, &pod, Some(0)).await?;
        }
    }
    Ok(())
}
