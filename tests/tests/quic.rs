//! The link over QUIC, with cloudcore and edgecore as processes of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::UdpSocket;

use kubeedge_tests::{Cloud, Edge, PATIENCE, free_port, skipped, until};

fn internal_broker() -> String {
    format!("  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port())
}

/// Waits until the edge says that it is connected to this port of the cloud.
fn connected_to(edge: &Edge, port: u16) {
    until("the link of the edge", PATIENCE, || {
        let said = edge.said();
        let last = said.lines().rfind(|line| line.contains("connected to the cloud"));
        match last {
            Some(line) if line.contains(&format!("127.0.0.1:{port}")) => Ok(()),
            _ => Err(said),
        }
    });
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  nodeName: far-1
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: localhost/host, command: [sh, -c, 'echo hello; exec sleep 100000']}
";

#[test]
fn a_node_that_is_told_to_uses_quic_for_pods_and_websocket_for_logs() {
    if skipped(&["kubectl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut cloud, kubectl) = Cloud::embedded(folder.path());
    let (_, quic) = cloud.links();
    let links = format!("    quic: {{enable: true, server: '127.0.0.1:{quic}'}}");
    let mut edge = Edge::join_over(&kubectl, &cloud, "far-1", &links, &internal_broker());
    connected_to(&edge, quic);
    kubectl.apply(POD).unwrap();
    kubectl.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
    kubectl.until(&["logs", "talker"], |said| said == "hello\n");
    cloud.stop();
    cloud.start_again();
    kubectl.until(&["get", "nodes"], |said| said.contains(" Ready "));
    kubectl.kubectl(&["delete", "pod", "talker", "--timeout=60s"]);
    edge.power_cut();
}

#[test]
fn a_node_whose_udp_is_swallowed_connects_over_websocket() {
    if skipped(&["kubectl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (cloud, kubectl) = Cloud::embedded(folder.path());
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    let links = format!("    quic: {{enable: true, server: '{}'}}", hole.local_addr().unwrap());
    let edge = Edge::join_over(&kubectl, &cloud, "far-1", &links, &internal_broker());
    connected_to(&edge, cloud.links().0);
    let said = edge.said();
    assert!(said.contains("the preferred way to the cloud is not taken"), "{said}");
    assert!(said.contains("no answer over UDP within 1.5s"), "{said}");
}
