//! The edgecore binary, run as users run it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod site;
mod uploads;

use std::process::{Command, Output};

use kubeedge_tests::{free_port, text};

use self::site::{Cloud, Edge};

fn edgecore() -> Command {
    Command::new(env!("CARGO_BIN_EXE_edgecore"))
}

fn run(args: &[&str]) -> Output {
    kubeedge_tests::run(edgecore().args(args))
}

fn with_input(args: &[&str], input: &[u8]) -> Output {
    kubeedge_tests::run_with_input(edgecore().args(args), input)
}

#[test]
fn what_is_printed_can_be_read_again() {
    kubeedge_tests::reads_what_it_prints(env!("CARGO_BIN_EXE_edgecore"));
}

#[test]
fn help_shows_examples_and_the_version_is_printed_without_starting() {
    let help = text(&run(&["--help"]).stdout);
    for part in ["Examples:", "--runtime process", "/etc/kubeedge/config/edgecore.yaml", "Exit codes:"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let version = run(&["--version"]);
    assert_eq!(text(&version.stdout), format!("edgecore v{} (KubeEdge)\n", env!("CARGO_PKG_VERSION")));
    assert!(version.status.success());
}

#[test]
fn a_bad_configuration_ends_with_78_and_one_clear_error() {
    for (yaml, error) in [
        (
            "modules:\n  eventBus: {mqttMode: 7}\n",
            "error: standard input: line 2, column 14: modules.eventBus.mqttMode: \
             is 7, must be 0 (internal broker), 1 (both) or 2 (external broker)\n",
        ),
        (
            "modules: {eventBus: {eventBusTLS: {enable: true}}}\n",
            "error: modules.eventBus.eventBusTLS.enable: is true, and MQTT over TLS is not spoken yet: \
             set it to false, with a broker on this host\n",
        ),
    ] {
        let ended = with_input(&["--config", "-"], yaml.as_bytes());
        assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(78), error));
    }
    let folder = tempfile::tempdir().unwrap();
    let yaml =
        b"modules: {edged: {tailoredKubeletConfig: {containerRuntimeEndpoint: 'tcp://127.0.0.1:1'}}}\n";
    let ended = with_input(&["--data-dir", folder.path().to_str().unwrap(), "--config", "-"], yaml);
    assert_eq!(ended.status.code(), Some(78), "{}", text(&ended.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_joins_registers_its_node_as_configured_and_ends_in_order() {
    let cloud = Cloud::start(|assembly| assembly).await;
    let event_bus = format!("{{mqttMode: 0, mqttServerInternal: 'tcp://127.0.0.1:{}'}}", free_port());
    let mut edge = Edge::join(&cloud, &event_bus);
    let node = cloud.ready_node().await;
    assert_eq!(node.metadata.labels.unwrap()["zone"], "a");
    assert_eq!(node.spec.unwrap().taints.unwrap()[0].key, "node.kubernetes.io/unschedulable");
    assert_eq!(node.status.unwrap().capacity.unwrap()["pods"].0, "7");
    for kept in ["edgecore.db", "certs/server.crt", "containers"] {
        assert!(edge.data().join(kept).exists(), "{kept}");
    }
    assert_eq!(tokio::task::block_in_place(|| edge.running.stop()), Some(0));
}
