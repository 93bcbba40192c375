//! KubeEdge's own kinds in the embedded cluster: what is wrong with an object is said when it is written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of a test")]

use std::sync::Arc;

use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_core::{
    api::{self, devices::Device},
    conformance::cluster::ask,
};
use kubeedge_store::MemoryStore;
use serde_json::{Value, json};

const DEVICES: &str = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices";

async fn cluster() -> EmbeddedCluster {
    let settings = EmbeddedSettings::new(Signer::new(b"secret")).definitions(api::definitions());
    EmbeddedCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap()
}

async fn call(cluster: &EmbeddedCluster, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let said = ask(cluster, method, path, body).await;
    (said.code, said.body)
}

fn device(change: impl FnOnce(&mut Value)) -> Value {
    let mut device = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "boiler"},
        "spec": {
            "deviceModelRef": {"name": "boiler"}, "nodeName": "edge-1",
            "protocol": {"protocolName": "modbus", "configData": {"any": {"thing": [1]}}},
            "properties": [{"name": "setpoint", "desired": {"value": "60"}, "reportCycle": 1000}],
        },
    });
    change(&mut device);
    device
}

#[tokio::test]
async fn every_kind_is_served() {
    let cluster = cluster().await;
    for definition in api::definitions() {
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let path = format!(
                "/apis/{}/{}/{}",
                spec["group"].as_str().unwrap(),
                version["name"].as_str().unwrap(),
                spec["names"]["plural"].as_str().unwrap()
            );
            let (code, list) = call(&cluster, "GET", &path, &Value::Null).await;
            assert_eq!((code, &list["kind"]), (200, &spec["names"]["listKind"]), "{path}");
        }
    }
}

#[tokio::test]
async fn a_device_keeps_what_its_mapper_needs_and_loses_what_nobody_knows() {
    let cluster = cluster().await;
    let wanted = device(|device| {
        device["spec"]["typo"] = json!(1);
        device["spec"]["properties"][0]["reportcycle"] = json!(1);
    });
    let (code, made) = call(&cluster, "POST", DEVICES, &wanted).await;
    assert_eq!(code, 201, "{made}");
    assert!(made["spec"].get("typo").is_none() && made["spec"]["properties"][0].get("reportcycle").is_none());
    let made: Device = serde_json::from_value(made).unwrap();
    assert_eq!(made.spec.protocol.config_data.unwrap()["any"], json!({"thing": [1]}));
    assert_eq!(made.spec.properties[0].desired.as_ref().unwrap().value, "60");
}

type Spoil = fn(&mut Value);

#[tokio::test]
async fn an_invalid_device_is_refused_with_the_path_of_the_field() {
    let cluster = cluster().await;
    let wrong: [(Spoil, &str); 4] = [
        (|device| device["spec"]["nodeName"] = json!(1), "spec.nodeName"),
        (
            |device| device["spec"]["properties"][0]["reportCycle"] = json!("1s"),
            "spec.properties[0].reportCycle",
        ),
        (|device| device["spec"]["properties"][0]["desired"] = json!({}), "spec.properties[0].desired.value"),
        (|device| device["spec"]["protocol"]["configData"] = json!("ip"), "spec.protocol.configData"),
    ];
    for (change, field) in wrong {
        let (code, status) = call(&cluster, "POST", DEVICES, &device(change)).await;
        assert_eq!(code, 422, "{status}");
        assert_eq!(status["reason"], "Invalid");
        assert_eq!(status["details"]["causes"][0]["field"], field, "{status}");
        assert!(status["message"].as_str().unwrap().contains(field), "{status}");
    }
    let (_, list) = call(&cluster, "GET", DEVICES, &Value::Null).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_model_says_which_types_there_are_and_a_group_needs_a_specification() {
    let cluster = cluster().await;
    let model = json!({"metadata": {"name": "m"}, "spec": {"properties": [{"name": "p", "type": "int"}]}});
    let path = "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devicemodels";
    let (code, status) = call(&cluster, "POST", path, &model).await;
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("spec.properties[0].type")));
    assert!(status["message"].as_str().unwrap().contains("INT"), "{status}");
    let path = "/apis/apps.kubeedge.io/v1alpha1/nodegroups";
    let (code, status) = call(&cluster, "POST", path, &json!({"metadata": {"name": "g"}})).await;
    assert_eq!((code, &status["details"]["causes"][0]["field"]), (422, &json!("spec")));
}
