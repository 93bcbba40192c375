//! A device as its driver understands it: the documents of the Device read into the driver's own types.

use std::time::Duration;

use kubeedge_core::{
    device::{Access, Device, DriverError, DriverKind, DriverResult, Property},
    failure::Failure,
};
use serde::de::DeserializeOwned;

use crate::{
    driver::{Driver, Session},
    value,
};

/// How often a property is read when its Device does not say.
const DEFAULT_COLLECT: Duration = Duration::from_secs(1);
/// The shortest cycle: a mistyped 0.1 ms must not eat the processor.
const LEAST_COLLECT: Duration = Duration::from_millis(10);

/// Where a driver's properties are.
pub(super) type Visitor<D> = <<D as Driver>::Session as Session>::Visitor;

/// A device to serve, checked.
pub(super) struct Plan<D: Driver> {
    /// As DeviceTwin described it, cycles made sensible.
    pub(super) device: Device,
    /// `protocol.configData`.
    pub(super) config: D::Config,
    /// `visitors.configData` of each property, in their order.
    pub(super) visitors: Vec<Visitor<D>>,
}

impl<D: Driver> Plan<D> {
    /// Reads all documents of a device; the error names the field that is wrong.
    pub(super) fn read(driver: &D, mut device: Device) -> DriverResult<Self> {
        let config = document(&device.config, || format!("device {}: protocol.configData", device.id))?;
        let mut visitors = Vec::with_capacity(device.properties.len());
        for property in &mut device.properties {
            let place =
                || format!("device {}: property {}: visitors.configData", device.id, property.model.name);
            value::check_bounds(&property.model)?;
            let visitor = document(&property.visitor, place)?;
            visitors.push(driver.prepare(&property.model, visitor)?);
            tidy(property);
        }
        Ok(Self { device, config, visitors })
    }

    /// Whether a session made for `self` serves `other` as well: no address differs.
    pub(super) fn same_addresses(&self, other: &Self) -> bool {
        let places = |device: &Device| -> Vec<(String, serde_json::Value)> {
            device.properties.iter().map(|p| (p.model.name.clone(), p.visitor.clone())).collect()
        };
        self.device.config == other.device.config && places(&self.device) == places(&other.device)
    }

    /// The position of a property.
    pub(super) fn find(&self, property: &str) -> DriverResult<usize> {
        let at = self.device.properties.iter().position(|known| known.model.name == property);
        at.ok_or_else(|| {
            let what = format!("device {}: property {property}", self.device.id);
            Failure::new(DriverKind::NotFound, "finding a property").on(what)
        })
    }
}

fn tidy(property: &mut Property) {
    if property.collect_every.is_zero() {
        property.collect_every = DEFAULT_COLLECT;
    }
    property.collect_every = property.collect_every.max(LEAST_COLLECT);
    let wished = property.desired.as_deref().is_some_and(|desired| !desired.is_empty());
    if !wished {
        property.desired = None;
    } else if property.model.access == Access::ReadOnly {
        tracing::warn!(property = %property.model.name, "desired value of a read-only property ignored");
        property.desired = None;
    }
}

fn document<T: DeserializeOwned>(
    document: &serde_json::Value,
    place: impl FnOnce() -> String,
) -> DriverResult<T> {
    // An absent document is an empty one: a driver whose fields are all optional needs none.
    let empty = serde_json::Value::Object(serde_json::Map::new());
    let absent = document.is_null();
    let parsed = serde_path_to_error::deserialize(if absent { &empty } else { document });
    let parsed = match parsed {
        // A driver whose configuration is `()` reads null, not an empty object.
        Err(_) if absent && serde_json::from_value::<T>(serde_json::Value::Null).is_ok() => {
            serde_path_to_error::deserialize(&serde_json::Value::Null)
        }
        parsed => parsed,
    };
    parsed.map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { place() } else { format!("{}.{path}", place()) };
        let error = error.into_inner();
        DriverError::new(DriverKind::BadConfig, "reading a device").on(format!("{field}: {error}"))
    })
}
