//! From HTTP requests to the registry and back.

mod call;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use kubeedge_core::cluster::Body;
use serde_json::{Value, json};

pub(super) use self::call::{Call, MAX_BODY};
use self::call::{continued, decode, parse_query, read};
use super::{
    Server, definitions, discovery,
    kinds::{Action, Kind, NodeRequest},
    object::Object,
    selectors::Selector,
    status::{Refusal, Subject},
    table::table,
    user::User,
    watch::{Watch, events},
};

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
        self.subject_of(&self.name)
    }

    /// Another object of the kind.
    fn subject_of<'a>(&'a self, name: &'a str) -> Subject<'a> {
        self.kind.subject(name)
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
            _ => {
                let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
                return discovery::answer(self, &parts, accept.unwrap_or_default());
            }
        };
        let target = self.target(group, version, rest)?;
        let action = target.kind.subresource(&target.sub).map(|sub| sub.action);
        if matches!(action, Some(Action::Log | Action::Stream)) {
            return super::kubelet::proxy(self, &target.namespace, &target.name, &target.sub, request).await;
        }
        let body = std::mem::replace(request.body_mut(), full(""));
        let body = read(body).await?;
        let (head, _) = request.into_parts();
        let call = Call { method: head.method, query, headers: head.headers, user, body };
        authorize(&call, &target)?;
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
        let kind =
            definitions::find(&self.storage, group, version, plural).ok_or_else(Refusal::no_such_path)?;
        let (name, sub) = (part(1).to_owned(), part(2).to_owned());
        let misplaced = if kind.is_namespaced() {
            namespace.is_empty() && !name.is_empty()
        } else {
            !namespace.is_empty()
        };
        if misplaced {
            return Err(Refusal::no_such_path());
        }
        Ok(Target { kind, namespace: namespace.to_owned(), name, sub })
    }

    async fn dispatch(self: &Arc<Self>, call: &Call, target: Target) -> Answer {
        if let Some(answer) = target.kind.built_in().and_then(|kind| kind.answer) {
            return review(call, answer);
        }
        match target.kind.subresource(&target.sub).map(|sub| sub.action) {
            Some(Action::Bind) if call.method == Method::POST => return self.bind(call, &target).await,
            Some(Action::Evict) if call.method == Method::POST => return self.evict(call, &target).await,
            Some(Action::Token) if call.method == Method::POST => {
                return super::tokens::issue(self, call, &target.namespace, &target.name);
            }
            _ => {}
        }
        match (&call.method, target.name.as_str(), target.sub.as_str()) {
            (&Method::GET, "", "") if call.flag("watch") => self.watch(call, target),
            (&Method::GET, "", "") => self.list(call, &target),
            (&Method::GET, _, "" | "status") if call.flag("watch") => self.watch(call, target),
            (&Method::GET, _, "" | "status") => self.get(call, &target),
            (&Method::POST | &Method::DELETE, "", "")
                if target.kind.is_namespaced() && target.namespace.is_empty() =>
            {
                Err(Refusal::method_not_allowed())
            }
            (&Method::POST, "", "") => self.create(call, &target).await,
            (_, _, "portforward" | "proxy") => Err(Refusal::not_served(&target.sub)),
            (_, _, "scale") if target.kind.has_scale() => self.scale(call, &target).await,
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
            shown = table(
                &target.kind,
                &[object],
                self.storage.moment(),
                object.resource_version(),
                call.include(),
            );
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
            if let Ok(line) = header::HeaderValue::from_str(&line) {
                response.headers_mut().append(header::WARNING, line);
            }
        }
        response
    }

    fn list(&self, call: &Call, target: &Target) -> Answer {
        let selector = selector(call, &target.kind)?;
        let key = target.kind.key("", "");
        let (objects, version) = self.storage.list(&key.group, &key.plural, &target.namespace);
        let after = continued(call.param("continue"))?;
        let limit = call.param("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let place = |object: &Value| (object.namespace().to_owned(), object.name().to_owned());
        let mut found: Vec<_> = objects.into_iter().filter(|object| selector.matches(object)).collect();
        if let Some(after) = after {
            found.retain(|object| place(object) > after);
        }
        let remaining = found.len().saturating_sub(limit);
        found.truncate(limit);
        let next = if remaining > 0 { found.last().map(|last| place(last)) } else { None };
        let mut meta = json!({"resourceVersion": version.to_string()});
        if let Some((namespace, name)) = next {
            meta.set(&["continue"], format!("{namespace}/{name}"));
            meta.set(&["remainingItemCount"], remaining);
        }
        let value = if call.wants_table() {
            let objects: Vec<&Value> = found.iter().map(|object| &**object).collect();
            let mut shown =
                table(&target.kind, &objects, self.storage.moment(), &version.to_string(), call.include());
            shown.set(&["metadata"], meta);
            shown
        } else {
            let items: Vec<_> = found
                .iter()
                .map(|object| {
                    if call.wants_metadata() {
                        json!({"metadata": object.copy(&["metadata"])})
                    } else {
                        Value::clone(object)
                    }
                })
                .collect();
            let (kind, api) = if call.wants_metadata() {
                ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
            } else {
                (format!("{}List", target.kind.name()), target.kind.api_version())
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
        let selector = Selector::of(&target.kind, call.param("labelSelector"), &fields)?;
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
}

fn selector(call: &Call, kind: &Kind) -> Result<Selector, Refusal> {
    Selector::of(kind, call.param("labelSelector"), call.param("fieldSelector"))
}

/// Answers a kind that is never stored.
fn review(call: &Call, answer: fn(&User) -> Value) -> Answer {
    if call.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let mut review = call.object()?;
    review.set(&["status"], answer(&call.user));
    Ok(json_answer(StatusCode::CREATED, &review))
}

/// Refuses what a user may not do. People with a certificate or token of this server may do everything; a node only what
/// is its own.
fn authorize(call: &Call, target: &Target) -> Result<(), Refusal> {
    let Some(node) = call.user.node() else { return Ok(()) };
    let verb = verb(call, target);
    let request = NodeRequest { node, verb, name: &target.name, sub: &target.sub };
    if target.kind.node_may(&request) {
        return Ok(());
    }
    Err(Refusal::forbidden(&call.user.name, verb, &target.subject()))
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
