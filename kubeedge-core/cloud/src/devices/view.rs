//! What the controller reads of devices and reports, and what is wrong with a device.
//!
//! Of a Device three fields are read, and not the typed form of `kubeedge_core::api`: that fails as a whole
//! on one field that a newer version writes in another way, and a device that cannot be read would not reach
//! its node. It is also read anew with each change of each device.

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_core::name::NodeName;
use serde::{Deserialize, Serialize};

use crate::informer::Object;

/// The parts of a Device this controller acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceView {
    pub(super) node: Option<NodeName>,
    pub(super) model: String,
    pub(super) properties: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    spec: Spec,
}
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    device_model_ref: Option<Named>,
    properties: Option<Vec<Named>>,
}
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

impl DeviceView {
    pub(super) fn of(object: &Object) -> Result<Self, String> {
        let device: Device = object.view().map_err(|error| format!("the Device cannot be read: {error}"))?;
        let Spec { node_name, device_model_ref, properties } = device.spec;
        Ok(Self {
            node: node_name.filter(|name| !name.is_empty()).map(NodeName::from),
            model: device_model_ref.map(|model| model.name).unwrap_or_default(),
            properties: properties.into_iter().flatten().map(|property| property.name).collect(),
        })
    }

    /// Properties of the device that its model does not have.
    pub(super) fn unknown_to(&self, model: &Object) -> Vec<String> {
        let known = Self::of(model).map(|model| model.properties).unwrap_or_default();
        self.properties.difference(&known).cloned().collect()
    }
}

/// What an edge reports of a device's twins.
#[derive(Debug, Deserialize)]
pub(super) struct TwinReport {
    #[serde(default)]
    pub(super) twin: BTreeMap<String, Option<ReportedTwin>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ReportedTwin {
    expected: Option<ReportedValue>,
    actual: Option<ReportedValue>,
    metadata: Option<TypeOf>,
}

#[derive(Debug, Deserialize)]
struct ReportedValue {
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    metadata: Option<At>,
}
#[derive(Debug, Default, Deserialize)]
struct At {
    #[serde(default)]
    timestamp: i64,
}
#[derive(Debug, Default, Deserialize)]
struct TypeOf {
    #[serde(default, rename = "type")]
    kind: String,
}

/// What an edge reports of a device's state.
#[derive(Debug, Deserialize)]
pub(super) struct StateReport {
    // Go edges write it either way.
    #[serde(alias = "Device")]
    pub(super) device: DeviceState,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceState {
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) last_online_time: String,
}

/// One twin in a DeviceStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Twin {
    #[serde(default)]
    pub(super) property_name: String,
    #[serde(default)]
    pub(super) reported: Value,
    #[serde(default)]
    pub(super) observed_desired: Value,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub(super) struct Value {
    #[serde(default)]
    pub(super) value: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
}

impl Twin {
    /// Takes over what was reported; what was not, stays.
    pub(super) fn update(&mut self, report: &ReportedTwin) {
        let kind = report.metadata.as_ref().map(|metadata| metadata.kind.clone()).unwrap_or_default();
        for (value, into) in
            [(&report.actual, &mut self.reported), (&report.expected, &mut self.observed_desired)]
        {
            if let Some(ReportedValue { value: Some(value), metadata }) = value {
                let at = metadata.as_ref().map(|at| at.timestamp).unwrap_or_default();
                into.value.clone_from(value);
                into.metadata =
                    [("timestamp".to_owned(), at.to_string()), ("type".to_owned(), kind.clone())].into();
            }
        }
    }
}
