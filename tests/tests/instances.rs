//! Several cloudcores on one cluster, as processes: any of them serves any node, and one that is killed loses
//! nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::time::{Duration, Instant};

use kubeedge_tests::{Cloud, Edge, Kubectl, PATIENCE, free_port, skipped, until};

fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: localhost/host\n    command: [sh, -c, \"echo hello; exec sleep 100000\"]\n"
    )
}

/// The process of the cloudcore a node is connected to.
fn instance(kubectl: &Kubectl, node: &str) -> String {
    let annotations = &kubectl.object("node", node)["metadata"]["annotations"];
    assert!(annotations["cloudcore"].is_string(), "{annotations}");
    annotations["kubeedge.io/cloudcore-instance"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn nodes_of_a_killed_cloudcore_are_soon_with_another_and_nothing_is_lost() {
    if skipped(&["kubectl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (first, kubectl) = Cloud::embedded(folder.path());
    let mut second = Cloud::another(folder.path(), &kubectl.kubeconfig(), "cloudcore-2");
    let broker =
        || format!("  eventBus: {{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port());
    let mut one = Edge::join_any(&kubectl, &[&second, &first], "far-1", &broker());
    let mut two = Edge::join_any(&kubectl, &[&first, &second], "far-2", &broker());
    for node in ["far-1", "far-2"] {
        kubectl.apply(&pod(&format!("kept-{node}"), node)).unwrap();
        kubectl.apply(&pod(&format!("lost-{node}"), node)).unwrap();
    }
    kubectl.kubectl(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"]);
    let before = instance(&kubectl, "far-1");
    assert_ne!(before, instance(&kubectl, "far-2"), "each node is with the cloudcore it names first");
    let ports = ["get", "configmap", "tunnelport", "-nkubeedge", "-ojson"];
    let ports: serde_json::Value = serde_json::from_str(&kubectl.kubectl(&ports)).unwrap();
    let ports = ports["metadata"]["annotations"]["tunnelportrecord.kubeedge.io"].as_str().unwrap().to_owned();
    assert!(ports.contains("\"port\":{\"10351\":true}"), "{ports}");

    second.kill();
    let killed = Instant::now();
    // What is wished for meanwhile.
    kubectl.kubectl(&["delete", "pod", "lost-far-1", "lost-far-2", "--wait=false"]);
    kubectl.apply(&pod("new-far-1", "far-1")).unwrap();
    until("far-1 with the other cloudcore", Duration::from_secs(20), || match instance(&kubectl, "far-1") {
        now if now != before => Ok(()),
        now => Err(now),
    });
    println!("far-1 was with the other cloudcore after {:?}", killed.elapsed());
    kubectl.kubectl(&["wait", "--for=condition=Ready", "pod/new-far-1", "--timeout=60s"]);
    until("the deleted pods to be gone", PATIENCE, || {
        let pods = kubectl.try_kubectl(&["get", "pods"])?;
        if pods.contains("lost-") { Err(pods) } else { Ok(()) }
    });
    // Its tunnel has moved with it.
    kubectl.until(&["logs", "new-far-1"], |said| said == "hello\n");
    kubectl.until(&["logs", "kept-far-1"], |said| said == "hello\n");

    second.start_again();
    kubectl.apply(&pod("newer-far-1", "far-1")).unwrap();
    kubectl.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/newer-far-1",
        "pod/kept-far-1",
        "pod/kept-far-2",
        "--timeout=60s",
    ]);
    for pod in ["kept-far-1", "kept-far-2"] {
        assert_eq!(kubectl.object("pod", pod)["status"]["containerStatuses"][0]["restartCount"], 0);
    }
    assert!(
        !one.said().contains("another cloudcore") && !second.said().contains("node connected"),
        "far-1 went back"
    );
    one.power_cut();
    two.power_cut();
    drop(first);
}
