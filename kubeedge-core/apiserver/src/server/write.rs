//! Requests that change something.

use http::{Method, StatusCode, header};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use super::{
    Answer, Target,
    call::{Call, deletion, deletion_by},
    json_answer, selector,
};
use crate::{
    Server,
    admission::{Mode, Part},
    apply,
    kinds::DEFINITIONS,
    object::Object,
    patch, registry,
    status::{Problem, Refusal},
};

impl Server {
    pub(super) async fn create(&self, call: &Call, target: &Target) -> Answer {
        let mut object = call.object()?;
        // Edges register their nodes each time they connect: what is there already is not looked at any further.
        let key = target.kind.key(&target.namespace, object.name());
        if self.storage.get(&key).is_some() {
            return Err(Refusal::exists(&target.subject_of(&key.name)));
        }
        apply::track(&target.kind, None, &mut object, &call.manager(), "Update", "");
        self.make(call, target, object).await
    }

    async fn make(&self, call: &Call, target: &Target, object: Value) -> Answer {
        let (storage, kind) = (&self.storage, &target.kind);
        let made =
            registry::create(storage, kind, &target.namespace, object, call.validation(), call.dry_run());
        let (object, warnings) = made.await?;
        Ok(self.one(call, target, StatusCode::CREATED, &object, &warnings))
    }

    pub(super) async fn put(&self, call: &Call, target: &Target) -> Answer {
        let object = call.object()?;
        let name = object.name().to_owned();
        if !name.is_empty() && name != target.name {
            return Err(Refusal::bad_request("the name of the object does not match the name on the URL"));
        }
        let manager = call.manager();
        let make = |before: &Value| {
            let mut new = object;
            apply::track(&target.kind, Some(before), &mut new, &manager, "Update", &target.sub);
            Ok(new)
        };
        self.change(call, target, make).await
    }

    async fn change(
        &self,
        call: &Call,
        target: &Target,
        make: impl FnOnce(&Value) -> Result<Value, Refusal> + Send,
    ) -> Answer {
        let part = if target.sub == "status" { Part::Status } else { Part::Main };
        let (storage, kind) = (&self.storage, &target.kind);
        let (namespace, name) = (&target.namespace, &target.name);
        let done = registry::change(
            storage,
            kind,
            namespace,
            name,
            Mode { part, validation: call.validation(), dry_run: call.dry_run() },
            make,
        )
        .await;
        let (object, warnings) = done?;
        Ok(self.one(call, target, StatusCode::OK, &object, &warnings))
    }

    pub(super) async fn patch(&self, call: &Call, target: &Target) -> Answer {
        let form = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
        let body = call.object()?;
        if form == "application/apply-patch+yaml" {
            return self.apply(call, target, body).await;
        }
        let manager = call.manager();
        let custom = target.kind.built_in().is_none();
        let make = |before: &Value| {
            let mut new = match form.as_str() {
                "application/json-patch+json" => patch::json_patch(before.clone(), body)?,
                "application/merge-patch+json" => patch::merge_patch(before.clone(), &body),
                "application/strategic-merge-patch+json" if !custom => {
                    patch::strategic_merge(before.clone(), body)?
                }
                other => {
                    return Err(Refusal::media_type(format!(
                        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml{}, not {other:?}",
                        if custom { "" } else { ", application/strategic-merge-patch+json" }
                    )));
                }
            };
            // A patch that names no version must not fail because of one it did not mean.
            if before.at(&["metadata", "resourceVersion"]) == new.at(&["metadata", "resourceVersion"]) {
                new.set(&["metadata", "resourceVersion"], "");
            }
            apply::track(&target.kind, Some(before), &mut new, &manager, "Update", &target.sub);
            Ok(new)
        };
        self.change(call, target, make).await
    }

    async fn apply(&self, call: &Call, target: &Target, applied: Value) -> Answer {
        let manager = call.param("fieldManager").to_owned();
        if manager.is_empty() {
            return Err(Refusal::bad_request("fieldManager is required for apply patch"));
        }
        apply::check_applied(&applied)?;
        let force = call.flag("force");
        let exists = self.storage.get(&target.kind.key(&target.namespace, &target.name)).is_some();
        if !exists {
            let mut object = applied;
            object.set(&["metadata", "name"], target.name.clone());
            apply::track(&target.kind, None, &mut object, &manager, "Apply", &target.sub);
            return self.make(call, target, object).await;
        }
        let make = |before: &Value| {
            let (kind, sub, subject) = (&target.kind, &target.sub, target.subject());
            apply::apply(kind, before, applied, &manager, force, sub, &subject)
        };
        self.change(call, target, make).await
    }

    pub(super) async fn delete(&self, call: &Call, target: &Target) -> Answer {
        let how = deletion(call)?;
        let object = registry::delete(
            &self.storage,
            &target.kind,
            &target.namespace,
            &target.name,
            &how,
            call.dry_run(),
        )
        .await?;
        let gone = self.storage.get(&target.kind.key(&target.namespace, &target.name)).is_none();
        if gone && target.kind.is(&DEFINITIONS) {
            registry::purge(&self.storage, &object).await?;
        }
        let answers_object = target.kind.built_in().is_some_and(|kind| kind.lifecycle.answers_object);
        if gone && !answers_object {
            let details = json!({"name": target.name, "kind": target.kind.plural(), "group": target.kind.group(), "uid": object.at(&["metadata", "uid"])});
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            return Ok(json_answer(StatusCode::OK, &status));
        }
        Ok(self.one(call, target, StatusCode::OK, &object, &[]))
    }

    pub(super) async fn delete_all(&self, call: &Call, target: &Target) -> Answer {
        let selector = selector(call, &target.kind)?;
        let how = deletion(call)?;
        let key = target.kind.key("", "");
        let (objects, _) = self.storage.list(&key.group, &key.plural, &target.namespace);
        for object in objects.iter().filter(|object| selector.matches(object)) {
            let (namespace, name) = (object.namespace(), object.name());
            match registry::delete(&self.storage, &target.kind, namespace, name, &how, call.dry_run()).await {
                Err(refusal) if refusal.code != StatusCode::NOT_FOUND => return Err(refusal),
                _ => {}
            }
        }
        self.list(call, target)
    }

    pub(super) async fn bind(&self, call: &Call, target: &Target) -> Answer {
        let node = call.object()?.text(&["target", "name"]).to_owned();
        registry::bind(&self.storage, &target.namespace, &target.name, &node).await?;
        Ok(success())
    }

    pub(super) async fn evict(&self, call: &Call, target: &Target) -> Answer {
        let eviction = if call.body.is_empty() { json!({}) } else { call.object()? };
        let how = deletion_by(call, &eviction.copy(&["deleteOptions"]));
        registry::delete(&self.storage, &target.kind, &target.namespace, &target.name, &how, call.dry_run())
            .await?;
        Ok(success())
    }

    pub(super) async fn scale(&self, call: &Call, target: &Target) -> Answer {
        let found = self.storage.get(&target.kind.key(&target.namespace, &target.name));
        let object = found.ok_or_else(|| Refusal::not_found(&target.subject()))?;
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
        let (namespace, name) = (&target.namespace, &target.name);
        let done = registry::change(
            &self.storage,
            &target.kind,
            namespace,
            name,
            Mode { dry_run: call.dry_run(), ..Mode::ours(Part::Main) },
            make,
        );
        Ok(json_answer(StatusCode::OK, &scale_of(&done.await?.0)))
    }
}

/// The answer to a binding and an eviction.
fn success() -> http::Response<Body> {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    json_answer(StatusCode::CREATED, &status)
}

fn scale_of(object: &Value) -> Value {
    let selector: Vec<_> = object
        .fields(&["spec", "selector", "matchLabels"])
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let meta = |name: &str| object.copy(&["metadata", name]);
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"), "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp")},
        "spec": {"replicas": object.copy(&["spec", "replicas"])},
        "status": {"replicas": object.at(&["status", "replicas"]).cloned().unwrap_or_else(|| 0.into()), "selector": selector.join(",")},
    })
}
