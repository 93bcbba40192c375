//! Requests that change something.

use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    read::{list, one, selector},
    target::Target,
};
use crate::{
    admission::{Mode, Part},
    answer::{Answer, json_answer, success},
    apply,
    call::{Call, deletion, deletion_by},
    kinds::DEFINITIONS,
    object::Object,
    patch,
    registry::Registry,
    status::{Problem, Reason, Refusal},
    storage::ListQuery,
};

pub(super) async fn create(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let mut object = call.object()?;
    // Edges register their nodes each time they connect: what is there already is not looked at any further.
    if registry.find(&target.kind, &target.namespace, object.name()).await?.is_some() {
        return Err(Refusal::exists(&target.kind.subject(object.name())));
    }
    apply::track(None, &mut object, &by(registry, call, target));
    make(registry, call, target, object).await
}

async fn make(registry: &Registry, call: &Call, target: &Target, object: Value) -> Answer {
    let kind = &target.kind;
    let made = registry.create(kind, &target.namespace, object, call.validation(), call.dry_run()).await;
    let (object, warnings) = made?;
    Ok(one(registry, call, target, StatusCode::CREATED, &object, &warnings))
}

/// Who writes, for the owners of fields.
fn by<'a>(registry: &Registry, call: &Call, target: &'a Target) -> apply::By<'a> {
    apply::By {
        kind: &target.kind,
        manager: call.manager(),
        operation: "Update",
        sub: if call.method == Method::POST { "" } else { &target.sub },
        time: registry.now(),
    }
}

pub(super) async fn put(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let object = call.object()?;
    if !object.name().is_empty() && object.name() != target.name {
        return Err(Refusal::bad_request("the name of the object does not match the name on the URL"));
    }
    let by = by(registry, call, target);
    let make = |before: &Value| {
        let mut new = object;
        apply::track(Some(before), &mut new, &by);
        Ok(new)
    };
    change(registry, call, target, make).await
}

async fn change(
    registry: &Registry,
    call: &Call,
    target: &Target,
    make: impl FnOnce(&Value) -> Result<Value, Refusal> + Send,
) -> Answer {
    let part = if target.sub == "status" { Part::Status } else { Part::Main };
    let mode = Mode { part, validation: call.validation(), dry_run: call.dry_run() };
    let done = registry.change(&target.kind, &target.namespace, &target.name, mode, make).await;
    let (object, warnings) = done?;
    Ok(one(registry, call, target, StatusCode::OK, &object, &warnings))
}

pub(super) async fn patch(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let form = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let body = call.object()?;
    if form == "application/apply-patch+yaml" {
        return apply(registry, call, target, body).await;
    }
    let by = by(registry, call, target);
    let make = |before: &Value| {
        let mut new = patched(form, target, before, body)?;
        // A patch that names no version must not fail because of one it did not mean.
        if before.resource_version() == new.resource_version() {
            new.set(&["metadata", "resourceVersion"], "");
        }
        apply::track(Some(before), &mut new, &by);
        Ok(new)
    };
    change(registry, call, target, make).await
}

/// An object with a patch of this form.
fn patched(form: &str, target: &Target, before: &Value, patch: Value) -> Result<Value, Refusal> {
    let strategic = target.kind.built_in().is_some();
    match form {
        "application/json-patch+json" => patch::json_patch(before.clone(), patch),
        "application/merge-patch+json" => Ok(patch::merge_patch(before.clone(), &patch)),
        "application/strategic-merge-patch+json" if strategic => {
            patch::strategic_merge(before.clone(), patch)
        }
        other => Err(Refusal::media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml{}, not {other:?}",
            if strategic { ", application/strategic-merge-patch+json" } else { "" }
        ))),
    }
}

async fn apply(registry: &Registry, call: &Call, target: &Target, applied: Value) -> Answer {
    if call.param("fieldManager").is_empty() {
        return Err(Refusal::bad_request("fieldManager is required for apply patch"));
    }
    apply::check_applied(&applied)?;
    let force = call.flag("force");
    let by = apply::By { operation: "Apply", ..by(registry, call, target) };
    if registry.find(&target.kind, &target.namespace, &target.name).await?.is_none() {
        let mut object = applied;
        object.set(&["metadata", "name"], target.name.clone());
        apply::track(None, &mut object, &by);
        return make(registry, call, target, object).await;
    }
    let make = |before: &Value| apply::apply(before, applied, &by, force, &target.subject());
    change(registry, call, target, make).await
}

pub(super) async fn delete(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let (how, kind) = (deletion(call)?, &target.kind);
    let object = registry.delete(kind, &target.namespace, &target.name, &how, call.dry_run()).await?;
    let gone = registry.find(kind, &target.namespace, &target.name).await?.is_none();
    if gone && kind.is(&DEFINITIONS) {
        registry.purge(&object).await?;
    }
    let answers_object = kind.built_in().is_some_and(|kind| kind.lifecycle.answers_object);
    if gone && !answers_object {
        let details = json!({"name": target.name, "kind": kind.plural(), "group": kind.group(), "uid": object.at(&["metadata", "uid"])});
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        return Ok(json_answer(StatusCode::OK, &status));
    }
    Ok(one(registry, call, target, StatusCode::OK, &object, &[]))
}

pub(super) async fn delete_all(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let selector = selector(call, &target.kind)?;
    let how = deletion(call)?;
    let query = ListQuery::all(target.kind.collection(&target.namespace)).matching(selector);
    for object in registry.list(&query).await?.objects {
        let (namespace, name) = (object.namespace(), object.name());
        match registry.delete(&target.kind, namespace, name, &how, call.dry_run()).await {
            Err(refusal) if refusal.reason != Reason::NotFound => return Err(refusal),
            _ => {}
        }
    }
    list(registry, call, target).await
}

pub(super) async fn bind(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let binding = call.object()?;
    registry.bind(&target.namespace, &target.name, binding.text(&["target", "name"])).await?;
    Ok(success())
}

pub(super) async fn evict(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let eviction = if call.body.is_empty() { json!({}) } else { call.object()? };
    let how = deletion_by(call, &eviction.copy(&["deleteOptions"]));
    registry.delete(&target.kind, &target.namespace, &target.name, &how, call.dry_run()).await?;
    Ok(success())
}

pub(super) async fn scale(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let object = registry.get(&target.kind, &target.namespace, &target.name).await?;
    if call.method == Method::GET {
        return Ok(json_answer(StatusCode::OK, &scale_of(&object)));
    }
    let body = call.object()?;
    let wished = match call.method {
        Method::PUT => body,
        _ if call.header(header::CONTENT_TYPE).starts_with("application/json-patch") => {
            patch::json_patch(scale_of(&object), body)?
        }
        _ => patch::merge_patch(scale_of(&object), &body),
    };
    let replicas = wished.number(&["spec", "replicas"]).filter(|replicas| *replicas >= 0);
    let replicas = replicas.ok_or_else(|| {
        let problem = Problem::new("spec.replicas", "Invalid value: must be greater than or equal to 0");
        Refusal::invalid("Scale", &target.subject(), &[problem])
    })?;
    let make = |before: &Value| {
        let mut new = before.clone();
        new.set(&["spec", "replicas"], replicas);
        Ok(new)
    };
    let mode = Mode { dry_run: call.dry_run(), ..Mode::ours(Part::Main) };
    let done = registry.change(&target.kind, &target.namespace, &target.name, mode, make).await;
    Ok(json_answer(StatusCode::OK, &scale_of(&done?.0)))
}

fn scale_of(object: &Value) -> Value {
    let labels = object.fields(&["spec", "selector", "matchLabels"]).into_iter().flatten();
    let selector: Vec<_> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let meta = |name: &str| object.copy(&["metadata", name]);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"), "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp")},
        "spec": {"replicas": object.copy(&["spec", "replicas"])},
        "status": {"replicas": object.integer(&["status", "replicas"]), "selector": selector.join(",")},
    })
}
