//! What the cases work with: requests, answers, watches.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use super::ClusterHarness;
use crate::cluster::{Actor, Body, ClusterApi, KubeService};

/// How long anything may take before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, and a namespace of the case's own.
#[derive(Debug)]
pub struct Bench {
    service: KubeService,
    /// The namespace.
    pub namespace: String,
}

/// What a cluster answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, null if it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn with(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }

    /// A refusal must be a `Status` with this code and reason; returns it.
    #[track_caller]
    pub fn refused(self, code: u16, reason: &str) -> Value {
        let status = self.with(code);
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{status}");
        assert_eq!((&status["reason"], &status["code"]), (&json!(reason), &json!(code)), "{status}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
        status
    }
}

impl Bench {
    /// A bench with a new namespace.
    pub async fn of(harness: &impl ClusterHarness) -> Self {
        let service = harness.cluster().service(&Actor::Ourselves);
        let mut bench = Self { service, namespace: String::new() };
        let made =
            bench.post("/api/v1/namespaces", &json!({"metadata": {"generateName": "conformance-"}})).await;
        bench.namespace = text(&made.with(201), "/metadata/name");
        bench
    }

    /// The same namespace for another actor.
    pub fn acting_as(&self, harness: &impl ClusterHarness, actor: &Actor) -> Self {
        Self { service: harness.cluster().service(actor), namespace: self.namespace.clone() }
    }

    /// The path of a kind of the core group, or of one object of it: `configmaps`, `configmaps/a`.
    pub fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// The path of a kind of the group `apps`.
    pub fn apps(&self, rest: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// One request with these headers.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        call(self.service.clone(), request(method, path, headers, body)).await
    }

    async fn with_json(&self, method: &str, path: &str, media: &str, body: &Value) -> Answer {
        let headers = [("content-type", media), ("user-agent", "conformance/1")];
        self.call(method, path, &headers, body.to_string().into()).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], Vec::new()).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.with_json("POST", path, "application/json", object).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.with_json("PUT", path, "application/json", object).await
    }

    /// `DELETE` with these options.
    pub async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.with_json("DELETE", path, "application/json", options).await
    }

    /// `PATCH` of this form: `json`, `merge` or `strategic-merge`.
    pub async fn patch(&self, path: &str, form: &str, patch: &Value) -> Answer {
        self.with_json("PATCH", path, &format!("application/{form}-patch+json"), patch).await
    }

    /// Server-side apply by this manager.
    pub async fn apply(&self, path: &str, manager: &str, object: &Value) -> Answer {
        let path = format!("{path}{}fieldManager={manager}", if path.contains('?') { '&' } else { '?' });
        self.with_json("PATCH", &path, "application/apply-patch+yaml", object).await
    }

    /// Makes a ConfigMap with these labels and returns it.
    pub async fn config_map(&self, name: &str, labels: Value) -> Value {
        let map = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "1"}});
        self.post(&self.core("configmaps"), &map).await.with(201)
    }

    /// Makes a pod on a node that is not there, and the service account it needs.
    pub async fn pod(&self, name: &str, node: &str) -> Value {
        let account =
            self.post(&self.core("serviceaccounts"), &json!({"metadata": {"name": "default"}})).await;
        assert!(matches!(account.code, 201 | 409), "{}", account.body);
        self.post(&self.core("pods"), &pod(name, node)).await.with(201)
    }

    /// Begins to watch; the query is that of the watch.
    pub async fn watch(&self, path: &str, query: &str) -> Watching {
        let request = request("GET", &format!("{path}?watch=true&{query}"), &[], Vec::new());
        let response = timeout(PATIENCE, self.service.clone().oneshot(request)).await.expect("no answer");
        let response = response.expect("the watch failed");
        let code = response.status().as_u16();
        Watching { code, body: response.into_body(), read: BytesMut::new() }
    }

    /// Looks again and again until the answer is as wished.
    pub async fn until(&self, path: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if wished(&answer) {
                return answer;
            }
            assert!(Instant::now() < end, "{path} stays as it is: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Asks a cluster as whoever runs it, for tests that need no bench: a body of null is none, the form of a
/// patch is `application/merge-patch+json`, of all else `application/json`.
pub async fn ask(cluster: &dyn ClusterApi, method: &str, path: &str, body: &Value) -> Answer {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Vec::new() } else { body.to_string().into() };
    call(cluster.service(&Actor::Ourselves), request(method, path, &[("content-type", media)], body)).await
}

async fn call(service: KubeService, request: Request<Body>) -> Answer {
    let response = timeout(PATIENCE, service.oneshot(request)).await;
    let (head, body) = response.expect("no answer").expect("the request failed").into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("the answer does not end");
    let body = body.expect("the answer broke off").to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Answer { code: head.status.as_u16(), headers: head.headers, body }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "accept") {
        request = request.header(header::ACCEPT, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// A pod; without a node's name it waits for a scheduler.
pub(super) fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {
        "automountServiceAccountToken": false, "containers": [{"name": "main", "image": "registry.invalid/main:1"}]}});
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// A Deployment of one pod that is not wanted yet.
pub(super) fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "registry.invalid/main:1"}]}}}})
}

/// A text of an object, empty if it is not there.
pub(super) fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The version of an object or list.
pub(super) fn version(object: &Value) -> String {
    let version = text(object, "/metadata/resourceVersion");
    assert!(!version.is_empty(), "no resourceVersion: {object}");
    version
}

/// The names in a list, in its order.
pub(super) fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| text(item, "/metadata/name")).collect()
}

/// A watch that goes on.
pub struct Watching {
    /// The HTTP status it began with.
    pub code: u16,
    body: Body,
    read: BytesMut,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").field("code", &self.code).finish_non_exhaustive()
    }
}

impl Watching {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(at + 1);
                return Some(serde_json::from_slice(&line).expect("a line of a watch is one JSON object"));
            }
            match timeout(PATIENCE, self.body.frame()).await.expect("the watch is silent") {
                Some(frame) => {
                    let data = frame.expect("the watch broke off").into_data().unwrap_or_default();
                    self.read.extend_from_slice(&data);
                }
                None if self.read.is_empty() => return None,
                None => return serde_json::from_slice(&self.read.split()).ok(),
            }
        }
    }

    /// The next events must be these: type and name.
    pub async fn tells(&mut self, expected: &[(&str, &str)]) -> Value {
        let mut last = Value::Null;
        for (kind, name) in expected {
            last = self.next().await.expect("the watch ended");
            assert_eq!(
                (text(&last, "/type"), text(&last, "/object/metadata/name")),
                ((*kind).into(), (*name).into()),
                "{last}"
            );
        }
        last
    }
}
