//! A device's whole way on the edge: PLC, Modbus mapper, DeviceTwin, EventBus, MQTT and the link to the
//! cloud.
#![cfg(feature = "mqtt-broker")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "helpers of a test")]

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Kernel, Module, ModuleContext},
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
};
use kubeedge_device::{
    Mapper,
    modbus::{Modbus, SimulatedPlc},
};
use kubeedge_edge::{
    eventbus::{EventBus, EventBusSettings, MqttMode},
    meta::MetaHandle,
    twin::DeviceTwin,
};
use kubeedge_store::MemoryStore;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(60);

/// In EdgeHub's place: says what the cloud says, and passes on what the cloud is told.
struct Cloud {
    says: Vec<Message>,
    told: mpsc::UnboundedSender<Message>,
}

#[async_trait]
impl Module for Cloud {
    fn name(&self) -> ModuleName {
        ModuleName::EDGE_HUB
    }
    fn group(&self) -> Group {
        Group::HUB
    }
    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        for message in self.says.drain(..) {
            ctx.bus.send(&ModuleName::TWIN, message).await?;
        }
        loop {
            tokio::select! {
                () = ctx.shutdown.requested() => return Ok(()),
                Some(envelope) = ctx.inbox.next() => {
                    let ok = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::RESPONSE, "twin")
                        .in_group(Group::TWIN)
                        .answering(envelope.message.header.id.clone())
                        .with(Content::ok());
                    self.told.send(envelope.message.clone())?;
                    envelope.reply_with(ok);
                }
            }
        }
    }
}

fn objects(port: u16) -> Vec<Message> {
    let property = |name: &str, offset: u16| {
        json!({"name": name, "collectCycle": 100, "reportCycle": 1000, "reportToCloud": true,
            "visitors": {"protocolName": "modbus", "configData":
                {"register": "HoldingRegister", "offset": offset, "limit": 1, "scale": 0.1}}})
    };
    let mut setpoint = property("setpoint", 1);
    setpoint["desired"] = json!({"value": "72.5"});
    let device = json!({"metadata": {"name": "boiler", "namespace": "default"}, "spec": {
        "deviceModelRef": {"name": "boiler-model"}, "nodeName": "edge-1",
        "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "port": port.to_string()}},
        "properties": [property("temperature", 0), setpoint]}});
    let model = json!({"metadata": {"name": "boiler-model", "namespace": "default"}, "spec": {
        "protocol": "modbus", "properties": [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "150"}]}});
    let object = |resource: &str, content: &serde_json::Value| {
        Message::new(ModuleName::of("meta"), Operation::INSERT, resource.to_owned())
            .in_group(Group::TWIN)
            .with(Content::json(content).unwrap())
    };
    let connected = Message::new(ModuleName::of("edgehub"), Operation::CONNECT, "node/connection");
    vec![
        connected.with(Content::text("cloud_connected")),
        object("default/devicemodel/boiler-model", &model),
        object("default/device/boiler", &device),
    ]
}

/// The twins of the boiler as an app on the node sees them.
fn twins_by_mqtt(port: u16) -> Option<serde_json::Value> {
    let (port, topic) = (port.to_string(), "$hw/events/device/default/boiler/twin/get");
    let result = format!("{topic}/result");
    let args = ["-p", &port, "-t", topic, "-e", &result, "-m", r#"{"event_id":"app"}"#, "-W", "5"];
    let run = Command::new("mosquitto_rr").args(args).stderr(Stdio::null()).output().unwrap();
    serde_json::from_slice(&run.stdout).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desired_value_reaches_the_plc_and_its_temperature_reaches_apps_and_the_cloud() {
    if Command::new("mosquitto_rr")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        println!("SKIPPED: mosquitto_rr is not installed, the way of a device to MQTT apps is NOT tested");
        return;
    }
    let plc = SimulatedPlc::listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = plc.address();
    let plc = tokio::spawn(plc.run(std::future::pending()));
    let store = Arc::new(MemoryStore::new());
    let mut settings = EventBusSettings::default();
    settings.mode = MqttMode::Internal;
    settings.internal = "tcp://127.0.0.1:0".into();
    let bus = EventBus::new("edge-1".into(), settings, store.clone());
    let mut internal = bus.internal_address();
    let twin = DeviceTwin::new(
        "edge-1".into(),
        store.clone(),
        MetaHandle::over(store.clone()),
        vec![Arc::new(Mapper::new(Modbus::new()))],
    );
    let (told, mut cloud) = mpsc::unbounded_channel();
    let kernel = Kernel::builder()
        .module(bus)
        .module(twin)
        .module(Cloud { says: objects(address.port()), told })
        .build()
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let kernel = tokio::spawn(kernel.run(async { drop(stopped.await) }));

    let warm = async {
        loop {
            let message = cloud.recv().await.unwrap();
            if !message.route.resource.as_str().ends_with("default/boiler/twin/edge_updated") {
                continue;
            }
            let twin = message.content.decode::<serde_json::Value>().unwrap()["twin"].clone();
            let temperature = twin["temperature"]["actual"]["value"].as_str().unwrap_or("0").to_owned();
            if temperature.parse::<f64>().unwrap() > 25.0 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, warm).await.expect("the cloud never saw the boiler warm");
    let mqtt = internal.wait_for(Option::is_some).await.unwrap().unwrap().port();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let twins = loop {
        if let Some(twins) = twins_by_mqtt(mqtt) {
            break twins;
        }
        assert!(tokio::time::Instant::now() < deadline, "no answer over MQTT");
    };
    assert_eq!(twins["event_id"], "app");
    assert_eq!(twins["twin"]["setpoint"]["expected"]["value"], "72.5");
    assert_eq!(twins["twin"]["setpoint"]["actual"]["value"], "72.5");
    assert_eq!(twins["twin"]["setpoint"]["metadata"]["type"], "float");
    drop(stop);
    tokio::time::timeout(PATIENCE, kernel).await.unwrap().unwrap().unwrap();
    plc.abort();
}
