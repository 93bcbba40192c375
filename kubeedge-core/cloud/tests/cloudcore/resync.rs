//! Edges of ours say at each connect what they have; Go's are asked nothing.

use std::sync::Arc;

use kubeedge_common::digest::{Asks, Entry, Opening, Reply, Tree};
use kubeedge_core::{
    message::{Content, Message},
    name::Operation,
    transport::Credentials,
    wire::Codec,
};
use kubeedge_transport::Adaptive;
use serde_json::{Value, json};

use crate::{
    DEVICES, confirmed,
    edge::{Cloud, Edge, body, settings},
    pod, record, uid, version,
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn cloud() -> Cloud {
    Cloud::start_with(settings(), |assembly| assembly.codec(Arc::new(Adaptive::default()))).await
}

/// An edge of ours.
pub(crate) async fn dial(cloud: &Cloud) -> Edge {
    let offer = Adaptive::default().offer().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let who = Credentials::default().with_claims(offer);
    cloud.dial_with("edge-1", who).await.unwrap()
}

fn has(object: &Value, path: &str) -> Entry {
    Entry { key: uid(object).to_owned(), version: version(object).parse().unwrap(), path: path.to_owned() }
}

async fn opening(edge: &mut Edge) -> Opening {
    edge.expect_object("get", "digest").await.content.decode().unwrap()
}

/// Tells the cloud what the edge has until it knows enough.
async fn answer(edge: &mut Edge, opening: Opening, entries: Vec<Entry>) {
    let tree = Tree::new(opening.salt, entries);
    let mut reply: Reply = tree.first_answer(opening.root);
    loop {
        let said = edge.ask("get", "digest", serde_json::to_value(&reply).unwrap()).await;
        let asks: Asks = said.content.decode().unwrap();
        if asks.of.is_empty() {
            return;
        }
        reply = tree.answer(&asks);
    }
}

/// A pod and the ConfigMap it refers to, both confirmed by the edge.
async fn settled(cloud: &Cloud) -> (Value, Value) {
    let mut edge = cloud.edge("edge-1").await;
    let made = cloud.cluster.create(PODS, pod("web", "edge-1"));
    let pushed = edge.expect_object("insert", "default/pod/web").await;
    edge.ack(&pushed).await;
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"k": "v"}});
    let map = cloud.cluster.create(MAPS, map);
    let pushed = edge.expect_object("insert", "default/configmap/app").await;
    edge.ack(&pushed).await;
    for object in [&made, &map] {
        cloud.cluster.until(&record("edge-1", object), |sync| confirmed(sync) == version(object)).await;
    }
    (made, map)
}

/// What the edge is told of objects until it is told of a pod that is made now.
async fn told_until_now(cloud: &Cloud, edge: &mut Edge) -> Vec<Message> {
    let fence = format!("fence-{}", cloud.cluster.list("/api/v1/pods").len());
    cloud.cluster.create(PODS, pod(&fence, "edge-1"));
    let (fence, mut told) = (format!("default/pod/{fence}"), Vec::new());
    loop {
        let message = edge.next().await.expect("the session lives");
        if message.header.parent.is_none() {
            edge.ack(&message).await;
        }
        if message.route.resource == fence.as_str() {
            return told;
        }
        if message.header.parent.is_none() && message.route.resource != "null/node/edge-1" {
            told.push(message);
        }
    }
}

#[tokio::test]
async fn what_an_edge_has_lost_is_sent_to_it_again() {
    let cloud = cloud().await;
    let (made, map) = settled(&cloud).await;
    let mut edge = dial(&cloud).await;
    let opening = opening(&mut edge).await;
    answer(&mut edge, opening, vec![has(&map, "default/configmap/app")]).await;
    let again = edge.expect_object("update", "default/pod/web").await;
    assert_eq!(confirmed(&cloud.cluster.get(&record("edge-1", &made)).unwrap()), "0");
    edge.ack(&again).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;
    let told = told_until_now(&cloud, &mut edge).await;
    assert!(told.is_empty(), "{told:?}");
    cloud.stop().await;
}

#[tokio::test]
async fn records_that_were_lost_or_say_too_little_are_written_again_without_sending_anything() {
    let cloud = cloud().await;
    let (made, map) = settled(&cloud).await;
    let another = cloud.cluster.create(PODS, pod("another", "edge-1"));
    cloud.cluster.until(&record("edge-1", &another), |sync| confirmed(sync) == "0").await;
    for lost in [&made, &map] {
        cloud.cluster.delete(&record("edge-1", lost));
    }
    let entries =
        [(&made, "default/pod/web"), (&map, "default/configmap/app"), (&another, "default/pod/another")];
    let mut edge = dial(&cloud).await;
    let opening = opening(&mut edge).await;
    // The pod whose confirmation was lost may be sent in this session before the edge can say that it has it.
    let entries: Vec<_> = entries.iter().map(|(object, path)| has(object, path)).collect();
    answer(&mut edge, opening, entries).await;
    for object in [&made, &map] {
        let made =
            cloud.cluster.until(&record("edge-1", object), |sync| confirmed(sync) == version(object)).await;
        assert_eq!(made["spec"]["objectName"], object["metadata"]["name"]);
        assert_eq!(made["spec"]["objectKind"], object["kind"]);
    }
    let told = told_until_now(&cloud, &mut edge).await;
    assert!(told.iter().all(|message| message.route.resource == "default/pod/another"), "{told:?}");
    let sent = edge.expect_object("update", "default/pod/another").await;
    edge.ack(&sent).await;
    cloud.cluster.until(&record("edge-1", &another), |sync| confirmed(sync) == version(&another)).await;
    cloud.stop().await;
}

#[tokio::test]
async fn an_edge_gets_nothing_by_claiming_to_have_it_and_touches_no_record_of_another() {
    let cloud = cloud().await;
    let (made, map) = settled(&cloud).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "of-others"}, "data": {"k": "dg=="}});
    let secret = cloud.cluster.create("/api/v1/namespaces/default/secrets", secret);
    let node = json!({"metadata": {"name": "edge-1.b", "labels": {"node-role.kubernetes.io/edge": ""}}});
    cloud.cluster.create("/api/v1/nodes", node);
    let foreign = cloud.cluster.create(PODS, pod("foreign", "edge-1.b"));
    let of_another = cloud.cluster.until(&record("edge-1.b", &foreign), |sync| confirmed(sync) == "0").await;
    let mut edge = dial(&cloud).await;
    let opening = opening(&mut edge).await;
    let claim = |key: &str, path: &str| Entry { key: key.to_owned(), version: 1, path: path.to_owned() };
    let entries = vec![
        has(&made, "default/pod/web"),
        has(&map, "default/configmap/app"),
        claim(uid(&secret), "default/secret/of-others"),
        claim(uid(&foreign), "default/pod/foreign"),
        claim("0-gone", "default/pod/gone"),
        claim(&format!("b.{}", uid(&foreign)), "default/pod/foreign"),
        claim("1-kind", "default/clusterrole/admin"),
    ];
    answer(&mut edge, opening, entries.clone()).await;
    // It is believed that something is nowhere else when it was said twice.
    let opening = self::opening(&mut edge).await;
    answer(&mut edge, opening, entries).await;
    let told = told_until_now(&cloud, &mut edge).await;
    let mut told: Vec<_> = told
        .iter()
        .map(|message| (message.route.operation.as_str(), message.route.resource.as_str()))
        .collect();
    told.sort_unstable();
    let gone = ["default/pod/foreign", "default/pod/gone", "default/secret/of-others"];
    assert_eq!(told, gone.map(|path| ("delete", path)));
    assert_eq!(cloud.cluster.get(&record("edge-1.b", &foreign)), Some(of_another));
    for object in [&secret, &foreign] {
        assert_eq!(cloud.cluster.get(&record("edge-1", object)), None);
    }
    cloud.stop().await;
}

#[tokio::test]
async fn what_is_confirmed_while_an_edge_is_asked_stays_confirmed() {
    let cloud = cloud().await;
    let (made, map) = settled(&cloud).await;
    let mut edge = dial(&cloud).await;
    let opening = opening(&mut edge).await;
    let changed = cloud.cluster.patch(&format!("{MAPS}/app"), json!({"data": {"k": "w"}}));
    let update = edge.expect_object("update", "default/configmap/app").await;
    edge.ack(&update).await;
    cloud.cluster.until(&record("edge-1", &map), |sync| confirmed(sync) == version(&changed)).await;
    // What it had before.
    answer(&mut edge, opening, Vec::new()).await;
    let again = edge.expect_object("update", "default/pod/web").await;
    edge.ack(&again).await;
    cloud.cluster.until(&record("edge-1", &made), |sync| confirmed(sync) == version(&made)).await;
    let record = cloud.cluster.get(&record("edge-1", &map)).unwrap();
    assert_eq!(confirmed(&record), version(&changed));
    cloud.stop().await;
}

#[tokio::test]
async fn senseless_answers_and_answers_nobody_asked_for_change_nothing() {
    let cloud = cloud().await;
    let (made, map) = settled(&cloud).await;
    let mut edge = dial(&cloud).await;
    let opening = opening(&mut edge).await;
    for reply in [
        json!({"salt": opening.salt ^ 1, "nodes": []}),
        json!({"salt": opening.salt, "nodes": [{"at": "7"}]}),
        json!({"salt": opening.salt, "nodes": [{"at": "", "below": "zz"}]}),
        json!({"salt": opening.salt}),
        json!("x".repeat(600 << 10)),
    ] {
        let said = edge.ask("get", "digest", reply).await;
        assert_eq!(said.content.decode::<Asks>().unwrap(), Asks::default());
    }
    let told = told_until_now(&cloud, &mut edge).await;
    // It is asked again, and that is all.
    assert!(told.iter().all(|message| message.route.resource == "digest"), "{told:?}");
    for object in [&made, &map] {
        let record = cloud.cluster.get(&record("edge-1", object)).unwrap();
        assert_eq!(confirmed(&record), version(object));
    }
    cloud.stop().await;
}

/// A device that the edge has confirmed.
async fn with_device(cloud: &Cloud, edge: &mut Edge) -> Vec<Entry> {
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "m"},
        "spec": {"protocol": "modbus", "properties": []}});
    let model = cloud.cluster.create(&format!("{DEVICES}/devicemodels"), model);
    let device = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"},
        "spec": {"nodeName": "edge-1", "deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "modbus"}, "properties": []}});
    let device = cloud.cluster.create(&format!("{DEVICES}/devices"), device);
    let mut entries = Vec::new();
    for (object, path) in [(&model, "default/devicemodel/m"), (&device, "default/device/d")] {
        let pushed = edge.expect_object("insert", path).await;
        edge.ack(&pushed).await;
        let record = record("edge-1", object);
        cloud.cluster.until(&record, |sync| confirmed(sync) == version(object)).await;
        entries.push(has(object, path));
    }
    entries
}

#[tokio::test]
async fn an_edge_of_ours_is_told_of_devices_it_does_not_know_and_of_those_that_are_gone() {
    let cloud = cloud().await;
    let mut edge = cloud.edge("edge-1").await;
    let objects = with_device(&cloud, &mut edge).await;
    let member = |id: &str| Entry { key: id.to_owned(), version: 1, path: String::new() };
    for (knows, told) in [
        (vec!["default/d"], None),
        (vec![], Some((json!([{"id": "default/d", "name": "d"}]), Value::Null))),
        (
            vec!["default/d", "default/gone"],
            Some((Value::Null, json!([{"id": "default/gone", "name": "gone"}]))),
        ),
    ] {
        edge = dial(&cloud).await;
        let opening = opening(&mut edge).await;
        let twice = knows.len() > 1;
        let entries: Vec<_> = objects.iter().cloned().chain(knows.into_iter().map(member)).collect();
        answer(&mut edge, opening, entries.clone()).await;
        if twice {
            let opening = self::opening(&mut edge).await;
            answer(&mut edge, opening, entries).await;
        }
        if let Some((added, removed)) = told {
            let members = edge.expect_object("update", "membership").await;
            assert_eq!(
                (body(&members)["added_devices"].clone(), body(&members)["removed_devices"].clone()),
                (added, removed)
            );
        }
        let told = told_until_now(&cloud, &mut edge).await;
        let is_fence = |message: &Message| message.route.resource.as_str().starts_with("default/pod/fence");
        assert!(told.iter().all(is_fence), "{told:?}");
    }
    cloud.stop().await;
}

#[tokio::test]
async fn a_go_edge_is_asked_nothing_and_told_of_all_its_devices() {
    let cloud = cloud().await;
    let mut edge = cloud.edge("edge-1").await;
    with_device(&cloud, &mut edge).await;
    let mut edge = cloud.dial("edge-1").await.unwrap();
    let members = edge.expect("a message", |message| message.route.resource != "null/node/edge-1").await;
    assert_eq!(members.route.resource, "membership");
    let told = told_until_now(&cloud, &mut edge).await;
    assert!(told.is_empty(), "{told:?}");
    // Nor has an answer any effect that it gives all the same.
    let nothing = edge.tell("metamanager", "resource", "get", "digest", json!({"salt": 0})).await;
    let said =
        edge.expect("an answer", |message| message.header.parent.as_ref() == Some(&nothing.header.id)).await;
    assert_eq!(
        (said.content, said.route.operation),
        (Content::json(&json!({})).unwrap(), Operation::RESPONSE)
    );
    cloud.stop().await;
}
