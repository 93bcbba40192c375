//! The cloudcore binary, run as users run it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use kubeedge_apiserver::{LocalCluster, LocalSettings};
use kubeedge_core::kernel::Shutdown;
use kubeedge_store::MemoryStore;
use kubeedge_tests::{Background, PATIENCE, free_port, text};

fn cloudcore() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cloudcore"))
}

fn run(args: &[&str]) -> Output {
    kubeedge_tests::run(cloudcore().args(args))
}

fn with_input(args: &[&str], input: &[u8]) -> Output {
    kubeedge_tests::run_with_input(cloudcore().args(args), input)
}

#[test]
fn what_is_printed_can_be_read_again() {
    kubeedge_tests::reads_what_it_prints(env!("CARGO_BIN_EXE_cloudcore"));
}

#[test]
fn help_shows_examples_the_default_path_and_the_exit_codes() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for part in [
        "Examples:",
        "--minconfig > cloudcore.yaml",
        "/etc/kubeedge/config/cloudcore.yaml",
        "Exit codes:",
        "78",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn the_version_and_completions_are_printed() {
    let version = text(&run(&["--version"]).stdout);
    assert_eq!(version, format!("cloudcore v{} (KubeEdge)\n", env!("CARGO_PKG_VERSION")));
    let script = text(&run(&["--completion", "bash"]).stdout);
    assert!(script.contains("--defaultconfig") && script.contains("cloudcore"), "{script}");
}

#[test]
fn a_bad_configuration_ends_with_78_and_one_clear_error() {
    let yaml = b"modules:\n  cloudHub:\n    nodeLimit: many\n    https: {port: 0}\n";
    let ended = with_input(&["--config", "-"], yaml);
    assert_eq!((ended.status.code(), text(&ended.stdout).as_str()), (Some(78), ""));
    assert_eq!(
        text(&ended.stderr),
        "error: standard input: 2 problems\n  \
         line 3, column 16: modules.cloudHub.nodeLimit: is the text \"many\", must be a whole number, 0 or more\n  \
         line 4, column 13: modules.cloudHub.https.port: is 0, must be a port from 1 to 65535\n"
    );
    let missing = run(&["--config", "/nowhere/cloudcore.yaml"]);
    assert_eq!(missing.status.code(), Some(78));
    let error = text(&missing.stderr);
    assert!(error.contains("/nowhere/cloudcore.yaml") && error.lines().count() == 1, "{error}");
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    let elsewhere = with_input(&["--config", "-"], b"kubeAPIConfig: {kubeConfig: /etc/hostname}\n");
    assert_eq!(elsewhere.status.code(), Some(78), "{}", text(&elsewhere.stderr));
    assert!(text(&elsewhere.stderr).contains("kubeAPIConfig.kubeConfig"), "{}", text(&elsewhere.stderr));
}

#[test]
fn check_names_what_is_unknown_and_what_is_not_acted_on() {
    let yaml = b"modules:\n  router: {enable: true}\n  cloudHb: {}\n";
    let checked = with_input(&["--check", "--config", "-"], yaml);
    assert_eq!(
        text(&checked.stdout),
        "warning: line 3, column 3: modules.cloudHb: no such key, it is ignored; did you mean cloudHub?\n\
         warning: modules.router.enable: set, and not acted on yet\n\
         the configuration can be used\n"
    );
}

/// A Kubernetes API over TLS, and a kubeconfig for it.
async fn cluster(kubeconfig: &Path, shutdown: Shutdown) {
    let settings = LocalSettings::at(([127, 0, 0, 1], 0).into());
    let cluster = LocalCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
    std::fs::write(kubeconfig, cluster.kubeconfig()).unwrap();
    tokio::spawn(cluster.run(shutdown));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_edges_on_the_cluster_of_its_kubeconfig_and_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (kubeconfig, file) = (folder.path().join("kubeconfig"), folder.path().join("cloudcore.yaml"));
    let shutdown = Shutdown::new();
    cluster(&kubeconfig, shutdown.clone()).await;
    let (hub, https, tunnel) = (free_port(), free_port(), free_port());
    let yaml = format!(
        "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\nkubeAPIConfig: {{kubeConfig: {}}}\n\
         modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1]\n    websocket: {{address: 127.0.0.1, port: {hub}}}\n    \
         https: {{address: 127.0.0.1, port: {https}}}\n  cloudStream: {{enable: true, tunnelPort: {tunnel}}}\n  \
         dynamicController: {{enable: true}}\n",
        kubeconfig.display()
    );
    std::fs::write(&file, yaml).unwrap();
    let mut command = cloudcore();
    command.args(["--log-format", "json", "--config"]).arg(&file);
    let code = tokio::task::block_in_place(|| {
        let mut cloudcore = Background::start(&mut command);
        let said = cloudcore.until_said("edges can join and connect", PATIENCE);
        assert!(said.lines().all(|line| line.starts_with('{')), "{said}");
        assert!(said.contains("modules.dynamicController.enable"), "{said}");
        for port in [hub, https, tunnel] {
            TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
        cloudcore.stop()
    });
    assert_eq!(code, Some(0));
    shutdown.request();
}
