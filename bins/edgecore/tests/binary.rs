//! The edgecore binary, run as users run it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kubeedge_cloud::{
    apiserver::{EmbeddedCluster, LocalCluster, LocalSettings},
    cluster::client,
    core::{CloudCore, CloudCoreSettings, CloudStatus},
};
use kubeedge_core::{cluster::Actor, kernel::Shutdown, transport::Endpoint};
use kubeedge_store::MemoryStore;
use kubeedge_tests::{Background, PATIENCE, free_port, text};
use kubeedge_transport::WebSocket;

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
    for flag in ["--defaultconfig", "--minconfig"] {
        let printed = run(&[flag]);
        assert!(printed.status.success() && printed.stderr.is_empty(), "{flag}");
        let checked = with_input(&["--check", "--config", "-"], &printed.stdout);
        assert_eq!(text(&checked.stdout), "the configuration can be used\n", "{flag}");
        assert!(checked.status.success() && checked.stderr.is_empty(), "{flag}");
    }
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

/// A cloud in this process.
async fn cloud(shutdown: &Shutdown) -> (EmbeddedCluster, CloudStatus) {
    let settings = LocalSettings { address: ([127, 0, 0, 1], 0).into(), ..LocalSettings::default() };
    let local = LocalCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
    let cluster = local.cluster().clone();
    let mut settings =
        CloudCoreSettings { listen: Endpoint::from("127.0.0.1:0"), ..CloudCoreSettings::default() };
    settings.certs.listen = ([127, 0, 0, 1], 0).into();
    settings.certs.names = vec!["127.0.0.1".to_owned()];
    let core = CloudCore::assemble(settings, Arc::new(WebSocket::default()), Arc::new(cluster.clone()));
    let core = core.build().await.unwrap();
    let status = core.status();
    tokio::spawn(local.run(shutdown.clone()));
    let stop = shutdown.clone();
    tokio::spawn(core.run(async move { stop.requested().await }));
    status.ready().await;
    (cluster, status)
}

async fn ready(cluster: &EmbeddedCluster, name: &str) -> Node {
    let nodes = Api::<Node>::all(client(cluster, &Actor::Ourselves));
    let found = async {
        loop {
            let node = nodes.get_opt(name).await.unwrap();
            let status = node.clone().and_then(|node| node.status?.conditions).unwrap_or_default();
            if status.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return node.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the node is not ready")
}

fn edgecore_yaml(cloud: &CloudStatus, broker: u16, token: &str, file: &Path) {
    let hub = cloud.hub.borrow().first().unwrap().authority().to_owned();
    let https = cloud.https.borrow().unwrap();
    let yaml = format!(
        "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\nmodules:\n  edgeHub:\n    \
         httpServer: https://{https}\n    token: {token}\n    websocket: {{server: {hub}}}\n  eventBus: {{mqttMode: 0, \
         mqttServerInternal: 'tcp://127.0.0.1:{broker}'}}\n  edged:\n    hostnameOverride: edge-7\n    nodeLabels: {{zone: a}}\n    \
         registerSchedulable: false\n    tailoredKubeletConfig: {{maxPods: 7}}\n"
    );
    std::fs::write(file, yaml).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_joins_registers_its_node_as_configured_and_ends_in_order() {
    let (folder, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
    let (cluster, status) = cloud(&shutdown).await;
    let token = status.token.clone().wait_for(|token| !token.is_empty()).await.unwrap().clone();
    let (file, data) = (folder.path().join("edgecore.yaml"), folder.path().join("data"));
    edgecore_yaml(&status, free_port(), &token, &file);
    let mut command = edgecore();
    command.args(["--runtime", "process", "--data-dir"]).arg(&data).arg("--config").arg(&file);
    let mut edgecore = Background::start(&mut command);
    let node = ready(&cluster, "edge-7").await;
    assert_eq!(node.metadata.labels.unwrap()["zone"], "a");
    assert_eq!(node.spec.unwrap().taints.unwrap()[0].key, "node.kubernetes.io/unschedulable");
    assert_eq!(node.status.unwrap().capacity.unwrap()["pods"].0, "7");
    for kept in ["edgecore.db", "certs/server.crt", "containers"] {
        assert!(data.join(kept).exists(), "{kept}");
    }
    assert_eq!(tokio::task::block_in_place(|| edgecore.stop()), Some(0));
    shutdown.request();
}
