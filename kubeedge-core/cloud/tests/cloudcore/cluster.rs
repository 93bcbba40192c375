//! Enough of a Kubernetes API server for the controllers: objects, versions, watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, ClusterError, ClusterKind, KubeService},
    failure::{BoxError, Failure},
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Collection (`/api/v1/pods`), namespace, name.
type Key = (String, String, String);

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<(u64, String, Value)>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeCluster {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Path {
    collection: String,
    namespace: String,
    name: String,
    sub: String,
}

impl Path {
    fn parse(path: &str) -> Self {
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let skip = if parts[0] == "api" { 2 } else { 3 };
        let (prefix, rest) = parts.split_at(skip);
        let (namespace, rest) = match rest {
            [first, namespace, more @ ..] if first == "namespaces" && !more.is_empty() => {
                (namespace.clone(), more)
            }
            rest => (String::new(), rest),
        };
        let at = |n: usize| rest.get(n).cloned().unwrap_or_default();
        Self { collection: format!("/{}/{}", prefix.join("/"), at(0)), namespace, name: at(1), sub: at(2) }
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

type Outcome = Result<Value, (StatusCode, &'static str, String)>;

impl FakeCluster {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }

    /// An object by the path of its API.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let path = Path::parse(path);
        let state = self.state.lock().unwrap();
        state.objects.get(&(path.collection, path.namespace, path.name)).cloned()
    }

    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state
            .objects
            .iter()
            .filter(|(key, _)| key.0 == collection)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(crate) fn create(&self, collection: &str, object: Value) -> Value {
        self.act(&Method::POST, &Path::parse(collection), object).unwrap()
    }

    pub(crate) fn patch(&self, path: &str, patch: Value) -> Value {
        self.act(&Method::PATCH, &Path::parse(path), patch).unwrap()
    }

    pub(crate) fn delete(&self, path: &str) {
        self.act(&Method::DELETE, &Path::parse(path), json!({"gracePeriodSeconds": 0})).unwrap();
    }

    /// Waits until the object looks as wished.
    pub(crate) async fn until(&self, path: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                if let Some(object) = self.get(path).filter(|object| wished(object)) {
                    return object;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .unwrap_or_else(|_| panic!("{path} is {:?}", self.get(path)))
    }

    pub(crate) async fn until_gone(&self, path: &str) {
        let mut changed = self.changed.subscribe();
        let gone = async {
            while self.get(path).is_some() {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .unwrap_or_else(|_| panic!("{path} is there"));
    }

    fn act(&self, method: &Method, path: &Path, mut body: Value) -> Outcome {
        let mut state = self.state.lock().unwrap();
        let plural = path.collection.rsplit('/').next().unwrap().to_owned();
        let missing =
            |name: &str| (StatusCode::NOT_FOUND, "NotFound", format!("{plural} {name:?} not found"));
        let mut key = (path.collection.clone(), path.namespace.clone(), path.name.clone());
        if *method == Method::POST && path.sub == "token" {
            body["kind"] = "TokenRequest".into();
            body["apiVersion"] = "authentication.k8s.io/v1".into();
            body["status"] = json!({"token": "a.b.c", "expirationTimestamp": "2030-01-01T00:00:00Z"});
            return Ok(body);
        }
        if *method == Method::POST {
            key.2 = body["metadata"]["name"].as_str().unwrap().to_owned();
            if state.objects.contains_key(&key) {
                let text = format!("{plural} {:?} already exists", key.2);
                return Err((StatusCode::CONFLICT, "AlreadyExists", text));
            }
            if body["metadata"]["uid"].is_null() {
                body["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
            }
            body["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            if !key.1.is_empty() {
                body["metadata"]["namespace"] = key.1.clone().into();
            }
            return Ok(self.put(&mut state, key, "ADDED", body));
        }
        let current = state.objects.get(&key).cloned().ok_or_else(|| missing(&path.name))?;
        let read = &body["metadata"]["resourceVersion"];
        if (*method == Method::PATCH || (*method == Method::PUT && plural == "secrets"))
            && !read.is_null()
            && *read != current["metadata"]["resourceVersion"]
        {
            let text =
                "the object has been modified; please apply your changes to the latest version".to_owned();
            return Err((StatusCode::CONFLICT, "Conflict", text));
        }
        match *method {
            Method::PUT | Method::PATCH => {
                let mut next = current.clone();
                merge(&mut next, body);
                if next == current {
                    return Ok(current);
                }
                Ok(self.put(&mut state, key, "MODIFIED", next))
            }
            Method::DELETE => {
                let wanted = body["preconditions"]["uid"].as_str();
                if wanted.is_some_and(|uid| current["metadata"]["uid"] != uid) {
                    let text = "The object might have been deleted and then recreated".to_owned();
                    return Err((StatusCode::CONFLICT, "Conflict", text));
                }
                if plural == "pods" && body["gracePeriodSeconds"] != 0 {
                    let mut next = current;
                    next["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
                    return Ok(self.put(&mut state, key, "MODIFIED", next));
                }
                let gone = self.put(&mut state, key.clone(), "DELETED", current);
                state.objects.remove(&key);
                Ok(gone)
            }
            _ => Ok(current),
        }
    }

    fn put(&self, state: &mut State, key: Key, what: &str, mut object: Value) -> Value {
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let event = json!({"type": what, "object": object});
        state.log.push((state.version, key.0.clone(), event));
        state.objects.insert(key, object.clone());
        self.changed.send_replace(state.version);
        object
    }

    fn watch(&self, collection: String, selector: Option<String>, from: u64) -> Body {
        let (state, changed) = (self.state.clone(), self.changed.subscribe());
        let stream = futures::stream::unfold((from, changed), move |(mut from, mut changed)| {
            let (state, collection, selector) = (state.clone(), collection.clone(), selector.clone());
            async move {
                loop {
                    let mut lines = String::new();
                    {
                        let state = state.lock().unwrap();
                        for (version, of, event) in &state.log {
                            if *version > from && *of == collection && selected(&event["object"], &selector) {
                                lines += &format!("{event}\n");
                            }
                        }
                        from = state.version;
                    }
                    if !lines.is_empty() {
                        let frame = http_body::Frame::data(Bytes::from(lines));
                        return Some((Ok::<_, BoxError>(frame), (from, changed)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(stream.boxed()))
    }

    pub(crate) async fn serve(self, request: Request<Body>) -> Result<Response<Body>, ClusterError> {
        let (parts, body) = request.into_parts();
        let path = Path::parse(parts.uri.path());
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let selector = query.get("labelSelector").cloned();
        if parts.method == Method::GET && path.name.is_empty() {
            if query.get("watch").is_some_and(|watch| watch == "true") {
                let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or_default();
                return Ok(Response::new(self.watch(path.collection, selector, from)));
            }
            let items: Vec<_> = self
                .list(&path.collection)
                .into_iter()
                .filter(|object| selected(object, &selector))
                .collect();
            let version = self.state.lock().unwrap().version.max(1).to_string();
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
            return Ok(answer(StatusCode::OK, &list));
        }
        let broken = |error| Failure::new(ClusterKind::Closed, "reading a request").because(error);
        let bytes = body.collect().await.map_err(broken)?.to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(match self.act(&parts.method, &path, body) {
            Ok(object) => answer(StatusCode::OK, &object),
            Err((status, reason, message)) => {
                let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": reason, "code": status.as_u16()});
                answer(status, &body)
            }
        })
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::from(value.to_string()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn selected(object: &Value, selector: &Option<String>) -> bool {
    let Some((label, value)) = selector.as_deref().and_then(|selector| selector.split_once('=')) else {
        return true;
    };
    object["metadata"]["labels"].get(label).is_some_and(|found| found == value)
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                } else if value.is_object() {
                    merge(into.entry(key).or_insert_with(|| json!({})), value);
                } else {
                    into.insert(key, value);
                }
            }
        }
        (into, patch) => *into = patch,
    }
}

impl ClusterApi for FakeCluster {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        let cluster = self.clone();
        KubeService::new(tower::service_fn(move |request| cluster.clone().serve(request)))
    }
}
