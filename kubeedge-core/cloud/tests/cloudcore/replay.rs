//! What a Go edge said in a recorded session (`tests/data/exchanges.jsonl`), said again: every answer must
//! have the route, the keys and the version header that Go's cloudcore gave.

use kubeedge_core::message::Message;
use kubeedge_core::{
    transport::Frame,
    wire::{Codec, GoJson},
};
use serde_json::{Value, json};

use crate::edge::{Cloud, body, settings};

const EXCHANGES: &str = include_str!("../data/exchanges.jsonl");

/// The objects the recorded edge speaks of.
fn furnish(cloud: &Cloud) {
    let core = "/api/v1/namespaces/default";
    let pod = |name: &str, uid: &str| {
        json!({"metadata": {"name": name, "uid": uid}, "spec": {"nodeName": "go-edge", "serviceAccountName": "app",
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "app-config"}},
                {"secretRef": {"name": "app-secret"}}]}]}})
    };
    let create = |path: &str, object: Value| drop(cloud.cluster.create(path, object));
    create(&format!("{core}/pods"), pod("web", "4a8789b8-4c91-4ed1-8e2b-b4a5ca06a9eb"));
    create(&format!("{core}/pods"), pod("proj", "d54683b0-60ca-4159-ac73-d3d8c45a467b"));
    create(&format!("{core}/configmaps"), json!({"metadata": {"name": "app-config"}, "data": {}}));
    create(
        &format!("{core}/secrets"),
        json!({"metadata": {"name": "app-secret"}, "data": {}, "type": "Opaque"}),
    );
    let devices = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices";
    create(
        devices,
        json!({"metadata": {"name": "thermo-1"}, "spec": {"nodeName": "go-edge",
        "deviceModelRef": {"name": "thermo-model"}, "properties": [{"name": "temperature"}]}}),
    );
}

fn compare(answer: &Message, expected: &Value) {
    let route = &answer.route;
    for (name, ours) in [
        ("source", route.source.as_str()),
        ("group", route.group.as_str()),
        ("operation", route.operation.as_str()),
        ("resource", route.resource.as_str()),
    ] {
        assert_eq!(expected["route"][name], ours, "{name} of {route:?}");
    }
    let what = answer.route.resource.as_str();
    assert_eq!(answer.header.resource_version.is_some(), expected["versioned"] == true, "{what}");
    let content = body(answer);
    let Value::Array(keys) = &expected["content"] else {
        return assert_eq!(content, expected["content"], "{what}");
    };
    let ours: Vec<_> = content.as_object().unwrap().keys().collect();
    assert!(keys.iter().all(|key| ours.iter().any(|ours| key == *ours)), "{what}: {ours:?}, Go has {keys:?}");
    if let Some(there) = expected.get("object") {
        assert_eq!(!content["Object"].is_null(), *there == true, "{what}: {content}");
        assert_eq!(content["Err"]["ErrStatus"]["reason"], expected["error"], "{what}");
    }
}

#[tokio::test]
async fn a_recorded_go_edge_gets_the_answers_go_gave() {
    let cloud = Cloud::start(settings()).await;
    furnish(&cloud);
    let mut edge = cloud.dial("go-edge").await.unwrap();
    let mut compared = 0;
    for line in EXCHANGES.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let frame = exchange["frame"].as_str().unwrap().to_owned();
        let question = GoJson.decode(Frame::text(frame.clone())).unwrap();
        edge.raw(&frame).await;
        if exchange["answer"].is_null() {
            continue;
        }
        let what = question.route.resource.as_str();
        let mine = |m: &Message| m.header.parent.as_ref() == Some(&question.header.id);
        let answer = edge.expect(what, mine).await;
        compare(&answer, &exchange["answer"]);
        edge.ack(&answer).await;
        compared += 1;
    }
    assert_eq!(compared, 12);
    let event = "/api/v1/namespaces/default/events/go-edge.18e9e7191a6b7061";
    cloud.cluster.until(event, |event| event["reason"] == "Starting").await;
    cloud.stop().await;
}
