//! Device and DeviceModel objects (v1beta1), and the device a mapper gets: both joined.

use std::{collections::BTreeMap, time::Duration};

use kubeedge_core::{
    api::devices::{DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty as ModelledProperty},
    device::{
        Access, Device, DeviceId, DriverError, DriverKind, DriverResult, ModelId, ModelProperty, Property,
        ValueType,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longer cycles are most likely nanoseconds, as old samples have them.
const LONGEST_CYCLE_MS: i64 = 86_400_000;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
}

/// A Device object, as far as the edge acts on it: equal when nothing of that changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct DeviceObject {
    metadata: Meta,
    spec: DeviceSpec,
}

/// A DeviceModel object, likewise.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ModelObject {
    metadata: Meta,
    spec: DeviceModelSpec,
}

fn invalid(device: &DeviceObject, why: String) -> DriverError {
    let what = format!("device {}/{}: {why}", device.metadata.namespace, device.metadata.name);
    DriverError::new(DriverKind::BadConfig, "joining a device with its model").on(what)
}

impl DeviceObject {
    /// Its id.
    pub(super) fn id(&self) -> DeviceId {
        DeviceId::new(&self.metadata.namespace, &self.metadata.name)
    }

    /// The key of its model, `namespace/name`; empty when it names none.
    pub(super) fn model(&self) -> String {
        let name = self.spec.device_model_ref.as_ref().map(|model| model.name.as_str()).unwrap_or_default();
        if name.is_empty() { String::new() } else { format!("{}/{name}", self.metadata.namespace) }
    }

    /// The protocol whose mapper serves it.
    pub(super) fn protocol(&self) -> &str {
        &self.spec.protocol.protocol_name
    }

    /// The device with what its model says of it. The model's configuration is the default of the device's,
    /// key by key, as Go merges them.
    pub(super) fn join(&self, model: &ModelObject) -> DriverResult<Device> {
        let spec = &self.spec;
        let wanted = &model.spec.protocol;
        if !wanted.is_empty() && !wanted.eq_ignore_ascii_case(self.protocol()) {
            let why = format!("protocolName {:?} is not its model's {wanted:?}", self.protocol());
            return Err(invalid(self, why));
        }
        let known: BTreeMap<&str, &ModelledProperty> =
            model.spec.properties.iter().map(|property| (property.name.as_str(), property)).collect();
        let properties = spec.properties.iter().map(|property| {
            let modelled = known.get(property.name.as_str());
            let modelled = modelled.ok_or_else(|| {
                invalid(
                    self,
                    format!("property {:?} is not in model {:?}", property.name, model.metadata.name),
                )
            })?;
            self.property(property, modelled)
        });
        let id = ModelId::new(&self.metadata.namespace, &model.metadata.name);
        let config = merge(model.spec.protocol_config_data.as_ref(), spec.protocol.config_data.as_ref());
        let device = Device::new(self.id(), id, &spec.protocol.protocol_name).config(config);
        Ok(device.properties(properties.collect::<DriverResult<_>>()?))
    }

    fn property(&self, property: &DeviceProperty, modelled: &ModelledProperty) -> DriverResult<Property> {
        let kind = serde_json::from_value::<ValueType>(Value::String(modelled.kind.to_uppercase()));
        let kind = kind.map_err(|_| {
            invalid(self, format!("property {:?} has the unknown type {:?}", property.name, modelled.kind))
        })?;
        let access = match modelled.access_mode.as_str() {
            "ReadWrite" => Access::ReadWrite,
            "ReadOnly" | "" => Access::ReadOnly,
            other => {
                let why = format!("property {:?} has the unknown accessMode {other:?}", property.name);
                return Err(invalid(self, why));
            }
        };
        let defaults = modelled.visitors.as_ref().and_then(|visitor| visitor.config_data.as_ref());
        let own = property.visitors.as_ref().and_then(|visitor| visitor.config_data.as_ref());
        let desired = property.desired.as_ref().map(|desired| desired.value.clone());
        let mut model = ModelProperty::new(&modelled.name, kind).within(&modelled.minimum, &modelled.maximum);
        (model.description, model.unit) = (modelled.description.clone(), modelled.unit.clone());
        model.access = access;
        let mut joined = Property::new(model, merge(defaults, own)).every(
            self.cycle(&property.name, "collectCycle", property.collect_cycle),
            self.cycle(&property.name, "reportCycle", property.report_cycle),
        );
        joined.report_to_cloud = property.report_to_cloud;
        joined.desired = desired.filter(|desired| !desired.is_empty());
        Ok(joined)
    }

    fn cycle(&self, property: &str, field: &str, ms: i64) -> Duration {
        if ms > LONGEST_CYCLE_MS {
            tracing::warn!(device = %self.id(), property, field, ms, "cycle is taken as milliseconds; it looks like nanoseconds");
        }
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

fn merge(defaults: Option<&Map<String, Value>>, own: Option<&Map<String, Value>>) -> Value {
    let mut merged = defaults.cloned().unwrap_or_default();
    merged.extend(own.cloned().unwrap_or_default());
    Value::Object(merged)
}
