//! The definitions made from our types, against the CustomResourceDefinitions of KubeEdge 1.23.
//!
//! `data/crds.txt` was derived from them: one line for each field with its type, `!` after the path of a
//! required one, allowed values, default and the other marks that decide what an API server takes. Prose is
//! left out.
#![cfg(feature = "k8s")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of a test")]

use std::collections::{BTreeMap, BTreeSet};

use kubeedge_core::api;
use serde_json::Value;

/// The lines of one version of one kind, by the line that names it.
type Versions = BTreeMap<String, BTreeSet<String>>;

fn theirs() -> Versions {
    let mut versions = Versions::new();
    let mut of = String::new();
    for line in include_str!("data/crds.txt").lines() {
        match line.strip_prefix("# ") {
            Some(name) => of = name.to_owned(),
            None => {
                versions.entry(of.clone()).or_default().insert(line.to_owned());
            }
        }
    }
    versions
}

fn ours() -> Versions {
    let mut versions = Versions::new();
    for definition in api::definitions() {
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut lines = BTreeSet::new();
            let schema = &version["schema"]["openAPIV3Schema"];
            for (name, property) in schema["properties"].as_object().unwrap() {
                if !["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                    walk(property, name, is_required(schema, name), &mut lines);
                }
            }
            versions.insert(head(&definition, version), lines);
        }
    }
    versions
}

fn head(definition: &Value, version: &Value) -> String {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let short: Vec<_> = spec["names"]["shortNames"].as_array().into_iter().flatten().map(text).collect();
    format!(
        "{} {} {} {} {} short={} status={} served={} storage={}",
        text(&definition["metadata"]["name"]),
        text(&version["name"]),
        text(&spec["names"]["kind"]),
        text(&spec["names"]["singular"]),
        text(&spec["scope"]),
        short.join(","),
        version.pointer("/subresources/status").is_some(),
        version["served"],
        version["storage"],
    )
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.iter().any(|of| of == name))
}

fn words(list: &Value) -> Vec<String> {
    let mut words: Vec<_> =
        list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    words.sort();
    words
}

fn walk(schema: &Value, path: &str, required: bool, lines: &mut BTreeSet<String>) {
    let kind = match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => "int-or-string",
        Some(kind) => kind,
        None => panic!("{path} has no type: {schema}"),
    };
    let mut line = format!("{path}{} {kind}", if required { "!" } else { "" });
    let mut mark = |mark: String| line.extend([" ", &mark]);
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        mark("open".into());
    }
    if !schema["enum"].is_null() {
        mark(format!("enum={}", words(&schema["enum"]).join("|")));
    }
    if let Some(default) = schema.get("default") {
        mark(format!("default={default}"));
    }
    if schema["pattern"].is_string() {
        mark("pattern".into());
    }
    if let Some(least) = schema["minimum"].as_f64() {
        mark(format!("minimum={least}"));
    }
    if let Some(of) = schema["x-kubernetes-map-type"].as_str() {
        mark(of.into());
    }
    if schema["x-kubernetes-list-type"] == "map" {
        mark(format!("by={}", words(&schema["x-kubernetes-list-map-keys"]).join(",")));
    }
    lines.insert(line);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), is_required(schema, name), lines);
    }
    if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], &format!("{path}{{}}"), false, lines);
    }
    if schema["items"].is_object() {
        walk(&schema["items"], &format!("{path}[]"), false, lines);
    }
}

#[test]
fn every_field_is_as_kubeedge_defines_it() {
    let (theirs, ours) = (theirs(), ours());
    let mut wrong: Vec<_> =
        theirs.keys().filter(|name| !ours.contains_key(*name)).map(|name| format!("no {name}")).collect();
    for (name, lines) in &ours {
        let Some(wanted) = theirs.get(name) else {
            wrong.push(format!("no definition of KubeEdge: {name}"));
            continue;
        };
        wrong.extend(wanted.difference(lines).map(|line| format!("missing in {name}: {line}")));
        wrong.extend(lines.difference(wanted).map(|line| format!("too much in {name}: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What an API server demands of a structural schema, see the documentation of CustomResourceDefinitions.
fn structural(schema: &Value, path: &str) {
    let Some(fields) = schema.as_object() else { panic!("{path} is no object: {schema}") };
    for key in ["$ref", "$defs", "$schema", "title", "definitions", "nullable", "oneOf", "allOf", "const"] {
        assert!(!fields.contains_key(key), "{path} has {key}");
    }
    let of = fields.get("type").and_then(Value::as_str);
    assert!(of.is_some() || fields.contains_key("x-kubernetes-int-or-string"), "{path} has no single type");
    assert!(
        !(fields.contains_key("properties") && fields.contains_key("additionalProperties")),
        "{path} has properties and additionalProperties"
    );
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structural(property, &format!("{path}.{name}"));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(of) = fields.get(key) {
            structural(of, &format!("{path}.{key}"));
        }
    }
}

#[test]
fn an_api_server_takes_every_definition() {
    for definition in api::definitions() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let versions = definition["spec"]["versions"].as_array().unwrap();
        assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1, "{name}");
        for version in versions {
            structural(&version["schema"]["openAPIV3Schema"], name);
        }
    }
}

#[test]
fn a_device_that_is_written_is_the_device_that_was_read() {
    let text = serde_json::json!({
        "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": {"name": "boiler", "namespace": "default"},
        "spec": {
            "deviceModelRef": {"name": "boiler"}, "nodeName": "edge-1",
            "protocol": {"protocolName": "modbus", "configData": {"ip": "127.0.0.1", "deep": {"any": [1, null]}}},
            "properties": [{
                "name": "setpoint", "desired": {"value": "21"}, "reportCycle": 1000, "reportToCloud": true,
                "visitors": {"protocolName": "modbus", "configData": {"register": "HoldingRegister"}},
                "pushMethod": {"dbMethod": {"TDEngine": {"TDEngineClientConfig": {"dbName": "d"}}}},
            }],
        },
        "status": {"reportCycle": 5, "twins": []},
    });
    let device: api::devices::Device = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(device.spec.properties[0].desired.as_ref().unwrap().value, "21");
    assert_eq!(serde_json::to_value(&device).unwrap(), text);
    let made = api::devices::Device::default();
    assert_eq!(
        serde_json::to_value(&made).unwrap()["apiVersion"],
        "devices.kubeedge.io/v1beta1",
        "an object made here says what it is"
    );
}
