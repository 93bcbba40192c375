//! Garbage collection: what belongs to an object that is gone goes too; and pods of nodes that are gone.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    super::{
        admission::Part,
        key::ObjectKey,
        kinds::{NODES, PODS},
        object::Object,
        status::{Reason, Refusal},
    },
    Context, place,
};

pub(super) async fn reconcile(ctx: &Context) -> Result<(), Refusal> {
    let all = ctx.storage.find(|_| true);
    let uids: HashSet<&str> = all.iter().map(|(_, object)| object.uid()).collect();
    let foreground: HashSet<&str> = ending(&all, "foregroundDeletion");
    for (key, object) in &all {
        let owners = object.owners();
        let gone = |owner: &Value| {
            let uid = owner.text(&["uid"]);
            !uids.contains(uid) || foreground.contains(uid)
        };
        if !owners.is_empty() && owners.iter().all(gone) && !object.is_deleting() {
            remove(ctx, key, object).await?;
        }
    }
    for uid in foreground {
        let waits = all.iter().any(|(_, object)| owned_by(object, uid));
        if !waits {
            finish(ctx, &all, uid, "foregroundDeletion").await?;
        }
    }
    for uid in ending(&all, "orphan") {
        orphan(ctx, &all, uid).await?;
        finish(ctx, &all, uid, "orphan").await?;
    }
    lost_pods(ctx).await
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

async fn remove(ctx: &Context, key: &ObjectKey, object: &Value) -> Result<(), Refusal> {
    match ctx.kind_of(key, object).await? {
        Some(kind) => ctx.delete(&kind, object, None).await,
        None => Ok(()),
    }
}

async fn finish(ctx: &Context, all: &All, uid: &str, finalizer: &str) -> Result<(), Refusal> {
    for (key, object) in all.iter().filter(|(_, object)| object.uid() == uid) {
        let Some(kind) = ctx.kind_of(key, object).await? else { continue };
        let without = |before: &Value| {
            let mut new = before.clone();
            if let Some(list) = new.list_mut(&["metadata", "finalizers"]) {
                list.retain(|item| item != finalizer);
            }
            new
        };
        match ctx.change(&kind, &place(object), Part::Main, without).await {
            Err(refusal) if refusal.reason != Reason::NotFound => return Err(refusal),
            _ => {}
        }
    }
    Ok(())
}

async fn orphan(ctx: &Context, all: &All, uid: &str) -> Result<(), Refusal> {
    for (key, object) in all.iter().filter(|(_, object)| owned_by(object, uid)) {
        let Some(kind) = ctx.kind_of(key, object).await? else { continue };
        ctx.change(&kind, &place(object), Part::Main, |before| {
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
async fn lost_pods(ctx: &Context) -> Result<(), Refusal> {
    let nodes: HashSet<String> = ctx.list(&NODES, "").iter().map(|node| place(node).1).collect();
    for pod in ctx.list(&PODS, "") {
        let node = pod.node_name();
        if !node.is_empty() && !nodes.contains(node) {
            ctx.delete(&PODS, &pod, Some(0)).await?;
        }
    }
    Ok(())
}
