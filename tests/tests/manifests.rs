//! The manifests of `examples/quickstart`: taken by the cluster without a doubt, and usable by those they are
//! for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of a test")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_core::{
    api::{
        self,
        devices::{self, Device, DeviceModel},
    },
    conformance::cluster::ask,
    device::{ModelProperty, Value as DeviceValue},
};
use kubeedge_device::{
    Driver, Session,
    modbus::{Modbus, ModbusConfig, Point, SimulatedPlc},
};
use kubeedge_store::MemoryStore;
use serde_json::{Map, Value, json};

fn documents() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut documents = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        let found: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        documents.extend(found.into_iter().map(|document| (name.clone(), document)));
    }
    documents
}

async fn cluster() -> EmbeddedCluster {
    let settings = EmbeddedSettings::new(Signer::new(b"secret")).definitions(api::definitions());
    EmbeddedCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap()
}

fn place(object: &Value) -> String {
    let api_version = object["apiVersion"].as_str().unwrap();
    let prefix = if api_version == "v1" { "/api" } else { "/apis" };
    let plural = match object["kind"].as_str().unwrap() {
        "DeviceModel" => "devicemodels".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    format!("{prefix}/{api_version}/namespaces/default/{plural}")
}

async fn create(cluster: &EmbeddedCluster, object: &Value) -> (u16, Value) {
    let path = format!("{}?fieldValidation=Strict", place(object));
    let said = ask(cluster, "POST", &path, object).await;
    (said.code, said.body)
}

/// What the cluster made of every document, by kind.
async fn applied() -> BTreeMap<String, Value> {
    let cluster = cluster().await;
    let mut objects = BTreeMap::new();
    for (file, document) in documents() {
        let (code, made) = create(&cluster, &document).await;
        assert_eq!(code, 201, "{file}: {made}");
        objects.insert(document["kind"].as_str().unwrap().to_owned(), made);
    }
    objects
}

#[tokio::test]
async fn the_cluster_takes_every_document_and_knows_every_field() {
    let objects = applied().await;
    let kinds: Vec<_> = objects.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["ConfigMap", "Deployment", "Device", "DeviceModel", "Pod", "Secret"]);
    assert_eq!(objects["Deployment"]["spec"]["replicas"], 2);
    for container in [
        &objects["Pod"]["spec"]["containers"][0],
        &objects["Deployment"]["spec"]["template"]["spec"]["containers"][0],
    ] {
        assert_eq!(container["image"], "localhost/host");
    }
    // What the pod asks for is what the ConfigMap and the Secret have.
    for variable in objects["Pod"]["spec"]["containers"][0]["env"].as_array().unwrap() {
        let from = &variable["valueFrom"];
        let (of, key) = match from.get("configMapKeyRef") {
            Some(from) => (&objects["ConfigMap"], from),
            None => (&objects["Secret"], &from["secretKeyRef"]),
        };
        assert_eq!(of["metadata"]["name"], key["name"]);
        assert!(of["data"].get(key["key"].as_str().unwrap()).is_some(), "{variable}");
    }
}

/// As DeviceTwin describes a property to a mapper.
fn property(property: &devices::ModelProperty) -> ModelProperty {
    let kind = serde_json::from_value(json!(property.kind)).unwrap();
    let model = ModelProperty::new(&property.name, kind).within(&property.minimum, &property.maximum);
    if property.access_mode == "ReadWrite" { model.writable() } else { model }
}

fn read<T: serde::de::DeserializeOwned>(data: Option<&Map<String, Value>>) -> T {
    serde_json::from_value(Value::Object(data.unwrap().clone())).unwrap()
}

#[tokio::test]
async fn the_device_is_the_boiler_of_the_demo() {
    let objects = applied().await;
    let device: Device = serde_json::from_value(objects["Device"].clone()).unwrap();
    let model: DeviceModel = serde_json::from_value(objects["DeviceModel"].clone()).unwrap();
    assert_eq!(device.spec.node_name, "edge-1");
    assert_eq!(device.spec.device_model_ref.as_ref().unwrap().name, model.metadata.name.unwrap());
    let config: ModbusConfig = read(device.spec.protocol.config_data.as_ref());
    assert_eq!(config.address, "127.0.0.1:10012", "where edgesite --demo listens");

    let plc = SimulatedPlc::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let config = ModbusConfig { address: plc.address().to_string(), ..config };
    let served = tokio::spawn(plc.run(std::future::pending()));
    let driver = Modbus::new();
    let mut session = driver.connect(&config).await.unwrap();
    let mut values = BTreeMap::new();
    for wanted in &device.spec.properties {
        let modelled = model.spec.properties.iter().find(|known| known.name == wanted.name).unwrap();
        assert!(wanted.report_to_cloud && wanted.report_cycle == 1000, "{} each second", wanted.name);
        let point: Point = read(wanted.visitors.as_ref().unwrap().config_data.as_ref());
        let point = driver.prepare(&property(modelled), point).unwrap();
        if let Some(desired) = &wanted.desired {
            let desired = desired.value.parse().unwrap();
            session.write(&point, DeviceValue::Float(desired)).await.unwrap();
        }
        values.insert(wanted.name.as_str(), session.read(&point).await.unwrap());
    }
    assert_eq!(values["setpoint"], DeviceValue::Float(60.0));
    assert_eq!(values["heater"], DeviceValue::Bool(true));
    assert!(matches!(values["heating"], DeviceValue::Bool(_)), "{values:?}");
    let DeviceValue::Float(temperature) = values["temperature"] else { panic!("{values:?}") };
    assert!((20.0..=60.0).contains(&temperature), "{temperature} degrees");
    served.abort();
}
