//! Kubernetes' protobuf bodies, as kubectl and other users of client-go's typed clients send them.
//!
//! Answers are JSON, which those clients read as well. What is read is written down in [`messages`]: the
//! objects of kubectl's own commands. A body with a field that is not there is refused as a whole: nothing is
//! lost silently.

mod messages;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::messages::{Field, fields};
use super::{object::Object, status::Refusal};

/// What each body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The object in a body.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin with k8s"))?;
    let mut raw: &[u8] = &[];
    let mut object = Value::Null;
    for part in parts(envelope) {
        match part? {
            (1, Wire::Bytes(bytes)) => object = message("TypeMeta", bytes)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(coding)) if !coding.is_empty() => {
                return Err(broken("its content is encoded once more"));
            }
            _ => {}
        }
    }
    let kind = object.text(&["kind"]).to_owned();
    let mut decoded = message(&kind, raw)?;
    for (field, value) in object.as_object().into_iter().flatten() {
        decoded.set(&[field], value.clone());
    }
    Ok(decoded)
}

fn broken(why: &str) -> Refusal {
    Refusal::bad_request(format!("the protobuf body cannot be read: {why}"))
}

fn foreign(what: &str) -> Refusal {
    Refusal::media_type(format!(
        "protobuf bodies with {what} are not read here; send JSON: use `kubectl apply -f`, or add `--dry-run=client -o yaml | kubectl apply -f -` to the command"
    ))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message as they are on the wire.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), Refusal>> {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| part(&mut bytes).inspect_err(|_| bytes = &[])))
}

fn part<'a>(bytes: &mut &'a [u8]) -> Result<(u64, Wire<'a>), Refusal> {
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| broken("a length is too large"))?;
            let (inside, rest) = bytes.split_at_checked(length).ok_or_else(|| broken("it ends early"))?;
            *bytes = rest;
            Wire::Bytes(inside)
        }
        other => return Err(broken(&format!("wire type {other} is not of Kubernetes"))),
    };
    Ok((tag >> 3, wire))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Refusal> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(|| broken("it ends early"))?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(broken("a number is too long"))
}

fn message(name: &str, bytes: &[u8]) -> Result<Value, Refusal> {
    let known = fields(name).ok_or_else(|| foreign(&format!("a {name:?}")))?;
    let mut out = Map::new();
    for part in parts(bytes) {
        let (number, wire) = part?;
        let field = known.iter().find(|field| field.number == number);
        let field = field.ok_or_else(|| foreign(&format!("field {number} of {name}")))?;
        add(&mut out, field, wire)?;
    }
    Ok(Value::Object(out))
}

fn add(out: &mut Map<String, Value>, field: &Field, wire: Wire<'_>) -> Result<(), Refusal> {
    let of_map = match field.shape {
        "map" => Some("text"),
        "bytesmap" => Some("bytes"),
        "quantities" => Some("quantity"),
        _ => None,
    };
    if let Some(of) = of_map {
        let Wire::Bytes(entry) = wire else { return Err(broken("a map entry is no message")) };
        let (key, value) = entry_of(entry, of)?;
        put_into(out.entry(field.name).or_insert_with(|| json!({})), &key, value);
        return Ok(());
    }
    let value = value(field.shape, wire)?;
    if field.repeated {
        if let Value::Array(list) = out.entry(field.name).or_insert_with(|| json!([])) {
            list.push(value);
        }
    } else if field.optional || !is_zero(&value) {
        out.insert(field.name.to_owned(), value);
    }
    Ok(())
}

fn put_into(map: &mut Value, key: &str, value: Value) {
    map.set(&[key], value);
}

fn entry_of(entry: &[u8], of: &str) -> Result<(String, Value), Refusal> {
    let (mut key, mut found) = (String::new(), value(of, Wire::Bytes(&[]))?);
    for part in parts(entry) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, wire) => found = value(of, wire)?,
            _ => return Err(broken("a map entry has a third field")),
        }
    }
    Ok((key, found))
}

fn utf8(bytes: &[u8]) -> Result<String, Refusal> {
    String::from_utf8(bytes.to_vec()).map_err(|_| broken("a text is not UTF-8"))
}

/// What Go leaves out of JSON where a field is no pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn value(shape: &str, wire: Wire<'_>) -> Result<Value, Refusal> {
    Ok(match (shape, wire) {
        // Status and the server's own fields, which no client sets.
        ("-", _) => Value::Null,
        ("int", Wire::Number(number)) => number.cast_signed().into(),
        ("bool", Wire::Number(number)) => (number != 0).into(),
        ("text", Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        ("bytes", Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("time", Wire::Bytes(bytes)) => moment(bytes)?,
        ("quantity", Wire::Bytes(bytes)) => {
            message("Quantity", bytes)?.get("string").cloned().unwrap_or_else(|| "0".into())
        }
        ("intstr", Wire::Bytes(bytes)) => {
            let both = message("IntOrString", bytes)?;
            let part = if both.get("type").is_some() { both.get("strVal") } else { both.get("intVal") };
            part.cloned().unwrap_or_else(|| 0.into())
        }
        ("int" | "bool", _) | (_, Wire::Number(_)) => return Err(broken("a field is of another type")),
        (name, Wire::Bytes(bytes)) => message(name, bytes)?,
    })
}

fn moment(bytes: &[u8]) -> Result<Value, Refusal> {
    let seconds = message("Time", bytes)?.get("seconds").and_then(Value::as_i64);
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    text.map(Value::from).ok_or_else(|| broken("a time is out of range"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[number << 3 | 2, length], content].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let of = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &of), field(2, raw)].concat()
    }

    #[test]
    fn an_object_reads_as_its_json() {
        let meta = [
            field(1, b"a"),
            field(2, b""),
            field(8, &[]),
            field(11, &[field(1, b"k"), field(2, b"v")].concat()),
        ];
        let data = [field(1, b"f"), field(2, b"\x00\x01")].concat();
        let secret = [field(1, &meta.concat()), field(2, &data), field(3, b"Opaque")].concat();
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"k": "v"}}, "data": {"f": "AAE="}, "type": "Opaque"});
        assert_eq!(decode(&body("Secret", &secret)).unwrap(), expected);
        let options = [vec![8, 0], field(2, &field(1, b"u"))].concat();
        let expected = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}});
        assert_eq!(
            decode(&body("DeleteOptions", &options)).unwrap(),
            expected,
            "a zero that was meant stays"
        );
    }

    #[test]
    fn what_is_not_known_is_refused_not_dropped() {
        assert_eq!(decode(&body("ConfigMap", &field(9, b"x"))).unwrap_err().code, 415);
        assert_eq!(decode(&body("Mystery", b"")).unwrap_err().code, 415);
        assert_eq!(decode(b"{}").unwrap_err().code, 400);
    }

    #[test]
    fn every_message_that_is_named_is_known() {
        messages::check();
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            for kind in ["Deployment", "Secret", "Role"] {
                let _ = decode(&body(kind, &raw));
            }
            let _ = decode(&raw);
        }
    }
}
