//! Values to registers and back.

use bytes::Bytes;
use kubeedge_core::{
    device::{DriverError, DriverKind, DriverResult, Value},
    failure::Failure,
};

use super::{
    config::{DataType, Point},
    line::Raw,
};

fn unfit(doing: &'static str, why: String) -> DriverError {
    Failure::new(DriverKind::BadValue, doing).on(why)
}

/// The value registers hold.
pub(super) fn decode(point: &Point, raw: Option<Raw>) -> DriverResult<Value> {
    const DOING: &str = "decoding registers";
    let data = point.data.unwrap_or(DataType::Int);
    let words = match raw.filter(|raw| raw.len() == usize::from(point.limit)) {
        Some(Raw::Words(words)) => words,
        Some(Raw::Bits(bits)) => {
            let set = bits.first().copied().unwrap_or_default();
            return Ok(if data == DataType::Boolean { Value::Bool(set) } else { Value::Int(i64::from(set)) });
        }
        None => {
            let what = format!("fewer than {} registers came", point.limit);
            return Err(Failure::new(DriverKind::Protocol, DOING).on(what));
        }
    };
    let bytes = order(point, words.iter().flat_map(|word| word.to_be_bytes()).collect());
    match data {
        DataType::Boolean => Ok(Value::Bool(bytes.iter().any(|byte| *byte != 0))),
        DataType::Text => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
            let text = text.map_err(|_| unfit(DOING, "registers hold no UTF-8 text".to_owned()))?;
            Ok(Value::Text(text.trim_end().to_owned()))
        }
        DataType::Bytes => Ok(Value::Bytes(Bytes::from(bytes))),
        DataType::Float if bytes.len() > 2 => Ok(scaled_float(point, float(&bytes))),
        DataType::Float => Ok(scaled_float(point, whole(&bytes, true) as f64)),
        DataType::Int | DataType::Uint => {
            let number = whole(&bytes, data == DataType::Int);
            if point.scale == 1.0 {
                let int = i64::try_from(number);
                return int
                    .map(Value::Int)
                    .map_err(|_| unfit(DOING, format!("{number} is beyond 64 bits with sign")));
            }
            Ok(scaled_float(point, number as f64))
        }
    }
}

/// What the registers have to hold for a value.
pub(super) fn encode(point: &Point, value: &Value) -> DriverResult<Raw> {
    const DOING: &str = "encoding registers";
    let data = point.data.unwrap_or(DataType::Int);
    if point.register.is_bit() {
        let set = match value {
            Value::Bool(set) => *set,
            Value::Int(0) => false,
            Value::Int(1) => true,
            other => return Err(unfit(DOING, format!("{other} is no bit"))),
        };
        return Ok(Raw::Bits(vec![set]));
    }
    let width = usize::from(point.limit) * 2;
    let bytes = match (data, value) {
        (DataType::Text, value) => padded(value.to_string().into_bytes(), width)?,
        (DataType::Bytes, Value::Bytes(bytes)) => padded(bytes.to_vec(), width)?,
        (DataType::Boolean, value) => {
            let number =
                number_of(value).ok_or_else(|| unfit(DOING, format!("{value} is no truth value")))?;
            let mut bytes = vec![0; width];
            if let Some(last) = bytes.last_mut() {
                *last = u8::from(number != 0.0);
            }
            bytes
        }
        (DataType::Float, value) if width > 2 => {
            let number = number_of(value).ok_or_else(|| unfit(DOING, format!("{value} is no number")))?;
            let number = number / point.scale;
            if width == 4 { (number as f32).to_be_bytes().to_vec() } else { number.to_be_bytes().to_vec() }
        }
        (data, value) => integer(point, data != DataType::Uint, value, width)?,
    };
    let bytes = order(point, bytes);
    let (pairs, _) = bytes.as_chunks::<2>();
    Ok(Raw::Words(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect()))
}

fn integer(point: &Point, signed: bool, value: &Value, width: usize) -> DriverResult<Vec<u8>> {
    const DOING: &str = "encoding registers";
    let number = match value {
        Value::Int(int) if point.scale == 1.0 => i128::from(*int),
        value => {
            let number = number_of(value).ok_or_else(|| unfit(DOING, format!("{value} is no number")))?;
            (number / point.scale).round() as i128
        }
    };
    let bits = u32::try_from(width * 8).unwrap_or(64);
    let (least, most) = if signed {
        (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
    } else {
        (0, (1_i128 << bits) - 1)
    };
    if number < least || number > most {
        let why = format!("{value} is {number} in registers, which hold {least} to {most}");
        return Err(unfit(DOING, why));
    }
    let all = number.to_be_bytes();
    Ok(all.get(all.len() - width..).unwrap_or_default().to_vec())
}

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn padded(mut bytes: Vec<u8>, width: usize) -> DriverResult<Vec<u8>> {
    if bytes.len() > width {
        let why = format!("{} bytes do not fit the {width} bytes of the registers", bytes.len());
        return Err(unfit("encoding registers", why));
    }
    bytes.resize(width, 0);
    Ok(bytes)
}

/// Applies the two swaps; each is its own inverse.
fn order(point: &Point, mut bytes: Vec<u8>) -> Vec<u8> {
    if point.swap_registers {
        let (pairs, _) = bytes.as_chunks_mut::<2>();
        pairs.reverse();
    }
    if point.swap_bytes {
        let (pairs, _) = bytes.as_chunks_mut::<2>();
        pairs.iter_mut().for_each(|pair| pair.reverse());
    }
    bytes
}

fn whole(bytes: &[u8], signed: bool) -> i128 {
    let negative = signed && bytes.first().is_some_and(|first| first & 0x80 != 0);
    let start = if negative { -1_i128 } else { 0 };
    bytes.iter().fold(start, |number, byte| number << 8 | i128::from(*byte))
}

fn float(bytes: &[u8]) -> f64 {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        let narrow = f32::from_be_bytes(four);
        // The f64 that prints as short as the f32.
        return narrow.to_string().parse().unwrap_or_else(|_| f64::from(narrow));
    }
    <[u8; 8]>::try_from(bytes).map(f64::from_be_bytes).unwrap_or(f64::NAN)
}

/// A number times the scale, without the digits binary fractions add: 201 × 0.1 is 20.1.
fn scaled_float(point: &Point, number: f64) -> Value {
    if point.scale == 1.0 {
        return Value::Float(number);
    }
    let exact = number * point.scale;
    let short = format!("{exact:.9}").parse().unwrap_or(exact);
    Value::Float(if exact.abs() > 1e-3 { short } else { exact })
}

#[cfg(test)]
mod tests {
    use kubeedge_core::device::ValueType;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn point(extra: serde_json::Value) -> Point {
        let mut document = json!({"register": "HoldingRegister", "offset": 0});
        document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value::<Point>(document).unwrap().completed(ValueType::Int).unwrap()
    }

    #[test]
    fn registers_are_read_as_their_data_type_says() {
        for (extra, words, value) in [
            (json!({"dataType": "int16"}), vec![0xfffe], Value::Int(-2)),
            (json!({"dataType": "uint16"}), vec![0xfffe], Value::Int(65_534)),
            (json!({"dataType": "int32"}), vec![0xffff, 0xfffe], Value::Int(-2)),
            (json!({"dataType": "uint32"}), vec![0x0001, 0x0002], Value::Int(65_538)),
            (json!({"dataType": "int32", "isRegisterSwap": true}), vec![0x0002, 0x0001], Value::Int(65_538)),
            (json!({"dataType": "int16", "isSwap": true}), vec![0x0100], Value::Int(1)),
            (json!({"dataType": "int16", "scale": 0.1}), vec![201], Value::Float(20.1)),
            (json!({"dataType": "float32"}), vec![0x41a0, 0xcccd], Value::Float(20.1)),
            (json!({"dataType": "float64"}), vec![0x3ff8, 0, 0, 0], Value::Float(1.5)),
            (json!({"dataType": "boolean"}), vec![2], Value::Bool(true)),
            (json!({"dataType": "string", "limit": 2}), vec![0x4f4b, 0x2100], Value::from("OK!")),
            (
                json!({"dataType": "bytes", "limit": 1}),
                vec![0x00ff],
                Value::Bytes(Bytes::from_static(&[0, 255])),
            ),
        ] {
            let point = point(extra.clone());
            assert_eq!(decode(&point, Some(Raw::Words(words.clone()))).unwrap(), value, "{extra}");
            if point.data != Some(DataType::Boolean) {
                assert_eq!(encode(&point, &value).unwrap(), Raw::Words(words), "{extra}");
            }
        }
    }

    #[test]
    fn a_value_too_large_for_its_registers_says_what_fits() {
        let error = encode(&point(json!({"dataType": "int16"})), &Value::Int(40_000)).unwrap_err();
        assert!(error.to_string().contains("-32768 to 32767"), "{error}");
        assert_eq!(error.kind(), DriverKind::BadValue);
        assert!(encode(&point(json!({"dataType": "uint16"})), &Value::Int(-1)).is_err());
        assert!(encode(&point(json!({"dataType": "string", "limit": 1})), &Value::from("abc")).is_err());
    }

    #[test]
    fn too_few_registers_are_a_broken_protocol() {
        let error = decode(&point(json!({"dataType": "int32"})), Some(Raw::Words(vec![1]))).unwrap_err();
        assert_eq!(error.kind(), DriverKind::Protocol);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number: i32, bytes: bool, registers: bool) {
            let point = point(json!({"dataType": "int32", "isSwap": bytes, "isRegisterSwap": registers}));
            let raw = encode(&point, &Value::Int(i64::from(number))).unwrap();
            prop_assert_eq!(decode(&point, Some(raw)).unwrap(), Value::Int(i64::from(number)));
        }
    }
}
