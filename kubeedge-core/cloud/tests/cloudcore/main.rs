//! A whole cloudcore over a cluster and a network in memory, and edges that speak Go's protocol to it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod catalogue;
mod cluster;
mod denylist;
mod edge;
mod instances;
mod join;
mod modules;
mod names;
mod network;
mod recorded;
#[path = "../../../tests/data/recorded.rs"]
mod recording;
mod records;
mod replay;

mod resync;
mod sessions;
mod slow;
mod supervision;
mod takeover;
mod tunnel;

use kubeedge_core::{name::NodeName, pki, transport::Credentials};
use serde_json::{Value, json};

use self::edge::{Cloud, Edge, body, settings};

const SYNCS: &str = "/apis/reliablesyncs.kubeedge.io/v1alpha1";
const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";

fn pod(name: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "busybox",
            "envFrom": [{"configMapRef": {"name": "app"}}, {"configMapRef": {"name": "later"}}]}]}})
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

fn record(node: &str, object: &Value) -> String {
    format!("{SYNCS}/namespaces/default/objectsyncs/{node}.{}", uid(object))
}

fn confirmed(record: &Value) -> &str {
    record["status"]["objectResourceVersion"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_node_registers_and_what_it_confirms_is_recorded() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.dial("edge-1").await.unwrap();
    let node = edge.register("edge-1").await;
    assert_eq!(node["metadata"]["labels"], json!({"node-role.kubernetes.io/edge": "", "rack": "7"}));
    assert_eq!(node["metadata"]["annotations"]["cloudcore"], "10.0.0.1");
    let sync = format!("{SYNCS}/clusterobjectsyncs/edge-1.{}", uid(&node));
    let sync = cloud.cluster.until(&sync, |sync| confirmed(sync) == version(&node)).await;
    assert_eq!(sync["spec"], json!({"objectAPIVersion": "v1", "objectKind": "Node", "objectName": "edge-1"}));

    let again = edge.ask("insert", "null/node/edge-1", json!({"metadata": {"name": "edge-1"}})).await;
    assert_eq!(body(&again)["Err"]["ErrStatus"]["reason"], "AlreadyExists");
    let patched = edge.ask("patch", "null/nodepatch/edge-1", json!("{\"status\":{\"phase\":\"x\"}}")).await;
    assert_eq!(body(&patched)["Object"]["status"]["phase"], "x");
    assert!(patched.header.resource_version.is_some());
    let other = edge.ask("patch", "null/nodepatch/edge-2", json!("{}")).await;
    assert_eq!(body(&other)["Err"]["ErrStatus"]["reason"], "Forbidden");
    cloud.stop().await;
}

#[tokio::test]
async fn a_pod_travels_with_its_config_map_and_is_deleted_in_gos_steps() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"k": "v"}});
    let map = cloud.cluster.create("/api/v1/namespaces/default/configmaps", map);
    let made = cloud.cluster.create("/api/v1/namespaces/default/pods", pod("web", "edge-1"));

    let pushed = edge.expect_object("insert", "default/pod/web").await;
    assert_eq!(pushed.route.source, "edgecontroller");
    assert_eq!(pushed.header.resource_version.as_ref().unwrap(), &version(&made));
    assert_eq!(body(&pushed)["kind"], "Pod");
    edge.ack(&pushed).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;

    let answer = edge.ask("query", "default/configmap/app", Value::Null).await;
    assert_eq!(body(&answer)["data"], json!({"k": "v"}));
    edge.ack(&answer).await;
    cloud.cluster.until(&record("edge-1", &map), |sync| confirmed(sync) == version(&map)).await;
    let missing = edge.ask("query", "default/configmap/later", Value::Null).await;
    assert_eq!(body(&missing)["ErrStatus"]["code"], 404);
    assert_eq!(missing.header.resource_version, None);
    let foreign = edge.ask("query", "default/secret/of-others", Value::Null).await;
    assert_eq!(body(&foreign)["ErrStatus"]["code"], 403);

    let changed =
        cloud.cluster.patch("/api/v1/namespaces/default/configmaps/app", json!({"data": {"k": "w"}}));
    let update = edge.expect_object("update", "default/configmap/app").await;
    assert_eq!(update.header.resource_version.as_ref().unwrap(), &version(&changed));
    edge.ack(&update).await;

    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "web"}}});
    let token = edge.ask("query", "default/serviceaccounttoken/default", bound.clone()).await;
    assert_eq!(body(&token)["status"]["token"], "a.b.c");
    let other = edge.ask("query", "default/serviceaccounttoken/admin", bound).await;
    assert_eq!(body(&other)["ErrStatus"]["code"], 403);
    let status =
        edge.ask("patch", "default/podpatch/web", json!("{\"status\":{\"phase\":\"Running\"}}")).await;
    assert_eq!(body(&status)["Object"]["status"]["phase"], "Running");

    let graceful = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:00Z"}});
    cloud.cluster.patch("/api/v1/namespaces/default/pods/web", graceful);
    let ending = edge
        .expect("the deletion", |m| {
            m.route.resource == "default/pod/web" && body(m)["metadata"].get("deletionTimestamp").is_some()
        })
        .await;
    assert_eq!(ending.route.operation, "update");
    edge.ack(&ending).await;
    let precondition = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid(&made)}});
    let done = edge.ask("delete", "default/pod/web", precondition).await;
    assert!(done.content.is_ok_text());
    let gone = edge.expect_object("delete", "default/pod/web").await;
    edge.ack(&gone).await;
    cloud.cluster.until_gone(&record("edge-1", &made)).await;
    cloud.stop().await;
}

#[tokio::test]
async fn what_is_not_confirmed_is_sent_again_with_the_same_id() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    cloud.cluster.create("/api/v1/namespaces/default/pods", pod("web", "edge-1"));
    let first = edge.expect_object("insert", "default/pod/web").await;
    let second = edge.expect_object("insert", "default/pod/web").await;
    assert_eq!(first, second);
    cloud.stop().await;
}

fn model() -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "thermo"},
        "spec": {"protocol": "modbus", "properties": [{"name": "temperature", "type": "INT", "accessMode": "ReadWrite"}]}})
}

fn device(name: &str, model: &str) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": name},
        "spec": {"nodeName": "edge-1", "deviceModelRef": {"name": model}, "properties": [{"name": "temperature"}]}})
}

#[tokio::test]
async fn a_device_goes_to_its_node_and_its_first_report_reaches_the_status() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    cloud.cluster.create(&format!("{DEVICES}/devicemodels"), model());
    let made = cloud.cluster.create(&format!("{DEVICES}/devices"), device("t1", "thermo"));
    let member = edge.expect_object("update", "membership").await;
    assert_eq!(body(&member)["added_devices"], json!([{"id": "default/t1", "name": "t1"}]));
    assert_eq!(body(&member)["removed_devices"], Value::Null);
    assert_eq!((member.route.source.as_str(), member.route.group.as_str()), ("devicecontroller", "twin"));
    let pushed = edge.expect_object("insert", "default/devicemodel/thermo").await;
    edge.ack(&pushed).await;
    let pushed = edge.expect_object("insert", "default/device/t1").await;
    edge.ack(&pushed).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;

    let report = json!({"event_id": "e", "timestamp": 1, "twin": {"temperature": {"actual": {"value": "27",
        "metadata": {"timestamp": 5}}, "optional": true, "metadata": {"type": "int"}}}});
    let told = edge.tell("twin", "resource", "update", "device/default/t1/twin/edge_updated", report).await;
    let ok = edge.expect("the confirmation", |m| m.header.parent.as_ref() == Some(&told.header.id)).await;
    assert!(ok.content.is_ok_text() && ok.route.resource == "twin");
    assert_eq!((ok.route.source.as_str(), ok.route.group.as_str()), ("devicecontroller", "twin"));
    let state = json!(
        r#"{"event_id":"e","timestamp":1,"device":{"name":"t1","state":"online","lastOnlineTime":"2026-11-20T22:31:40Z"}}"#
    );
    let told = edge.tell("twin", "resource", "update", "device/default/t1/state/update", state).await;
    edge.expect("the confirmation", |m| m.header.parent.as_ref() == Some(&told.header.id)).await;
    let status = cloud.cluster.get(&format!("{DEVICES}/devicestatuses/t1")).unwrap();
    assert_eq!(
        status["status"]["twins"][0]["reported"],
        json!({"value": "27", "metadata": {"timestamp": "5", "type": "int"}})
    );
    assert_eq!(status["status"]["state"], "online");
    assert_eq!(status["metadata"]["ownerReferences"][0]["uid"], uid(&made));
    cloud.stop().await;
}

#[tokio::test]
async fn a_device_without_its_model_is_told_so_waits_for_it_and_holds_up_no_other() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    cloud.cluster.create(&format!("{DEVICES}/devices"), device("lost", "nowhere"));
    cloud.cluster.create(
        &format!("{DEVICES}/devices"),
        json!({"apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device", "metadata": {"name": "bad"}, "spec": {"nodeName": "edge-1", "properties": 7}}),
    );
    cloud.cluster.create(&format!("{DEVICES}/devicemodels"), model());
    cloud.cluster.create(&format!("{DEVICES}/devices"), device("t1", "thermo"));
    let pushed = edge.expect_object("insert", "default/devicemodel/thermo").await;
    edge.ack(&pushed).await;
    edge.expect_object("insert", "default/device/t1").await;
    let events = cloud.cluster.list("/api/v1/events");
    let of = |name: &str| events.iter().find(|event| event["involvedObject"]["name"] == name).cloned();
    assert_eq!(of("lost").unwrap()["reason"], "UnknownDeviceModel");
    assert_eq!(of("bad").unwrap()["reason"], "InvalidDevice");
    assert_eq!(of("t1"), None);
    let mut late = model();
    late["metadata"]["name"] = "nowhere".into();
    cloud.cluster.create(&format!("{DEVICES}/devicemodels"), late);
    edge.expect_object("insert", "default/device/lost").await;
    cloud.stop().await;
}

#[tokio::test]
async fn after_an_absence_of_edge_and_cloud_both_sides_agree() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    let kept = cloud.cluster.create("/api/v1/namespaces/default/pods", pod("kept", "edge-1"));
    let lost = cloud.cluster.create("/api/v1/namespaces/default/pods", pod("lost", "edge-1"));
    for _ in 0..2 {
        let pushed = edge.expect("a pod", |m| m.route.operation == "insert").await;
        edge.ack(&pushed).await;
    }
    for made in [&kept, &lost] {
        cloud.cluster.until(&record("edge-1", made), |sync| confirmed(sync) == version(made)).await;
    }
    drop(edge);
    // While the edge is away, and partly the cloud too.
    let new = cloud.cluster.create("/api/v1/namespaces/default/pods", pod("new", "edge-1"));
    cloud.cluster.until(&record("edge-1", &new), |sync| confirmed(sync) == "0").await;
    let cluster = cloud.stop().await;
    cluster.delete("/api/v1/namespaces/default/pods/lost");
    let changed = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = cluster.patch("/api/v1/namespaces/default/pods/kept", changed);

    let cloud = Cloud::start_on(cluster, settings()).await;
    let mut edge = cloud.dial("edge-1").await.unwrap();
    let mut seen = std::collections::BTreeMap::new();
    while seen.len() < 3 {
        let message = edge.expect("a pod", |m| m.route.resource.as_str().starts_with("default/pod/")).await;
        edge.ack(&message).await;
        let route = message.route;
        seen.insert(route.resource.as_str().to_owned(), route.operation.as_str().to_owned());
    }
    assert_eq!(seen["default/pod/lost"], "delete");
    cloud.cluster.until_gone(&record("edge-1", &lost)).await;
    cloud.cluster.until(&record("edge-1", &changed), |sync| confirmed(sync) == version(&changed)).await;
    cloud.cluster.until(&record("edge-1", &new), |sync| confirmed(sync) == version(&new)).await;
    cloud.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_no_message_ends_that_session_alone() {
    let cloud = Cloud::start(settings()).await;
    let mut good = cloud.edge("good").await;
    let mut bad: Edge = cloud.edge("bad").await;
    bad.raw("{\"header\":{\"timestamp\":1.5}}").await;
    while bad.next().await.is_some() {}
    let answer = good.ask("query", "kube-node-lease/lease/good", Value::Null).await;
    assert_eq!(body(&answer)["Object"], Value::Null);
    cloud.stop().await;
}

#[tokio::test]
async fn only_a_certificate_that_names_the_node_opens_the_door_and_the_limit_holds() {
    let mut strict = settings();
    strict.hub.identity = Default::default();
    strict.hub.node_limit = 1;
    let cloud = Cloud::start(strict).await;
    let authority = pki::Authority::kubeedge(0).unwrap();
    let with = |name: &str| {
        let names = pki::Names::default();
        let made = authority.issue(name, &["system:nodes"], &names, pki::Usage::Client, 0, 36_500).unwrap();
        Credentials::default().with_chain([made.certificate])
    };
    let refusal = |result: Result<Edge, kubeedge_core::transport::TransportError>| {
        let error = result.map(drop).unwrap_err();
        kubeedge_core::failure::chain(&error)
    };
    let none = refusal(cloud.dial("edge-1").await);
    assert!(none.contains("no client certificate provided"), "{none}");
    let other = refusal(cloud.dial_with("edge-1", with("system:node:edge-2")).await);
    assert!(other.contains("not \"system:node:edge-1\""), "{other}");
    let _edge = cloud.dial_with("edge-1", with("system:node:edge-1")).await.unwrap();
    while cloud.status.sessions.count() == 0 {
        tokio::task::yield_now().await;
    }
    let full = refusal(cloud.dial_with("edge-2", with("system:node:edge-2")).await);
    assert!(full.contains("1 nodes"), "{full}");
    // The node that is counted already may come again.
    let _again = cloud.dial_with("edge-1", with("system:node:edge-1")).await.unwrap();
    cloud.stop().await;
}

#[tokio::test]
async fn deleting_the_node_object_ends_its_session_and_its_records() {
    let cloud = Cloud::start(settings()).await;
    let mut edge = cloud.edge("edge-1").await;
    let made = cloud.cluster.create("/api/v1/namespaces/default/pods", pod("web", "edge-1"));
    let pushed = edge.expect_object("insert", "default/pod/web").await;
    edge.ack(&pushed).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;
    cloud.cluster.delete("/api/v1/nodes/edge-1");
    while edge.next().await.is_some() {}
    cloud.cluster.until_gone(&record("edge-1", &made)).await;
    cloud.stop().await;
}

#[tokio::test]
async fn an_edge_that_does_not_read_holds_up_no_other_and_is_let_go() {
    let mut quick = settings();
    quick.hub.times.write = std::time::Duration::from_millis(500);
    let cloud = Cloud::start(quick).await;
    let _deaf = cloud.edge("deaf").await;
    let mut good = cloud.edge("good").await;
    for n in 0..100 {
        cloud.cluster.create("/api/v1/namespaces/default/pods", pod(&format!("deaf-{n}"), "deaf"));
        cloud.cluster.create("/api/v1/namespaces/default/pods", pod(&format!("good-{n}"), "good"));
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 100 {
        let message = good.expect("a pod", |m| m.route.operation == "insert").await;
        good.ack(&message).await;
        seen.insert(message.route.resource);
    }
    let gone = async {
        while cloud.status.sessions.has(&NodeName::of("deaf")) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
    assert!(cloud.status.sessions.has(&NodeName::of("good")));
    cloud.stop().await;
}

#[tokio::test]
async fn an_edge_without_keepalive_is_let_go_however_much_it_talks() {
    let mut quick = settings();
    quick.hub.times.keepalive = std::time::Duration::from_secs(2);
    let cloud = Cloud::start(quick).await;
    let mut edge = cloud.dial("edge-1").await.unwrap();
    let mut questions = 0;
    loop {
        let lease = "kube-node-lease/lease/edge-1";
        let question = kubeedge_core::message::Message::new("edged".into(), "query".into(), lease);
        let frame = kubeedge_core::wire::Codec::encode(&kubeedge_core::wire::GoJson, &question).unwrap();
        if edge.link.tx.send(frame).await.is_err() || edge.next().await.is_none() {
            break;
        }
        questions += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(questions > 5, "let go after {questions} questions");
    cloud.stop().await;
}
