//! The `simulated` protocol: signals and writable memory, for trying things out and for tests.
//!
//! ```yaml
//! protocol:
//!   protocolName: simulated
//!   configData: { device: boiler-1, latencyMs: 5 }       # all optional
//! properties:
//!   - { name: temperature, visitors: { configData: { signal: sine, minimum: 20, maximum: 80, periodMs: 60000 } } }
//!   - { name: setpoint,    visitors: { configData: { signal: memory, cell: setpoint, value: 50 } } }
//! ```
//!
//! | signal | value |
//! |---|---|
//! | `constant` | `value` |
//! | `sine` | between `minimum` and `maximum`, once round in `periodMs` |
//! | `ramp` | from `minimum` to `maximum` in `periodMs`, then from the start |
//! | `randomWalk` | a step of at most `step` per read, within `minimum` and `maximum`, repeatable by `seed` |
//! | `memory` | what was written last to `cell`, `value` before that; the only signal that can be written |
//!
//! Faults: `configData.failEvery: n` has every n-th read fail as a lost connection, `configData.hangEvery: n`
//! never answer; [`Simulated::unplug`] takes a device away, [`Simulated::stall`] has it answer nothing.
//! Devices of the same `configData.device` share memory and plug.

use std::{collections::HashMap, f64::consts::TAU, sync::Arc, time::Duration};

use kubeedge_core::{
    device::{Access, DriverKind, DriverResult, ModelProperty, Value},
    failure::Failure,
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use crate::driver::{Driver, Session, Values};

/// How many simulated machines, and cells in each, are remembered.
const MAX_THINGS: usize = 10_000;

/// The driver; a clone shares the simulated world.
#[derive(Clone, Debug)]
pub struct Simulated {
    world: Arc<World>,
}

#[derive(Debug)]
struct World {
    born: Instant,
    machines: Mutex<HashMap<String, Arc<Machine>>>,
}

/// What is there whether or not anybody is connected to it.
#[derive(Debug)]
struct Machine {
    plugged: watch::Sender<bool>,
    answering: watch::Sender<bool>,
    cells: Mutex<HashMap<String, Value>>,
    changed: watch::Sender<u64>,
}

/// `protocol.configData`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SimulatedConfig {
    /// Which simulated machine this is.
    pub device: String,
    /// How long every call takes, in milliseconds.
    pub latency_ms: u64,
    /// Every n-th read fails as a lost connection; 0 for none.
    pub fail_every: u64,
    /// Every n-th read is never answered; 0 for none.
    pub hang_every: u64,
}

/// `visitors.configData`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signal {
    /// The form of the signal.
    #[serde(default)]
    pub signal: SignalKind,
    /// The lowest value.
    #[serde(default)]
    pub minimum: f64,
    /// The highest value.
    #[serde(default = "hundred")]
    pub maximum: f64,
    /// How long one round takes, in milliseconds.
    #[serde(default = "minute")]
    pub period_ms: u64,
    /// The longest step of a random walk.
    #[serde(default = "one")]
    pub step: f64,
    /// Makes a random walk repeatable.
    #[serde(default)]
    pub seed: u64,
    /// The value of a constant, and of memory nobody wrote to.
    #[serde(default)]
    pub value: serde_json::Value,
    /// The name of the memory cell.
    #[serde(default)]
    pub cell: String,
    /// Whether memory tells of changes by itself instead of being polled.
    #[serde(default)]
    pub subscribe: bool,
}

/// The form of a [`Signal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SignalKind {
    /// Up and down.
    #[default]
    Sine,
    /// Up, and from the start.
    Ramp,
    /// A random walk.
    RandomWalk,
    /// Always the same.
    Constant,
    /// What was written.
    Memory,
}

fn hundred() -> f64 {
    100.0
}
fn minute() -> u64 {
    60_000
}
fn one() -> f64 {
    1.0
}

impl Default for Simulated {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulated {
    /// A world of its own, whose signals start now.
    pub fn new() -> Self {
        Self { world: Arc::new(World { born: Instant::now(), machines: Mutex::default() }) }
    }

    /// Takes a machine away: sessions end, connecting fails.
    pub fn unplug(&self, device: &str) {
        if let Some(machine) = self.machine(device) {
            machine.plugged.send_replace(false);
        }
    }

    /// Brings a machine back.
    pub fn plug(&self, device: &str) {
        if let Some(machine) = self.machine(device) {
            machine.plugged.send_replace(true);
        }
    }

    /// Has a machine answer nothing: calls wait until [`Simulated::answer`].
    pub fn stall(&self, device: &str) {
        if let Some(machine) = self.machine(device) {
            machine.answering.send_replace(false);
        }
    }

    /// Has a stalled machine answer again, first what waits.
    pub fn answer(&self, device: &str) {
        if let Some(machine) = self.machine(device) {
            machine.answering.send_replace(true);
        }
    }

    /// Sets a memory cell, as if by hand at the machine.
    pub fn set(&self, device: &str, cell: &str, value: Value) {
        if let Some(machine) = self.machine(device) {
            machine.put(cell, value);
        }
    }

    /// What is in a memory cell, if anything was ever put there.
    pub fn get(&self, device: &str, cell: &str) -> Option<Value> {
        self.machine(device)?.cells.lock().get(cell).cloned()
    }

    fn machine(&self, device: &str) -> Option<Arc<Machine>> {
        let mut machines = self.world.machines.lock();
        if !machines.contains_key(device) && machines.len() >= MAX_THINGS {
            return None;
        }
        let machine = machines.entry(device.to_owned()).or_insert_with(|| {
            let (plugged, answering) = (watch::Sender::new(true), watch::Sender::new(true));
            Arc::new(Machine { plugged, answering, cells: Mutex::default(), changed: watch::Sender::new(0) })
        });
        Some(Arc::clone(machine))
    }
}

impl Machine {
    /// Whether there was room.
    fn put(&self, cell: &str, value: Value) -> bool {
        let mut cells = self.cells.lock();
        if !cells.contains_key(cell) && cells.len() >= MAX_THINGS {
            return false;
        }
        cells.insert(cell.to_owned(), value);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        true
    }

    fn cell(&self, at: &Signal) -> DriverResult<Value> {
        let written = self.cells.lock().get(&at.cell).cloned();
        written.map_or_else(|| plain(&at.value), Ok)
    }
}

impl Driver for Simulated {
    const PROTOCOL: &'static str = "simulated";
    type Config = SimulatedConfig;
    type Session = SimulatedSession;

    async fn connect(&self, config: &SimulatedConfig) -> DriverResult<SimulatedSession> {
        let machine = self.machine(&config.device).ok_or_else(|| {
            Failure::new(DriverKind::Unsupported, "simulating one more machine").on(&config.device)
        })?;
        let session = SimulatedSession {
            born: self.world.born,
            config: config.clone(),
            machine,
            reads: 0,
            walks: HashMap::new(),
        };
        session.reach().await?;
        Ok(session)
    }

    fn prepare(&self, property: &ModelProperty, at: Signal) -> DriverResult<Signal> {
        let wrong = |why: String| {
            let what = format!("property {}: visitors.configData.{why}", property.name);
            Failure::new(DriverKind::BadConfig, "reading a device").on(what)
        };
        if at.minimum > at.maximum {
            return Err(wrong(format!("minimum: {} is above maximum {}", at.minimum, at.maximum)));
        }
        if at.period_ms == 0 {
            return Err(wrong("periodMs: 0 is no period".to_owned()));
        }
        if property.access == Access::ReadWrite && at.signal != SignalKind::Memory {
            return Err(wrong(format!("signal: {:?} cannot be written, memory can", at.signal)));
        }
        Ok(at)
    }
}

/// A connection to a simulated machine.
#[derive(Debug)]
pub struct SimulatedSession {
    born: Instant,
    config: SimulatedConfig,
    machine: Arc<Machine>,
    reads: u64,
    walks: HashMap<(u64, String), (SmallRng, f64)>,
}

impl SimulatedSession {
    /// Takes the time a call takes; fails when the machine is not plugged in.
    async fn reach(&self) -> DriverResult<()> {
        // The machine holds the sender.
        let _ = self.machine.answering.subscribe().wait_for(|answering| *answering).await;
        if self.config.latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.config.latency_ms)).await;
        }
        if *self.machine.plugged.borrow() {
            Ok(())
        } else {
            Err(Failure::new(DriverKind::Disconnected, "reaching a simulated machine")
                .on(&self.config.device))
        }
    }

    async fn stumble(&mut self) -> DriverResult<()> {
        self.reads += 1;
        let is_turn = |every: u64| every > 0 && self.reads.is_multiple_of(every);
        if is_turn(self.config.hang_every) {
            std::future::pending::<()>().await;
        }
        if is_turn(self.config.fail_every) {
            return Err(Failure::new(DriverKind::Disconnected, "simulating a fault").on(&self.config.device));
        }
        Ok(())
    }

    fn walk(&mut self, at: &Signal) -> f64 {
        let start = || (SmallRng::seed_from_u64(at.seed), (at.minimum + at.maximum) / 2.0);
        let (random, value) = self.walks.entry((at.seed, at.cell.clone())).or_insert_with(start);
        let step = at.step.abs();
        *value = (*value + random.random_range(-1.0..=1.0) * step).clamp(at.minimum, at.maximum);
        *value
    }
}

impl Session for SimulatedSession {
    /// There is nothing on which an answer could come late.
    const CANCEL_SAFE: bool = true;
    type Visitor = Signal;

    async fn read(&mut self, at: &Signal) -> DriverResult<Value> {
        self.reach().await?;
        self.stumble().await?;
        let round = self.born.elapsed().as_secs_f64() / (at.period_ms as f64 / 1000.0);
        let range = at.maximum - at.minimum;
        match at.signal {
            SignalKind::Sine => Ok(Value::Float(at.minimum + range * (1.0 + (round * TAU).sin()) / 2.0)),
            SignalKind::Ramp => Ok(Value::Float(at.minimum + range * round.fract())),
            SignalKind::RandomWalk => Ok(Value::Float(self.walk(at))),
            SignalKind::Constant => plain(&at.value),
            SignalKind::Memory => self.machine.cell(at),
        }
    }

    async fn write(&mut self, at: &Signal, value: Value) -> DriverResult<()> {
        self.reach().await?;
        if at.signal != SignalKind::Memory {
            let what = format!("signal {:?}", at.signal);
            return Err(Failure::new(DriverKind::Unsupported, "writing to a simulated machine").on(what));
        }
        if !self.machine.put(&at.cell, value) {
            return Err(Failure::new(DriverKind::Unsupported, "using one more memory cell").on(&at.cell));
        }
        Ok(())
    }

    async fn subscribe(&mut self, at: &Signal) -> DriverResult<Option<Values>> {
        if at.signal != SignalKind::Memory || !at.subscribe {
            return Ok(None);
        }
        let (machine, at) = (Arc::clone(&self.machine), at.clone());
        let (changed, plugged) = (machine.changed.subscribe(), machine.plugged.subscribe());
        let state = (machine, at, changed, plugged);
        let values = futures::stream::unfold(Some(state), |state| async move {
            let (machine, at, mut changed, mut plugged) = state?;
            let unplugged = tokio::select! {
                Ok(()) = changed.changed() => false,
                Ok(_) = plugged.wait_for(|plugged| !plugged) => true,
                else => return None,
            };
            if unplugged {
                let lost = Failure::new(DriverKind::Disconnected, "watching a simulated machine");
                return Some((Err(lost), None));
            }
            let value = machine.cell(&at);
            Some((value, Some((machine, at, changed, plugged))))
        });
        Ok(Some(Box::pin(values)))
    }
}

/// A value as the configuration gives it.
fn plain(value: &serde_json::Value) -> DriverResult<Value> {
    use serde_json::Value as Json;
    match value {
        Json::Null => Ok(Value::Int(0)),
        Json::Bool(truth) => Ok(Value::Bool(*truth)),
        Json::String(text) => Ok(Value::Text(text.clone())),
        Json::Number(number) => {
            let int = number.as_i64().map(Value::Int);
            Ok(int.or_else(|| number.as_f64().map(Value::Float)).unwrap_or(Value::Int(0)))
        }
        other => Err(Failure::new(DriverKind::BadValue, "reading a simulated value").on(other.to_string())),
    }
}
