//! Changes that a hostile peer makes to what a good one has said: in the structure of JSON, and in bytes.

use serde_json::Value;

/// JSON that somebody puts where something else is expected.
pub const HOSTILE: [&str; 20] = [
    "null",
    "[]",
    "{}",
    "0",
    "-1",
    "true",
    "\"\"",
    "1e308",
    "0.1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "\"../../../etc/passwd\"",
    "\"a\\u0000b\\r\\nc\\u001b[31m\"",
    "\"9999-99-99T99:99:99Z\"",
    "\"9223372036854775807\"",
    "[null]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "{\"\":{\"\":{\"\":null}}}",
    "\"\\ud83d\\ude80\u{202e}\"",
];

/// The seed after these edits: each a kind, a place and a detail.
pub fn edited(seed: &[u8], edits: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (kind, place, detail) in edits {
        bytes = match kind % 3 {
            0 => in_json(&bytes, *place, *detail).unwrap_or(bytes),
            _ => in_bytes(bytes, *kind, *place, *detail),
        };
    }
    bytes
}

fn within(place: u32, length: usize) -> usize {
    usize::try_from(place).unwrap_or(0) % length.max(1)
}

/// Replaces one value somewhere in the JSON that the bytes hold from their first brace on, if they do.
fn in_json(bytes: &[u8], place: u32, detail: u32) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| *byte == b'{' || *byte == b'[')?;
    let mut root: Value = serde_json::from_slice(bytes.get(start..)?).ok()?;
    let hostile: Value = serde_json::from_str(HOSTILE[within(detail, HOSTILE.len())]).ok()?;
    let mut left = within(place, count(&root));
    replace(&mut root, &mut left, &hostile);
    Some([bytes.get(..start)?, root.to_string().as_bytes()].concat())
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::String(text) => inner(text).as_ref().map_or(0, count),
        _ => 0,
    }
}

/// JSON within a string, as patches and reports of twins travel.
fn inner(text: &str) -> Option<Value> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok())?
}

/// Replaces the value that `left` others come before; done when `left` is no longer counted.
fn replace(value: &mut Value, left: &mut usize, by: &Value) -> bool {
    if *left == 0 {
        *value = by.clone();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, left, by)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, left, by)),
        Value::String(text) => inner(text).is_some_and(|mut within| {
            let done = replace(&mut within, left, by);
            *text = within.to_string();
            done
        }),
        _ => false,
    }
}

fn in_bytes(mut bytes: Vec<u8>, kind: u8, place: u32, detail: u32) -> Vec<u8> {
    let at = within(place, bytes.len() + 1);
    let byte = (detail & 0xff) as u8;
    match kind / 3 % 6 {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, byte),
        2 => {
            if let Some(changed) = bytes.get_mut(at) {
                *changed ^= byte;
            }
        }
        // A piece twice.
        3 => {
            let end = (at + within(detail, 64)).min(bytes.len());
            let piece = bytes.get(at..end).unwrap_or_default().to_vec();
            bytes.splice(at..at, piece);
        }
        // A piece less.
        4 => {
            let end = (at + within(detail, 64)).min(bytes.len());
            bytes.drain(at..end);
        }
        // A length, or what may be one, at its largest.
        _ => {
            let end = (at + 8).min(bytes.len());
            bytes.splice(at..end, [0xff; 8]);
        }
    }
    bytes
}
