//! The seam below the API: the embedded storage keeps its contract, and the API serves another storage as
//! well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of a test")]

use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::BodyExt;
use kubeedge_apiserver::{
    ApiServer, Collection, EmbeddedStorage, ObjectKey, Storage,
    conformance::StorageHarness,
    storage::{Change, Decide, ListQuery, Listed, StorageError, StorageKind, Watcher},
};
use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, ClusterApi},
    conformance::cluster::ask,
    failure::Failure,
};
use kubeedge_store::MemoryStore;
use serde_json::{Value, json};
use tower::ServiceExt;

struct Embedded(Arc<MemoryStore>);

#[async_trait]
impl StorageHarness for Embedded {
    async fn open(&self) -> Arc<dyn Storage> {
        Arc::new(EmbeddedStorage::open(self.0.clone()).await.unwrap())
    }
}

kubeedge_apiserver::storage_conformance!(async { Embedded(Arc::default()) });

/// A view of a fixed list of objects, as a cache that is cut off from its source has.
#[derive(Debug)]
struct View(Vec<(ObjectKey, Arc<Value>)>);

const VERSION: u64 = 7;

impl View {
    fn of(objects: &[(&str, &str, Value)]) -> Arc<Self> {
        let key = |group: &str, plural: &str, object: &Value| ObjectKey {
            group: group.to_owned(),
            plural: plural.to_owned(),
            namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            name: object["metadata"]["name"].as_str().unwrap().to_owned(),
        };
        let rows = objects
            .iter()
            .map(|(group, plural, object)| (key(group, plural, object), Arc::new(object.clone())));
        Arc::new(Self(rows.collect()))
    }
}

#[async_trait]
impl Storage for View {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Arc<Value>>, StorageError> {
        Ok(self.0.iter().find(|(known, _)| known == key).map(|(_, object)| object.clone()))
    }

    async fn list(&self, query: &ListQuery) -> Result<Listed, StorageError> {
        let of =
            self.0.iter().filter(|(key, object)| query.collection.has(key) && query.selector.matches(object));
        Ok(Listed::new(of.map(|(_, object)| object.clone()).collect(), VERSION))
    }

    async fn watch(&self, _: &Collection, after: u64) -> Result<Box<dyn Watcher>, StorageError> {
        Ok(Box::new(Still(after)))
    }

    async fn write(&self, _: &ObjectKey, _: Decide<'_>) -> Result<Option<Arc<Value>>, StorageError> {
        Err(Failure::new(StorageKind::Unavailable, "writing while the cloud is away"))
    }
}

/// Nothing ever changes, and what was before is not known.
struct Still(u64);

#[async_trait]
impl Watcher for Still {
    async fn next(&mut self) -> Result<Vec<Arc<Change>>, StorageError> {
        if self.0 < VERSION {
            return Err(Failure::new(StorageKind::Expired, "reading no history"));
        }
        std::future::pending().await
    }

    fn version(&mut self) -> u64 {
        self.0
    }
}

fn view() -> ApiServer {
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}, "resourceVersion": "3"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}})
    };
    let definition = json!({"metadata": {"name": "kilns.acme.io"}, "spec": {"group": "acme.io", "scope": "Namespaced",
        "names": {"plural": "kilns", "kind": "Kiln"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "additionalPrinterColumns": [{"name": "Heat", "type": "integer", "jsonPath": ".spec.heat"}],
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let kiln = json!({"apiVersion": "acme.io/v1", "kind": "Kiln", "metadata": {"name": "k", "namespace": "default"}, "spec": {"heat": 9}});
    let storage = View::of(&[
        ("", "pods", pod("a", "n1")),
        ("", "pods", pod("b", "n2")),
        ("", "namespaces", json!({"metadata": {"name": "default"}})),
        ("apiextensions.k8s.io", "customresourcedefinitions", definition),
        ("acme.io", "kilns", kiln),
    ]);
    ApiServer::new(storage, Clock::wall())
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn another_storage_is_discovered_read_and_selected() {
    let server = view();
    let groups = ask(&server, "GET", "/apis", &Value::Null).await.body;
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "acme.io"), "{groups}");
    let resources = ask(&server, "GET", "/apis/acme.io/v1", &Value::Null).await.body;
    assert_eq!(resources["resources"][0]["name"], "kilns");
    let pod = ask(&server, "GET", &format!("{PODS}/a"), &Value::Null).await;
    assert_eq!((pod.code, &pod.body["spec"]["nodeName"]), (200, &json!("n1")));
    let missing = ask(&server, "GET", &format!("{PODS}/c"), &Value::Null).await;
    assert_eq!((missing.code, &missing.body["reason"]), (404, &json!("NotFound")));
    for (query, expected) in [
        ("", 2),
        ("?labelSelector=app%3Da", 1),
        ("?fieldSelector=spec.nodeName%3Dn2,status.phase%3DRunning", 1),
    ] {
        let list = ask(&server, "GET", &format!("{PODS}{query}"), &Value::Null).await.body;
        assert_eq!(list["items"].as_array().unwrap().len(), expected, "{query}: {list}");
        assert_eq!(list["metadata"]["resourceVersion"], VERSION.to_string());
    }
}

async fn get(server: &ApiServer, path: &str, accept: &str) -> http::Response<kubeedge_core::cluster::Body> {
    let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::builder().uri(path).header("accept", accept).body(body).unwrap();
    server.service(&Actor::Ourselves).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn tables_show_what_another_storage_holds() {
    let server = view();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (path, expected) in [
        (PODS.to_owned(), json!(["a", "0/1", "Running", "0"])),
        ("/apis/acme.io/v1/kilns".to_owned(), json!(["k", 9])),
    ] {
        let body = get(&server, &path, accept).await.into_body().collect().await.unwrap().to_bytes();
        let table: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(table["kind"], "Table");
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        let expected = expected.as_array().unwrap();
        assert_eq!(cells[..expected.len()], expected[..], "{path}");
    }
}

#[tokio::test]
async fn writes_to_a_storage_that_is_away_are_unavailable() {
    let server = view();
    let pod = json!({"metadata": {"name": "c"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    for (method, path, body) in [
        ("POST", PODS.to_owned(), &pod),
        ("DELETE", format!("{PODS}/a"), &Value::Null),
        ("PUT", format!("{PODS}/a"), &pod),
        ("POST", format!("{PODS}/a/eviction"), &patch),
    ] {
        let mut body = body.clone();
        if method == "PUT" {
            body["metadata"]["name"] = "a".into();
        }
        let answer = ask(&server, method, &path, &body).await;
        assert_eq!(answer.code, 503, "{method} {path}: {}", answer.body);
        assert_eq!(answer.body["reason"], "ServiceUnavailable");
        assert!(answer.body["message"].as_str().unwrap().contains("the cloud is away"), "{}", answer.body);
    }
    let unsigned = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert_eq!(ask(&server, "POST", unsigned, &json!({})).await.code, 501);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_another_storage_brings_its_objects_and_bookmarks() {
    let server = view();
    let query = "?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&timeoutSeconds=90";
    let mut body = get(&server, &format!("{PODS}{query}"), "application/json").await.into_body();
    let mut told = Vec::new();
    while let Some(frame) = body.frame().await {
        let event: Value = serde_json::from_slice(frame.unwrap().data_ref().unwrap()).unwrap();
        told.push(event["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, ["ADDED", "ADDED", "BOOKMARK", "BOOKMARK", "BOOKMARK"]);
    let old = get(&server, &format!("{PODS}?watch=true&resourceVersion=1"), "application/json").await;
    assert_eq!(old.status(), 200);
    let event = old.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&event).unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
}
