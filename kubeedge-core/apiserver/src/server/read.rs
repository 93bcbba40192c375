//! Requests that read.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use super::target::Target;
use crate::{
    answer::{Answer, json_answer},
    call::{Call, continued},
    kinds::Kind,
    object::Object,
    registry::Registry,
    selectors::Selector,
    status::Refusal,
    storage::{ListQuery, Listed},
    table::table,
    watch::{WatchRequest, events},
};

pub(super) async fn get(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let object = registry.get(&target.kind, &target.namespace, &target.name).await?;
    Ok(one(registry, call, target, StatusCode::OK, &object, &[]))
}

/// One object, in the form the client wants.
pub(super) fn one(
    registry: &Registry,
    call: &Call,
    target: &Target,
    code: StatusCode,
    object: &Value,
    warnings: &[String],
) -> Response<Body> {
    let shown;
    let value = if call.wants_table() {
        let now = registry.moment();
        shown = table(&target.kind, &[object], now, object.resource_version(), call.include());
        &shown
    } else if call.wants_metadata() {
        shown = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.copy(&["metadata"])});
        &shown
    } else {
        object
    };
    let mut response = json_answer(code, value);
    for warning in warnings {
        let line = format!("299 - {warning:?}");
        if let Ok(line) = HeaderValue::from_str(&line) {
            response.headers_mut().append(header::WARNING, line);
        }
    }
    response
}

/// The objects that a request is about.
pub(super) fn selector(call: &Call, kind: &Kind) -> Result<Selector, Refusal> {
    Selector::of(kind, call.param("labelSelector"), call.param("fieldSelector"))
}

pub(super) async fn list(registry: &Registry, call: &Call, target: &Target) -> Answer {
    let selector = selector(call, &target.kind)?;
    let limit = call.param("limit").parse().unwrap_or(0);
    let query = ListQuery::all(target.kind.collection(&target.namespace));
    let query = query.matching(selector).page(limit, continued(call.param("continue"))?);
    let listed = registry.list(&query).await?;
    Ok(json_answer(StatusCode::OK, &shown(registry, call, &target.kind, &listed)))
}

/// A list, in the form the client wants.
fn shown(registry: &Registry, call: &Call, kind: &Kind, listed: &Listed) -> Value {
    let version = listed.version.to_string();
    let mut meta = json!({"resourceVersion": version});
    if let Some(last) = listed.objects.last().filter(|_| listed.remaining > 0) {
        meta.set(&["continue"], format!("{}/{}", last.namespace(), last.name()));
        meta.set(&["remainingItemCount"], listed.remaining);
    }
    let objects: Vec<&Value> = listed.objects.iter().map(|object| &**object).collect();
    if call.wants_table() {
        let mut shown = table(kind, &objects, registry.moment(), &version, call.include());
        shown.set(&["metadata"], meta);
        return shown;
    }
    if call.wants_metadata() {
        let items: Vec<_> =
            objects.iter().map(|object| json!({"metadata": object.copy(&["metadata"])})).collect();
        return json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items});
    }
    let (name, api) = (format!("{}List", kind.name()), kind.api_version());
    json!({"kind": name, "apiVersion": api, "metadata": meta, "items": objects})
}

pub(super) async fn watch(registry: Arc<Registry>, call: &Call, target: Target) -> Answer {
    let mut fields = call.param("fieldSelector").to_owned();
    if !target.name.is_empty() {
        fields = format!("metadata.name={}", target.name);
    }
    let selector = Selector::of(&target.kind, call.param("labelSelector"), &fields)?;
    let request = WatchRequest {
        collection: target.kind.collection(&target.namespace),
        selector,
        table: call.wants_table().then(|| call.include().to_owned()),
        metadata: call.wants_metadata(),
        kind: target.kind,
        version: call.param("resourceVersion").to_owned(),
        bookmarks: call.flag("allowWatchBookmarks"),
        initial: call.flag("sendInitialEvents"),
        seconds: call.param("timeoutSeconds").parse().unwrap_or(0),
    };
    let stream = events(registry, request).await?;
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
