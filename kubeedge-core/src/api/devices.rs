//! `devices.kubeedge.io/v1beta1`: devices, their models, and what is known of their state.

mod push;

use std::collections::BTreeMap;

#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::push::{
    DbMethod, InfluxClientConfig, InfluxDataConfig, InfluxMethod, MysqlClientConfig, MysqlMethod, PushHttp,
    PushMethod, PushMqtt, PushOtel, RedisClientConfig, RedisMethod, TdEngineClientConfig, TdEngineMethod,
};
use super::{absent, kind};

kind! {
    /// One device: where it is, how it is reached, and what its properties should be.
    Device of "devices.kubeedge.io" "v1beta1", "devices", NamespaceResourceScope,
    {
        /// What is wanted.
        spec: DeviceSpec,
        /// Kept by KubeEdge for devices of before [`DeviceStatus`]; nothing acts on it.
        #[serde(skip_serializing_if = "absent")]
        status: DeviceOldStatus,
    },
    {
        const SINGULAR: &'static str = "device";
    }
}

kind! {
    /// What all devices of a sort have in common: their protocol and properties.
    DeviceModel of "devices.kubeedge.io" "v1beta1", "devicemodels", NamespaceResourceScope,
    {
        /// What the devices have.
        spec: DeviceModelSpec,
    },
    {
        const SINGULAR: &'static str = "devicemodel";
    }
}

kind! {
    /// What was reported of a device; has its name and is owned by it.
    DeviceStatus of "devices.kubeedge.io" "v1beta1", "devicestatuses", NamespaceResourceScope,
    {
        /// Empty: the device is the one with the same name.
        spec: DeviceStatusSpec,
        /// What was reported.
        #[serde(skip_serializing_if = "absent")]
        status: DeviceStatusStatus,
    },
    {
        const SINGULAR: &'static str = "devicestatus";
    }
}

/// The name of another object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct LocalObjectReference {
    /// The object's name; empty names none.
    pub name: String,
}

/// What is wanted of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceSpec {
    /// The DeviceModel that says what properties the device has. Required for the device to be used.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    #[serde(skip_serializing_if = "absent")]
    pub device_model_ref: Option<LocalObjectReference>,
    /// The node whose mapper talks to the device.
    #[serde(skip_serializing_if = "absent")]
    pub node_name: String,
    /// The properties that are used, each named once.
    #[serde(skip_serializing_if = "absent")]
    pub properties: Vec<DeviceProperty>,
    /// How the device is reached. Required for the device to be used.
    #[serde(skip_serializing_if = "absent")]
    pub protocol: ProtocolConfig,
    /// Named groups of properties that applications write together.
    #[serde(skip_serializing_if = "absent")]
    pub methods: Vec<DeviceMethod>,
    /// Whether and how often the device's state is reported.
    #[serde(skip_serializing_if = "absent")]
    pub state_report: Option<StateReport>,
}

/// A protocol and its configuration, which only the protocol's mapper understands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ProtocolConfig {
    /// The protocol, as its mapper names it.
    #[serde(skip_serializing_if = "absent")]
    pub protocol_name: String,
    /// The configuration.
    #[serde(skip_serializing_if = "absent")]
    pub config_data: Option<Map<String, Value>>,
}

/// How one property is reached on the device: the same shape as [`ProtocolConfig`].
pub type VisitorConfig = ProtocolConfig;

/// How one property of a device is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceProperty {
    /// The property's name in the model. KubeEdge gives `saveFrame` and `saveVideo` a meaning for streams.
    #[serde(skip_serializing_if = "absent")]
    pub name: String,
    /// The value it should have, if any.
    #[serde(skip_serializing_if = "absent")]
    pub desired: Option<TwinProperty>,
    /// How it is reached; stands before what the model says.
    #[serde(skip_serializing_if = "absent")]
    pub visitors: Option<VisitorConfig>,
    /// How often it is reported, in milliseconds.
    #[serde(skip_serializing_if = "absent")]
    pub report_cycle: i64,
    /// How often it is read, in milliseconds.
    #[serde(skip_serializing_if = "absent")]
    pub collect_cycle: i64,
    /// Whether what is reported goes to the cloud.
    #[serde(skip_serializing_if = "absent")]
    pub report_to_cloud: bool,
    /// Where the mapper pushes its values beside reporting them.
    #[serde(skip_serializing_if = "absent")]
    pub push_method: Option<PushMethod>,
}

/// A value, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct TwinProperty {
    /// The value, as text.
    pub value: String,
    /// Such as `timestamp` (milliseconds since 1970) and `type`.
    #[serde(default, skip_serializing_if = "absent")]
    pub metadata: BTreeMap<String, String>,
}

/// A named group of properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceMethod {
    /// Its name, unique in the device.
    #[serde(skip_serializing_if = "absent")]
    pub name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "absent")]
    pub description: String,
    /// The properties it writes.
    #[serde(skip_serializing_if = "absent")]
    pub property_names: Vec<String>,
}

/// Whether and how often the state of a device is reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct StateReport {
    /// Whether it is reported to the cloud.
    #[serde(skip_serializing_if = "absent")]
    pub report_to_cloud: bool,
    /// How often, in milliseconds.
    #[serde(skip_serializing_if = "absent")]
    pub report_cycle: i64,
}

/// The status inside of a Device, as of before [`DeviceStatus`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceOldStatus {
    /// Whether it was reported to the cloud.
    #[serde(skip_serializing_if = "absent")]
    pub report_to_cloud: bool,
    /// How often, in milliseconds.
    #[serde(skip_serializing_if = "absent")]
    pub report_cycle: i64,
    /// What else stands there.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What all devices of a model have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceModelSpec {
    /// Their properties, each named once.
    #[serde(skip_serializing_if = "absent")]
    pub properties: Vec<ModelProperty>,
    /// The name of their protocol. Empty leaves it to the device.
    #[serde(skip_serializing_if = "absent")]
    pub protocol: String,
    /// Protocol configuration that stands where the device has none, key by key.
    #[serde(skip_serializing_if = "absent")]
    pub protocol_config_data: Option<Map<String, Value>>,
}

/// One property of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ModelProperty {
    /// Its name. KubeEdge gives `saveFrame` and `saveVideo` a meaning for streams.
    #[serde(skip_serializing_if = "absent")]
    pub name: String,
    /// What it means.
    #[serde(skip_serializing_if = "absent")]
    pub description: String,
    /// The type of its values.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["INT", "FLOAT", "DOUBLE", "STRING", "BOOLEAN", "BYTES", "STREAM"])))]
    #[serde(rename = "type", skip_serializing_if = "absent")]
    pub kind: String,
    /// Whether it may be written; empty means that it may not.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["ReadWrite", "ReadOnly"])))]
    #[serde(skip_serializing_if = "absent")]
    pub access_mode: String,
    /// The least value, as text.
    #[serde(skip_serializing_if = "absent")]
    pub minimum: String,
    /// The greatest value, as text.
    #[serde(skip_serializing_if = "absent")]
    pub maximum: String,
    /// The unit of its values.
    #[serde(skip_serializing_if = "absent")]
    pub unit: String,
    /// How it is reached, where the device does not say.
    #[serde(skip_serializing_if = "absent")]
    pub visitors: Option<VisitorConfig>,
}

/// Nothing: a status belongs to the device with its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct DeviceStatusSpec {}

/// What was reported of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct DeviceStatusStatus {
    /// One twin for each property.
    #[serde(skip_serializing_if = "absent")]
    pub twins: Vec<Twin>,
    /// The device's state: `online`, `ok`, `offline` or what its mapper says.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// When it was online last, as the mapper writes it.
    #[serde(skip_serializing_if = "absent")]
    pub last_online_time: String,
    /// What a vendor adds.
    #[serde(skip_serializing_if = "absent")]
    pub extensions: Option<Map<String, Value>>,
}

/// What is known of one property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Twin {
    /// The property's name.
    #[serde(skip_serializing_if = "absent")]
    pub property_name: String,
    /// The value the device had.
    #[serde(skip_serializing_if = "absent")]
    pub reported: Option<TwinProperty>,
    /// The wanted value that has reached the mapper.
    #[serde(skip_serializing_if = "absent")]
    pub observed_desired: Option<TwinProperty>,
}
