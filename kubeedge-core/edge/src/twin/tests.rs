use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use futures::stream::BoxStream;
use kubeedge_core::{
    bus::{Bus, Envelope, Inbox},
    device::{DeviceId, DeviceState, Reading, Value, ValueType},
    failure::Failure,
    kernel::Shutdown,
    message::{Content, Message, Millis},
    name::Operation,
    store::{Batch, Entry, Key, Scan, StoreError, StoreKind},
};
use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_store::{MemoryStore, SqliteOptions, SqliteStore};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::meta::ObjectKey;

/// DeviceTwin between an EventBus and an EdgeHub that are mailboxes of the test.
struct Bench {
    bus: Bus,
    mqtt: Inbox,
    hub: Inbox,
    /// Reports the cloud has not answered yet.
    unanswered: Vec<Envelope>,
    manager: Arc<dyn DeviceManager>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

const PATIENCE: Duration = Duration::from_secs(120);

impl Bench {
    fn start(store: Arc<dyn MetaStore>, mappers: Vec<Arc<dyn DeviceMapper>>) -> Self {
        let meta = MetaHandle::over(Arc::clone(&store));
        Self::run(DeviceTwin::new("edge-1".into(), store, meta, mappers))
    }

    fn run(mut twin: DeviceTwin) -> Self {
        let (bus, mut inboxes) = Bus::new([
            (ModuleName::TWIN, Group::TWIN, 1024),
            (ModuleName::EVENT_BUS, Group::BUS, 1024),
            (ModuleName::EDGE_HUB, Group::HUB, 1024),
        ]);
        let mut inbox = |name| inboxes.remove(&name).unwrap();
        let (own, mqtt, hub) =
            (inbox(ModuleName::TWIN), inbox(ModuleName::EVENT_BUS), inbox(ModuleName::EDGE_HUB));
        let (manager, shutdown) = (twin.manager(), Shutdown::new());
        let mut ctx = ModuleContext::new(bus.clone(), own, shutdown.clone());
        let task = tokio::spawn(async move { twin.run(&mut ctx).await.unwrap() });
        Self { bus, mqtt, hub, unanswered: Vec::new(), manager, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap();
    }

    async fn tell(&self, message: Message) {
        self.bus.send(&ModuleName::TWIN, message).await.unwrap();
    }

    async fn mqtt_in(&self, topic: &str, payload: &str) {
        let resource = URL_SAFE.encode(topic);
        let message = Message::new(ModuleName::of("bus"), Operation::RESPONSE, resource);
        self.tell(message.in_group(Group::USER).with(Content::text(payload))).await;
    }

    async fn link(&self, connected: bool) {
        let text = if connected { "cloud_connected" } else { "cloud_disconnected" };
        let message = Message::new(ModuleName::of("edgehub"), Operation::CONNECT, "node/connection");
        self.tell(message.with(Content::text(text))).await;
    }

    async fn member(&self, id: &str) {
        let name = id.split_once('/').unwrap().1;
        let content = json!({"event_id": "m", "timestamp": 1, "added_devices": [{"id": id, "name": name}], "removed_devices": null});
        self.membership(&content).await;
    }

    /// A member that is known by the time this returns.
    async fn settled_member(&mut self, id: &str) {
        self.member(id).await;
        assert!(self.mqtt_out().await.contains("membership/updated"));
    }

    async fn membership(&self, content: &serde_json::Value) {
        let message = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::UPDATE, "membership");
        self.tell(message.in_group(Group::TWIN).with(Content::json(content).unwrap())).await;
    }

    async fn object(&self, operation: Operation, resource: &str, object: &serde_json::Value) {
        // As MetaManager routes them: updates keep the cloud's name.
        let is_update = operation == Operation::UPDATE;
        let source = if is_update { ModuleName::DEVICE_CONTROLLER } else { ModuleName::of("meta") };
        let message = Message::new(source, operation, resource.to_owned());
        self.tell(message.in_group(Group::TWIN).with(Content::json(object).unwrap())).await;
    }

    /// The next message on MQTT; times and made-up ids replaced by `T` and `ID`.
    async fn mqtt_out(&mut self) -> String {
        let message = next(&mut self.mqtt).await;
        assert_eq!(message.route.operation, Operation::PUBLISH);
        format!("{} {}", message.route.resource, masked(&message.content.as_text().unwrap()))
    }

    async fn cloud_out(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.hub.next()).await.expect("nothing came").unwrap();
        let message = next.message.clone();
        self.unanswered.push(next);
        message
    }

    /// What the cloud gets to know of a device's properties, without the greeting.
    async fn told(&mut self) -> (Message, serde_json::Value) {
        loop {
            let message = self.cloud_out().await;
            if message.route.resource.as_str().ends_with("twin/edge_updated") {
                let content: serde_json::Value = message.content.decode().unwrap();
                return (message, content["twin"].clone());
            }
        }
    }

    async fn confirm(&self, message: &Message) {
        let ok = Message::new(ModuleName::DEVICE_CONTROLLER, Operation::RESPONSE, "twin");
        let ok = ok.in_group(Group::TWIN).answering(message.header.id.clone()).with(Content::ok());
        self.tell(ok).await;
    }
}

async fn next(inbox: &mut Inbox) -> Message {
    tokio::time::timeout(PATIENCE, inbox.next()).await.expect("nothing came").unwrap().message
}

fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() == 13 { "T" } else { &digits });
        digits.clear();
        out.push(c);
    }
    let out = out.trim_end_matches('\0').to_owned();
    let Some(start) = out.find("\"event_id\":\"").map(|at| at + 12) else { return out };
    let id = out[start..].split('"').next().unwrap();
    if id.len() == 36 { out.replacen(id, "ID", 1) } else { out }
}

const D: &str = "$hw/events/device/default/thermo-1";

#[tokio::test]
async fn a_session_over_mqtt_reads_as_with_go() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.member("default/thermo-1").await;
    assert_eq!(
        bench.mqtt_out().await,
        r#"$hw/events/node/edge-1/membership/updated {"event_id":"ID","timestamp":T,"added_devices":[{"id":"default/thermo-1","name":"thermo-1"}],"removed_devices":null}"#
    );
    let set = r#"{"event_id":"e2","timestamp":0,"twin":{"temperature":{"actual":{"value":"27"},"metadata":{"type":"int"}}}}"#;
    bench.mqtt_in(&format!("{D}/twin/update"), set).await;
    let twin =
        r#"{"actual":{"value":"27","metadata":{"timestamp":T}},"optional":true,"metadata":{"type":"int"}}"#;
    let result = format!(r#"{{"event_id":"e2","timestamp":T,"twin":{{"temperature":{twin}}}}}"#);
    assert_eq!(bench.mqtt_out().await, format!("{D}/twin/update/result {result}"));
    let document = format!(r#"{{"temperature":{{"last":null,"current":{twin}}}}}"#);
    assert_eq!(
        bench.mqtt_out().await,
        format!(r#"{D}/twin/update/document {{"event_id":"e2","timestamp":T,"twin":{document}}}"#)
    );
    bench.mqtt_in(&format!("{D}/twin/get"), r#"{"event_id":"e1","timestamp":0}"#).await;
    assert_eq!(
        bench.mqtt_out().await,
        format!(r#"{D}/twin/get/result {{"event_id":"e1","timestamp":T,"twin":{{"temperature":{twin}}}}}"#)
    );
    bench
        .mqtt_in(
            &format!("{D}/twin/update"),
            r#"{"event_id":"w","twin":{"temperature":{"expected":{"value":"30"}}}}"#,
        )
        .await;
    bench.mqtt_out().await;
    bench.mqtt_out().await;
    let delta = bench.mqtt_out().await;
    assert!(delta.starts_with(&format!(r#"{D}/twin/update/delta {{"event_id":"ID","timestamp":T,"twin":{{"temperature":{{"expected":{{"value":"30""#)), "{delta}");
    assert!(delta.ends_with(r#""delta":{"temperature":"30"}}"#), "{delta}");
    bench.mqtt_in(&format!("{D}/state/update"), r#"{"event_id":"e3","State":"online"}"#).await;
    let state = bench.mqtt_out().await;
    assert!(state.starts_with(&format!(r#"{D}/state/update/result {{"event_id":"ID","timestamp":T,"device":{{"name":"thermo-1","state":"online","lastOnlineTime":"2"#)), "{state}");
    bench.mqtt_in("$hw/events/node/any/membership/get", r#"{"event_id":"e4"}"#).await;
    let members = bench.mqtt_out().await;
    assert!(members.starts_with(r#"$hw/events/node/edge-1/membership/get/result {"event_id":"e4","timestamp":T,"devices":[{"id":"default/thermo-1","name":"thermo-1","state":"online","last_online":"#), "{members}");
    bench.stop().await;
}

#[tokio::test]
async fn refused_updates_are_answered_and_the_device_stays_usable() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.member("default/thermo-1").await;
    bench.mqtt_out().await;
    bench.mqtt_in("$hw/events/device/default/nope/twin/get", r#"{"event_id":"e5"}"#).await;
    assert_eq!(
        bench.mqtt_out().await,
        r#"$hw/events/device/default/nope/twin/get/result {"event_id":"e5","timestamp":T,"code":404,"reason":"Device default/nope not found while getting twin"}"#
    );
    bench.mqtt_in(&format!("{D}/twin/update"), "not json").await;
    let refusal = r#"{"event_id":"","timestamp":T,"code":400,"reason":"Unmarshal update request body failed, please check the request"}"#;
    assert_eq!(bench.mqtt_out().await, format!("$hw/events/device//twin/update/result {refusal}"));
    assert_eq!(bench.mqtt_out().await, format!("{D}/twin/update/result {refusal}"));
    let warm = r#"{"event_id":"e6","twin":{"t":{"actual":{"value":"warm"},"metadata":{"type":"int"}}}}"#;
    for _ in 0..2 {
        bench.mqtt_in(&format!("{D}/twin/update"), warm).await;
        assert_eq!(
            bench.mqtt_out().await,
            format!(
                r#"{D}/twin/update/result {{"event_id":"e6","timestamp":T,"code":400,"reason":"the value is not int or integer"}}"#
            )
        );
    }
    bench.mqtt_in(&format!("{D}/twin/update"), r#"{"event_id":"e7","twin":{"t":{"actual":{}}}}"#).await;
    assert!(bench.mqtt_out().await.contains(r#""code":400"#));
    bench.mqtt_out().await;
    bench.mqtt_in("$hw/events/device/default/nope/twin/update", r#"{"event_id":"e8","twin":{}}"#).await;
    assert!(bench.mqtt_out().await.ends_with(r#""event_id":"e8","timestamp":T,"code":404,"reason":"update rejected due to the device is not existed"}"#));
    bench.stop().await;
}

fn reading(property: &str, value: Value) -> Reading {
    Reading::new(DeviceId::new("default", "thermo-1"), property, value, ValueType::Int, Millis::now())
}

#[tokio::test(start_paused = true)]
async fn what_changed_offline_is_told_at_the_next_connect_and_again_until_confirmed() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.settled_member("default/thermo-1").await;
    for value in 1..=3 {
        bench.manager.report(vec![reading("t", Value::Int(value))]).await.unwrap();
    }
    while !bench.mqtt_out().await.contains(r#""current":{"actual":{"value":"3""#) {}
    bench.link(true).await;
    let greeting = bench.cloud_out().await;
    assert_eq!(greeting.route.resource, "membership/detail");
    assert_eq!((greeting.route.operation, greeting.route.source), (Operation::GET, ModuleName::TWIN));
    assert!(greeting.content.as_text().unwrap().contains(r#""group_id":"edge-1","operation":"detail""#));
    let (message, twin) = bench.told().await;
    assert_eq!(message.route.resource, "device/default/thermo-1/twin/edge_updated");
    assert_eq!(twin["t"]["actual"]["value"], "3");
    assert_eq!(twin["t"]["metadata"]["type"], "int");
    let asked = tokio::time::Instant::now();
    let (again, twin) = bench.told().await;
    assert!(asked.elapsed() >= Duration::from_secs(59), "{:?}", asked.elapsed());
    assert_eq!(twin["t"]["actual"]["value"], "3");
    bench.confirm(&again).await;
    bench.link(false).await;
    bench.manager.report(vec![reading("t", Value::Int(4))]).await.unwrap();
    while !bench.mqtt_out().await.contains(r#""current":{"actual":{"value":"4""#) {}
    bench.link(true).await;
    assert_eq!(bench.told().await.1["t"]["actual"]["value"], "4");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_cloud_gets_the_newest_value_only() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.settled_member("default/thermo-1").await;
    bench.link(true).await;
    bench.manager.report(vec![reading("t", Value::Int(0))]).await.unwrap();
    let (first, _) = bench.told().await;
    for value in 1..=50 {
        bench.manager.report(vec![reading("t", Value::Int(value))]).await.unwrap();
        while !bench.mqtt_out().await.contains(&format!(r#""current":{{"actual":{{"value":"{value}""#)) {}
    }
    bench.confirm(&first).await;
    assert_eq!(bench.told().await.1["t"]["actual"]["value"], "50");
    bench.stop().await;
}

fn device_object(extra: serde_json::Value) -> serde_json::Value {
    let mut temperature = json!({"name": "temperature", "collectCycle": 50, "reportCycle": 50, "reportToCloud": true,
        "visitors": {"configData": {"signal": "memory", "cell": "t", "value": 20}}});
    temperature.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"kind": "Device", "metadata": {"name": "kiln", "namespace": "default"},
        "spec": {"deviceModelRef": {"name": "kiln-model"}, "nodeName": "edge-1",
            "protocol": {"protocolName": "simulated", "configData": {"device": "kiln"}}, "properties": [temperature]}})
}

fn model_object() -> serde_json::Value {
    json!({"kind": "DeviceModel", "metadata": {"name": "kiln-model", "namespace": "default"},
        "spec": {"protocol": "simulated", "properties": [
            {"name": "temperature", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "1200"}]}})
}

#[tokio::test]
async fn a_device_and_its_model_are_served_by_the_mapper_and_reported_to_the_cloud() {
    let simulated = Simulated::new();
    let mapper = Arc::new(Mapper::new(simulated.clone()));
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![mapper]);
    bench.link(true).await;
    // The model may come after the device.
    let wish = json!({"desired": {"value": "850"}});
    bench.object(Operation::INSERT, "default/device/kiln", &device_object(wish)).await;
    bench.object(Operation::INSERT, "default/devicemodel/kiln-model", &model_object()).await;
    loop {
        let (message, twin) = bench.told().await;
        bench.confirm(&message).await;
        if twin["temperature"]["actual"]["value"] == "850" {
            assert_eq!(twin["temperature"]["expected"]["value"], "850");
            break;
        }
    }
    assert_eq!(simulated.get("kiln", "t"), Some(Value::Int(850)));
    let wish = json!({"desired": {"value": "900"}});
    bench.object(Operation::UPDATE, "default/device/kiln", &device_object(wish)).await;
    loop {
        let (message, twin) = bench.told().await;
        bench.confirm(&message).await;
        if twin["temperature"]["actual"]["value"] == "900" {
            break;
        }
    }
    bench.object(Operation::DELETE, "default/device/kiln", &json!({})).await;
    bench.stop().await;
}

async fn state_of(bench: &mut Bench, wanted: &str) {
    loop {
        let message = bench.cloud_out().await;
        if message.route.resource.as_str().ends_with("state/update")
            && message.content.as_text().unwrap().contains(&format!(r#""state":"{wanted}""#))
        {
            return;
        }
    }
}

#[tokio::test]
async fn an_invalid_device_is_unhealthy_and_well_once_it_is_corrected() {
    let mapper = Arc::new(Mapper::new(Simulated::new()));
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![mapper]);
    bench.link(true).await;
    bench.object(Operation::INSERT, "default/devicemodel/kiln-model", &model_object()).await;
    let spoilt = json!({"visitors": {"configData": {"signal": "wobble"}}});
    bench.object(Operation::INSERT, "default/device/kiln", &device_object(spoilt)).await;
    state_of(&mut bench, "unhealthy").await;
    bench.object(Operation::UPDATE, "default/device/kiln", &device_object(json!({}))).await;
    state_of(&mut bench, "online").await;
    let unknown = json!({"name": "pressure"});
    bench.object(Operation::UPDATE, "default/device/kiln", &device_object(unknown)).await;
    state_of(&mut bench, "unhealthy").await;
    bench.stop().await;
}

#[tokio::test]
async fn after_a_restart_without_the_cloud_devices_are_known_and_served() {
    let store = MemoryStore::new();
    let meta = MetaHandle::over(Arc::new(store.reopened()));
    for (kind, name, object) in
        [("device", "kiln", device_object(json!({}))), ("devicemodel", "kiln-model", model_object())]
    {
        let key = ObjectKey::known(kind, "default", name);
        meta.put(&key, Bytes::from(object.to_string())).await.unwrap();
    }
    let mapper = || vec![Arc::new(Mapper::new(Simulated::new())) as Arc<dyn DeviceMapper>];
    let mut bench = Bench::start(Arc::new(store.reopened()), mapper());
    while !bench.mqtt_out().await.contains(r#""current":{"actual":{"value":"20""#) {}
    bench.stop().await;
    let mut bench = Bench::start(Arc::new(store.reopened()), vec![]);
    bench.mqtt_in("$hw/events/device/default/kiln/twin/get", r#"{"event_id":"e"}"#).await;
    let got = bench.mqtt_out().await;
    assert!(got.contains(r#""temperature":{"actual":{"value":"20""#), "{got}");
    // Nobody knows what the cloud missed: it is told all.
    bench.link(true).await;
    assert_eq!(bench.told().await.1["temperature"]["actual"]["value"], "20");
    bench.stop().await;
}

#[tokio::test]
async fn members_come_and_go_as_the_cloud_says() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.member("default/a").await;
    bench.member("default/a").await;
    bench.member("default/b").await;
    for name in ["a", "b"] {
        assert!(bench.mqtt_out().await.contains(&format!(r#""added_devices":[{{"id":"default/{name}""#)));
    }
    bench.membership(&json!({"added_devices": null, "removed_devices": [{"id": "default/a"}]})).await;
    assert!(
        bench
            .mqtt_out()
            .await
            .ends_with(r#""added_devices":null,"removed_devices":[{"id":"default/a","name":"a"}]}"#)
    );
    bench.mqtt_in("$hw/events/node/n/membership/get", "{}").await;
    assert!(bench.mqtt_out().await.ends_with(r#""devices":[{"id":"default/b","name":"b"}]}"#));
    bench.stop().await;
}

/// A store whose commits fail while told so.
#[derive(Debug)]
struct Sick(MemoryStore, AtomicBool);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MetaStore for Sick {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.0.get(key).await
    }
    fn scan(&self, scan: Scan) -> BoxStream<'static, Result<Entry, StoreError>> {
        self.0.scan(scan)
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(Failure::new(StoreKind::Io, "committing a batch"));
        }
        self.0.commit(batch).await
    }
    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_did_not_happen_and_is_answered_with_500() {
    let store = Arc::new(Sick(MemoryStore::new(), AtomicBool::new(false)));
    let mut bench = Bench::start(Arc::clone(&store) as Arc<dyn MetaStore>, vec![]);
    bench.member("default/thermo-1").await;
    bench.mqtt_out().await;
    store.1.store(true, Ordering::SeqCst);
    bench
        .mqtt_in(&format!("{D}/twin/update"), r#"{"event_id":"x","twin":{"t":{"actual":{"value":"1"}}}}"#)
        .await;
    let answer = bench.mqtt_out().await;
    assert!(
        answer.starts_with(&format!(r#"{D}/twin/update/result {{"event_id":"x","timestamp":T,"code":500"#)),
        "{answer}"
    );
    store.1.store(false, Ordering::SeqCst);
    bench.mqtt_in(&format!("{D}/twin/get"), r#"{"event_id":"y"}"#).await;
    assert!(bench.mqtt_out().await.ends_with(r#""twin":{}}"#));
    bench.stop().await;
}

#[tokio::test]
async fn ten_thousand_readings_are_stored_on_disk_in_a_few_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("edge.db"), SqliteOptions::default()).await.unwrap();
    let mut bench = Bench::start(Arc::new(store), vec![]);
    bench.settled_member("default/thermo-1").await;
    let started = std::time::Instant::now();
    for batch in 0..100 {
        let readings = (0..100).map(|n| reading(&format!("p{n}"), Value::Int(batch))).collect();
        bench.manager.report(readings).await.unwrap();
        tokio::task::yield_now().await;
        while let Some(published) = bench.mqtt.try_next() {
            drop(published);
        }
    }
    bench.manager.report(vec![reading("last", Value::Int(1))]).await.unwrap();
    while !bench.mqtt_out().await.contains(r#""last":{"actual""#) {}
    println!("10 000 readings in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    bench.manager.report_state(&reading("p", Value::Int(0)).device, DeviceState::Offline).await.unwrap();
    while !bench.mqtt_out().await.contains(r#""state":"offline""#) {}
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_started_after_a_failure_knows_that_the_cloud_is_there() {
    let store: Arc<dyn MetaStore> = Arc::new(MemoryStore::new());
    let twin = DeviceTwin::new("edge-1".into(), store.clone(), MetaHandle::over(store), vec![]);
    let mut bench = Bench::run(twin.clone());
    bench.settled_member("default/thermo-1").await;
    bench.link(true).await;
    bench.manager.report(vec![reading("t", Value::Int(1))]).await.unwrap();
    bench.told().await;
    bench.stop().await;
    let mut bench = Bench::run(twin);
    assert_eq!(bench.told().await.1["t"]["actual"]["value"], "1");
    bench.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_bus_that_takes_nothing_keeps_no_reading_from_the_cloud() {
    let mut bench = Bench::start(Arc::new(MemoryStore::new()), vec![]);
    bench.settled_member("default/thermo-1").await;
    bench.link(true).await;
    // More answers than its mailbox holds, and more requests than ours would hold if we waited for it.
    let flood = async {
        for _ in 0..4000 {
            bench.mqtt_in(&format!("{D}/twin/get"), r#"{"event_id":"y"}"#).await;
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("DeviceTwin takes nothing any more");
    bench.manager.report(vec![reading("t", Value::Int(7))]).await.unwrap();
    assert_eq!(bench.told().await.1["t"]["actual"]["value"], "7");
    // Whenever EventBus comes, it gets what had found room, and then what is new.
    while bench.mqtt.try_next().is_some() {}
    bench.manager.report(vec![reading("t", Value::Int(8))]).await.unwrap();
    while !bench.mqtt_out().await.contains(r#""current":{"actual":{"value":"8""#) {}
    bench.stop().await;
}
