//! Values and their types: from text and back, between types, and within a model's range.

use bytes::Bytes;
use kubeedge_core::{
    device::{Access, DriverError, DriverKind, DriverResult, ModelProperty, Value, ValueType},
    failure::Failure,
};

/// The longest text or byte value taken from a device or a desired value, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

fn unfit(doing: &'static str, property: &ModelProperty, why: String) -> DriverError {
    Failure::new(DriverKind::BadValue, doing).on(format!("property {}: {why}", property.name))
}

/// A value as the model types it; a value that has no such form ([`DriverKind::BadValue`]) names the
/// property.
///
/// Whole numbers become fractions and back where nothing is lost, 0 and 1 are truth values, anything is text.
pub fn conform(property: &ModelProperty, value: Value) -> DriverResult<Value> {
    let doing = "converting a value";
    let long = match &value {
        Value::Text(text) => text.len() > MAX_TEXT,
        Value::Bytes(bytes) => bytes.len() > MAX_TEXT,
        _ => false,
    };
    if long {
        return Err(unfit(doing, property, format!("longer than {MAX_TEXT} bytes")));
    }
    let fits = match property.kind {
        ValueType::Int => to_int(&value).map(Value::Int),
        ValueType::Float => to_float(&value).map(|wide| Value::Float(shortest(wide as f32))),
        ValueType::Double => to_float(&value).map(Value::Float),
        ValueType::Boolean => to_bool(&value).map(Value::Bool),
        ValueType::Bytes => match &value {
            Value::Bytes(_) => Some(value.clone()),
            Value::Text(text) => Some(Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))),
            _ => None,
        },
        _ => Some(Value::Text(value.to_string())),
    };
    fits.ok_or_else(|| unfit(doing, property, format!("{value:?} is no {:?}", property.kind)))
}

/// The value a text stands for in the property's type, such as a desired value of a Device.
pub fn parse(property: &ModelProperty, text: &str) -> DriverResult<Value> {
    if property.kind == ValueType::Bytes {
        let bytes = from_hex(text).filter(|bytes| bytes.len() <= MAX_TEXT);
        let bytes =
            bytes.ok_or_else(|| unfit("reading a value", property, "no hexadecimal bytes".to_owned()))?;
        return Ok(Value::Bytes(bytes));
    }
    conform(property, Value::Text(text.to_owned()))
}

/// Checks that the property may be written, that the value fits its type and lies within its range.
pub fn check_write(property: &ModelProperty, value: Value) -> DriverResult<Value> {
    const DOING: &str = "checking a value to write";
    if property.access == Access::ReadOnly {
        let why = format!("property {} is read-only in its model", property.name);
        return Err(Failure::new(DriverKind::Unsupported, DOING).on(why));
    }
    let value = conform(property, value)?;
    let Some(number) = to_float(&value).filter(|_| !matches!(value, Value::Text(_) | Value::Bool(_))) else {
        return Ok(value);
    };
    if number.is_nan() {
        return Err(unfit(DOING, property, "not a number".to_owned()));
    }
    for (bound, text) in [("minimum", &property.minimum), ("maximum", &property.maximum)] {
        let Some(limit) = parse_bound(property, text)? else { continue };
        if (bound == "minimum" && number < limit) || (bound == "maximum" && number > limit) {
            return Err(unfit(DOING, property, format!("{value} is beyond the {bound} {text}")));
        }
    }
    Ok(value)
}

/// Checks that minimum and maximum of a numeric property are numbers.
pub(crate) fn check_bounds(property: &ModelProperty) -> DriverResult<()> {
    if matches!(property.kind, ValueType::Int | ValueType::Float | ValueType::Double) {
        parse_bound(property, &property.minimum)?;
        parse_bound(property, &property.maximum)?;
    }
    Ok(())
}

fn parse_bound(property: &ModelProperty, text: &str) -> DriverResult<Option<f64>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let what = format!("property {}: minimum or maximum {text:?} is no number", property.name);
        Failure::new(DriverKind::BadConfig, "reading a device model").on(what)
    })
}

fn to_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        Value::Bool(truth) => Some(i64::from(*truth)),
        Value::Float(float) => whole(*float),
        Value::Text(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    }
}

fn whole(float: f64) -> Option<i64> {
    // 2^53: up to here every whole number has its own f64.
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Float(float) if *float == 0.0 || *float == 1.0 => Some(*float == 1.0),
        Value::Text(text) => match text.trim() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The f64 that prints as short as the f32: 20.1 and not 20.100000381469727.
fn shortest(narrow: f32) -> f64 {
    narrow.to_string().parse().unwrap_or_else(|_| f64::from(narrow))
}

fn from_hex(text: &str) -> Option<Bytes> {
    let text = text.trim();
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn property(kind: ValueType) -> ModelProperty {
        ModelProperty::new("p", kind).writable()
    }

    #[test]
    fn values_take_the_form_of_their_model() {
        for (kind, from, to) in [
            (ValueType::Int, Value::Float(20.0), Some(Value::Int(20))),
            (ValueType::Int, Value::Float(20.5), None),
            (ValueType::Int, Value::from(" 7 "), Some(Value::Int(7))),
            (ValueType::Int, Value::from("7.0"), Some(Value::Int(7))),
            (ValueType::Int, Value::from("seven"), None),
            (ValueType::Float, Value::from(20.1_f32), Some(Value::Float(20.1))),
            (ValueType::Double, Value::Int(3), Some(Value::Float(3.0))),
            (ValueType::Boolean, Value::Int(1), Some(Value::Bool(true))),
            (ValueType::Boolean, Value::Int(2), None),
            (ValueType::Boolean, Value::from("false"), Some(Value::Bool(false))),
            (ValueType::String, Value::Float(1.5), Some(Value::from("1.5"))),
            (ValueType::Bytes, Value::from("hi"), Some(Value::Bytes(Bytes::from_static(b"hi")))),
            (ValueType::Bytes, Value::Int(1), None),
        ] {
            let got = conform(&property(kind), from.clone());
            assert_eq!(got.as_ref().ok(), to.as_ref(), "{kind:?} from {from:?}");
            if let Err(error) = got {
                assert_eq!(error.kind(), DriverKind::BadValue);
                assert!(error.to_string().contains("property p"), "{error}");
            }
        }
    }

    #[test]
    fn a_value_beyond_its_range_names_the_bound() {
        let limited = property(ValueType::Double).within("0", "80.5");
        assert_eq!(check_write(&limited, Value::from("80.5")).unwrap(), Value::Float(80.5));
        let high = check_write(&limited, Value::Int(81)).unwrap_err();
        assert!(high.to_string().contains("beyond the maximum 80.5"), "{high}");
        assert!(check_write(&limited, Value::Int(-1)).unwrap_err().to_string().contains("minimum"));
        assert!(check_write(&limited, Value::Float(f64::NAN)).is_err());
    }

    #[test]
    fn a_read_only_property_is_not_written() {
        let fixed = ModelProperty::new("p", ValueType::Int);
        let error = check_write(&fixed, Value::Int(1)).unwrap_err();
        assert_eq!(error.kind(), DriverKind::Unsupported);
        assert!(error.to_string().contains("property p is read-only"), "{error}");
    }

    #[test]
    fn a_bound_that_is_no_number_is_a_fault_of_the_model() {
        let odd = property(ValueType::Int).within("low", "");
        assert_eq!(check_bounds(&odd).unwrap_err().kind(), DriverKind::BadConfig);
        assert!(check_bounds(&property(ValueType::Int)).is_ok());
    }

    #[test]
    fn desired_bytes_are_hexadecimal_text() {
        assert_eq!(
            parse(&property(ValueType::Bytes), "00ff").unwrap(),
            Value::Bytes(Bytes::from_static(&[0, 255]))
        );
        assert!(parse(&property(ValueType::Bytes), "0f0").is_err());
        assert!(parse(&property(ValueType::Bytes), "zz").is_err());
    }

    proptest! {
        #[test]
        fn the_text_of_a_value_reads_back_as_the_value(int: i64, float in -1e12..1e12_f64, truth: bool) {
            for (kind, value) in [
                (ValueType::Int, Value::Int(int)),
                (ValueType::Double, Value::Float(float)),
                (ValueType::Boolean, Value::Bool(truth)),
            ] {
                prop_assert_eq!(parse(&property(kind), &value.to_string()).unwrap(), value);
            }
        }
    }
}
