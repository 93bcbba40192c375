//! The cloudcore binary, run as users run it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use kubeedge_cloud::apiserver::{LocalCluster, LocalSettings};
use kubeedge_core::{kernel::Shutdown, pki::Names};
use kubeedge_store::MemoryStore;

fn cloudcore() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cloudcore"))
}

fn run(args: &[&str]) -> Output {
    cloudcore().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = cloudcore()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
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

/// A port nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Kubernetes API over TLS, and a kubeconfig for it.
async fn cluster(kubeconfig: &Path, shutdown: Shutdown) {
    let settings = LocalSettings { address: ([127, 0, 0, 1], 0).into(), names: Names::default() };
    let cluster = LocalCluster::open(Arc::new(MemoryStore::default()), settings).await.unwrap();
    std::fs::write(kubeconfig, cluster.kubeconfig()).unwrap();
    tokio::spawn(cluster.run(shutdown));
}

/// Ends the process whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
    let started = cloudcore()
        .args(["--log-format", "json", "--config", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn();
    let mut cloudcore = Running(started.unwrap());
    let (lines, log) = mpsc::channel();
    let errors = BufReader::new(cloudcore.0.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let mut seen = Vec::new();
    let up = tokio::task::block_in_place(|| {
        while let Ok(line) = log.recv_timeout(Duration::from_secs(120)) {
            let ready = line.contains("edges can join and connect");
            seen.push(line);
            if ready {
                return true;
            }
        }
        false
    });
    assert!(up, "{seen:#?}");
    assert!(seen.iter().all(|line| line.starts_with('{')), "{seen:#?}");
    assert!(seen.iter().any(|line| line.contains("modules.dynamicController.enable")), "{seen:#?}");
    for port in [hub, https, tunnel] {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    let pid = cloudcore.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let status = tokio::task::block_in_place(|| cloudcore.0.wait().unwrap());
    let rest: Vec<_> = log.iter().collect();
    assert_eq!(status.code(), Some(0), "{rest:#?}");
    shutdown.request();
}
