//! A kit for whoever maps a configuration to a component: is every key acted on that is said to be, and no
//! other?

use serde_json::{Value, json};

use crate::ConfigFile;

/// Copies of `base`, each with another value for one key, and the path of that key. Keys without a default
/// are not among them. Keys of files name `file`, those of addresses `198.51.100.7`, those of endpoints with
/// port and scheme where `base` has them.
pub fn variations<C: ConfigFile>(base: &C, file: &str) -> Vec<(String, C)> {
    let json = serde_json::to_value(base).unwrap_or_default();
    let mut found = Vec::new();
    others("", &json, file, &mut found);
    let varied = found.into_iter().filter_map(|(pointer, other)| {
        let mut changed = json.clone();
        *changed.pointer_mut(&pointer)? = other;
        let path = pointer.trim_start_matches('/').replace('/', ".");
        Some((path, serde_json::from_value(changed).ok()?))
    });
    varied.collect()
}

fn others(pointer: &str, value: &Value, file: &str, found: &mut Vec<(String, Value)>) {
    let other = match value {
        Value::Object(map) => {
            return map
                .iter()
                .for_each(|(key, value)| others(&format!("{pointer}/{key}"), value, file, found));
        }
        Value::Bool(is) => json!(!is),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| json!(number.as_f64().unwrap_or(0.0) / 2.0), |number| json!(number + 1)),
        Value::Array(items) if items.first().is_some_and(Value::is_object) => json!([]),
        Value::Array(_) | Value::Null => json!(["198.51.100.7"]),
        Value::String(text) => json!(another(pointer, text, file)),
    };
    found.push((pointer.to_owned(), other));
}

fn another(pointer: &str, text: &str, file: &str) -> String {
    let is_file = pointer.contains("File") || pointer.ends_with("kubeConfig");
    if is_file {
        return file.to_owned();
    }
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let duration = text.parse::<crate::GoDuration>().is_ok();
    match (scheme, rest.rsplit_once(':')) {
        _ if duration => "7m0s".to_owned(),
        ("", Some(_)) => "198.51.100.7:77".to_owned(),
        ("", None) if pointer.ends_with("master") => "https://198.51.100.7:6443".to_owned(),
        ("", None) if text.starts_with('/') => "/another".to_owned(),
        ("", None) => "198.51.100.7".to_owned(),
        ("unix", _) => "unix:///another.sock".to_owned(),
        (scheme, _) => format!("{scheme}://198.51.100.7:77"),
    }
}
