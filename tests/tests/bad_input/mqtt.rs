//! MQTT: garbage of apps and mappers.

use kubeedge_tests::{PATIENCE, Site, publish, skipped, subscribe};
use serde_json::Value;

use crate::runs_a_pod;

const DEVICE: &str = "$hw/events/device/default/boiler";

#[test]
fn garbage_on_device_topics_is_answered_with_what_is_wrong_and_twins_go_on() {
    if skipped(&["kubectl", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let site = Site::start(&["--demo"]);
    let broker = site.address("MQTT broker");
    let device = site.quickstart().join("40-device.yaml").display().to_string();
    site.kubectl(&["apply", "-f", &device]);
    let reported = ["get", "devicestatus", "boiler", "-o", "jsonpath={.status.twins[*].reported.value}"];
    site.until(&reported, |said| !said.is_empty());

    let results = subscribe(broker, &format!("{DEVICE}/twin/update/result"));
    for payload in ["this is no JSON", "[]", "{}", "{\"twin\": 7}", "{\"twin\": {\"temperature\": \"hot\"}}"]
    {
        publish(broker, &format!("{DEVICE}/twin/update"), payload);
    }
    let said = results.until_said("\"code\":400", PATIENCE);
    assert!(said.contains("\"reason\":\""), "{said}");
    let unknown = subscribe(broker, "$hw/events/device/default/ghost/twin/update/result");
    let update = r#"{"event_id": "e7", "timestamp": 1, "twin": {"temperature": {"actual": {"value": "1"}}}}"#;
    publish(broker, "$hw/events/device/default/ghost/twin/update", update);
    let said = unknown.until_said("\"code\":404", PATIENCE);
    assert!(said.contains("e7"), "{said}");
    let gets = subscribe(broker, &format!("{DEVICE}/twin/get/result"));
    publish(broker, &format!("{DEVICE}/twin/get"), "\u{1}no");
    gets.until_said("\"code\":400", PATIENCE);

    for (topic, payload) in [
        ("$hw/events/device/default/boiler/state/update", "no state"),
        ("$hw/events/device/default/boiler/state/update", "{\"state\": 7}"),
        ("$hw/events/device/../../etc/twin/update", "{}"),
        ("$hw/events/device/boiler/twin/update", "{}"),
        ("$hw/events/device//boiler/twin/update", "{}"),
        ("$hw/events/node/edge-1/membership/get", "]["),
        ("$hw/events/upload/x", "💥"),
        ("SYS/dis/upload_records", "{"),
        ("any/user/topic", "{"),
        ("nothing/anybody/reads", "x"),
    ] {
        publish(broker, topic, payload);
    }
    publish(
        broker,
        &format!("{DEVICE}/twin/update"),
        &format!("{{\"twin\": {{\"{}\": {{}}}}}}", "x".repeat(100_000)),
    );
    still_steered(&site, broker);
    runs_a_pod(&site, "after");
    assert!(!site.said().contains("panicked"), "{}", site.said());
}

/// Apps still read twins, and kubectl still steers the device.
fn still_steered(site: &Site, broker: std::net::SocketAddr) {
    let gets = subscribe(broker, &format!("{DEVICE}/twin/get/result"));
    publish(broker, &format!("{DEVICE}/twin/get"), r#"{"event_id": "good", "timestamp": 0}"#);
    let answer = gets.until_said("\"event_id\":\"good\"", PATIENCE);
    let line = answer.lines().find(|line| line.contains("\"good\"")).unwrap();
    let twins: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
    assert!(twins["twin"]["temperature"]["actual"]["value"].is_string(), "{twins}");
    let patch = r#"[{"op": "replace", "path": "/spec/properties/1/desired/value", "value": "77"}]"#;
    site.kubectl(&["patch", "device", "boiler", "--type", "json", "-p", patch]);
    let setpoint = "jsonpath={.status.twins[?(@.propertyName=='setpoint')].reported.value}";
    site.until(&["get", "devicestatus", "boiler", "-o", setpoint], |said| said.trim() == "77");
}
