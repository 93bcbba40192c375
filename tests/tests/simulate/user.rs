//! The users: what they do is tried until the API has taken it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    api::{self, RemoteApi},
    plan::{Act, MAPS, Plan},
    trace::Trace,
};

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default";
/// What the cloud knows of edges.
pub(crate) const SYNCS: &str = "/apis/reliablesyncs.kubeedge.io/v1alpha1/namespaces/default/objectsyncs";

/// The name of a node.
pub(crate) fn node(number: usize) -> String {
    format!("edge-{number}")
}

/// The ConfigMap a pod of this name uses.
fn map_of(pod: &str) -> usize {
    pod.len() % MAPS
}

/// Makes what everything else needs; done when the nodes are there too.
pub(crate) async fn prepare(plan: &Plan, trace: &Trace) {
    for map in 0..MAPS {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("map-{map}")}, "data": {"A": "0"}});
        insist("POST", CONFIG_MAPS, &object, trace).await;
    }
    let model = json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "valve"},
        "spec": {"protocol": "simulated", "properties": [{"name": "opening", "type": "INT", "accessMode": "ReadWrite"}]}});
    insist("POST", &format!("{DEVICES}/devicemodels"), &model, trace).await;
    for number in 0..plan.nodes {
        let path = format!("/api/v1/nodes/{}", node(number));
        while !matches!(api::call(&RemoteApi, "GET", &path, &Value::Null).await, Ok((200, _))) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Does one thing.
pub(crate) async fn act(act: &Act, trace: &Trace) {
    let (method, path, body) = request(act);
    insist(method, &path, &body, trace).await;
}

/// Until the API says that it is so, or that it cannot be.
async fn insist(method: &str, path: &str, body: &Value, trace: &Trace) {
    loop {
        match api::call(&RemoteApi, method, path, body).await {
            Ok((code, _)) if code < 500 && code != 429 => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                return trace.note("user", format!("{method} {path} {name}: {code}"));
            }
            Ok((code, said)) => trace.note("user", format!("{method} {path}: {code} {}", said["message"])),
            Err(_) => trace.note("user", format!("{method} {path}: no answer")),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn request(act: &Act) -> (&'static str, String, Value) {
    match act {
        Act::CreatePod { node: on, name } => ("POST", PODS.to_owned(), pod(&node(*on), name)),
        Act::LabelPod { name, value } => {
            let patch = json!({"metadata": {"labels": {"tier": value.to_string()}}});
            ("PATCH", format!("{PODS}/{name}"), patch)
        }
        Act::DeletePod { name } => ("DELETE", format!("{PODS}/{name}"), Value::Null),
        Act::ChangeMap { map, value } => {
            ("PATCH", format!("{CONFIG_MAPS}/map-{map}"), json!({"data": {"A": value.to_string()}}))
        }
        Act::CreateDevice { node: on, name, value } => {
            ("POST", format!("{DEVICES}/devices"), device(&node(*on), name, *value))
        }
        Act::Steer { name, value } => {
            let patch = json!({"spec": {"properties": [property(name, *value)]}});
            ("PATCH", format!("{DEVICES}/devices/{name}"), patch)
        }
        Act::MoveDevice { name, node: to } => {
            ("PATCH", format!("{DEVICES}/devices/{name}"), json!({"spec": {"nodeName": node(*to)}}))
        }
        Act::DeleteDevice { name } => ("DELETE", format!("{DEVICES}/devices/{name}"), Value::Null),
        Act::LoseRecords => ("DELETE", SYNCS.to_owned(), Value::Null),
    }
}

fn pod(node: &str, name: &str) -> Value {
    let map = format!("map-{}", map_of(name));
    // As a DaemonSet's pod: it stays on its node whatever becomes of the node.
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 1, "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "c", "image": "app:1", "envFrom": [{"configMapRef": {"name": map}}]}]}})
}

fn device(node: &str, name: &str, value: u32) -> Value {
    json!({"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": name}, "spec": {
        "nodeName": node, "deviceModelRef": {"name": "valve"},
        "protocol": {"protocolName": "simulated", "configData": {"device": name}},
        "properties": [property(name, value)]}})
}

fn property(cell: &str, value: u32) -> Value {
    json!({"name": "opening", "collectCycle": 1000, "reportCycle": 5000, "reportToCloud": true,
        "desired": {"value": value.to_string()},
        "visitors": {"protocolName": "simulated", "configData": {"signal": "memory", "cell": cell, "value": 0}}})
}
