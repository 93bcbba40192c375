//! Story 3: devices, from the PLC to kubectl and MQTT and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use kubeedge_tests::{PATIENCE, Pymodbus, Site, publish, skipped, subscribe, until};
use serde_json::Value;

/// The reported value of a property, as `kubectl get devicestatus` tells it.
fn reported(site: &Site, device: &str, property: &str) -> Option<String> {
    let status = site.try_kubectl(&["get", "devicestatus", device, "-o", "json"]).ok()?;
    let status: Value = serde_json::from_str(&status).ok()?;
    let twins = status["status"]["twins"].as_array()?.clone();
    let twin = twins.into_iter().find(|twin| twin["propertyName"] == property)?;
    twin["reported"]["value"].as_str().map(str::to_owned)
}

fn until_reported(site: &Site, device: &str, property: &str, wanted: impl Fn(f64) -> bool) -> f64 {
    until(&format!("{property} of {device}"), PATIENCE, || {
        let value = reported(site, device, property).ok_or("nothing reported")?;
        let number: f64 = value.parse().map_err(|_| value.clone())?;
        if wanted(number) { Ok(number) } else { Err(value) }
    })
}

#[test]
fn the_quickstarts_boiler_is_seen_and_steered_by_kubectl_and_mqtt_alike() {
    if skipped(&["kubectl", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let site = Site::start(&["--demo"]);
    let broker = site.address("MQTT broker");
    let watched = subscribe(broker, "$hw/events/device/default/boiler/twin/update/document");
    let folder = site.quickstart().join("40-device.yaml").display().to_string();
    site.kubectl(&["apply", "-f", &folder]);
    let devices = site.kubectl(&["get", "devices"]);
    assert!(devices.contains("boiler"), "{devices}");
    until_reported(&site, "boiler", "setpoint", |setpoint| setpoint == 60.0);
    let before = until_reported(&site, "boiler", "temperature", |_| true);
    let patch = r#"[{"op": "replace", "path": "/spec/properties/1/desired/value", "value": "85"}]"#;
    site.kubectl(&["patch", "device", "boiler", "--type", "json", "-p", patch]);
    until_reported(&site, "boiler", "setpoint", |setpoint| setpoint == 85.0);
    let after = until_reported(&site, "boiler", "temperature", |temperature| temperature > before + 1.0);
    watched.until_said("\"value\":\"85\"", PATIENCE);

    let answers = subscribe(broker, "$hw/events/device/default/boiler/twin/get/result");
    publish(broker, "$hw/events/device/default/boiler/twin/get", r#"{"event_id": "e1", "timestamp": 0}"#);
    let answer = answers.until_said("\"event_id\":\"e1\"", PATIENCE);
    let json: Value =
        serde_json::from_str(answer.lines().last().unwrap().split_once(' ').unwrap().1).unwrap();
    let seen: f64 = json["twin"]["temperature"]["actual"]["value"].as_str().unwrap().parse().unwrap();
    assert!((seen - after).abs() < 30.0 && seen > before, "MQTT says {seen}, kubectl {after}");
    let state = site.object("devicestatus", "boiler")["status"]["state"].clone();
    assert_eq!(state, "online");
    let refused = site.apply("{apiVersion: devices.kubeedge.io/v1beta1, kind: Device, metadata: {name: bad}, spec: {nodeName: edge-1, deviceModelRef: {name: boiler}, protocol: {protocolName: 7}}}");
    let refused = refused.unwrap_err();
    assert!(refused.contains("spec.protocol.protocolName"), "{refused}");
}

/// A device on pymodbus with one register to read and one to write.
fn meter(port: u16) -> String {
    format!(
        r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {{name: meter}}
spec:
  protocol: modbus
  properties:
  - {{name: level, type: INT, accessMode: ReadOnly}}
  - {{name: valve, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "100"}}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: meter}}
spec:
  deviceModelRef: {{name: meter}}
  nodeName: edge-1
  protocol: {{protocolName: modbus, configData: {{ip: 127.0.0.1, port: {port}, slaveID: 1}}}}
  properties:
  - name: level
    collectCycle: 200
    reportCycle: 200
    reportToCloud: true
    visitors: {{protocolName: modbus, configData: {{register: HoldingRegister, offset: 3, limit: 1}}}}
  - name: valve
    collectCycle: 200
    reportCycle: 200
    reportToCloud: true
    desired: {{value: "17"}}
    visitors: {{protocolName: modbus, configData: {{register: HoldingRegister, offset: 4, limit: 1}}}}
"#
    )
}

#[test]
fn a_plc_of_pymodbus_is_followed_steered_missed_and_found_again() {
    if skipped(&["kubectl"]) {
        return;
    }
    let Some(plc) = Pymodbus::find() else { return };
    let server = plc.serve();
    let site = Site::start(&[]);
    site.apply(&meter(plc.port)).unwrap();
    until_reported(&site, "meter", "level", |level| level == 17.0);
    plc.write(3, 42);
    until_reported(&site, "meter", "level", |level| level == 42.0);
    let patch = r#"[{"op": "replace", "path": "/spec/properties/1/desired/value", "value": "55"}]"#;
    site.kubectl(&["patch", "device", "meter", "--type", "json", "-p", patch]);
    until("55 in the valve's register", PATIENCE, || match plc.read(4) {
        55 => Ok(()),
        other => Err(other.to_string()),
    });
    drop(server);
    let state = ["get", "devicestatus", "meter", "-o", "jsonpath={.status.state}"];
    site.until(&state, |state| !state.is_empty() && state != "online");
    let _server = plc.serve();
    site.until(&state, |state| state == "online");
    until("the valve's value written again", PATIENCE, || match plc.read(4) {
        55 => Ok(()),
        other => Err(other.to_string()),
    });
    site.kubectl(&["delete", "device", "meter"]);
    site.until(&["get", "devicestatus"], |said| !said.contains("meter"));
}
