//! The mapper SDK: write a [`Driver`] and a [`Session`] for a protocol, and [`Mapper`] makes of them a
//! [`DeviceMapper`](kubeedge_core::device::DeviceMapper) that edgecore runs in its own process.
//!
//! ```text
//!  DeviceTwin ── DeviceMapper ──► Mapper<D> ── one task per device ──► D::Session ──► the device
//!      ▲                             │   schedule, change filter, desired values, reconnecting, states
//!      └──────── DeviceManager ◄─────┘
//! ```
//!
//! A whole mapper for a protocol of one's own:
//!
//! ```
//! use std::time::Duration;
//!
//! use kubeedge_core::device::{
//!     Device, DeviceId, DeviceMapper, DriverResult, ModelId, ModelProperty, Property, Value, ValueType,
//! };
//! use kubeedge_device::{Driver, Mapper, Session};
//! use serde_json::json;
//!
//! #[derive(Debug)]
//! struct Kiln;
//! struct Wire { celsius: f64 }
//!
//! #[derive(serde::Deserialize)]
//! struct Address { ambient: f64 }
//! #[derive(serde::Deserialize)]
//! struct Channel { offset: f64 }
//!
//! impl Driver for Kiln {
//!     const PROTOCOL: &'static str = "acme-kiln";
//!     type Config = Address;
//!     type Session = Wire;
//!
//!     async fn connect(&self, at: &Address) -> DriverResult<Wire> {
//!         Ok(Wire { celsius: at.ambient })
//!     }
//! }
//!
//! impl Session for Wire {
//!     type Visitor = Channel;
//!
//!     async fn read(&mut self, at: &Channel) -> DriverResult<Value> {
//!         Ok((self.celsius + at.offset).into())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> DriverResult<()> {
//! let mapper = Mapper::new(Kiln); // edgecore: `.mapper(Mapper::new(Kiln))`
//!
//! // What DeviceTwin does with a Device object:
//! let celsius = Property::new(ModelProperty::new("celsius", ValueType::Double), json!({"offset": 0.5}))
//!     .every(Duration::from_secs(1), Duration::from_secs(10));
//! let (id, model) = (DeviceId::new("default", "kiln"), ModelId::new("default", "kiln"));
//! let kiln = Device::new(id.clone(), model, "acme-kiln").config(json!({"ambient": 20.0}));
//! mapper.register(kiln.properties(vec![celsius])).await?;
//! assert_eq!(mapper.read(&id, "celsius").await?, Value::Float(20.5));
//! # Ok(()) }
//! ```
//!
//! The mapper does what every protocol needs: it reads `protocol.configData` and `visitors.configData` into
//! the driver's own types when a device is registered and names the field that is wrong; reads each property
//! every `collectCycle`; reports it on change and every `reportCycle`; converts values to the model's type;
//! checks access and range; writes desired values and reads them back; reconnects with growing, jittered
//! pauses; and reports whether the device is online, offline or unhealthy.
//!
//! Drivers that come with the crate: [`simulated`] (always) and `modbus` (feature `modbus`).
#![cfg_attr(docsrs, feature(doc_cfg))]

mod driver;
mod mapper;
#[cfg(feature = "modbus")]
pub mod modbus;
pub mod simulated;
pub mod value;

pub use driver::{Driver, Session, Values};
pub use kubeedge_core::device::{DriverError, DriverKind, DriverResult, Value};
pub use mapper::{Mapper, MapperSettings};
