//! Documents: YAML that is none, fields nobody knows, devices that cannot be, more than may be sent.

use kubeedge_tests::{Site, skipped};

use crate::{config_map, runs_a_pod};

#[test]
fn what_cannot_be_applied_is_refused_with_the_field_and_the_rest_of_the_file_is_applied() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let refused = |document: &str| site.apply(document).unwrap_err();
    let broken = refused("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [}\n");
    assert!(broken.contains("line") || broken.contains("yaml"), "{broken}");
    let unknown = refused("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dtaa: {b: c}}");
    assert!(unknown.contains("dtaa"), "{unknown}");
    let kind = refused("{apiVersion: example.org/v1, kind: Nothing, metadata: {name: a}}");
    assert!(kind.contains("Nothing") && kind.contains("example.org/v1"), "{kind}");
    let name = refused("{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_A_Name}}");
    assert!(name.contains("metadata.name"), "{name}");
    let empty = refused("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}");
    assert!(empty.contains("containers"), "{empty}");

    let mixed = format!(
        "{}\n---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: Bad_}}}}\n---\n{}",
        config_map("one", "1"),
        config_map("two", "2")
    );
    let said = refused(&mixed);
    assert!(said.contains("Bad_"), "{said}");
    assert_eq!(site.object("configmap", "one")["data"]["value"], "1");
    assert_eq!(site.object("configmap", "two")["data"]["value"], "2");

    let huge = site.folder().join("huge.yaml");
    std::fs::write(&huge, format!("---\n{}", config_map("huge", &"x".repeat(4 << 20)))).unwrap();
    let said = site.try_kubectl(&["create", "-f", &huge.display().to_string()]).unwrap_err();
    assert!(said.contains("too large") && said.contains("3145728"), "{said}");
    assert!(site.try_kubectl(&["get", "configmap", "huge"]).unwrap_err().contains("NotFound"));
    runs_a_pod(&site, "after");
}

fn device(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {{name: {name}}}, spec: {{nodeName: edge-1, {spec}}}}}"
    )
}

const MODEL: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: pump}, spec: {protocol: modbus, properties: [{name: speed, type: INT, accessMode: ReadWrite}]}}";

#[test]
fn a_device_that_cannot_be_is_refused_or_says_so_on_its_event_and_the_others_work() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&["--demo"]);
    let refused = |spec: &str| site.apply(&device("bad", spec)).unwrap_err();
    let text = refused("deviceModelRef: {name: pump}, protocol: {protocolName: 7}");
    assert!(text.contains("spec.protocol.protocolName"), "{text}");
    let text = refused("deviceModelRef: {name: pump}, properties: [{name: speed, colectCycle: 5}]");
    assert!(text.contains("colectCycle"), "{text}");
    site.apply(MODEL).unwrap();
    site.apply(&device("orphan", "deviceModelRef: {name: none}, protocol: {protocolName: modbus}")).unwrap();
    site.until(&["describe", "device", "orphan"], |said| said.contains("UnknownDeviceModel"));
    // Nobody speaks this protocol here, and the address of this one is no address.
    site.apply(&device("mute", "deviceModelRef: {name: pump}, protocol: {protocolName: smoke-signals}"))
        .unwrap();
    let wrong = "deviceModelRef: {name: pump}, protocol: {protocolName: modbus, configData: {ip: '::nowhere::', port: 99999999}}, properties: [{name: speed, visitors: {protocolName: modbus, configData: {register: NoSuchRegister, offset: -5}}}]";
    site.apply(&device("wrong", wrong)).unwrap();
    let folder = site.quickstart().join("40-device.yaml").display().to_string();
    site.kubectl(&["apply", "-f", &folder]);
    let state = ["get", "devicestatus", "boiler", "-o", "jsonpath={.status.state}"];
    site.until(&state, |said| said == "online");
    let log = site.said();
    assert!(log.contains("smoke-signals"), "nobody is told of the protocol:\n{log}");
    assert!(log.contains("default/wrong") || log.contains("wrong"), "nobody is told of the address:\n{log}");
    for gone in ["orphan", "mute", "wrong"] {
        site.kubectl(&["delete", "device", gone, "--timeout=60s"]);
    }
    runs_a_pod(&site, "after");
}
