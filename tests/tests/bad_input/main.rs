//! Bad input, as users and networks give it: each gets one clear error at the right place, and the rest goes
//! on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod data;
mod frames;
mod join;
mod mqtt;
mod objects;
mod ports;

use std::{path::Path, process::Command};

use kubeedge_tests::{Site, binary, run};

/// Starts an edgesite that must refuse to start; what it says on stderr without its log.
fn refused(data: &Path, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("100").arg(binary("edgesite")).args(["--log-level", "off", "--data-dir"]).arg(data);
    let ended = run(command.args(args));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "more than one error:\n{said}");
    said
}

/// A ConfigMap as a document.
fn config_map(name: &str, value: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{value: '{value}'}}}}")
}

/// Takes a new pod to Running: the whole way from kubectl over cloud and link to the node and back works.
fn runs_a_pod(site: &Site, name: &str) {
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: localhost/host, command: [sleep, '100001']}}]}}}}"
    );
    site.apply(&pod).unwrap();
    site.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}
