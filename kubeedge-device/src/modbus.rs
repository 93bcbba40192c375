//! The `modbus` protocol over TCP, with KubeEdge's schema.
//!
//! ```yaml
//! protocol:
//!   protocolName: modbus
//!   configData: { ip: 192.168.1.10, port: 502, slaveID: 1, timeout: 1000 }
//! properties:
//!   - name: temperature
//!     visitors:
//!       configData: { register: HoldingRegister, offset: 0, limit: 1, dataType: int, scale: 0.1 }
//! ```
//!
//! | configData | meaning |
//! |---|---|
//! | `ip` (or `host`, `address`) | name or address of the device or its gateway |
//! | `port` | 502 unless given |
//! | `slaveID` (or `unitID`) | 0 to 255, 1 unless given |
//! | `timeout` | milliseconds for one request, 1000 unless given |
//!
//! | visitors.configData | meaning |
//! |---|---|
//! | `register` | `CoilRegister`, `DiscreteInputRegister`, `InputRegister`, `HoldingRegister` |
//! | `offset` | the first register, counted from 0 |
//! | `limit` | how many registers; unless given as many as the data type needs |
//! | `dataType` | `int16` `uint16` `int32` `uint32` `int64` `uint64` `float32` `float64` `boolean` `string` `bytes`; `int`, `uint`, `float`, `double` take the width from `limit`; unless given, the model's type |
//! | `scale` | a read number is multiplied by it, a written one divided |
//! | `isSwap` | the two bytes of each register are swapped |
//! | `isRegisterSwap` | the registers are in reverse order |
//!
//! Names are found in any case, and numbers and truth values may be text, as Go's mapper takes them. Serial
//! lines (RTU) are not supported; a configuration with `serialPort` is refused saying so.
//!
//! Devices behind one address share one connection, on which requests queue; a device that does not answer
//! holds it up for its own timeout at most. After a timeout the connection is made anew, since a late answer
//! may still be on the old one. Neighbouring registers are read with one request.

mod codec;
mod config;
mod line;
mod plc;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use kubeedge_core::{
    device::{Access, DriverKind, DriverResult, ModelProperty, Value},
    failure::{Advice, Failure},
};
use parking_lot::Mutex;

use self::line::{Line, Raw};
pub use self::{
    config::{DataType, ModbusConfig, Point, Register},
    plc::SimulatedPlc,
};
use crate::driver::{Driver, Session};

/// How many registers, and how many bits, one request may ask for by the Modbus specification.
const MAX_WORDS: u16 = 125;
const MAX_BITS: u16 = 2000;

/// The driver.
#[derive(Debug, Default)]
pub struct Modbus {
    /// The connections in use, by address.
    lines: Mutex<HashMap<String, Weak<Line>>>,
}

impl Modbus {
    /// A driver without connections.
    pub fn new() -> Self {
        Self::default()
    }

    fn line(&self, address: &str) -> Arc<Line> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(address).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line::new(address.to_owned()));
        lines.insert(address.to_owned(), Arc::downgrade(&line));
        line
    }
}

impl Driver for Modbus {
    const PROTOCOL: &'static str = "modbus";
    type Config = ModbusConfig;
    type Session = ModbusSession;

    async fn connect(&self, config: &ModbusConfig) -> DriverResult<ModbusSession> {
        let session = ModbusSession { line: self.line(&config.address), config: config.clone() };
        session.line.open(config).await?;
        Ok(session)
    }

    fn prepare(&self, property: &ModelProperty, at: Point) -> DriverResult<Point> {
        let wrong = |why: String| {
            let what = format!("property {}: visitors.configData.{why}", property.name);
            Failure::new(DriverKind::BadConfig, "reading a device").on(what)
        };
        let at = at.completed(property.kind).map_err(wrong)?;
        if property.access == Access::ReadWrite && !at.register.is_writable() {
            let why = format!("register: {:?} cannot be written, but the model says ReadWrite", at.register);
            return Err(wrong(why));
        }
        Ok(at)
    }
}

/// A Modbus device on a line it may share with others.
#[derive(Debug)]
pub struct ModbusSession {
    line: Arc<Line>,
    config: ModbusConfig,
}

impl ModbusSession {
    async fn fetch(&self, register: Register, offset: u16, count: u16) -> DriverResult<Raw> {
        self.line.read(&self.config, register, offset, count).await
    }

    /// Reads neighbours with one request; `None` when that is refused and they are to be read one by one.
    async fn fetch_run(&self, run: &[(usize, &Point)]) -> DriverResult<Option<Vec<DriverResult<Value>>>> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { return Ok(None) };
        let count = last.end() - first.offset;
        match self.fetch(first.register, first.offset, count).await {
            Ok(raw) => {
                let part = |point: &Point| raw.part(point.offset - first.offset, point.limit);
                Ok(Some(run.iter().map(|(_, point)| codec::decode(point, part(point))).collect()))
            }
            // One of them may not exist: the others shall not suffer for it.
            Err(error) if run.len() > 1 && error.advice() == Advice::GiveUp => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Session for ModbusSession {
    /// A request that is dropped half-way takes the line's connection with it.
    const CANCEL_SAFE: bool = true;
    type Visitor = Point;

    async fn read(&mut self, at: &Point) -> DriverResult<Value> {
        let raw = self.fetch(at.register, at.offset, at.limit).await?;
        codec::decode(at, Some(raw))
    }

    async fn write(&mut self, at: &Point, value: Value) -> DriverResult<()> {
        let raw = codec::encode(at, &value)?;
        self.line.write(&self.config, at.register, at.offset, raw).await
    }

    async fn read_many(&mut self, at: &[&Point]) -> Vec<DriverResult<Value>> {
        let mut found: Vec<Option<DriverResult<Value>>> = at.iter().map(|_| None).collect();
        for run in runs(at) {
            let values = match self.fetch_run(&run).await {
                Ok(Some(values)) => values,
                Ok(None) => {
                    let mut values = Vec::with_capacity(run.len());
                    for (_, point) in &run {
                        values.push(self.read(point).await);
                    }
                    values
                }
                Err(error) => {
                    let again =
                        |_: &_| Err(Failure::new(error.kind(), "reading registers").on(error.to_string()));
                    run.iter().map(again).collect()
                }
            };
            for ((index, _), value) in run.iter().zip(values) {
                if let Some(place) = found.get_mut(*index) {
                    *place = Some(value);
                }
            }
        }
        let missing = || Err(Failure::new(DriverKind::Protocol, "reading registers"));
        found.into_iter().map(|value| value.unwrap_or_else(missing)).collect()
    }
}

/// Points grouped so that each group is of one kind, without gaps, and fits one request.
fn runs<'a>(points: &[&'a Point]) -> Vec<Vec<(usize, &'a Point)>> {
    let mut sorted: Vec<(usize, &Point)> = points.iter().copied().enumerate().collect();
    sorted.sort_by_key(|(_, point)| (point.register, point.offset));
    let mut runs: Vec<Vec<(usize, &Point)>> = Vec::new();
    for (index, point) in sorted {
        let joins = runs.last().is_some_and(|run| {
            let (Some((_, first)), Some(end)) = (run.first(), run.iter().map(|(_, p)| p.end()).max()) else {
                return false;
            };
            let most = if point.register.is_bit() { MAX_BITS } else { MAX_WORDS };
            first.register == point.register && point.offset == end && point.end() - first.offset <= most
        });
        match runs.last_mut().filter(|_| joins) {
            Some(run) => run.push((index, point)),
            None => runs.push(vec![(index, point)]),
        }
    }
    runs
}
