//! To the edge: what happens in the cluster, what other modules have to say, and what the edge is told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::shape;
use crate::{
    cluster::FakeCluster,
    edge::{Cloud, Edge, settings},
};

const CORE: &str = "/api/v1/namespaces/default";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";

/// The next messages, each acknowledged.
async fn told(edge: &mut Edge, count: usize) -> Vec<Value> {
    let mut told = Vec::new();
    while told.len() < count {
        let message = edge.next().await.expect("the session lives");
        edge.ack(&message).await;
        told.push(shape(&message));
    }
    told
}

fn object(api: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "default",
        "uid": "*", "resourceVersion": "*", "creationTimestamp": "*"}});
    for (name, value) in rest.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn row(said: &str, content: &Value) -> Value {
    json!([said, true, content])
}

#[tokio::test]
async fn everything_that_happens_in_the_cluster_is_told_exactly_as_go_tells_it() {
    let mut settings = settings();
    settings.sync.every = Duration::from_secs(3600);
    let cloud = Cloud::start(settings).await;
    let mut edge = cloud.edge("n").await;
    let cluster = &cloud.cluster;
    pods(cluster, &mut edge).await;
    devices(cluster, &mut edge).await;
    node(cluster, &mut edge).await;
    cluster.delete("/api/v1/nodes/n");
    assert!(edge.next().await.is_none(), "the node's end is not told, it ends the session");
    cloud.stop().await;
}

async fn pods(cluster: &FakeCluster, edge: &mut Edge) {
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "envFrom": [
        {"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]}]});
    let made = json!({"metadata": {"name": "p"}, "spec": spec});
    let pod = |labels: Value| {
        let mut pod = object("v1", "Pod", "p", json!({"spec": spec}));
        if !labels.is_null() {
            pod["metadata"]["labels"] = labels;
        }
        pod
    };
    cluster.create(
        &format!("{CORE}/pods"),
        json!({"metadata": {"name": "elsewhere"}, "spec": {"nodeName": "other", "containers": []}}),
    );
    cluster.create(&format!("{CORE}/pods"), made);
    let said = "edgecontroller resource insert default/pod/p";
    assert_eq!(told(edge, 1).await, [row(said, &pod(Value::Null))]);
    for (path, kind, name, first) in
        [("configmaps", "ConfigMap", "m", "insert"), ("secrets", "Secret", "s", "update")]
    {
        let lower = kind.to_lowercase();
        let whole = |data: &str| object("v1", kind, name, json!({"data": {"k": data}}));
        let said = |operation: &str| format!("edgecontroller resource {operation} default/{lower}/{name}");
        cluster.create(&format!("{CORE}/{path}"), json!({"metadata": {"name": name}, "data": {"k": "1"}}));
        assert_eq!(told(edge, 1).await, [row(&said(first), &whole("1"))]);
        cluster.patch(&format!("{CORE}/{path}/{name}"), json!({"data": {"k": "2"}}));
        assert_eq!(told(edge, 1).await, [row(&said("update"), &whole("2"))]);
        cluster.delete(&format!("{CORE}/{path}/{name}"));
        assert_eq!(told(edge, 1).await, [row(&said("delete"), &whole("2"))]);
    }
    // A change of status alone is not told, a change of labels is.
    cluster.patch(&format!("{CORE}/pods/p"), json!({"status": {"phase": "Running"}}));
    cluster.patch(&format!("{CORE}/pods/p"), json!({"metadata": {"labels": {"a": "b"}}}));
    let mut labelled = pod(json!({"a": "b"}));
    labelled["status"] = json!({"phase": "Running"});
    assert_eq!(told(edge, 1).await, [row("edgecontroller resource update default/pod/p", &labelled)]);
    cluster
        .patch(&format!("{CORE}/pods/p"), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    labelled["metadata"]["deletionTimestamp"] = "*".into();
    assert_eq!(told(edge, 1).await, [row("edgecontroller resource update default/pod/p", &labelled)]);
    cluster.delete(&format!("{CORE}/pods/p"));
    assert_eq!(told(edge, 1).await, [row("edgecontroller resource delete default/pod/p", &labelled)]);
    let ending = json!({"metadata": {"name": "e", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "n", "containers": []}});
    cluster.create(&format!("{CORE}/pods"), ending);
    assert_eq!(told(edge, 1).await[0][0], "edgecontroller resource update default/pod/e");
}

async fn devices(cluster: &FakeCluster, edge: &mut Edge) {
    let api = "devices.kubeedge.io/v1beta1";
    let spec = |value: &str| json!({"nodeName": "n", "deviceModelRef": {"name": "m"}, "properties": [{"name": "t", "desired": {"value": value}}]});
    let model = object(api, "DeviceModel", "m", json!({"spec": {"properties": [{"name": "t"}]}}));
    let device = |value: &str| {
        let mut device = object(api, "Device", "d", json!({"spec": spec(value)}));
        device["metadata"]["labels"] = json!({"description": "a cell"});
        device
    };
    let member = json!([{"id": "default/d", "name": "d", "description": "a cell"}]);
    let membership = |added: &Value, removed: &Value| {
        json!(["devicecontroller twin update membership", false,
            {"event_id": "*", "timestamp": "*", "added_devices": added, "removed_devices": removed}])
    };
    let said = |operation: &str, what: &str| format!("devicecontroller resource {operation} default/{what}");
    cluster.create(
        &format!("{DEVICES}/devicemodels"),
        json!({"metadata": {"name": "m"}, "spec": {"properties": [{"name": "t"}]}}),
    );
    cluster.create(
        &format!("{DEVICES}/devices"),
        json!({"metadata": {"name": "d", "labels": {"description": "a cell"}}, "spec": spec("1")}),
    );
    let expected = [
        membership(&member, &Value::Null),
        row(&said("insert", "devicemodel/m"), &model),
        row(&said("insert", "device/d"), &device("1")),
    ];
    assert_eq!(told(edge, 3).await, expected);
    // The model has not changed: only the device is told.
    cluster.patch(&format!("{DEVICES}/devices/d"), json!({"spec": spec("2")}));
    assert_eq!(told(edge, 1).await, [row(&said("update", "device/d"), &device("2"))]);
    cluster.patch(&format!("{DEVICES}/devices/d"), json!({"status": {"x": 1}}));
    cluster.delete(&format!("{DEVICES}/devices/d"));
    let mut last = device("2");
    last["status"] = json!({"x": 1});
    let told = told(edge, 3).await;
    // Membership goes beside the acknowledged lane.
    for expected in [
        membership(&Value::Null, &member),
        row(&said("delete", "devicemodel/m"), &model),
        row(&said("delete", "device/d"), &last),
    ] {
        assert!(told.contains(&expected), "{expected} not in {told:?}");
    }
}

async fn node(cluster: &FakeCluster, edge: &mut Edge) {
    cluster.patch("/api/v1/nodes/n", json!({"status": {"phase": "Running"}}));
    let told = told(edge, 1).await;
    assert_eq!(told[0][0], "edgecontroller resource update null/node/n");
    assert_eq!(
        (&told[0][1], &told[0][2]["kind"], &told[0][2]["apiVersion"]),
        (&json!(true), &json!("Node"), &json!("v1"))
    );
    assert_eq!(told[0][2]["status"], json!({"phase": "Running"}));
}

/// A module in the place of one that does not exist yet: passes on what the test says, and shows what it is
/// told.
#[derive(Clone)]
struct Stand {
    name: ModuleName,
    says: Arc<Mutex<Option<mpsc::UnboundedReceiver<Message>>>>,
    told: mpsc::UnboundedSender<Message>,
}

#[async_trait]
impl Module for Stand {
    fn name(&self) -> ModuleName {
        self.name.clone()
    }
    fn group(&self) -> Group {
        Group::of(if self.name == "taskmanager" { "taskmanager" } else { "stand" })
    }
    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let mut says = self.says.lock().unwrap().take().unwrap();
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(message) = says.recv() => ctx.bus.send(&ModuleName::CLOUD_HUB, message).await?,
                envelope = ctx.inbox.next() => drop(self.told.send(envelope.unwrap().into_parts().0)),
            }
        }
    }
}

/// Source, group, operation, resource in the cloud, resource at the edge, content, whether it comes again
/// until it is acknowledged.
type Said = (&'static str, &'static str, &'static str, &'static str, &'static str, Value, bool);

fn modules_to_come() -> Vec<Said> {
    let object = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "namespace": "default", "uid": kind, "resourceVersion": "7"}});
    let job = "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/n";
    let request = json!({"header": {"A": ["b"]}, "body": "aGk=", "method": "GET", "url": ""});
    vec![
        (
            "policycontroller",
            "resource",
            "insert",
            "node/n/default/serviceaccountaccess/x",
            "default/serviceaccountaccess/x",
            object("ServiceAccountAccess"),
            true,
        ),
        (
            "dynamiccontroller",
            "resource",
            "insert",
            "node/n/default/service/x",
            "default/service/x",
            object("Service"),
            true,
        ),
        (
            "dynamiccontroller",
            "resource",
            "applicationResponse",
            "node/n/ignore/Application/ignore",
            "ignore/Application/ignore",
            json!({"Status": "Approved"}),
            false,
        ),
        (
            "dynamiccontroller",
            "resource",
            "applicationResponse",
            "node/n/watchapp/sync",
            "watchapp/sync",
            json!({}),
            false,
        ),
        ("router_eventbus", "user", "subscribe", "node/n/default/topic", "default/topic", Value::Null, false),
        ("router_eventbus", "user", "publish", "node/n/topic/a", "topic/a", json!("text"), false),
        (
            "router_servicebus",
            "user",
            "start",
            "node/n/http://127.0.0.1:80/a",
            "http://127.0.0.1:80/a",
            Value::Null,
            false,
        ),
        ("router_servicebus", "user", "GET", "node/n/8080:/api", "8080:/api", request, false),
        (
            "servicebus",
            "user",
            "response",
            "node/n/http://127.0.0.1/a",
            "http://127.0.0.1/a",
            json!("said"),
            false,
        ),
        ("taskmanager", "taskmanager", "Check", job, job, json!({"version": "v1.23.0"}), false),
        (
            "taskmanager",
            "taskmanager",
            "upgrade",
            "upgrade/t/node/n",
            "upgrade/t/node/n",
            json!({"TaskID": "t"}),
            false,
        ),
        (
            "cloudhub",
            "resource",
            "createvolume",
            "node/n/default/volume/v",
            "default/volume/v",
            json!("{}"),
            false,
        ),
    ]
}

#[tokio::test]
async fn modules_that_are_still_to_come_are_heard_and_told_by_the_hub_as_go_does_it() {
    let mut settings = settings();
    settings.sync.every = Duration::from_secs(3600);
    let (mut mouths, mut ears) = (Vec::new(), Vec::new());
    let mut stands = Vec::new();
    for name in ["dynamiccontroller", "router", "taskmanager"] {
        let (mouth, says) = mpsc::unbounded_channel();
        let (told, ear) = mpsc::unbounded_channel();
        stands.push(Stand { name: ModuleName::of(name), says: Arc::new(Mutex::new(Some(says))), told });
        mouths.push(mouth);
        ears.push(ear);
    }
    let cloud =
        Cloud::start_with(settings, |core| stands.into_iter().fold(core, |core, stand| core.module(stand)))
            .await;
    let mut edge = cloud.edge("n").await;
    let mut acked = Vec::new();
    for (source, group, operation, full, trimmed, content, again) in modules_to_come() {
        let mut message = Message::new(source.into(), operation.into(), full)
            .in_group(group.into())
            .with(Content::json(&content).unwrap());
        if again {
            message = message.at_version("7");
        }
        mouths[0].send(message.clone()).unwrap();
        let came = edge.expect(trimmed, |m| m.header.id == message.header.id).await;
        let mut expected = message.clone();
        expected.route.resource = trimmed.into();
        assert_eq!(came, expected);
        if again {
            acked.push(message.header.id);
        }
    }
    // What nobody acknowledged comes again, and nothing else does.
    for _ in 0..4 {
        let came = edge.next().await.unwrap();
        assert!(acked.contains(&came.header.id), "{came:?}");
    }
    for (at, route, resource) in [
        (0_usize, ["metaserver", "dynamiccontroller", "null", "null"], "node/n/null"),
        (0_usize, ["metaserver", "dynamiccontroller", "null", "watchapp/sync"], "node/n/watchapp/sync"),
        (1, ["bus", "user", "upload", "a/topic"], "node/n/a/topic"),
        (1, ["servicebus", "user", "upload", ""], "node/n/"),
        (
            2,
            ["websocket", "hub", "UpdateNodeActionStatus", "operations.kubeedge.io/v1alpha2/x/j/node/n"],
            "operations.kubeedge.io/v1alpha2/x/j/node/n",
        ),
        (2, ["websocket", "hub", "upgrade", "task/t/node/n"], "task/t/node/n"),
    ] {
        let [source, group, operation, said] = route;
        let sent = edge.tell(source, group, operation, said, json!({"a": 1})).await;
        let heard: Message =
            tokio::time::timeout(Duration::from_secs(60), ears[at].recv()).await.unwrap().unwrap();
        assert_eq!((heard.header.id, heard.route.resource.as_str()), (sent.header.id, resource));
        assert_eq!(heard.content, sent.content);
    }
    cloud.stop().await;
}
