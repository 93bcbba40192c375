//! Which keys a user has set to something else than their default.

use serde_json::{Map, Value};

use super::{ConfigFile, Host};

/// The paths of all keys whose value is not the default on this host, sorted.
pub fn away_from_default<C: ConfigFile>(config: &C, host: &Host) -> Vec<String> {
    let json = |config: &C| serde_json::to_value(config).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &json(config), &json(&C::defaults(host)), &mut found);
    found.sort();
    found
}

/// Those of [`away_from_default`] that are not covered by `acted_on`, a list of paths that stand for all
/// below them. Whoever maps a configuration to a component says what it makes use of.
pub fn not_acted_on<C: ConfigFile>(config: &C, host: &Host, acted_on: &[&str]) -> Vec<String> {
    let mut paths = away_from_default(config, host);
    paths.retain(|path| !acted_on.iter().any(|acted| covers(acted, path)));
    paths
}

fn covers(above: &str, path: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn compare(path: &str, is: &Value, default: &Value, found: &mut Vec<String>) {
    let (Value::Object(is), Value::Object(default)) = (is, default) else {
        if is != default {
            found.push(path.to_owned());
        }
        return;
    };
    let gone = default.keys().filter(|key| !is.contains_key(*key));
    for key in is.keys().chain(gone) {
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&path, &of(is), &of(default), found);
    }
}

/// The part of a value that stands at or below these paths.
pub(super) fn only(value: &Value, paths: &[&str]) -> Value {
    fn keep(path: &str, value: &Value, paths: &[&str]) -> Option<Value> {
        if paths.iter().any(|wanted| covers(wanted, path)) {
            return Some(value.clone());
        }
        let below = value.as_object()?.iter().filter_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            Some((key.clone(), keep(&path, value, paths)?))
        });
        let below: Map<String, Value> = below.collect();
        (!below.is_empty()).then_some(Value::Object(below))
    }
    keep("", value, paths).unwrap_or_default()
}
