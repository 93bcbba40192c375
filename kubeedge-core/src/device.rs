//! The seam to devices: what DeviceTwin tells a mapper, and what a mapper tells DeviceTwin.
//!
//! A vendor does not write these traits but `Driver` and `Session` of `kubeedge-device`, whose `Mapper<D>` is
//! a [`DeviceMapper`]. A mapper may live in edgecore's process or speak DMI over gRPC; both look the same
//! here.
//!
//! Whoever is attached to a mapper hears of its devices:
//!
//! ```
//! use async_trait::async_trait;
//! use kubeedge_core::{
//!     device::{DeviceId, DeviceManager, DeviceState, Reading, ReportResult, ValueType},
//!     message::Millis,
//! };
//!
//! #[derive(Debug)]
//! struct Console;
//!
//! #[async_trait]
//! impl DeviceManager for Console {
//!     async fn report(&self, readings: Vec<Reading>) -> ReportResult {
//!         readings.iter().for_each(|reading| println!("{} {} = {}", reading.device, reading.property, reading.value));
//!         Ok(())
//!     }
//!     async fn report_state(&self, device: &DeviceId, state: DeviceState) -> ReportResult {
//!         println!("{device} is {state}");
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ReportResult {
//! let device = DeviceId::new("default", "kiln");
//! let reading = Reading::new(device.clone(), "celsius", 20.5, ValueType::Double, Millis::now());
//! Console.report(vec![reading]).await?; // default/kiln celsius = 20.5
//! Console.report_state(&device, DeviceState::Online).await?; // default/kiln is online
//! # Ok(()) }
//! ```

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, kinds, message::Millis};

kinds! {
    /// What can go wrong between a driver and its device.
    DriverKind {
        Disconnected => "device is not connected", Reconnect;
        Protocol => "device broke the protocol", Reconnect;
        Timeout => "device did not answer in time", Retry;
        Busy => "device is busy", Retry;
        NotFound => "no such device or point", GiveUp;
        BadConfig => "invalid device configuration", GiveUp;
        BadValue => "value does not fit the point", GiveUp;
        Unsupported => "device cannot do this", GiveUp;
    }
}

/// A driver could not do what it was asked.
pub type DriverError = Failure<DriverKind>;
/// The result of a driver call.
pub type DriverResult<T> = Result<T, DriverError>;

kinds! {
    /// Why a report of a mapper was not taken.
    ReportKind {
        Busy => "device manager is busy", Retry;
        Closed => "device manager is gone", Reconnect;
        Unknown => "device manager does not know the device", GiveUp;
    }
}

/// A report of a mapper was not taken.
pub type ReportError = Failure<ReportKind>;
/// The result of a report.
pub type ReportResult = Result<(), ReportError>;

/// A value read from or written to a point of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
}

impl fmt::Display for Value {
    /// The text form KubeEdge uses in twins: `true`, `42`, `20.5`; bytes in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
            Self::Bytes(value) => value.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => { $(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )* };
}
value_from!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, i16 => Int, u16 => Int, f64 => Float, f32 => Float, String => Text, &str => Text, Bytes => Bytes);

/// The type a property's value has in its model (v1beta1's spelling in upper case).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ValueType {
    /// Whole number.
    Int,
    /// 32-bit float.
    Float,
    /// 64-bit float.
    Double,
    /// Text.
    #[default]
    String,
    /// True or false.
    Boolean,
    /// Bytes.
    Bytes,
    /// A stream, such as video.
    Stream,
}

/// Whether a property may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    #[default]
    ReadOnly,
}

/// A device, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl DeviceId {
    /// The device of this name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for DeviceId {
    /// `namespace/name`, the id in KubeEdge's topics and twins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A device model, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ModelId {
    /// The model of this name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// A property as its model describes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelProperty {
    /// Its name.
    pub name: String,
    /// What it means.
    pub description: String,
    /// The type of its value.
    pub kind: ValueType,
    /// Whether it may be written.
    pub access: Access,
    /// The least value, as text; empty for none.
    pub minimum: String,
    /// The greatest value, as text; empty for none.
    pub maximum: String,
    /// Its unit.
    pub unit: String,
}

impl ModelProperty {
    /// A read-only property without range and unit.
    pub fn new(name: impl Into<String>, kind: ValueType) -> Self {
        Self { name: name.into(), kind, ..Self::default() }
    }

    /// Lets it be written.
    #[must_use]
    pub fn writable(mut self) -> Self {
        self.access = Access::ReadWrite;
        self
    }

    /// Sets the least and the greatest value, as text; empty for none.
    #[must_use]
    pub fn within(mut self, minimum: impl Into<String>, maximum: impl Into<String>) -> Self {
        (self.minimum, self.maximum) = (minimum.into(), maximum.into());
        self
    }
}

/// A property of one device: how to reach it and how often.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Property {
    /// Name, type, access, range and unit, from the model.
    pub model: ModelProperty,
    /// The protocol's own description of the point: `visitors.configData` of the Device.
    pub visitor: serde_json::Value,
    /// How often to read it; zero leaves it to the mapper.
    pub collect_every: Duration,
    /// How often to report it, changed or not; zero for changes only.
    pub report_every: Duration,
    /// Whether the cloud is told.
    pub report_to_cloud: bool,
    /// The value it shall have, as text; `None` when none is wished for.
    pub desired: Option<String>,
}

impl Property {
    /// A property at this point of the device, reported to the cloud on change, with no value desired.
    pub fn new(model: ModelProperty, visitor: serde_json::Value) -> Self {
        let (collect_every, report_every) = (Duration::ZERO, Duration::ZERO);
        Self { model, visitor, collect_every, report_every, report_to_cloud: true, desired: None }
    }

    /// Sets how often to read it and how often to report it.
    #[must_use]
    pub fn every(mut self, collect: Duration, report: Duration) -> Self {
        (self.collect_every, self.report_every) = (collect, report);
        self
    }

    /// Sets the value that it shall have, as text.
    #[must_use]
    pub fn desired(mut self, value: impl Into<String>) -> Self {
        self.desired = Some(value.into());
        self
    }
}

/// A device to serve: the Device object and its model, joined.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Device {
    /// Which device.
    pub id: DeviceId,
    /// Its model.
    pub model: ModelId,
    /// The protocol's name.
    pub protocol: String,
    /// The protocol's own description of the device: `protocol.configData` of the Device.
    pub config: serde_json::Value,
    /// Its properties.
    pub properties: Vec<Property>,
}

impl Device {
    /// A device without configuration and properties.
    pub fn new(id: DeviceId, model: ModelId, protocol: impl Into<String>) -> Self {
        let config = serde_json::Value::Null;
        Self { id, model, protocol: protocol.into(), config, properties: Vec::new() }
    }

    /// Sets the protocol's own description of the device.
    #[must_use]
    pub fn config(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Sets its properties.
    #[must_use]
    pub fn properties(mut self, properties: Vec<Property>) -> Self {
        self.properties = properties;
        self
    }
}

/// A value of one property, on its way up.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// Which device.
    pub device: DeviceId,
    /// Which property.
    pub property: String,
    /// What was read.
    pub value: Value,
    /// Its type, as the model says.
    pub kind: ValueType,
    /// When it was read.
    pub at: Millis,
    /// Whether the cloud is told.
    pub to_cloud: bool,
    /// The desired value the mapper last wrote, as text, where there is one.
    pub desired: Option<String>,
}

impl Reading {
    /// A reading for the cloud, of a property of which no value is desired.
    pub fn new(
        device: DeviceId,
        property: impl Into<String>,
        value: impl Into<Value>,
        kind: ValueType,
        at: Millis,
    ) -> Self {
        let (property, value) = (property.into(), value.into());
        Self { device, property, value, kind, at, to_cloud: true, desired: None }
    }
}

/// How a device is (KubeEdge's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceState {
    /// It answers.
    Online,
    /// It does not.
    Offline,
    /// It answers, with errors.
    Unhealthy,
    /// Nobody has asked it yet.
    Unknown,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        })
    }
}

/// What DeviceTwin talks to: everything of one protocol.
#[async_trait]
pub trait DeviceMapper: fmt::Debug + Send + Sync + 'static {
    /// The protocol whose devices it serves: `spec.protocol.protocolName` of a Device.
    fn protocol(&self) -> &str;

    /// Told once, before anything else: whom to report to.
    async fn attach(&self, up: Arc<dyn DeviceManager>);

    /// Serves a device from now on. [`DriverKind::BadConfig`] names the field that is wrong; a device that is
    /// merely unreachable is no error: it is offline, and tried again. Known already: as
    /// [`DeviceMapper::update`].
    async fn register(&self, device: Device) -> DriverResult<()>;

    /// Serves a device as it is now described, new desired values included. Unknown: as
    /// [`DeviceMapper::register`]. On an error the old description stays in force.
    async fn update(&self, device: Device) -> DriverResult<()>;

    /// Serves a device no longer. Idempotent.
    async fn remove(&self, device: &DeviceId) -> DriverResult<()>;

    /// Reads a property now.
    async fn read(&self, device: &DeviceId, property: &str) -> DriverResult<Value>;

    /// Writes a property now. Returns after the device has taken the value.
    async fn write(&self, device: &DeviceId, property: &str, value: Value) -> DriverResult<()>;

    /// Serves nothing any longer and lets go of all devices. Idempotent.
    async fn close(&self);
}

/// What a mapper talks to: DeviceTwin.
#[async_trait]
pub trait DeviceManager: fmt::Debug + Send + Sync + 'static {
    /// Values that were read. Waits while DeviceTwin is busy; of one property only the newest counts. On an
    /// error none of them was taken: [`ReportKind::Busy`] is worth another try, and after
    /// [`ReportKind::Closed`] a mapper keeps what it has until somebody attaches anew.
    async fn report(&self, readings: Vec<Reading>) -> ReportResult;

    /// How a device is. Errors are as of [`DeviceManager::report`].
    async fn report_state(&self, device: &DeviceId, state: DeviceState) -> ReportResult;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<M: DeviceMapper + ?Sized> DeviceMapper for Arc<M> {
    fn protocol(&self) -> &str {
        (**self).protocol()
    }
    async fn attach(&self, up: Arc<dyn DeviceManager>) {
        (**self).attach(up).await;
    }
    async fn register(&self, device: Device) -> DriverResult<()> {
        (**self).register(device).await
    }
    async fn update(&self, device: Device) -> DriverResult<()> {
        (**self).update(device).await
    }
    async fn remove(&self, device: &DeviceId) -> DriverResult<()> {
        (**self).remove(device).await
    }
    async fn read(&self, device: &DeviceId, property: &str) -> DriverResult<Value> {
        (**self).read(device, property).await
    }
    async fn write(&self, device: &DeviceId, property: &str, value: Value) -> DriverResult<()> {
        (**self).write(device, property, value).await
    }
    async fn close(&self) {
        (**self).close().await;
    }
}
