//! Story 4 and 5: cloudcore and edgecore as processes of their own, and what goes on when the link is cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, time::Duration};

use kubeedge_tests::{
    Cloud, Edge, PATIENCE, Site, free_port, mosquitto, publish, sh, skipped, subscribe, until,
};

/// How soon both sides agree after a cut.
const AGREED: Duration = Duration::from_secs(30);

/// A pod of one shell on a node.
fn pod(name: &str, node: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: localhost/host\n    command: [sh, -c, \"{script}\"]\n"
    )
}

#[test]
fn cloudcore_and_edgecores_run_as_processes_with_gos_files_and_tell_which_keys_do_nothing() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let cloud = Cloud::start(site.folder(), &site.kubeconfig());
    assert!(cloud.said().contains("modules.router"), "{}", cloud.said());
    let internal =
        format!("  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port());
    let one = Edge::join(&site, &cloud, "far-1", &internal);
    let internal =
        format!("  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port());
    let two = Edge::join(&site, &cloud, "far-2", &internal);
    assert!(one.said().contains("modules.serviceBus"), "{}", one.said());
    for (edge, node) in [(&one, "far-1"), (&two, "far-2")] {
        site.apply(&pod(node, node, "echo I run on $HOSTNAME; exec sleep 100000")).unwrap();
        site.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{node}"), "--timeout=60s"]);
        let certificate = std::fs::read_to_string(edge.folder().join("certs/server.crt")).unwrap();
        assert!(certificate.contains("BEGIN CERTIFICATE"), "{certificate}");
    }
    let nodes = site.kubectl(&["get", "nodes"]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    site.kubectl(&["delete", "pod", "far-1", "far-2", "--timeout=60s"]);
}

#[test]
fn cloudcore_brings_a_cluster_of_its_own_and_logs_and_commands_come_from_afar() {
    if skipped(&["kubectl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut cloud, kubectl) = Cloud::embedded(folder.path());
    let internal =
        format!("  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port());
    let mut edge = Edge::join(&kubectl, &cloud, "far-1", &internal);
    kubectl.apply(&pod("talker", "far-1", "echo hello; exec sleep 100000")).unwrap();
    kubectl.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
    kubectl.until(&["logs", "talker"], |said| said == "hello\n");
    let said = kubectl.kubectl(&["exec", "talker", "--", "sh", "-c", "echo from $HOSTNAME"]);
    assert!(said.starts_with("from talker"), "{said}");
    cloud.stop();
    cloud.start_again();
    kubectl.until(&["get", "nodes"], |said| said.contains(" Ready "));
    kubectl.until(&["logs", "talker"], |said| said == "hello\n");
    kubectl.kubectl(&["delete", "pod", "talker", "--timeout=60s"]);
    edge.power_cut();
}

const DEVICE: &str = r#"
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: cell}
spec:
  protocol: simulated
  properties: [{name: level, type: INT, accessMode: ReadWrite}]
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: cell}
spec:
  deviceModelRef: {name: cell}
  nodeName: far-1
  protocol: {protocolName: simulated, configData: {}}
  properties:
  - name: level
    collectCycle: 200
    reportCycle: 200
    reportToCloud: true
    desired: {value: "5"}
    visitors: {protocolName: simulated, configData: {signal: memory, cell: level, value: 1}}
"#;

fn level(site: &Site, wanted: &str, within: Duration) {
    let path = ["get", "devicestatus", "cell", "-o", "jsonpath={.status.twins[0].reported.value}"];
    until("the level in devicestatus", within, || match site.try_kubectl(&path)? {
        said if said == wanted => Ok(()),
        said => Err(said),
    });
}

fn processes(pattern: &str, folder: &Path) -> usize {
    sh(&format!("pgrep -fc '{pattern}' || true"), folder, &[]).trim().parse().unwrap()
}

fn restarts(site: &Site, pod: &str) -> i64 {
    site.object("pod", pod)["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(-1)
}

#[test]
fn a_cut_link_stops_nothing_and_both_sides_agree_soon_after_it() {
    if skipped(&["kubectl", "mosquitto", "mosquitto_sub", "mosquitto_pub"]) {
        return;
    }
    let site = Site::start(&[]);
    let (_broker, broker) = mosquitto(site.folder());
    let mut cloud = Cloud::start(site.folder(), &site.kubeconfig());
    let external = format!("  eventBus: {{mqttMode: 2, mqttServerExternal: 'tcp://{broker}'}}");
    let mut edge = Edge::join(&site, &cloud, "far-1", &external);
    let crash = site.folder().join("crash");
    let crasher = format!("while [ ! -e {0} ]; do sleep 0.1; done; rm {0}; exit 1", crash.display());
    for (name, script) in
        [("steady", "exec sleep 111111"), ("goner", "exec sleep 222222"), ("crasher", &*crasher)]
    {
        site.apply(&pod(name, "far-1", script)).unwrap();
    }
    site.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/steady",
        "pod/goner",
        "pod/crasher",
        "--timeout=60s",
    ]);
    site.apply(DEVICE).unwrap();
    level(&site, "5", PATIENCE);

    cloud.stop();
    std::fs::write(&crash, "").unwrap();
    let logs = edge.folder().join("logs");
    until("the crashed container's second run", PATIENCE, || {
        let found = sh("ls */c/1.log 2>/dev/null || true", &logs, &[]);
        if found.contains("crasher") { Ok(()) } else { Err(found) }
    });
    let answers = subscribe(broker, "$hw/events/device/default/cell/twin/get/result");
    let ask = |id: &str| {
        let question = format!("{{\"event_id\": \"{id}\", \"timestamp\": 0}}");
        until("a twin on MQTT without a cloud", PATIENCE, || {
            publish(broker, "$hw/events/device/default/cell/twin/get", &question);
            std::thread::sleep(Duration::from_millis(200));
            let said = answers.said();
            if said.contains(&format!("\"event_id\":\"{id}\"")) { Ok(said) } else { Err(said) }
        })
    };
    assert!(ask("before").contains("\"value\":\"5\""));
    edge.stop();
    assert_eq!(processes("[s]leep 111111", site.folder()), 1, "a stopped edgecore took its pods along");
    edge.start_again();
    ask("after a restart");
    edge.power_cut();
    assert_eq!(processes("[s]leep 111111", site.folder()), 0);
    edge.start_again();
    until("the pods back from the store", PATIENCE, || match processes("[s]leep 111111", site.folder()) {
        1 => Ok(()),
        other => Err(format!("{other} processes")),
    });
    ask("after a power cut");

    // What users wish for meanwhile waits for the link.
    site.apply(&pod("newcomer", "far-1", "exec sleep 333333")).unwrap();
    site.kubectl(&["delete", "pod", "goner", "--wait=false"]);
    let patch = r#"[{"op": "replace", "path": "/spec/properties/0/desired/value", "value": "9"}]"#;
    site.kubectl(&["patch", "device", "cell", "--type", "json", "-p", patch]);
    assert_eq!(processes("[s]leep 222222", site.folder()), 1);
    cloud.start_again();
    agree(&site);
    assert!(edge.said().contains("connected to the cloud"), "{}", edge.said());
}

fn agree(site: &Site) {
    until("agreement after the cut", AGREED, || {
        let pods = site.try_kubectl(&["get", "pods"])?;
        let running = ["steady", "crasher", "newcomer"].iter().all(|name| {
            pods.lines()
                .any(|line| line.starts_with(name) && line.contains("1/1") && line.contains("Running"))
        });
        if running && !pods.contains("goner") { Ok(()) } else { Err(pods) }
    });
    level(site, "9", AGREED);
    assert!(restarts(site, "crasher") >= 1);
    for (pattern, count) in [("[s]leep 111111", 1), ("[s]leep 222222", 0), ("[s]leep 333333", 1)] {
        assert_eq!(processes(pattern, site.folder()), count, "{pattern}");
    }
}
