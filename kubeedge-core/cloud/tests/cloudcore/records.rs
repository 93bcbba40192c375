//! ObjectSync and ClusterObjectSync on the embedded cluster: as Go writes them, and both ways to agreement.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_core::{
    api,
    conformance::cluster::{Answer, ask},
    message::Message,
};
use kubeedge_store::MemoryStore;
use serde_json::{Value, json};

use crate::{
    SYNCS,
    cluster::FakeCluster,
    confirmed,
    edge::{Cloud, Edge, body, settings},
    uid, version,
};

const CORE: &str = "/api/v1/namespaces/default";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";

/// The embedded cluster, spoken to as kubectl does.
#[derive(Clone)]
struct Kube(EmbeddedCluster);

impl Kube {
    async fn new() -> Self {
        let settings = EmbeddedSettings::new(Signer::new(b"secret")).definitions(api::definitions());
        Self(EmbeddedCluster::open(Arc::new(MemoryStore::new()), settings).await.unwrap())
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let Answer { code, body, .. } = ask(&self.0, method, path, body).await;
        let done = (200..300).contains(&code);
        assert!(done || code == 404, "{method} {path}: {body}");
        done.then_some(body)
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.ask("GET", path, &Value::Null).await
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        self.ask("POST", path, &object).await.unwrap()
    }

    async fn patch(&self, path: &str, patch: Value) -> Value {
        self.ask("PATCH", path, &patch).await.unwrap()
    }

    async fn delete(&self, path: &str) {
        self.ask("DELETE", path, &json!({"gracePeriodSeconds": 0})).await;
    }

    async fn until(&self, path: &str, wished: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let look = async {
            loop {
                let found = self.get(path).await;
                if wished(found.as_ref()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), look).await {
            Ok(found) => found,
            Err(_) => panic!("{path} is {:?}", self.get(path).await),
        }
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        self.get(path).await.unwrap()["items"].as_array().unwrap().clone()
    }
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": "edge.one", "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "m"}}]}]}})
}

fn device(name: &str) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": name},
        "spec": {"nodeName": "edge.one", "deviceModelRef": {"name": "model"}, "protocol": {"protocolName": "modbus"}, "properties": []}})
}

/// Makes the model of all devices.
async fn make_model(kube: &Kube) {
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": {"name": "model"}, "spec": {"protocol": "modbus", "properties": []}});
    kube.create(&format!("{DEVICES}/devicemodels"), model).await;
}

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

fn sync(object: &Value) -> String {
    format!("{SYNCS}/namespaces/default/objectsyncs/edge.one.{}", uid(object))
}

async fn cloud_of(kube: &Kube) -> Cloud {
    let mut settings = settings();
    settings.sync.every = Duration::from_millis(300);
    // These edges send no keepalives, and the machine may be busy.
    settings.hub.times.keepalive = Duration::from_secs(3600);
    Cloud::start_over(FakeCluster::new(), Arc::new(kube.0.clone()), settings).await
}

async fn start(kube: &Kube) -> (Cloud, Edge) {
    let cloud = cloud_of(kube).await;
    let edge = cloud.dial("edge.one").await.unwrap();
    (cloud, edge)
}

/// Confirms messages about objects of default until it was told of all of these; what it was told.
async fn told(edge: &mut Edge, resources: &[&str]) -> BTreeMap<String, Vec<Message>> {
    let mut told: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    while !resources.iter().all(|resource| told.contains_key(*resource)) {
        let message = edge.next().await.expect("the session lives");
        edge.ack(&message).await;
        if message.header.parent.is_none() {
            told.entry(message.route.resource.as_str().to_owned()).or_default().push(message);
        }
    }
    told
}

#[tokio::test]
async fn records_are_written_as_go_writes_them_before_and_after_the_edge_confirms() {
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    let node = edge.register("edge.one").await;
    let path = format!("{SYNCS}/clusterobjectsyncs/edge.one.{}", uid(&node));
    let record = kube
        .until(&path, |found| {
            found.is_some_and(|record| confirmed(record) != "0" && !confirmed(record).is_empty())
        })
        .await
        .unwrap();
    assert_eq!(
        record["spec"],
        json!({"objectAPIVersion": "v1", "objectKind": "Node", "objectName": "edge.one"})
    );
    assert_eq!(record["metadata"].get("namespace"), None);

    make_model(&kube).await;
    for (collection, object, api, kind) in [
        (format!("{CORE}/pods"), pod("p"), "v1", "Pod"),
        (format!("{CORE}/configmaps"), map("m", "1"), "v1", "ConfigMap"),
        (format!("{DEVICES}/devices"), device("device"), "devices.kubeedge.io/v1beta1", "Device"),
    ] {
        let made = kube.create(&collection, object).await;
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        let resource = format!("default/{}/{name}", kind.to_lowercase());
        let message = edge.expect(&resource, |m| m.route.resource == resource.as_str()).await;
        let record = kube.get(&sync(&made)).await.expect("a record before the message");
        assert_eq!(record["metadata"]["namespace"], "default");
        assert_eq!(record["spec"], json!({"objectAPIVersion": api, "objectKind": kind, "objectName": name}));
        assert_eq!(confirmed(&record), "0");
        edge.ack(&message).await;
        let version = message.header.resource_version.clone().unwrap();
        kube.until(&sync(&made), |found| found.is_some_and(|record| version == confirmed(record))).await;
        kube.delete(&format!("{collection}/{name}")).await;
        let gone = edge.expect_object("delete", &resource).await;
        assert!(kube.get(&sync(&made)).await.is_some(), "the record goes after the confirmation");
        edge.ack(&gone).await;
        kube.until(&sync(&made), |found| found.is_none()).await;
    }
    cloud.stop().await;
}

#[tokio::test]
async fn after_any_absence_edge_cluster_and_records_agree() {
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    edge.register("edge.one").await;
    let pods = format!("{CORE}/pods");
    let maps = format!("{CORE}/configmaps");
    let mut made = BTreeMap::new();
    for name in ["same", "changed", "deleted", "anew", "unversioned"] {
        made.insert(name, kube.create(&pods, pod(name)).await);
        let path = format!("default/pod/{name}");
        told(&mut edge, &[path.as_str()]).await;
        let done = |found: Option<&Value>| {
            found.is_some_and(|record| !confirmed(record).is_empty() && confirmed(record) != "0")
        };
        kube.until(&sync(&made[name]), done).await;
    }
    let first = kube.create(&maps, map("m", "1")).await;
    told(&mut edge, &["default/configmap/m"]).await;
    kube.until(&sync(&first), |found| found.is_some_and(|record| confirmed(record) != "0")).await;
    drop(edge);
    cloud.stop().await;
    // Nobody is there.
    let changed = kube.patch(&format!("{pods}/changed"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    for name in ["deleted", "anew"] {
        kube.delete(&format!("{pods}/{name}")).await;
    }
    let anew = kube.create(&pods, pod("anew")).await;
    kube.delete(&format!("{maps}/m")).await;
    let second = kube.create(&maps, map("m", "2")).await;
    let record = |node: &str, id: &str, kind: &str, name: &str| {
        json!({"apiVersion": "reliablesyncs.kubeedge.io/v1alpha1", "kind": "ObjectSync", "metadata": {"name": format!("{node}.{id}")},
            "spec": {"objectAPIVersion": "v1", "objectKind": kind, "objectName": name}})
    };
    let syncs = format!("{SYNCS}/namespaces/default/objectsyncs");
    kube.create(&syncs, record("edge.one", "never-was", "ConfigMap", "leftover")).await;
    kube.create(&syncs, record("node-that-is-gone", "x", "Pod", "y")).await;
    kube.patch(
        &format!("{}/status", sync(&made["unversioned"])),
        json!({"status": {"objectResourceVersion": ""}}),
    )
    .await;

    let cloud = cloud_of(&kube).await;
    // Records are made for what is new while the edge is away.
    for new in [&anew, &second] {
        kube.until(&sync(new), |found| found.is_some()).await;
    }
    let mut edge = cloud.dial("edge.one").await.unwrap();
    let resources = [
        "default/pod/changed",
        "default/pod/deleted",
        "default/pod/anew",
        "default/pod/unversioned",
        "default/configmap/m",
        "default/configmap/leftover",
    ];
    let mut told = told(&mut edge, &resources).await;
    for (object, at) in [(&anew, "default/pod/anew"), (&second, "default/configmap/m")] {
        let path = sync(object);
        // Both the old one's end and the new one.
        while told[at].last().is_none_or(|last| body(last)["metadata"]["uid"] != uid(object)) {
            for (resource, messages) in self::told(&mut edge, &[at]).await {
                told.entry(resource).or_default().extend(messages);
            }
        }
        kube.until(&path, |found| found.is_some_and(|record| confirmed(record) != "0")).await;
        let operations: Vec<_> = told[at]
            .iter()
            .map(|m| (m.route.operation.as_str(), body(m)["metadata"]["uid"].clone()))
            .collect();
        assert_eq!(operations[0].0, "delete", "{operations:?}");
        assert_ne!(operations[0].1, uid(object));
    }
    for gone in ["default/pod/deleted", "default/configmap/leftover"] {
        let stub = &told[gone][0];
        assert_eq!((stub.route.operation.as_str(), stub.route.source.as_str()), ("delete", "edgecontroller"));
        assert_eq!(body(stub).as_object().unwrap().keys().collect::<Vec<_>>(), ["metadata"]);
    }
    assert_eq!(told["default/pod/changed"][0].route.operation, "update");
    assert!(!told.contains_key("default/pod/same"), "what has not changed is not told again");
    let expected: BTreeMap<String, String> = [&made["same"], &changed, &made["unversioned"], &anew, &second]
        .map(|object| (format!("edge.one.{}", uid(object)), version(object).to_owned()))
        .into();
    let look = async {
        loop {
            let records = kube.list(&syncs).await;
            let found: BTreeMap<_, _> = records
                .iter()
                .map(|record| {
                    (record["metadata"]["name"].as_str().unwrap().to_owned(), confirmed(record).to_owned())
                })
                .collect();
            if found == expected {
                return;
            }
            tokio::select! {
                message = edge.next() => { let message = message.unwrap(); edge.ack(&message).await; }
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), look).await.is_err() {
        panic!("expected {expected:#?}, there are {:#?}", kube.list(&syncs).await);
    }
    kube.delete("/api/v1/nodes/edge.one").await;
    while edge.next().await.is_some() {}
    kube.until(&syncs, |found| found.is_some_and(|list| list["items"].as_array().unwrap().is_empty())).await;
    cloud.stop().await;
}

#[tokio::test]
async fn records_that_somebody_removes_are_made_again_and_what_the_edge_has_is_not_sent() {
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    edge.register("edge.one").await;
    let made = kube.create(&format!("{CORE}/pods"), pod("p")).await;
    let map = kube.create(&format!("{CORE}/configmaps"), map("m", "1")).await;
    told(&mut edge, &["default/pod/p", "default/configmap/m"]).await;
    let is_confirmed = |object: &Value| {
        let version = version(object).to_owned();
        move |found: Option<&Value>| found.is_some_and(|record| confirmed(record) == version)
    };
    for object in [&made, &map] {
        kube.until(&sync(object), is_confirmed(object)).await;
    }
    for object in [&made, &map] {
        kube.delete(&sync(object)).await;
    }
    for object in [&made, &map] {
        kube.until(&sync(object), is_confirmed(object)).await;
    }
    kube.create(&format!("{CORE}/pods"), pod("fence")).await;
    let told = told(&mut edge, &["default/pod/fence"]).await;
    assert!(!told.keys().any(|resource| resource.ends_with("/p") || resource.ends_with("/m")), "{told:?}");
    cloud.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_node_that_is_away_reaches_it_though_its_record_is_removed() {
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    edge.register("edge.one").await;
    drop(edge);
    let made = kube.create(&format!("{CORE}/pods"), pod("p")).await;
    kube.until(&sync(&made), |found| found.is_some()).await;
    let map = kube.create(&format!("{CORE}/configmaps"), map("m", "1")).await;
    for removed in [&made, &map] {
        kube.until(&sync(removed), |found| found.is_some()).await;
    }
    // Once cloudcore has removed a record made after these, it knows of these.
    let fence = json!({"apiVersion": "reliablesyncs.kubeedge.io/v1alpha1", "kind": "ObjectSync", "metadata": {"name": "gone.x"},
        "spec": {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "y"}});
    let syncs = format!("{SYNCS}/namespaces/default/objectsyncs");
    kube.create(&syncs, fence).await;
    kube.until(&format!("{syncs}/gone.x"), |found| found.is_none()).await;
    for removed in [&made, &map] {
        kube.delete(&sync(removed)).await;
    }
    for removed in [&made, &map] {
        kube.until(&sync(removed), |found| found.is_some()).await;
    }
    let mut edge = cloud.dial("edge.one").await.unwrap();
    told(&mut edge, &["default/pod/p", "default/configmap/m"]).await;
    cloud.stop().await;
}

#[tokio::test]
async fn no_record_is_made_again_of_what_has_left_the_node() {
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    edge.register("edge.one").await;
    make_model(&kube).await;
    let [stays, moves] = ["stays", "moves"].map(device);
    let stays = kube.create(&format!("{DEVICES}/devices"), stays).await;
    let moves = kube.create(&format!("{DEVICES}/devices"), moves).await;
    told(&mut edge, &["default/device/stays", "default/device/moves"]).await;
    kube.patch(&format!("{DEVICES}/devices/moves"), json!({"spec": {"nodeName": "elsewhere"}})).await;
    let gone = edge.expect_object("delete", "default/device/moves").await;
    edge.ack(&gone).await;
    kube.until(&sync(&moves), |found| found.is_none()).await;
    // This one is made again in the second pass, and so would be that one.
    kube.until(&sync(&stays), |found| found.is_some_and(|record| confirmed(record) != "0")).await;
    kube.delete(&sync(&stays)).await;
    kube.until(&sync(&stays), |found| found.is_some()).await;
    assert!(kube.get(&sync(&moves)).await.is_none());
    cloud.stop().await;
}

#[tokio::test]
async fn a_node_with_thousands_of_objects_is_told_of_the_few_that_changed() {
    const OBJECTS: usize = 2000;
    let kube = Kube::new().await;
    let (cloud, mut edge) = start(&kube).await;
    edge.register("edge.one").await;
    drop(edge);
    let names: Vec<_> = (0..OBJECTS).map(|n| format!("p{n}")).collect();
    for name in &names {
        let mut small = pod(name);
        small["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
        kube.create(&format!("{CORE}/pods"), small).await;
    }
    let mut edge = cloud.dial("edge.one").await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < OBJECTS {
        let message = edge.next().await.unwrap();
        edge.ack(&message).await;
        if message.route.resource.as_str().contains("/pod/") {
            seen.insert(message.route.resource);
        }
    }
    let syncs = format!("{SYNCS}/namespaces/default/objectsyncs");
    let all = |list: Option<&Value>| {
        let items = list.unwrap()["items"].as_array().unwrap();
        items.len() == OBJECTS && items.iter().all(|record| confirmed(record) != "0")
    };
    kube.until(&syncs, all).await;
    drop(edge);
    cloud.stop().await;
    for name in names.iter().step_by(OBJECTS / 10) {
        kube.patch(&format!("{CORE}/pods/{name}"), json!({"metadata": {"labels": {"a": "b"}}})).await;
    }
    let (cloud, mut edge) = start(&kube).await;
    let (mut changed, mut others, mut fenced) = (std::collections::BTreeSet::new(), Vec::new(), false);
    loop {
        let message = edge.next().await.unwrap();
        edge.ack(&message).await;
        let resource = message.route.resource.as_str().to_owned();
        if body(&message)["metadata"]["labels"]["a"] == "b" {
            changed.insert(resource);
        } else if resource == "default/pod/fence" {
            break;
        } else if resource.contains("/pod/") {
            others.push(resource);
        }
        if changed.len() == 10 && !fenced {
            fenced = true;
            kube.create(&format!("{CORE}/pods"), pod("fence")).await;
        }
    }
    assert_eq!((changed.len(), others), (10, Vec::<String>::new()));
    cloud.stop().await;
}
