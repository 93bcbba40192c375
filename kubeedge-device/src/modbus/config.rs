//! KubeEdge's Modbus documents, read as leniently as Go's mapper reads them.

use std::time::Duration;

use kubeedge_core::device::ValueType;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

use super::{MAX_BITS, MAX_WORDS};

/// `protocol.configData`: where a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModbusConfig {
    /// `host:port` of the device or its gateway.
    pub address: String,
    /// The device at that address.
    pub slave: u8,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A kind of register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// A bit that can be written.
    Coil,
    /// A bit that cannot.
    Discrete,
    /// A 16-bit word that can be written.
    Holding,
    /// A 16-bit word that cannot.
    Input,
}

impl Register {
    pub(super) fn is_bit(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    pub(super) fn is_writable(self) -> bool {
        matches!(self, Self::Coil | Self::Holding)
    }
}

/// What the registers of a point hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// A whole number with a sign, as wide as its registers.
    Int,
    /// A whole number without one.
    Uint,
    /// An IEEE 754 number of two or four registers; of one, a whole number to be scaled.
    Float,
    /// True for a bit that is set, or for registers that are not all zero.
    Boolean,
    /// UTF-8, two bytes a register, ended by a zero byte or the last register.
    Text,
    /// The bytes as they are.
    Bytes,
}

/// `visitors.configData`: where a property is on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The kind of its registers.
    pub register: Register,
    /// The first of them.
    pub offset: u16,
    /// How many; 0 until the property's type is known.
    pub limit: u16,
    /// What they hold; `None` until the property's type is known.
    pub data: Option<DataType>,
    /// What a number read is multiplied by.
    pub scale: f64,
    /// Whether the bytes of each register are swapped.
    pub swap_bytes: bool,
    /// Whether the order of the registers is reversed.
    pub swap_registers: bool,
}

/// The members of a document, found in any case.
struct Document(Map<String, Value>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        Ok(Self(members.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()))
    }
}

impl Document {
    fn get(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.0.get(&name.to_lowercase())).filter(|value| !value.is_null())
    }

    fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        match self.get(names) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(other) => Err(wrong(names, other, "text")),
        }
    }

    /// A number, or text that holds one.
    fn number(&self, names: &[&str]) -> Result<Option<f64>, String> {
        let Some(value) = self.get(names) else { return Ok(None) };
        let number = match value {
            Value::String(text) if text.trim().is_empty() => return Ok(None),
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        number
            .filter(|number: &f64| number.is_finite())
            .map(Some)
            .ok_or_else(|| wrong(names, value, "a number"))
    }

    /// A whole number up to a limit.
    fn whole(&self, names: &[&str], most: u32) -> Result<Option<u32>, String> {
        let Some(number) = self.number(names)? else { return Ok(None) };
        if number.fract() != 0.0 || number < 0.0 || number > f64::from(most) {
            let name = names.first().copied().unwrap_or_default();
            return Err(format!("{name}: {number} is no whole number from 0 to {most}"));
        }
        Ok(Some(number as u32))
    }

    fn truth(&self, names: &[&str]) -> Result<bool, String> {
        match self.get(names) {
            None => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(Value::String(text)) if ["", "false"].contains(&text.trim()) => Ok(false),
            Some(Value::String(text)) if text.trim() == "true" => Ok(true),
            Some(other) => Err(wrong(names, other, "true or false")),
        }
    }
}

fn wrong(names: &[&str], found: &Value, expected: &str) -> String {
    format!("{}: {expected} expected, found {found}", names.first().copied().unwrap_or_default())
}

impl<'de> Deserialize<'de> for ModbusConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Document::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl ModbusConfig {
    fn read(document: &Document) -> Result<Self, String> {
        if document.get(&["serialPort"]).is_some() {
            return Err(
                "serialPort: Modbus RTU is not supported, give ip and port of a Modbus TCP device".to_owned()
            );
        }
        let host = document.text(&["ip", "host", "hostName", "address"])?.filter(|host| !host.is_empty());
        let host = host.ok_or("ip: missing; the name or address of the Modbus TCP device")?;
        let port = document.whole(&["port"], 65_535)?.unwrap_or(502);
        let slave = document.whole(&["slaveID", "unitID"], 255)?.unwrap_or(1);
        let timeout = document.whole(&["timeout"], 600_000)?.filter(|ms| *ms > 0).unwrap_or(1000);
        let is_v6 = host.contains(':') && !host.starts_with('[');
        Ok(Self {
            address: if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            slave: u8::try_from(slave).unwrap_or(u8::MAX),
            timeout: Duration::from_millis(u64::from(timeout)),
        })
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Document::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Point {
    fn read(document: &Document) -> Result<Self, String> {
        let register = document.text(&["register"])?.ok_or("register: missing")?;
        let register = match register.to_lowercase().as_str() {
            "coilregister" | "coil" => Register::Coil,
            "discreteinputregister" | "discreteinput" | "discrete" => Register::Discrete,
            "holdingregister" | "holding" => Register::Holding,
            "inputregister" | "input" => Register::Input,
            _ => {
                return Err(format!(
                    "register: {register:?} is none of CoilRegister, DiscreteInputRegister, InputRegister, HoldingRegister"
                ));
            }
        };
        let offset = document.whole(&["offset"], 65_535)?.ok_or("offset: missing")?;
        let limit = document.whole(&["limit"], u32::from(MAX_BITS))?.unwrap_or(0);
        let scale = document.number(&["scale"])?.filter(|scale| *scale != 0.0).unwrap_or(1.0);
        let (data, width) = match document.text(&["dataType"])?.filter(|name| !name.is_empty()) {
            None => (None, 0),
            Some(name) => {
                let (data, width) =
                    data_type(&name).ok_or_else(|| format!("dataType: {name:?} is unknown"))?;
                (Some(data), width)
            }
        };
        if width > 0 && limit > 0 && u32::from(width) != limit {
            return Err(format!("limit: {limit} registers do not hold the dataType, {width} do"));
        }
        Ok(Self {
            register,
            offset: u16::try_from(offset).unwrap_or(u16::MAX),
            limit: if limit > 0 { u16::try_from(limit).unwrap_or(u16::MAX) } else { width },
            data,
            scale,
            swap_bytes: document.truth(&["isSwap"])?,
            swap_registers: document.truth(&["isRegisterSwap"])?,
        })
    }

    /// The register after the last.
    pub(super) fn end(&self) -> u16 {
        self.offset.saturating_add(self.limit)
    }

    /// With what it left open taken from the property's type; or what is wrong, beginning with the field.
    pub(super) fn completed(mut self, kind: ValueType) -> Result<Self, String> {
        let data = self.data.unwrap_or(match kind {
            _ if self.register.is_bit() => DataType::Boolean,
            ValueType::Int => DataType::Int,
            ValueType::Float | ValueType::Double => DataType::Float,
            ValueType::Boolean => DataType::Boolean,
            ValueType::Bytes => DataType::Bytes,
            _ => DataType::Text,
        });
        self.data = Some(data);
        if self.limit == 0 {
            self.limit = match (self.register.is_bit(), data) {
                (false, DataType::Float) if kind == ValueType::Double => 4,
                (false, DataType::Float) => 2,
                _ => 1,
            };
        }
        let most = if self.register.is_bit() { MAX_BITS } else { MAX_WORDS };
        if self.limit > most {
            return Err(format!("limit: {} is more than the {most} one request can ask for", self.limit));
        }
        if u32::from(self.offset) + u32::from(self.limit) > 65_536 {
            return Err(format!("offset: {} and limit {} go beyond register 65535", self.offset, self.limit));
        }
        if self.register.is_bit() {
            if data != DataType::Boolean && data != DataType::Int && data != DataType::Uint {
                return Err(format!("dataType: {data:?} does not fit a register of single bits"));
            }
            if self.limit != 1 {
                return Err(format!("limit: {} bits are no value, 1 is", self.limit));
            }
        }
        let is_number = matches!(data, DataType::Int | DataType::Uint | DataType::Float);
        if is_number && ![1, 2, 4].contains(&self.limit) {
            return Err(format!("limit: {} registers are no number; 1, 2 and 4 are", self.limit));
        }
        Ok(self)
    }
}

/// A data type and how many registers it needs; 0 where `limit` says.
fn data_type(name: &str) -> Option<(DataType, u16)> {
    Some(match name.to_lowercase().as_str() {
        "int" | "integer" => (DataType::Int, 0),
        "uint" => (DataType::Uint, 0),
        "int16" | "short" => (DataType::Int, 1),
        "uint16" | "word" => (DataType::Uint, 1),
        "int32" => (DataType::Int, 2),
        "uint32" | "dword" => (DataType::Uint, 2),
        "int64" => (DataType::Int, 4),
        "uint64" => (DataType::Uint, 4),
        "float" => (DataType::Float, 0),
        "float32" => (DataType::Float, 2),
        "double" | "float64" => (DataType::Float, 4),
        "bool" | "boolean" => (DataType::Boolean, 0),
        "string" => (DataType::Text, 0),
        "bytes" => (DataType::Bytes, 0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gos_documents_are_read_in_any_case_and_with_numbers_as_text() {
        let go = json!({"communicateMode": "TCP", "ip": "127.0.0.1", "port": "5020", "slaveID": "7"});
        let config: ModbusConfig = serde_json::from_value(go).unwrap();
        assert_eq!((config.address.as_str(), config.slave), ("127.0.0.1:5020", 7));
        let shouted = json!({"IP": "plc", "TIMEOUT": 250});
        let config: ModbusConfig = serde_json::from_value(shouted).unwrap();
        assert_eq!((config.address.as_str(), config.timeout.as_millis()), ("plc:502", 250));
        let go = json!({"register": "HoldingRegister", "offset": 2, "limit": 1, "scale": 1, "isSwap": true, "isRegisterSwap": true});
        let point: Point = serde_json::from_value(go).unwrap();
        assert_eq!((point.register, point.offset, point.limit), (Register::Holding, 2, 1));
        assert!(point.swap_bytes && point.swap_registers);
    }

    #[test]
    fn a_wrong_document_names_its_field() {
        for (config, field) in [
            (json!({}), "ip: missing"),
            (json!({"ip": "h", "port": 70000}), "port: 70000"),
            (json!({"ip": "h", "slaveID": "one"}), "slaveID: a number"),
            (json!({"serialPort": "/dev/ttyS0"}), "serialPort: Modbus RTU"),
        ] {
            let error = serde_json::from_value::<ModbusConfig>(config).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        for (visitor, field) in [
            (json!({"offset": 1}), "register: missing"),
            (json!({"register": "Hodling", "offset": 1}), "register: \"Hodling\""),
            (json!({"register": "Coil"}), "offset: missing"),
            (json!({"register": "Coil", "offset": -1}), "offset: -1"),
            (json!({"register": "Input", "offset": 1, "dataType": "int24"}), "dataType"),
            (json!({"register": "Input", "offset": 1, "dataType": "int32", "limit": 1}), "limit: 1"),
        ] {
            let error = serde_json::from_value::<Point>(visitor).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn what_a_visitor_leaves_open_comes_from_the_model() {
        let point = |json| serde_json::from_value::<Point>(json).unwrap();
        let float = point(json!({"register": "Input", "offset": 0})).completed(ValueType::Double).unwrap();
        assert_eq!((float.data, float.limit), (Some(DataType::Float), 4));
        let scaled = point(json!({"register": "Input", "offset": 0, "limit": 1, "scale": 0.1}));
        assert_eq!(scaled.completed(ValueType::Float).unwrap().limit, 1);
        for (json, why) in [
            (json!({"register": "Input", "offset": 65535, "dataType": "int32"}), "offset"),
            (json!({"register": "Input", "offset": 0, "limit": 3}), "limit: 3"),
            (json!({"register": "Holding", "offset": 0, "limit": 126, "dataType": "string"}), "limit: 126"),
            (json!({"register": "Coil", "offset": 0, "dataType": "float32"}), "dataType"),
        ] {
            let error = point(json).completed(ValueType::Int).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
