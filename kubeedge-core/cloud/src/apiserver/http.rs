//! From HTTP requests to the registry and back.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

use crate::apiserver::edit::{field, put};

use super::{
    Server, User, discovery,
    kinds::{self, Kind},
    patch,
    registry::{self, Deletion, Mode, Part, Validation, text},
    selectors::Selector,
    status::{Refusal, Subject},
    table::table,
    watch::{Watch, events},
};

/// The largest body; Kubernetes' own limit.
const MAX_BODY: usize = 3 << 20;

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub method: Method,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub user: User,
    pub body: Bytes,
}

impl Call {
    pub(super) fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
    }

    pub(super) fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn wants_table(&self) -> bool {
        self.header(header::ACCEPT).contains("as=Table")
    }

    fn wants_metadata(&self) -> bool {
        self.header(header::ACCEPT).contains("as=PartialObjectMetadata")
    }

    fn include(&self) -> &str {
        self.param("includeObject")
    }

    fn dry_run(&self) -> bool {
        self.param("dryRun") == "All"
    }

    fn validation(&self) -> Validation {
        match self.param("fieldValidation") {
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            _ => Validation::Warn,
        }
    }

    fn manager(&self) -> String {
        let named = self.param("fieldManager");
        let agent = self.header(header::USER_AGENT).split('/').next().unwrap_or_default();
        if named.is_empty() { agent.to_owned() } else { named.to_owned() }
    }

    /// The body as one object: JSON, or YAML where Kubernetes takes it.
    fn object(&self) -> Result<Value, Refusal> {
        let kind = self.header(header::CONTENT_TYPE);
        if kind.starts_with("application/vnd.kubernetes.protobuf") {
            return Err(Refusal::media_type(
                "protobuf bodies are not accepted here; use `kubectl apply -f`, or add `--dry-run=client -o yaml | kubectl apply -f -` to the command",
            ));
        }
        if kind.contains("yaml") && !self.body.trim_ascii_start().starts_with(b"{") {
            let text =
                std::str::from_utf8(&self.body).map_err(|_| Refusal::bad_request("the body is not UTF-8"))?;
            return serde_saphyr::from_str(text)
                .map_err(|error| Refusal::bad_request(format!("error parsing YAML: {error}")));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::bad_request(format!("error parsing the body: {error}")))
    }
}

/// What a path is about.
#[derive(Debug)]
struct Target {
    kind: Kind,
    namespace: String,
    name: String,
    sub: String,
}

impl Target {
    fn subject(&self) -> Subject<'_> {
        Subject { group: &self.kind.group, plural: &self.kind.plural, name: &self.name }
    }
}

pub(super) type Answer = Result<Response<Body>, Refusal>;

/// A body of known text.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON answer.
pub(super) fn json_answer(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

impl Server {
    /// Answers one request; failures become `Status` objects.
    pub(super) async fn respond(self: &Arc<Self>, user: User, request: Request<Body>) -> Response<Body> {
        let answer = self.answer(user, request).await;
        answer.unwrap_or_else(|refusal| json_answer(refusal.code, &refusal.to_json()))
    }

    async fn answer(self: &Arc<Self>, user: User, mut request: Request<Body>) -> Answer {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let query = parse_query(request.uri().query().unwrap_or_default());
        let segments: Vec<_> = path.split('/').skip(1).map(decode).collect();
        let parts: Vec<_> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return discovery::answer(self, &parts),
        };
        let target = self.target(group, version, rest)?;
        if matches!(target.sub.as_str(), "log" | "exec" | "attach") {
            return super::kubelet::proxy(self, &target.namespace, &target.name, &target.sub, request).await;
        }
        let body = std::mem::replace(request.body_mut(), full(""));
        let body = read(body).await?;
        let (head, _) = request.into_parts();
        let call = Call { method: head.method, query, headers: head.headers, user, body };
        super::access::check(&call.user, verb(&call, &target), &target.kind, &target.name, &target.sub)?;
        self.dispatch(&call, target).await
    }

    fn target(&self, group: &str, version: &str, rest: &[&str]) -> Result<Target, Refusal> {
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
            {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let plural = part(0);
        let kind = kinds::find(&self.storage, group, version, plural)
            .or_else(|| super::reviews::kind(group, version, plural))
            .ok_or_else(Refusal::no_such_path)?;
        let (name, sub) = (part(1).to_owned(), part(2).to_owned());
        Ok(Target { kind, namespace: namespace.to_owned(), name, sub })
    }

    async fn dispatch(self: &Arc<Self>, call: &Call, target: Target) -> Answer {
        if super::reviews::is_review(&target.kind) {
            return super::reviews::answer(call, &target.kind);
        }
        match (&call.method, target.name.as_str(), target.sub.as_str()) {
            (&Method::GET, "", "") if call.flag("watch") => self.watch(call, target),
            (&Method::GET, "", "") => self.list(call, &target),
            (&Method::GET, _, "" | "status") if call.flag("watch") => self.watch(call, target),
            (&Method::GET, _, "" | "status") => self.get(call, &target),
            (&Method::POST, "", "") => self.create(call, &target).await,
            (&Method::POST, _, "binding") => self.bind(call, &target).await,
            (&Method::POST, _, "eviction") => self.evict(&target).await,
            (&Method::POST, _, "token") => super::tokens::issue(self, call, &target.namespace, &target.name),
            (_, _, "scale") if target.kind.scale => self.scale(call, &target).await,
            (&Method::PUT, _, "" | "status" | "finalize") => self.put(call, &target).await,
            (&Method::PATCH, _, "" | "status" | "finalize") => self.patch(call, &target).await,
            (&Method::DELETE, "", "") => self.delete_all(call, &target).await,
            (&Method::DELETE, _, "") => self.delete(call, &target).await,
            (_, _, "" | "status") => Err(Refusal::method_not_allowed()),
            _ => Err(Refusal::no_such_path()),
        }
    }

    fn get(&self, call: &Call, target: &Target) -> Answer {
        let found = self.storage.get(&target.kind.key(&target.namespace, &target.name));
        let object = found.ok_or_else(|| Refusal::not_found(&target.subject()))?;
        Ok(self.one(call, target, StatusCode::OK, &object, &[]))
    }

    /// One object, in the form the client wants.
    fn one(
        &self,
        call: &Call,
        target: &Target,
        code: StatusCode,
        object: &Value,
        warnings: &[String],
    ) -> Response<Body> {
        let shown;
        let value = if call.wants_table() {
            shown = table(&target.kind, &[object], text(object, "/metadata/resourceVersion"), call.include());
            &shown
        } else if call.wants_metadata() {
            shown = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": field(object, "/metadata")});
            &shown
        } else {
            object
        };
        let mut response = json_answer(code, value);
        for warning in warnings {
            let line = format!("299 - {warning:?}");
            if let Ok(line) = header::HeaderValue::from_str(&line) {
                response.headers_mut().append(header::WARNING, line);
            }
        }
        response
    }

    fn list(&self, call: &Call, target: &Target) -> Answer {
        let selector = Selector::parse(call.param("labelSelector"), call.param("fieldSelector"))?;
        let key = target.kind.key("", "");
        let (objects, version) = self.storage.list(&key.group, &key.plural, &target.namespace);
        let after = continued(call.param("continue"))?;
        let limit = call.param("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let place = |object: &Value| {
            (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
        };
        let mut found: Vec<_> = objects.into_iter().filter(|object| selector.matches(object)).collect();
        if let Some(after) = after {
            found.retain(|object| place(object) > after);
        }
        let remaining = found.len().saturating_sub(limit);
        found.truncate(limit);
        let next = if remaining > 0 { found.last().map(|last| place(last)) } else { None };
        let mut meta = json!({"resourceVersion": version.to_string()});
        if let Some((namespace, name)) = next {
            put(&mut meta, &["continue"], format!("{namespace}/{name}"));
            put(&mut meta, &["remainingItemCount"], remaining);
        }
        let value = if call.wants_table() {
            let objects: Vec<&Value> = found.iter().map(|object| &**object).collect();
            let mut shown = table(&target.kind, &objects, &version.to_string(), call.include());
            put(&mut shown, &["metadata"], meta);
            shown
        } else {
            let items: Vec<_> = found
                .iter()
                .map(|object| {
                    if call.wants_metadata() {
                        json!({"metadata": field(object, "/metadata")})
                    } else {
                        Value::clone(object)
                    }
                })
                .collect();
            let (kind, api) = if call.wants_metadata() {
                ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
            } else {
                (format!("{}List", target.kind.kind), target.kind.api_version())
            };
            json!({"kind": kind, "apiVersion": api, "metadata": meta, "items": items})
        };
        Ok(json_answer(StatusCode::OK, &value))
    }

    fn watch(self: &Arc<Self>, call: &Call, target: Target) -> Answer {
        let mut fields = call.param("fieldSelector").to_owned();
        if !target.name.is_empty() {
            fields = format!("metadata.name={}", target.name);
        }
        let selector = Selector::parse(call.param("labelSelector"), &fields)?;
        let watch = Watch {
            key: target.kind.key(&target.namespace, ""),
            selector,
            table: call.wants_table().then(|| call.include().to_owned()),
            metadata: call.wants_metadata(),
            kind: target.kind,
            version: call.param("resourceVersion").to_owned(),
            bookmarks: call.flag("allowWatchBookmarks"),
            initial: call.flag("sendInitialEvents"),
            seconds: call.param("timeoutSeconds").parse().unwrap_or(0),
        };
        let stream = events(self.clone(), watch)?;
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn create(&self, call: &Call, target: &Target) -> Answer {
        let mut object = call.object()?;
        super::apply::track(&target.kind, None, &mut object, &call.manager(), "Update", "");
        let (storage, kind) = (&self.storage, &target.kind);
        let made =
            registry::create(storage, kind, &target.namespace, object, call.validation(), call.dry_run());
        let (object, warnings) = made.await?;
        Ok(self.one(call, target, StatusCode::CREATED, &object, &warnings))
    }

    async fn put(&self, call: &Call, target: &Target) -> Answer {
        let object = call.object()?;
        let name = text(&object, "/metadata/name").to_owned();
        if !name.is_empty() && name != target.name {
            return Err(Refusal::bad_request("the name of the object does not match the name on the URL"));
        }
        let manager = call.manager();
        let make = |before: &Value| {
            let mut new = object;
            super::apply::track(&target.kind, Some(before), &mut new, &manager, "Update", &target.sub);
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

    async fn patch(&self, call: &Call, target: &Target) -> Answer {
        let form = call.header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
        let body = call.object()?;
        if form == "application/apply-patch+yaml" {
            return self.apply(call, target, body).await;
        }
        let manager = call.manager();
        let custom = target.kind.is_custom();
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
            if before.pointer("/metadata/resourceVersion") == new.pointer("/metadata/resourceVersion") {
                put(&mut new, &["metadata", "resourceVersion"], "");
            }
            super::apply::track(&target.kind, Some(before), &mut new, &manager, "Update", &target.sub);
            Ok(new)
        };
        self.change(call, target, make).await
    }

    async fn apply(&self, call: &Call, target: &Target, applied: Value) -> Answer {
        let manager = call.param("fieldManager").to_owned();
        if manager.is_empty() {
            return Err(Refusal::bad_request("fieldManager is required for apply patch"));
        }
        let force = call.flag("force");
        let exists = self.storage.get(&target.kind.key(&target.namespace, &target.name)).is_some();
        if !exists {
            let mut object = applied;
            put(&mut object, &["metadata", "name"], target.name.clone());
            super::apply::track(&target.kind, None, &mut object, &manager, "Apply", &target.sub);
            let (storage, kind) = (&self.storage, &target.kind);
            let made =
                registry::create(storage, kind, &target.namespace, object, call.validation(), call.dry_run());
            let (object, warnings) = made.await?;
            return Ok(self.one(call, target, StatusCode::CREATED, &object, &warnings));
        }
        let make = |before: &Value| {
            super::apply::apply(
                &target.kind,
                before,
                applied,
                &manager,
                force,
                &target.sub,
                &target.subject(),
            )
        };
        self.change(call, target, make).await
    }

    async fn delete(&self, call: &Call, target: &Target) -> Answer {
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
        let is_pod = target.kind.group.is_empty() && target.kind.plural == "pods";
        if gone && !is_pod {
            let details = json!({"name": target.name, "kind": target.kind.plural, "group": target.kind.group, "uid": object.pointer("/metadata/uid")});
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            return Ok(json_answer(StatusCode::OK, &status));
        }
        Ok(self.one(call, target, StatusCode::OK, &object, &[]))
    }

    async fn delete_all(&self, call: &Call, target: &Target) -> Answer {
        let selector = Selector::parse(call.param("labelSelector"), call.param("fieldSelector"))?;
        let how = deletion(call)?;
        let key = target.kind.key("", "");
        let (objects, _) = self.storage.list(&key.group, &key.plural, &target.namespace);
        for object in objects.iter().filter(|object| selector.matches(object)) {
            let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
            match registry::delete(&self.storage, &target.kind, namespace, name, &how, call.dry_run()).await {
                Err(refusal) if refusal.code != StatusCode::NOT_FOUND => return Err(refusal),
                _ => {}
            }
        }
        self.list(call, target)
    }

    async fn bind(&self, call: &Call, target: &Target) -> Answer {
        let node = text(&call.object()?, "/target/name").to_owned();
        super::bind(&self.storage, &target.namespace, &target.name, &node).await?;
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(json_answer(StatusCode::CREATED, &status))
    }

    async fn evict(&self, target: &Target) -> Answer {
        let how = Deletion::default();
        registry::delete(&self.storage, &target.kind, &target.namespace, &target.name, &how, false).await?;
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(json_answer(StatusCode::CREATED, &status))
    }

    async fn scale(&self, call: &Call, target: &Target) -> Answer {
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
        let replicas =
            wished.pointer("/spec/replicas").and_then(Value::as_i64).filter(|replicas| *replicas >= 0);
        let replicas = replicas.ok_or_else(|| {
            let problem =
                ("spec.replicas".to_owned(), "Invalid value: must be greater than or equal to 0".to_owned());
            Refusal::invalid("Scale", &target.subject(), &[problem])
        })?;
        let make = |before: &Value| {
            let mut new = before.clone();
            put(&mut new, &["spec", "replicas"], replicas);
            Ok(new)
        };
        let (namespace, name) = (&target.namespace, &target.name);
        let done = registry::change(
            &self.storage,
            &target.kind,
            namespace,
            name,
            Mode { part: Part::Main, validation: Validation::Ignore, dry_run: call.dry_run() },
            make,
        );
        Ok(json_answer(StatusCode::OK, &scale_of(&done.await?.0)))
    }
}

fn scale_of(object: &Value) -> Value {
    let selector: Vec<_> = object
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let meta = |name: &str| object.pointer(&format!("/metadata/{name}")).cloned().unwrap_or_default();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"), "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp")},
        "spec": {"replicas": field(object, "/spec/replicas")},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into()), "selector": selector.join(",")},
    })
}

/// The verb of a request, as access rules name it.
fn verb(call: &Call, target: &Target) -> &'static str {
    match (&call.method, target.name.is_empty()) {
        (&Method::GET, _) if call.flag("watch") => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        _ => "delete",
    }
}

fn deletion(call: &Call) -> Result<Deletion, Refusal> {
    let options = if call.body.is_empty() { json!({}) } else { call.object()? };
    let own = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let grace = options.get("gracePeriodSeconds").and_then(Value::as_i64);
    let policy = own("/propagationPolicy").or_else(|| {
        let orphan = options.get("orphanDependents").and_then(Value::as_bool)?;
        orphan.then(|| "Orphan".to_owned())
    });
    let param = |name: &str| Some(call.param(name).to_owned()).filter(|value| !value.is_empty());
    Ok(Deletion {
        grace: grace.or_else(|| call.param("gracePeriodSeconds").parse().ok()),
        uid: own("/preconditions/uid"),
        version: own("/preconditions/resourceVersion"),
        policy: policy.or_else(|| param("propagationPolicy")),
    })
}

/// The whole body, as long as it is within the limit.
async fn read(mut body: Body) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::bad_request(format!("cannot read the body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > MAX_BODY {
                return Err(Refusal::too_large(MAX_BODY));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

fn continued(token: &str) -> Result<Option<(String, String)>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = token.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    place.map(Some).ok_or_else(|| Refusal::bad_request("continue key is not valid"))
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The query as a map; of repeated names the first counts.
fn parse_query(query: &str) -> HashMap<String, String> {
    let mut out = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        out.entry(decode(&key.replace('+', " "))).or_insert_with(|| decode(&value.replace('+', " ")));
    }
    out
}
