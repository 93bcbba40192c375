//! A protocol whose answers do not say what they answer: a line of text for a line of text, in order.
//!
//! A session of such a protocol cannot be used on after a call that was dropped half-way. The tests run the
//! conformance kit over it, show that the kit finds out a driver that claims otherwise, and look at what a
//! dropped call costs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use kubeedge_core::{
    conformance::mapper::{self as kit, FIXED, LABEL, MapperHarness, NUMBER},
    device::{
        Device, DeviceId, DeviceManager, DeviceMapper, DeviceState, ModelId, ModelProperty, Property,
        Reading, ReportError, ReportKind, ReportResult, Value, ValueType,
    },
    failure::Failure,
};
use kubeedge_device::{Driver, DriverError, DriverKind, DriverResult, Mapper, MapperSettings, Session};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    time::Instant,
};

/// A machine that is there whether or not somebody is connected.
#[derive(Debug)]
struct Machine {
    registers: Mutex<[i64; 3]>,
    plugged: watch::Sender<bool>,
    /// Whether reads, and whether writes, are answered.
    answering: watch::Sender<(bool, bool)>,
    connections: AtomicU32,
    writes: AtomicU32,
}

impl Machine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            registers: Mutex::new([3, 17, 99]),
            plugged: watch::Sender::new(true),
            answering: watch::Sender::new((true, true)),
            connections: AtomicU32::new(0),
            writes: AtomicU32::new(0),
        })
    }

    /// Answers lines until the other end or the plug is gone.
    async fn serve(self: Arc<Self>, wire: DuplexStream) {
        let (reading, mut writing) = tokio::io::split(wire);
        let mut lines = BufReader::new(reading).lines();
        let (mut plugged, mut answering) = (self.plugged.subscribe(), self.answering.subscribe());
        let work = async {
            while let Ok(Some(line)) = lines.next_line().await {
                let words: Vec<usize> = line.split(' ').map(|word| word.parse().unwrap()).collect();
                if words.len() == 2 {
                    self.writes.fetch_add(1, SeqCst);
                    answering.wait_for(|(_, writes)| *writes).await.unwrap();
                    self.registers.lock()[words[0]] = i64::try_from(words[1]).unwrap();
                } else {
                    answering.wait_for(|(reads, _)| *reads).await.unwrap();
                }
                let answer = format!("{}\n", self.registers.lock()[words[0]]);
                if writing.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = plugged.wait_for(|plugged| !plugged) => {}
        }
    }
}

/// The driver. With `CLAIMS` its sessions say that they can bear a dropped call, which they cannot.
#[derive(Clone, Debug, Default)]
struct Teletype<const CLAIMS: bool>(Arc<Mutex<HashMap<String, Arc<Machine>>>>);

#[derive(Deserialize)]
struct Address {
    machine: String,
}

#[derive(Deserialize)]
struct Register {
    register: usize,
}

struct Wire<const CLAIMS: bool> {
    answers: Lines<BufReader<ReadHalf<DuplexStream>>>,
    requests: WriteHalf<DuplexStream>,
}

impl<const CLAIMS: bool> Teletype<CLAIMS> {
    fn machine(&self, name: &str) -> Arc<Machine> {
        Arc::clone(self.0.lock().entry(name.to_owned()).or_insert_with(Machine::new))
    }
}

fn gone() -> DriverError {
    Failure::new(DriverKind::Disconnected, "using a teletype")
}

impl<const CLAIMS: bool> Driver for Teletype<CLAIMS> {
    const PROTOCOL: &'static str = "teletype";
    type Config = Address;
    type Session = Wire<CLAIMS>;

    async fn connect(&self, at: &Address) -> DriverResult<Wire<CLAIMS>> {
        let machine = self.machine(&at.machine);
        if !*machine.plugged.borrow() {
            return Err(gone());
        }
        machine.connections.fetch_add(1, SeqCst);
        let (ours, its) = tokio::io::duplex(1024);
        tokio::spawn(machine.serve(its));
        let (reading, requests) = tokio::io::split(ours);
        Ok(Wire { answers: BufReader::new(reading).lines(), requests })
    }
}

impl<const CLAIMS: bool> Wire<CLAIMS> {
    async fn ask(&mut self, request: String) -> DriverResult<i64> {
        self.requests.write_all(request.as_bytes()).await.map_err(|_| gone())?;
        let answer = self.answers.next_line().await.ok().flatten().ok_or_else(gone)?;
        answer.parse().map_err(|_| gone())
    }
}

impl<const CLAIMS: bool> Session for Wire<CLAIMS> {
    const CANCEL_SAFE: bool = CLAIMS;
    type Visitor = Register;

    async fn read(&mut self, at: &Register) -> DriverResult<Value> {
        self.ask(format!("{}\n", at.register)).await.map(Value::Int)
    }

    async fn write(&mut self, at: &Register, value: Value) -> DriverResult<()> {
        self.ask(format!("{} {value}\n", at.register)).await.map(drop)
    }
}

struct World<const CLAIMS: bool> {
    driver: Teletype<CLAIMS>,
    mapper: Arc<dyn DeviceMapper>,
}

fn world<const CLAIMS: bool>(call_limit: Duration) -> World<CLAIMS> {
    let driver = Teletype::<CLAIMS>::default();
    let settings = MapperSettings {
        call_limit,
        reconnect_first: Duration::from_millis(20),
        reconnect_cap: Duration::from_millis(100),
        ..MapperSettings::default()
    };
    World { mapper: Arc::new(Mapper::with_settings(driver.clone(), settings)), driver }
}

#[async_trait]
impl<const CLAIMS: bool> MapperHarness for World<CLAIMS> {
    fn mapper(&self) -> Arc<dyn DeviceMapper> {
        Arc::clone(&self.mapper)
    }
    fn device(&self, name: &str) -> Device {
        let cycle = Duration::from_millis(100);
        let property = |register: u8, model: ModelProperty| {
            Property::new(model, json!({"register": register})).every(cycle, cycle)
        };
        let model = |name: &str| ModelProperty::new(name, ValueType::Int);
        let number = model(NUMBER).writable().within("0", "1000");
        Device::new(DeviceId::new("default", name), ModelId::new("default", "m"), "teletype")
            .config(json!({"machine": name}))
            .properties(vec![property(0, number), property(1, model(FIXED)), property(2, model(LABEL))])
    }
    fn spoil_config(&self, device: &mut Device) -> &'static str {
        device.config = json!({"machine": 5});
        "configData.machine"
    }
    fn spoil_visitor(&self, device: &mut Device) -> &'static str {
        device.properties[0].visitor = json!({"register": "none"});
        "number: visitors.configData.register"
    }
    async fn unplug(&self, device: &DeviceId) {
        self.driver.machine(&device.name).plugged.send_replace(false);
    }
    async fn plug(&self, device: &DeviceId) {
        self.driver.machine(&device.name).plugged.send_replace(true);
    }
    async fn stall(&self, device: &DeviceId) {
        self.driver.machine(&device.name).answering.send_replace((false, false));
    }
    async fn answer(&self, device: &DeviceId) {
        self.driver.machine(&device.name).answering.send_replace((true, true));
    }
}

mod conformance {
    use super::*;
    kubeedge_core::mapper_conformance!(async { world::<false>(Duration::from_secs(1)) });
}

#[tokio::test]
async fn the_kit_finds_out_a_false_claim() {
    let world = world::<true>(Duration::from_secs(1));
    let case = kit::a_late_answer_is_no_other_propertys_value(world);
    assert!(std::panic::AssertUnwindSafe(case).catch_unwind().await.is_err());
}

/// Passes on the states that a mapper reports.
#[derive(Debug)]
struct States(mpsc::UnboundedSender<DeviceState>);

#[async_trait]
impl DeviceManager for States {
    async fn report(&self, _: Vec<Reading>) -> ReportResult {
        Ok(())
    }
    async fn report_state(&self, _: &DeviceId, state: DeviceState) -> ReportResult {
        self.0.send(state).map_err(|_| ReportError::new(ReportKind::Closed, "reporting a state"))
    }
}

/// A device that is served, its machine, and its states.
async fn served(desired: Option<&str>) -> (World<false>, Arc<Machine>, mpsc::UnboundedReceiver<DeviceState>) {
    let world = world::<false>(Duration::from_secs(10));
    let (sender, states) = mpsc::unbounded_channel();
    world.mapper.attach(Arc::new(States(sender))).await;
    let mut device = world.device("one");
    device.properties[0].desired = desired.map(str::to_owned);
    world.mapper.register(device).await.unwrap();
    let machine = world.driver.machine("one");
    (world, machine, states)
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_costs_the_session_but_not_the_state() {
    let (_world, machine, mut states) = served(Some("8")).await;
    assert_eq!(states.recv().await.unwrap(), DeviceState::Online);
    machine.answering.send_replace((false, false));
    tokio::time::sleep(Duration::from_secs(15)).await;
    machine.answering.send_replace((true, true));
    assert!(tokio::time::timeout(Duration::from_secs(600), states.recv()).await.is_err());
    assert_eq!(machine.connections.load(SeqCst), 2);
    assert_eq!(machine.writes.load(SeqCst), 1, "a desired value was written again");
}

#[tokio::test(start_paused = true)]
async fn three_dropped_calls_make_a_device_offline() {
    let (_world, machine, mut states) = served(None).await;
    assert_eq!(states.recv().await.unwrap(), DeviceState::Online);
    machine.answering.send_replace((false, false));
    let since = Instant::now();
    assert_eq!(states.recv().await.unwrap(), DeviceState::Unhealthy);
    assert_eq!(since.elapsed().as_secs(), 20);
    assert_eq!(states.recv().await.unwrap(), DeviceState::Offline);
    assert_eq!(since.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_always_hangs_leaves_the_device_connected() {
    let (world, machine, mut states) = served(Some("8")).await;
    machine.answering.send_replace((true, false));
    assert_eq!(states.recv().await.unwrap(), DeviceState::Unhealthy);
    assert!(tokio::time::timeout(Duration::from_secs(600), states.recv()).await.is_err());
    assert!(machine.connections.load(SeqCst) > 10);
    let id = world.device("one").id;
    assert_eq!(world.mapper.read(&id, FIXED).await.unwrap(), Value::Int(17));
}
