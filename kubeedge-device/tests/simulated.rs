//! The simulated driver, and with it the mapper, against the conformance kit and beyond.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    conformance::mapper::{FIXED, LABEL, MapperHarness, NUMBER},
    device::{
        Access, Device, DeviceId, DeviceManager, DeviceMapper, DeviceState, ModelId, ModelProperty, Property,
        Reading, ReportError, ReportKind, ReportResult, Value, ValueType,
    },
};
use kubeedge_device::{
    Driver, DriverKind, DriverResult, Mapper, MapperSettings, Session, simulated::Simulated,
};
use serde_json::json;
use tokio::sync::mpsc;

struct World {
    simulated: Simulated,
    mapper: Arc<dyn DeviceMapper>,
}

fn quick() -> MapperSettings {
    MapperSettings {
        reconnect_first: Duration::from_millis(20),
        reconnect_cap: Duration::from_millis(100),
        ..MapperSettings::default()
    }
}

fn world() -> World {
    let simulated = Simulated::new();
    World { mapper: Arc::new(Mapper::with_settings(simulated.clone(), quick())), simulated }
}

fn id(name: &str) -> DeviceId {
    DeviceId::new("default", name)
}

fn property(name: &str, kind: ValueType, access: Access, visitor: serde_json::Value) -> Property {
    let mut model = ModelProperty::new(name, kind);
    model.access = access;
    let cycle = Duration::from_millis(100);
    Property::new(model, visitor).every(cycle, cycle)
}

fn device(name: &str, config: serde_json::Value, properties: Vec<Property>) -> Device {
    Device::new(id(name), ModelId::new("default", "m"), "simulated").config(config).properties(properties)
}

#[async_trait]
impl MapperHarness for World {
    fn mapper(&self) -> Arc<dyn DeviceMapper> {
        Arc::clone(&self.mapper)
    }
    fn device(&self, name: &str) -> Device {
        let mut number = property(
            NUMBER,
            ValueType::Int,
            Access::ReadWrite,
            json!({"signal": "memory", "cell": NUMBER, "value": 3}),
        );
        number.model.minimum = "0".into();
        number.model.maximum = "1000".into();
        let fixed = json!({"signal": "constant", "value": 17});
        let label = json!({"signal": "constant", "value": "kiln"});
        let properties = vec![
            number,
            property(FIXED, ValueType::Int, Access::ReadOnly, fixed),
            property(LABEL, ValueType::String, Access::ReadOnly, label),
        ];
        device(name, json!({"device": name}), properties)
    }
    fn spoil_config(&self, device: &mut Device) -> &'static str {
        device.config = json!({"latencyMs": "slow"});
        "configData.latencyMs"
    }
    fn spoil_visitor(&self, device: &mut Device) -> &'static str {
        device.properties.iter_mut().for_each(|p| p.visitor = json!({"signal": "memory", "periodMs": -1}));
        "number: visitors.configData.periodMs"
    }
    async fn unplug(&self, device: &DeviceId) {
        self.simulated.unplug(&device.name);
    }
    async fn plug(&self, device: &DeviceId) {
        self.simulated.plug(&device.name);
    }
    async fn stall(&self, device: &DeviceId) {
        self.simulated.stall(&device.name);
    }
    async fn answer(&self, device: &DeviceId) {
        self.simulated.answer(&device.name);
    }
}

mod kit {
    use super::*;
    kubeedge_core::mapper_conformance!(async {
        let settings = MapperSettings { call_limit: Duration::from_secs(1), ..quick() };
        let simulated = Simulated::new();
        World { mapper: Arc::new(Mapper::with_settings(simulated.clone(), settings)), simulated }
    });
}

/// Passes on what a mapper reports.
#[derive(Debug)]
struct Wire(mpsc::UnboundedSender<Heard>);
#[derive(Debug)]
enum Heard {
    Read(Reading),
    State(DeviceId, DeviceState),
}

#[async_trait]
impl DeviceManager for Wire {
    async fn report(&self, readings: Vec<Reading>) -> ReportResult {
        readings.into_iter().for_each(|reading| drop(self.0.send(Heard::Read(reading))));
        Ok(())
    }
    async fn report_state(&self, device: &DeviceId, state: DeviceState) -> ReportResult {
        let sent = self.0.send(Heard::State(device.clone(), state));
        sent.map_err(|_| ReportError::new(ReportKind::Closed, "reporting a state"))
    }
}

async fn attached(mapper: &dyn DeviceMapper) -> mpsc::UnboundedReceiver<Heard> {
    let (sender, heard) = mpsc::unbounded_channel();
    mapper.attach(Arc::new(Wire(sender))).await;
    heard
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
async fn next_reading(heard: &mut mpsc::UnboundedReceiver<Heard>) -> Reading {
    loop {
        if let Heard::Read(reading) = heard.recv().await.unwrap() {
            return reading;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_device_is_offline_after_three_timeouts_and_stalls_only_itself() {
    let world = world();
    let mut heard = attached(&*world.mapper).await;
    let signal = || vec![property("p", ValueType::Double, Access::ReadOnly, json!({"signal": "ramp"}))];
    world.mapper.register(device("hung", json!({"device": "a", "hangEvery": 1}), signal())).await.unwrap();
    world.mapper.register(device("quick", json!({"device": "b"}), signal())).await.unwrap();
    let (mut offline, mut readings) = (false, 0);
    while !offline {
        match heard.recv().await.unwrap() {
            Heard::State(device, DeviceState::Offline) => offline = device == id("hung"),
            Heard::State(..) => {}
            Heard::Read(reading) => {
                assert_eq!(reading.device, id("quick"));
                readings += 1;
            }
        }
    }
    // Three timeouts of 10 s; the other device reported ten times a second meanwhile.
    assert!(readings > 200, "{readings}");
}

#[tokio::test(start_paused = true)]
async fn unchanged_values_stay_at_home_until_their_report_cycle() {
    let world = world();
    let mut heard = attached(&*world.mapper).await;
    let mut constant =
        property("p", ValueType::Int, Access::ReadOnly, json!({"signal": "constant", "value": 1}));
    constant.report_every = Duration::from_secs(10);
    world.mapper.register(device("d", json!({}), vec![constant])).await.unwrap();
    next_reading(&mut heard).await;
    let first = tokio::time::Instant::now();
    next_reading(&mut heard).await;
    assert_eq!(first.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_subscribed_value_comes_at_once_however_seldom_it_is_polled() {
    let world = world();
    let mut heard = attached(&*world.mapper).await;
    let visitor = json!({"signal": "memory", "cell": "door", "subscribe": true});
    let mut door = property("door", ValueType::Int, Access::ReadOnly, visitor);
    (door.collect_every, door.report_every) = (Duration::from_secs(3600), Duration::ZERO);
    world.mapper.register(device("d", json!({"device": "hall"}), vec![door])).await.unwrap();
    assert_eq!(next_reading(&mut heard).await.value, Value::Int(0));
    let asked = tokio::time::Instant::now();
    world.simulated.set("hall", "door", Value::Int(1));
    assert_eq!(next_reading(&mut heard).await.value, Value::Int(1));
    assert!(asked.elapsed() < Duration::from_secs(1));
    // Gone and back: subscribed anew.
    world.simulated.unplug("hall");
    while !matches!(heard.recv().await.unwrap(), Heard::State(_, DeviceState::Offline)) {}
    world.simulated.plug("hall");
    while !matches!(heard.recv().await.unwrap(), Heard::State(_, DeviceState::Online)) {}
    world.simulated.set("hall", "door", Value::Int(2));
    while next_reading(&mut heard).await.value != Value::Int(2) {}
}

#[tokio::test(start_paused = true)]
async fn a_property_that_cannot_be_converted_makes_the_device_unhealthy_not_offline() {
    let world = world();
    let mut heard = attached(&*world.mapper).await;
    let odd = json!({"signal": "constant", "value": "warm"});
    let good = json!({"signal": "constant", "value": 5});
    let properties = vec![
        property("odd", ValueType::Int, Access::ReadOnly, odd),
        property("good", ValueType::Int, Access::ReadOnly, good),
    ];
    world.mapper.register(device("d", json!({}), properties)).await.unwrap();
    assert_eq!(next_reading(&mut heard).await.property, "good");
    let state = loop {
        if let Heard::State(_, state) = heard.recv().await.unwrap() {
            break state;
        }
    };
    assert_eq!(state, DeviceState::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_devices_all_report() {
    let world = world();
    let mut heard = attached(&*world.mapper).await;
    for n in 0..1000 {
        let walk = json!({"signal": "randomWalk", "seed": n, "step": 2.0});
        let name = format!("d{n}");
        let properties = vec![property("p", ValueType::Double, Access::ReadOnly, walk)];
        world.mapper.register(device(&name, json!({"device": name}), properties)).await.unwrap();
    }
    let mut reported = std::collections::HashSet::new();
    while reported.len() < 1000 {
        reported.insert(next_reading(&mut heard).await.device);
    }
    world.mapper.close().await;
}

/// A driver that counts its open sessions and never answers a read.
#[derive(Debug, Clone)]
struct Mute(Arc<std::sync::atomic::AtomicI64>);
struct Open(Arc<std::sync::atomic::AtomicI64>);

impl Driver for Mute {
    const PROTOCOL: &'static str = "mute";
    type Config = serde_json::Value;
    type Session = Open;
    async fn connect(&self, _: &serde_json::Value) -> DriverResult<Open> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(Open(Arc::clone(&self.0)))
    }
}
impl Session for Open {
    type Visitor = serde_json::Value;
    async fn read(&mut self, _: &serde_json::Value) -> DriverResult<Value> {
        std::future::pending().await
    }
    async fn close(self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn removing_a_device_during_a_read_closes_its_session_at_once() {
    let open = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let mapper = Arc::new(Mapper::new(Mute(Arc::clone(&open))));
    let _heard = attached(&*mapper).await;
    let properties = vec![property("p", ValueType::Int, Access::ReadOnly, json!({}))];
    mapper.register(device("d", json!({}), properties)).await.unwrap();
    let reading = tokio::spawn({
        let mapper = Arc::clone(&mapper);
        async move { mapper.read(&id("d"), "p").await }
    });
    while open.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let asked = tokio::time::Instant::now();
    mapper.remove(&id("d")).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(open.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), DriverKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_one_device_says_busy() {
    let open = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let settings = MapperSettings { queue: 1, ..MapperSettings::default() };
    let mapper = Arc::new(Mapper::with_settings(Mute(open), settings));
    let properties = vec![property("p", ValueType::Int, Access::ReadOnly, json!({}))];
    mapper.register(device("d", json!({}), properties)).await.unwrap();
    let asks = (0..5).map(|_| {
        let mapper = Arc::clone(&mapper);
        tokio::spawn(async move { mapper.read(&id("d"), "p").await.unwrap_err().kind() })
    });
    let kinds = futures::future::join_all(asks.collect::<Vec<_>>()).await;
    assert!(kinds.iter().any(|kind| *kind.as_ref().unwrap() == DriverKind::Busy), "{kinds:?}");
}

/// A driver with a bug.
#[derive(Debug)]
struct Buggy;
struct Wild(u32);

impl Driver for Buggy {
    const PROTOCOL: &'static str = "buggy";
    type Config = serde_json::Value;
    type Session = Wild;
    async fn connect(&self, _: &serde_json::Value) -> DriverResult<Wild> {
        Ok(Wild(0))
    }
}
impl Session for Wild {
    type Visitor = serde_json::Value;
    async fn read(&mut self, _: &serde_json::Value) -> DriverResult<Value> {
        self.0 += 1;
        assert!(self.0 < 3, "a bug of the driver");
        Ok(Value::Int(i64::from(self.0)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_makes_its_device_offline_and_is_tried_again() {
    let mapper = Mapper::with_settings(Buggy, quick());
    let mut heard = attached(&mapper).await;
    let properties = vec![property("p", ValueType::Int, Access::ReadOnly, json!({}))];
    mapper.register(device("d", json!({}), properties)).await.unwrap();
    let mut states = Vec::new();
    while states.len() < 4 {
        if let Heard::State(_, state) = heard.recv().await.unwrap() {
            states.push(state);
        }
    }
    use DeviceState::{Offline, Online};
    assert_eq!(states, [Online, Offline, Online, Offline]);
    mapper.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_accepts_connections_but_never_answers_stays_offline() {
    let mapper = Mapper::with_settings(Mute(Arc::default()), quick());
    let mut heard = attached(&mapper).await;
    let properties = vec![property("p", ValueType::Int, Access::ReadOnly, json!({}))];
    mapper.register(device("d", json!({}), properties)).await.unwrap();
    assert!(matches!(heard.recv().await.unwrap(), Heard::State(_, DeviceState::Offline)));
    // Several more rounds of connecting and timing out: nothing new to tell.
    assert!(tokio::time::timeout(Duration::from_secs(600), heard.recv()).await.is_err());
    mapper.close().await;
}
