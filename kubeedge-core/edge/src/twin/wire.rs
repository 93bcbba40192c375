//! The JSON of device and node topics: what is taken in, and what goes out with Go's member order.
//!
//! Go reads member names in any case; so do we. Maps go out sorted by name, as Go's encoder writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A value as it stands in a twin on the wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct WireValue {
    pub(super) value: String,
    pub(super) metadata: ValueMeta,
}

/// When a value was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ValueMeta {
    pub(super) timestamp: i64,
}

/// How often each side has changed a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Version {
    pub(super) cloud: i64,
    pub(super) edge: i64,
}

/// A twin, or the changed parts of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct WireTwin {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<WireValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actual: Option<WireValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) optional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected_version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actual_version: Option<Version>,
}

/// Twins by property; `null` for one that is gone.
pub(super) type WireTwins = BTreeMap<String, Option<WireTwin>>;

/// An attribute of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Attribute {
    #[serde(default)]
    pub(super) value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) optional: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Map<String, Value>>,
}

/// A device in membership messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct WireDevice {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) last_online: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, Attribute>,
}

/// `event_id` and `timestamp` before whatever else a message says.
#[derive(Debug, Serialize)]
pub(super) struct Event<T> {
    pub(super) event_id: String,
    pub(super) timestamp: i64,
    #[serde(flatten)]
    pub(super) body: T,
}

/// The bodies of messages that go out.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Body {
    Failed { code: u16, reason: String },
    Twins { twin: WireTwins },
    Document { twin: BTreeMap<String, Change> },
    Delta { twin: BTreeMap<String, WireTwin>, delta: BTreeMap<String, String> },
    Device { device: StateOf },
    Devices { devices: Vec<WireDevice> },
    Membership { added_devices: Option<Vec<WireDevice>>, removed_devices: Option<Vec<WireDevice>> },
    Attributes { attributes: BTreeMap<String, Option<Attribute>> },
}

/// A twin before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Change {
    pub(super) last: Option<WireTwin>,
    pub(super) current: Option<WireTwin>,
}

/// A device's state in `state/update/result`.
#[derive(Debug, Serialize)]
pub(super) struct StateOf {
    pub(super) name: String,
    pub(super) state: String,
    #[serde(rename = "lastOnlineTime", skip_serializing_if = "String::is_empty")]
    pub(super) last_online: String,
}

/// The JSON text of a message.
pub(super) fn text(event_id: &str, timestamp: i64, body: Body) -> String {
    let event = Event { event_id: event_id.to_owned(), timestamp, body };
    // Only maps with keys that are not text cannot be written as JSON; there are none here.
    serde_json::to_string(&event).unwrap_or_default()
}

/// A JSON object whose members are found in any case.
pub(super) struct Members<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Members<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        let exact = self.0.get(name);
        exact.or_else(|| self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    }

    /// A member that is text; absent and null count as empty, anything else is `None`.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            None | Some(Value::Null) => Some(String::new()),
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => None,
        }
    }
}

/// What an update wants of one side of a twin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SidePatch {
    pub(super) value: String,
    pub(super) version: Option<Version>,
}

/// What an update wants of one twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TwinPatch {
    pub(super) expected: Option<SidePatch>,
    pub(super) actual: Option<SidePatch>,
    pub(super) optional: Option<bool>,
    /// `metadata.type`.
    pub(super) kind: Option<String>,
    /// The rest of `metadata`.
    pub(super) metadata: Option<Map<String, Value>>,
}

/// Twins to change; `None` deletes.
pub(super) type Patches = BTreeMap<String, Option<TwinPatch>>;

/// An update as it came in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Update {
    pub(super) event_id: String,
    pub(super) twin: Patches,
}

/// Why an update cannot be read; Go's words, sent as the reason of a 400.
const NOT_JSON: &str = "Unmarshal update request body failed, please check the request";

/// Reads the payload of `twin/update` and `twin/cloud_updated`.
pub(super) fn update(payload: &[u8]) -> Result<Update, String> {
    let root: Value = serde_json::from_slice(payload).map_err(|_| NOT_JSON.to_owned())?;
    let root = Members(root.as_object().ok_or(NOT_JSON)?);
    let event_id = root.text("event_id").ok_or(NOT_JSON)?;
    let twin = match root.get("twin") {
        None | Some(Value::Null) => return Err("Update twin error, key:twin does not exist".to_owned()),
        Some(twin) => patches(twin)?,
    };
    Ok(Update { event_id, twin })
}

/// Reads a map of twins.
pub(super) fn patches(twin: &Value) -> Result<Patches, String> {
    let twins = twin.as_object().ok_or(NOT_JSON)?;
    let mut patches = Patches::new();
    for (name, twin) in twins {
        if !is_plain(name, 128) || name.is_empty() {
            return Err(BAD_KEY.to_owned());
        }
        let patch = match twin {
            Value::Null => None,
            Value::Object(twin) => Some(patch(&Members(twin))?),
            _ => return Err(NOT_JSON.to_owned()),
        };
        patches.insert(name.clone(), patch);
    }
    Ok(patches)
}

const BAD_KEY: &str = "The key of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of key should be less than 128 bytes";
const BAD_VALUE: &str = "The value of twin must only include upper or lowercase letters, number, english, and special letter - _ . , : / @ # and the length of value should be less than 512 bytes";

/// KubeEdge's class of characters for names and values of twins.
fn is_plain(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.,:/@#".contains(&byte))
}

fn patch(twin: &Members<'_>) -> Result<TwinPatch, String> {
    let mut patch = TwinPatch {
        expected: side(twin, "expected", "expected_version")?,
        actual: side(twin, "actual", "actual_version")?,
        ..TwinPatch::default()
    };
    patch.optional = match twin.get("optional") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(optional)) => Some(*optional),
        Some(_) => return Err(NOT_JSON.to_owned()),
    };
    match twin.get("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(metadata)) => {
            let kind = Members(metadata).text("type").ok_or(NOT_JSON)?;
            patch.kind = (!kind.is_empty()).then_some(kind);
            let mut rest = metadata.clone();
            rest.retain(|name, _| !name.eq_ignore_ascii_case("type"));
            patch.metadata = Some(rest);
        }
        Some(_) => return Err(NOT_JSON.to_owned()),
    }
    Ok(patch)
}

fn side(twin: &Members<'_>, name: &str, version: &str) -> Result<Option<SidePatch>, String> {
    let side = match twin.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(side)) => Members(side),
        Some(_) => return Err(NOT_JSON.to_owned()),
    };
    // Go dereferences nothing here and dies; we say what is missing.
    let value = match side.get("value") {
        Some(Value::String(value)) => value.clone(),
        None | Some(Value::Null) => return Err(format!("Update twin error, {name} has no value")),
        Some(_) => return Err(NOT_JSON.to_owned()),
    };
    if !is_plain(&value, 512) {
        return Err(BAD_VALUE.to_owned());
    }
    let version = match twin.get(version) {
        None | Some(Value::Null) => None,
        Some(version) => Some(serde_json::from_value(version.clone()).map_err(|_| NOT_JSON.to_owned())?),
    };
    Ok(Some(SidePatch { value, version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(payload: &str) -> String {
        update(payload.as_bytes()).unwrap_err()
    }

    #[test]
    fn members_are_found_in_any_case() {
        let update =
            update(br#"{"Event_ID":"e","TWIN":{"t":{"Actual":{"VALUE":"1"},"metadata":{"Type":"int"}}}}"#)
                .unwrap();
        let patch = update.twin["t"].as_ref().unwrap();
        assert_eq!((update.event_id.as_str(), patch.kind.as_deref()), ("e", Some("int")));
        assert_eq!(patch.actual.as_ref().unwrap().value, "1");
    }

    #[test]
    fn unreadable_updates_say_why_in_gos_words() {
        assert_eq!(reason("not json"), NOT_JSON);
        assert_eq!(reason("[]"), NOT_JSON);
        assert_eq!(reason(r#"{"event_id":"e"}"#), "Update twin error, key:twin does not exist");
        assert!(reason(r#"{"twin":{"a b":{}}}"#).starts_with("The key of twin"));
        assert!(reason(r#"{"twin":{"a":{"actual":{"value":"a b"}}}}"#).starts_with("The value of twin"));
        assert_eq!(reason(r#"{"twin":{"a":{"actual":{"value":27}}}}"#), NOT_JSON);
    }

    #[test]
    fn a_side_without_a_value_is_refused_where_go_crashes() {
        assert_eq!(reason(r#"{"twin":{"a":{"expected":{}}}}"#), "Update twin error, expected has no value");
    }

    #[test]
    fn members_go_out_in_gos_order() {
        let state = StateOf {
            name: "thermo-1".into(),
            state: "online".into(),
            last_online: "2026-11-20T22:34:41Z".into(),
        };
        assert_eq!(
            text("e", 5, Body::Device { device: state }),
            r#"{"event_id":"e","timestamp":5,"device":{"name":"thermo-1","state":"online","lastOnlineTime":"2026-11-20T22:34:41Z"}}"#
        );
        let one =
            WireDevice { id: "default/thermo-1".into(), name: "thermo-1".into(), ..WireDevice::default() };
        assert_eq!(
            text("e", 5, Body::Membership { added_devices: None, removed_devices: Some(vec![one]) }),
            r#"{"event_id":"e","timestamp":5,"added_devices":null,"removed_devices":[{"id":"default/thermo-1","name":"thermo-1"}]}"#
        );
    }
}
