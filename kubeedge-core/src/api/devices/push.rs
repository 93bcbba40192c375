//! Where a mapper pushes the values of a property, beside reporting them to the edge.

use std::collections::BTreeMap;

#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::absent;

/// The ways to push; a mapper uses each that is set and that it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct PushMethod {
    /// By HTTP.
    #[serde(skip_serializing_if = "absent")]
    pub http: Option<PushHttp>,
    /// By MQTT.
    #[serde(skip_serializing_if = "absent")]
    pub mqtt: Option<PushMqtt>,
    /// By OpenTelemetry.
    #[serde(skip_serializing_if = "absent")]
    pub otel: Option<PushOtel>,
    /// Into a database.
    #[serde(skip_serializing_if = "absent")]
    pub db_method: Option<DbMethod>,
    /// To a service that looks for anomalies.
    #[serde(skip_serializing_if = "absent")]
    pub anomaly_detection: Option<Map<String, Value>>,
}

/// Where to push by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct PushHttp {
    /// The server, with its scheme.
    #[serde(skip_serializing_if = "absent")]
    pub host_name: String,
    /// The server's port.
    #[serde(skip_serializing_if = "absent")]
    pub port: i64,
    /// The path of the request.
    #[serde(skip_serializing_if = "absent")]
    pub request_path: String,
    /// How long to wait for the answer, in milliseconds.
    #[serde(skip_serializing_if = "absent")]
    pub timeout: i64,
}

/// Where to push by MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct PushMqtt {
    /// The broker, such as `mqtt://127.0.0.1:1883`.
    #[serde(skip_serializing_if = "absent")]
    pub address: String,
    /// The topic.
    #[serde(skip_serializing_if = "absent")]
    pub topic: String,
    /// Quality of service: 0, 1 or 2.
    #[serde(skip_serializing_if = "absent")]
    pub qos: i32,
    /// Whether the broker keeps the last value.
    #[serde(skip_serializing_if = "absent")]
    pub retained: bool,
}

/// Where to push by OpenTelemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct PushOtel {
    /// The collector, such as `https://localhost:4318/v1/metrics`.
    #[serde(rename = "endpointURL", skip_serializing_if = "absent")]
    pub endpoint_url: String,
}

/// The databases; a mapper writes to each that is set and that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct DbMethod {
    /// InfluxDB 2.
    #[serde(skip_serializing_if = "absent")]
    pub influxdb2: Option<InfluxMethod>,
    /// Redis.
    #[serde(skip_serializing_if = "absent")]
    pub redis: Option<RedisMethod>,
    /// TDengine.
    #[serde(rename = "TDEngine", skip_serializing_if = "absent")]
    pub tdengine: Option<TdEngineMethod>,
    /// MySQL.
    #[serde(skip_serializing_if = "absent")]
    pub mysql: Option<MysqlMethod>,
}

/// InfluxDB 2 and what is written there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct InfluxMethod {
    /// The database.
    #[serde(rename = "influxdb2ClientConfig", skip_serializing_if = "absent")]
    pub client: Option<InfluxClientConfig>,
    /// What is written.
    #[serde(rename = "influxdb2DataConfig", skip_serializing_if = "absent")]
    pub data: Option<InfluxDataConfig>,
}

/// An InfluxDB 2; its token comes from the mapper's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct InfluxClientConfig {
    /// Its address.
    #[serde(skip_serializing_if = "absent")]
    pub url: String,
    /// The organisation.
    #[serde(skip_serializing_if = "absent")]
    pub org: String,
    /// The bucket.
    #[serde(skip_serializing_if = "absent")]
    pub bucket: String,
}

/// How a value is written to InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct InfluxDataConfig {
    /// The measurement.
    #[serde(skip_serializing_if = "absent")]
    pub measurement: String,
    /// Tags of each point.
    #[serde(skip_serializing_if = "absent")]
    pub tag: BTreeMap<String, String>,
    /// The field the value goes to.
    #[serde(skip_serializing_if = "absent")]
    pub field_key: String,
}

/// Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct RedisMethod {
    /// The database.
    #[serde(rename = "redisClientConfig", skip_serializing_if = "absent")]
    pub client: Option<RedisClientConfig>,
}

/// A Redis; its password comes from the mapper's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct RedisClientConfig {
    /// Its address.
    #[serde(skip_serializing_if = "absent")]
    pub addr: String,
    /// The number of the database.
    #[serde(skip_serializing_if = "absent")]
    pub db: i64,
    /// How many connections at most.
    #[serde(skip_serializing_if = "absent")]
    pub poolsize: i64,
    /// How many connections stay open.
    #[serde(skip_serializing_if = "absent")]
    pub min_idle_conns: i64,
}

/// TDengine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct TdEngineMethod {
    /// The database.
    #[serde(rename = "TDEngineClientConfig", skip_serializing_if = "absent")]
    pub client: Option<TdEngineClientConfig>,
}

/// A TDengine; user and password come from the mapper's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct TdEngineClientConfig {
    /// Its address.
    #[serde(skip_serializing_if = "absent")]
    pub addr: String,
    /// The database's name.
    #[serde(skip_serializing_if = "absent")]
    pub db_name: String,
}

/// MySQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct MysqlMethod {
    /// The database.
    #[serde(rename = "mysqlClientConfig", skip_serializing_if = "absent")]
    pub client: Option<MysqlClientConfig>,
}

/// A MySQL; its password comes from the mapper's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct MysqlClientConfig {
    /// Its address, such as `localhost:3306`.
    #[serde(skip_serializing_if = "absent")]
    pub addr: String,
    /// The database's name.
    #[serde(skip_serializing_if = "absent")]
    pub database: String,
    /// The user's name.
    #[serde(skip_serializing_if = "absent")]
    pub user_name: String,
}
