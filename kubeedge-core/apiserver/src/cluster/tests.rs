use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use kubeedge_core::{kernel::Shutdown, message::Millis};
use kubeedge_store::MemoryStore;
use tower::ServiceExt;

use super::*;
use crate::controllers;

fn settings() -> EmbeddedSettings {
    EmbeddedSettings::new(Signer::new(b"secret"))
        .namespaces(vec!["kubeedge".into()])
        .root_ca_pem("pem".into())
}

async fn cluster() -> EmbeddedCluster {
    EmbeddedCluster::open(Arc::new(MemoryStore::default()), settings()).await.unwrap()
}

fn client(cluster: &EmbeddedCluster) -> Client {
    let service = cluster.service(&Actor::Ourselves).map_request(|request: Request<kube::client::Body>| {
        request.map(|body| body.map_err(Into::into).boxed_unsync())
    });
    Client::new(service, "default")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).unwrap()
}

async fn call(
    cluster: &EmbeddedCluster,
    who: &Actor,
    method: &str,
    path: &str,
    kind: &str,
    body: &str,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(crate::answer::full(body.to_owned())).unwrap();
    let response = cluster.service(who).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn ours(cluster: &EmbeddedCluster, method: &str, path: &str, body: &Value) -> (u16, Value) {
    call(cluster, &Actor::Ourselves, method, path, "application/json", &body.to_string()).await
}

#[tokio::test]
async fn objects_are_created_read_replaced_patched_and_deleted_through_kube() {
    let cluster = cluster().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster));
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let mut stale = made.clone();
    let patch = json!({"data": {"k": "2", "n": "3"}});
    let patched = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched.data.unwrap()["k"], "2");
    stale.data = None;
    let conflict = maps.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.code == 409));
    let twice = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert!(matches!(twice, kube::Error::Api(status) if status.reason == "AlreadyExists"));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_sees_what_was_there_and_every_change_after_it() {
    let cluster = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(client(&cluster), "kubeedge");
    maps.create(&PostParams::default(), &config_map("early", "1")).await.unwrap();
    let mut seen = Box::pin(watcher(maps.clone(), watcher::Config::default()).applied_objects());
    let mut next =
        async || futures::TryStreamExt::try_next(&mut seen).await.unwrap().unwrap().metadata.name.unwrap();
    assert_eq!(next().await, "early");
    maps.create(&PostParams::default(), &config_map("late", "1")).await.unwrap();
    assert_eq!(next().await, "late");
}

#[tokio::test]
async fn objects_and_versions_survive_a_restart_and_an_old_watch_is_told_so() {
    let store = Arc::new(MemoryStore::default());
    let first = EmbeddedCluster::open(store.clone(), settings()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&first));
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let second = EmbeddedCluster::open(store, settings()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&second));
    let found = maps.get("a").await.unwrap();
    assert_eq!(found.metadata.uid, made.metadata.uid);
    // As Kubernetes tells it: kube's watchers, our informers among them, list again after such an event, and
    // never after an answer with 410.
    let (code, event) =
        ours(&second, "GET", "/api/v1/configmaps?watch=true&resourceVersion=1", &Value::Null).await;
    let object = &event["object"];
    assert_eq!((code, event["type"].as_str(), object["code"].as_i64()), (200, Some("ERROR"), Some(410)));
}

#[tokio::test]
async fn lists_are_paged_selected_and_shown_as_tables() {
    let cluster = cluster().await;
    for n in 0..5 {
        let map = json!({"metadata": {"name": format!("m{n}"), "labels": {"odd": (n % 2 == 1).to_string()}}});
        assert_eq!(ours(&cluster, "POST", "/api/v1/namespaces/default/configmaps", &map).await.0, 201);
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster));
    assert_eq!(maps.list(&ListParams::default().labels("odd=true")).await.unwrap().items.len(), 2);
    let page = maps.list(&ListParams::default().limit(2)).await.unwrap();
    let rest = maps
        .list(&ListParams::default().limit(9).continue_token(&page.metadata.continue_.unwrap()))
        .await
        .unwrap();
    assert_eq!((page.items.len(), rest.items.len()), (2, 3));
}

#[tokio::test]
async fn bad_input_gets_one_clear_status_and_changes_nothing() {
    let cluster = cluster().await;
    let version = cluster.storage.version();
    let pods = "/api/v1/namespaces/default/pods";
    let (code, status) = ours(
        &cluster,
        "POST",
        pods,
        &json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}),
    )
    .await;
    assert_eq!(code, 422);
    assert_eq!(status["message"], "Pod \"p\" is invalid: spec.containers[0].image: Required value");
    let strict = format!("{pods}?fieldValidation=Strict");
    let typo = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i", "comand": []}], "nodname": "x"}});
    let (code, status) = ours(&cluster, "POST", &strict, &typo).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("unknown field \"spec.nodname\""), "{status}");
    for (kind, body, expected) in [
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", "{\"metadata\": 5}", 422),
        ("application/yaml", "a: [1", 400),
        ("application/vnd.kubernetes.protobuf", "k8s", 400),
    ] {
        let (code, status) = call(&cluster, &Actor::Ourselves, "POST", pods, kind, body).await;
        assert_eq!(code, expected, "{body}: {status}");
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(
        ours(
            &cluster,
            "POST",
            pods,
            &json!({"metadata": {"name": "Bad_Name"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
        )
        .await
        .0,
        422
    );
    assert_eq!(ours(&cluster, "GET", "/apis/nope/v1/things", &Value::Null).await.0, 404);
    let huge = json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(4 << 20)}});
    assert_eq!(ours(&cluster, "POST", "/api/v1/namespaces/default/configmaps", &huge).await.0, 413);
    assert_eq!(cluster.storage.version(), version);
}

#[tokio::test]
async fn times_beyond_every_calendar_are_cut_to_what_there_is() {
    let cluster = cluster().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(ours(&cluster, "POST", pods, &pod).await.0, 201);
    let (code, gone) =
        ours(&cluster, "DELETE", &format!("{pods}/p"), &json!({"gracePeriodSeconds": i64::MAX})).await;
    assert_eq!(
        (code, &gone["metadata"]["deletionTimestamp"]),
        (200, &json!("9999-12-31T23:59:59Z")),
        "{gone}"
    );
    let watch = format!("{pods}?watch=true&timeoutSeconds={}", u64::MAX);
    let request = Request::builder().uri(watch).body(crate::answer::full("")).unwrap();
    let response = cluster.service(&Actor::Ourselves).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().frame().await.is_some());
}

#[tokio::test]
async fn a_node_may_touch_only_what_is_its_own() {
    let cluster = cluster().await;
    let (n1, n2) = (Actor::Node("n1".into()), Actor::Node("n2".into()));
    let node = json!({"metadata": {"name": "n1"}}).to_string();
    let json = "application/json";
    assert_eq!(call(&cluster, &n1, "POST", "/api/v1/nodes", json, &node).await.0, 201);
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
    let merge = "application/strategic-merge-patch+json";
    assert_eq!(call(&cluster, &n1, "PATCH", "/api/v1/nodes/n1/status", merge, &patch).await.0, 200);
    assert_eq!(call(&cluster, &n2, "PATCH", "/api/v1/nodes/n1/status", merge, &patch).await.0, 403);
    assert_eq!(
        call(&cluster, &n1, "DELETE", "/api/v1/namespaces/default/configmaps/x", json, "").await.0,
        403
    );
    for sub in ["log", "exec", "attach", "binding"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{sub}");
        let method = if sub == "log" { "GET" } else { "POST" };
        assert_eq!(call(&cluster, &n1, method, &path, json, "").await.0, 403, "{sub}");
    }
}

#[tokio::test]
async fn custom_kinds_are_served_validated_and_pruned_as_soon_as_they_are_defined() {
    let cluster = cluster().await;
    let definition = json!({"metadata": {"name": "kilns.acme.io"}, "spec": {
        "group": "acme.io", "scope": "Namespaced", "names": {"plural": "kilns", "singular": "kiln", "kind": "Kiln", "shortNames": ["kl"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Heat", "type": "integer", "jsonPath": ".spec.heat"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "required": ["heat"], "properties": {"heat": {"type": "integer"}}}, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    assert_eq!(
        ours(&cluster, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)
            .await
            .0,
        201
    );
    let kilns = "/apis/acme.io/v1/namespaces/default/kilns";
    let (code, status) =
        ours(&cluster, "POST", kilns, &json!({"metadata": {"name": "k"}, "spec": {"heat": "hot"}})).await;
    assert_eq!(code, 422, "{status}");
    let (code, kiln) = ours(
        &cluster,
        "POST",
        kilns,
        &json!({"metadata": {"name": "k"}, "spec": {"heat": 9, "typo": 1}, "status": {"x": 1}}),
    )
    .await;
    assert_eq!(code, 201);
    assert_eq!((&kiln["spec"], kiln.get("status")), (&json!({"heat": 9}), None));
    let (_, resources) = ours(&cluster, "GET", "/apis/acme.io/v1", &Value::Null).await;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["kl"]));
}

#[tokio::test]
async fn a_definition_that_changes_or_goes_counts_from_the_next_request_on() {
    let cluster = cluster().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |heat: &str| {
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
        {"type": "object", "properties": {"heat": {"type": heat}}}}}])
    };
    let definition = json!({"metadata": {"name": "kilns.acme.io"}, "spec": {"group": "acme.io", "scope": "Cluster",
        "names": {"plural": "kilns", "kind": "Kiln"}, "versions": version("integer")}});
    ours(&cluster, "POST", definitions, &definition).await;
    let kilns = "/apis/acme.io/v1/kilns";
    let named = |name: &str| json!({"metadata": {"name": name}, "heat": "hot"});
    assert_eq!(ours(&cluster, "POST", kilns, &named("a")).await.0, 422);
    let path = format!("{definitions}/kilns.acme.io");
    let patch = json!({"spec": {"versions": version("string")}}).to_string();
    call(&cluster, &Actor::Ourselves, "PATCH", &path, "application/merge-patch+json", &patch).await;
    assert_eq!(ours(&cluster, "POST", kilns, &named("b")).await.0, 201);
    ours(&cluster, "DELETE", &path, &Value::Null).await;
    assert_eq!(ours(&cluster, "GET", kilns, &Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_pod_on_a_node_ends_when_the_node_says_so_and_finalizers_hold() {
    let cluster = cluster().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "i"}]}});
    ours(&cluster, "POST", "/api/v1/namespaces/default/pods", &pod).await;
    let path = "/api/v1/namespaces/default/pods/p";
    let (_, marked) = ours(&cluster, "DELETE", path, &json!({"gracePeriodSeconds": 5})).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(ours(&cluster, "GET", path, &Value::Null).await.0, 200);
    ours(&cluster, "DELETE", path, &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(ours(&cluster, "GET", path, &Value::Null).await.0, 404);
    let held = json!({"metadata": {"name": "h", "finalizers": ["acme.io/hold"]}});
    ours(&cluster, "POST", "/api/v1/namespaces/default/configmaps", &held).await;
    let path = "/api/v1/namespaces/default/configmaps/h";
    ours(&cluster, "DELETE", path, &Value::Null).await;
    assert_eq!(ours(&cluster, "GET", path, &Value::Null).await.0, 200);
    let release = json!({"metadata": {"finalizers": null}}).to_string();
    call(&cluster, &Actor::Ourselves, "PATCH", path, "application/merge-patch+json", &release).await;
    assert_eq!(ours(&cluster, "GET", path, &Value::Null).await.0, 404);
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = check().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not happen within 30 s");
}

#[tokio::test]
async fn a_deployment_becomes_pods_on_a_ready_node_scales_rolls_and_is_collected() {
    let cluster = cluster().await;
    let shutdown = Shutdown::new();
    let running = tokio::spawn(controllers::run(cluster.clone(), shutdown.clone()));
    let nodes: Api<Node> = Api::all(client(&cluster));
    let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "pods": "20"}, "conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client(&cluster));
    let pods: Api<Pod> = Api::default_namespaced(client(&cluster));
    let wished = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "one"}]}}}});
    deployments.create(&PostParams::default(), &serde_json::from_value(wished).unwrap()).await.unwrap();
    let ready = async || {
        let list = pods.list(&ListParams::default()).await.unwrap().items;
        for pod in &list {
            let status =
                json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = pods
                    .delete(pod.metadata.name.as_ref().unwrap(), &DeleteParams::default().grace_period(0))
                    .await;
            } else if pod.spec.as_ref().unwrap().node_name.is_some() {
                let _ = pods
                    .patch_status(
                        pod.metadata.name.as_ref().unwrap(),
                        &PatchParams::default(),
                        &Patch::Strategic(&status),
                    )
                    .await;
            }
        }
        list
    };
    let available = async |count: i32, image: &str| {
        until("availability", async || {
            let list = ready().await;
            let all = list
                .iter()
                .all(|pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image));
            let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
            (status.available_replicas == Some(count) && list.len() == count as usize && all).then_some(())
        })
        .await;
    };
    available(2, "one").await;
    let patch = json!({"spec": {"replicas": 3}});
    deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    available(3, "one").await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "two"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    available(3, "two").await;
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    until("collection", async || ready().await.is_empty().then_some(())).await;
    shutdown.request();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_is_wrong_is_alive_as_long_as_it_renews_its_lease() {
    let cluster = cluster().await;
    let shutdown = Shutdown::new();
    let running = tokio::spawn(controllers::run(cluster.clone(), shutdown.clone()));
    let node =
        json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(ours(&cluster, "POST", "/api/v1/nodes", &node).await.0, 201);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |second: u32| json!({"metadata": {"name": "n"}, "spec": {"holderIdentity": "n", "renewTime": format!("2020-01-01T00:00:{second:02}.000000Z")}});
    let ready = async || {
        let (_, node) = ours(&cluster, "GET", "/api/v1/nodes/n", &Value::Null).await;
        node["status"]["conditions"][0]["status"].as_str().map(str::to_owned)
    };
    assert_eq!(ours(&cluster, "POST", leases, &lease(0)).await.0, 201);
    for second in 1..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(ours(&cluster, "PUT", &format!("{leases}/n"), &lease(second)).await.0, 200);
        assert_eq!(ready().await.as_deref(), Some("True"));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ready().await.as_deref(), Some("Unknown"));
    shutdown.request();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_nodes_are_tainted_and_their_pods_end_after_as_long_as_they_tolerate_it() {
    let settings = settings().clock(Clock::simulated(Millis(1_800_000_000_000)));
    let cluster = EmbeddedCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(controllers::run(cluster.clone(), shutdown.clone()));
    let (leases, pods) =
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", "/api/v1/namespaces/default/pods");
    let forever = json!([{"operator": "Exists"}]);
    for (node, pod, tolerations) in [
        ("lost-1", "a", json!([])),
        ("lost-2", "b", json!([])),
        ("lost-2", "stays", forever),
        ("there", "c", json!([])),
    ] {
        let object = json!({"metadata": {"name": node}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(matches!(ours(&cluster, "POST", "/api/v1/nodes", &object).await.0, 201 | 409));
        let object = json!({"metadata": {"name": pod}, "spec": {"nodeName": node, "tolerations": tolerations, "containers": [{"name": "c", "image": "i"}]}});
        assert_eq!(ours(&cluster, "POST", pods, &object).await.0, 201);
    }
    let lease = |node: &str, second: u64| json!({"metadata": {"name": node}, "spec": {"holderIdentity": node, "leaseTransitions": second}});
    assert_eq!(ours(&cluster, "POST", leases, &lease("there", 0)).await.0, 201);
    let ending = async || {
        let (_, list) = ours(&cluster, "GET", pods, &Value::Null).await;
        let ending = |pod: &&Value| pod["metadata"].get("deletionTimestamp").is_some();
        let list = list["items"].as_array().unwrap().clone();
        list.iter()
            .filter(ending)
            .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut ended = Vec::new();
    for turn in 1..=40 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(ours(&cluster, "PUT", &format!("{leases}/there"), &lease("there", turn)).await.0, 200);
        ended.push(ending().await);
    }
    let (_, node) = ours(&cluster, "GET", "/api/v1/nodes/lost-1", &Value::Null).await;
    assert_eq!(node["spec"]["taints"][1]["key"], "node.kubernetes.io/unreachable", "{node}");
    let first = ended.iter().position(|ending| !ending.is_empty()).unwrap() as u64 * 10 + 10;
    // Fifty seconds of silence, and five minutes that every pod tolerates it; looks are five seconds apart.
    assert!((350..=370).contains(&first), "pods end after {first} s");
    assert_eq!(ended.last().unwrap(), &["a", "b"]);
    shutdown.request();
    running.await.unwrap();
}
