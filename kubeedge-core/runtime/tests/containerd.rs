//! The CRI runtime against a real containerd: what a pod's containers live through.
#![cfg(feature = "cri")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "helpers of a test")]

#[path = "common/containerd.rs"]
mod containerd;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use kubeedge_core::runtime::{
    Attach, Container, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, Dns, Exec, ExecSpec,
    ImageRef, Labels, Mount, Output, PortForward, PortMapping, Resources, RuntimeKind, SandboxId,
    SandboxSpec, Security, Streams, TerminalSize,
};
use kubeedge_runtime::cri::{CriRuntime, CriSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use containerd::{BUSYBOX, Containerd, USER_1000};

const PATIENCE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(10);

struct Node {
    containerd: Containerd,
    runtime: CriRuntime,
}

impl Node {
    fn start() -> Option<Self> {
        let containerd = Containerd::start()?;
        let runtime = connect(&containerd);
        Some(Self { containerd, runtime })
    }

    fn pod(&self, name: &str) -> SandboxSpec {
        SandboxSpec::new(name, "default", format!("uid-of-{name}"))
            .hostname(name)
            .log_directory(self.containerd.folder().join("logs").join(name))
            .labels(labels(&[("io.kubernetes.pod.name", name), ("io.kubernetes.pod.uid", name)]))
            .annotations(labels(&[("note", "of the pod")]))
            .host_network(true)
    }

    async fn sandbox(&self, name: &str) -> SandboxId {
        self.runtime.run_sandbox(self.pod(name)).await.unwrap()
    }

    async fn run(&self, within: &SandboxId, spec: ContainerSpec) -> ContainerId {
        let id = self.runtime.create_container(within, spec).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    async fn container(&self, id: &ContainerId) -> Option<Container> {
        self.runtime.list_all().await.unwrap().1.into_iter().find(|container| container.id == *id)
    }

    async fn ended(&self, id: &ContainerId) -> ContainerState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.container(id).await.unwrap().state;
            if matches!(state, ContainerState::Exited { .. }) {
                return state;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {state:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a container has said exactly this.
    async fn says(&self, id: &ContainerId, text: &str) {
        let log = self.container(id).await.unwrap().log_path;
        let deadline = Instant::now() + PATIENCE;
        while said(&log) != text {
            assert!(Instant::now() < deadline, "{id} does not say {text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a container to its end and returns what it said and its exit code.
    async fn told(&self, within: &SandboxId, spec: ContainerSpec) -> (String, i32) {
        let id = self.run(within, spec).await;
        let code = self.ended(&id).await.exit_code().unwrap();
        let path = self.container(&id).await.unwrap().log_path;
        complete(&path).await;
        let log = said(&path);
        self.runtime.remove_container(&id).await.unwrap();
        fs::remove_file(path).unwrap();
        (log, code)
    }

    async fn exec(&self, id: &ContainerId, script: &str) -> (String, String, i32) {
        let what = ExecSpec::new(["sh", "-c", script]);
        finish(self.runtime.exec_stream(id, what).await.unwrap()).await
    }
}

fn connect(containerd: &Containerd) -> CriRuntime {
    CriRuntime::connect(CriSettings { endpoint: containerd.endpoint(), ..CriSettings::default() }).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A container that runs a script.
fn script(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec::new(name, BUSYBOX)
        .command(["sh", "-c", script])
        .labels(labels(&[("io.kubernetes.container.name", name)]))
        .annotations(labels(&[("hash", "1")]))
        .log_path(PathBuf::from(name).join("0.log"))
}

/// Waits until a log grows no more: it may be complete a little later than its container's end is known.
async fn complete(log: &Path) {
    let length = || fs::metadata(log).map_or(0, |file| file.len());
    let deadline = Instant::now() + PATIENCE;
    let mut before = 0;
    while length() == 0 || length() != before {
        assert!(Instant::now() < deadline, "{} stays empty or grows on", log.display());
        before = length();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a container wrote, without the log's marks.
fn said(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

async fn finish(mut exec: Streams) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(piece) = exec.output.try_next().await.unwrap() {
        match piece {
            Output::Stdout(bytes) => out.extend_from_slice(&bytes),
            Output::Stderr(bytes) => err.extend_from_slice(&bytes),
        }
    }
    let code = exec.exit.await.unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_lives_from_its_sandbox_to_its_removal() {
    let Some(node) = Node::start() else { return };
    let info = node.runtime.info().await.unwrap();
    assert_eq!((info.name.as_str(), info.ready, info.network_ready), ("containerd", true, true), "{info:?}");

    let sandbox = node.sandbox("life").await;
    let id = node.runtime.create_container(&sandbox, script("main", "echo begun; sleep 1000")).await.unwrap();
    assert_eq!(node.container(&id).await.unwrap().state, ContainerState::Created);
    node.runtime.start_container(&id).await.unwrap();
    node.says(&id, "begun").await;

    let (sandboxes, containers) = node.runtime.list_all().await.unwrap();
    let (listed, container) = (&sandboxes[0], &containers[0]);
    assert_eq!((sandboxes.len(), containers.len()), (1, 1));
    assert_eq!((&listed.id, listed.ready, listed.attempt), (&sandbox, true, 0));
    assert_eq!((&*listed.name, &*listed.namespace, &*listed.uid), ("life", "default", "uid-of-life"));
    let pod = node.pod("life");
    assert_eq!((&listed.labels, &listed.annotations), (&pod.labels, &pod.annotations));
    assert_eq!((&container.id, &container.sandbox, &*container.name), (&id, &sandbox, "main"));
    assert_eq!(container.image, ImageRef::from(BUSYBOX));
    assert_eq!(container.log_path, pod.log_directory.join("main/0.log"));
    assert!(container.state.is_running());
    let spec = script("main", "");
    assert_eq!((&container.labels, &container.annotations), (&spec.labels, &spec.annotations));
    assert!(container.created_at.0 > 0 && listed.created_at.0 > 0);

    node.runtime.remove_sandbox(&sandbox).await.unwrap();
    assert_eq!(node.runtime.list_all().await.unwrap(), (vec![], vec![]));
    assert_eq!(said(&container.log_path), "begun", "the log outlives the container");
    // Asked again for what is gone, all succeed.
    node.runtime.stop_container(&id, GRACE).await.unwrap();
    node.runtime.remove_container(&id).await.unwrap();
    node.runtime.stop_sandbox(&sandbox).await.unwrap();
    node.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_what_its_specification_says() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("spec").await;
    let shared = node.containerd.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "of the host").unwrap();

    let mut spec = script("env", "echo $FROM $LATER $HOSTNAME; pwd; echo out; echo err >&2");
    spec.env =
        [("LATER", "first"), ("LATER", "last"), ("FROM", "pod")].map(|(k, v)| (k.into(), v.into())).to_vec();
    spec.working_dir = "/tmp".to_owned();
    let id = node.run(&sandbox, spec).await;
    node.ended(&id).await;
    let log = node.container(&id).await.unwrap().log_path;
    complete(&log).await;
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().any(|line| line.ends_with(" stdout F out")), "{text}");
    assert!(text.lines().any(|line| line.ends_with(" stderr F err")), "{text}");
    assert!(text.lines().all(|line| line.get(..4).is_some_and(|year| year.parse::<u16>().is_ok())), "{text}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // Lines of the two outputs come in any order.
    for line in [format!("pod last {}", host.trim()), "/tmp".to_owned()] {
        assert!(text.lines().any(|said| said.ends_with(&format!(" stdout F {line}"))), "{line}: {text}");
    }

    let mut spec = script(
        "mounts",
        "exec 2>&1; cat /ro/file; echo no > /ro/new || echo yes > /rw/new; echo 1 > /proc/sys/vm/swappiness",
    );
    let mount = |path: &str, readonly| Mount::new(&shared, path).readonly(readonly);
    spec.mounts = vec![mount("/ro", true), mount("/rw", false)];
    let (log, code) = node.told(&sandbox, spec).await;
    assert!(log.contains("of the host"), "{log}");
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap().trim(), "yes");
    assert!(log.contains("Read-only file system"), "{log}");
    assert_eq!(code, 1, "the settings of the kernel are not the container's to change: {log}");

    let mut spec = script(
        "identity",
        "exec 2>&1; id -u; id -g; id -G; touch /here; grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status",
    );
    spec.security = Security::default()
        .run_as_user(Some(7))
        .run_as_group(Some(8))
        .supplemental_groups(vec![9])
        .readonly_rootfs(true)
        .no_new_privileges(true)
        .drop_capabilities(["ALL"])
        .add_capabilities(["NET_BIND_SERVICE"]);
    let (log, _) = node.told(&sandbox, spec).await;
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines[..2], ["7", "8"], "{log}");
    assert!(lines[2].split(' ').any(|group| group == "9"), "{log}");
    assert!(log.contains("Read-only file system") && log.contains("NoNewPrivs:\t1"), "{log}");
    assert!(log.contains("CapBnd:\t0000000000000400"), "{log}");

    let own = script("own", "").image(USER_1000).command([""; 0]);
    assert_eq!(node.told(&sandbox, own.clone()).await, ("from the image".to_owned(), 0));
    let args = own.args(["from the pod"]);
    assert_eq!(node.told(&sandbox, args).await, ("from the pod".to_owned(), 0));
    let mut group = script("group", "id -u; id -g").image(USER_1000);
    group.security.run_as_group = Some(5);
    assert_eq!(node.told(&sandbox, group).await.0, "1000\n5");
    let mut privileged = script("privileged", "grep CapBnd /proc/self/status");
    privileged.security.privileged = true;
    assert_eq!(node.told(&sandbox, privileged).await.0, all_capabilities());

    let escape = script("escape", "").log_path("../../log");
    assert_eq!(
        node.runtime.create_container(&sandbox, escape).await.unwrap_err().kind(),
        RuntimeKind::Invalid
    );
}

fn all_capabilities() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("CapBnd")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_with_code_and_reason() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("ends").await;
    let expect = async |name: &str, text: &str, expected: (i32, &str)| {
        let id = node.run(&sandbox, script(name, text)).await;
        match node.ended(&id).await {
            ContainerState::Exited { started_at, finished_at, code, reason, .. } => {
                assert_eq!((code, reason.as_str()), expected, "{name}");
                assert!(started_at.0 > 0 && started_at <= finished_at, "{name}");
            }
            other => panic!("{other:?}"),
        }
    };
    expect("fine", "true", (0, "Completed")).await;
    expect("seven", "exit 7", (7, "Error")).await;

    let mut spec = script("eater", "x=0123456789; while true; do x=$x$x; done");
    spec.resources = Resources::default().memory_bytes(16 << 20).cpu_shares(100);
    let id = node.run(&sandbox, spec).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match node.ended(&id).await {
            ContainerState::Exited { code: 137, reason, .. } if reason == "OOMKilled" => break,
            // The reason may come later than the end.
            state => assert!(Instant::now() < deadline, "{state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let unstartable = script("unstartable", "").command(["/no/such"]);
    let id = node.runtime.create_container(&sandbox, unstartable).await.unwrap();
    let error = node.runtime.start_container(&id).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Invalid, "{error:?}");
    assert!(kubeedge_core::failure::chain(&error).contains("/no/such"), "{error:?}");
    assert!(matches!(node.ended(&id).await, ContainerState::Exited { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_asks_first_and_kills_after_the_grace() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("stops").await;
    let polite = node
        .run(&sandbox, script("polite", "trap 'exit 3' TERM; echo ready; while true; do sleep 0.1; done"))
        .await;
    let stubborn = node
        .run(&sandbox, script("stubborn", "trap '' TERM; echo ready; while true; do sleep 0.1; done"))
        .await;
    node.says(&polite, "ready").await;
    node.says(&stubborn, "ready").await;
    node.runtime.stop_container(&polite, Duration::from_secs(60)).await.unwrap();
    assert_eq!(node.container(&polite).await.unwrap().state.exit_code(), Some(3));
    let begun = Instant::now();
    node.runtime.stop_container(&stubborn, Duration::from_millis(1100)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1100), "{:?}", begun.elapsed());
    assert_eq!(node.container(&stubborn).await.unwrap().state.exit_code(), Some(137));
    node.runtime.stop_container(&stubborn, GRACE).await.unwrap();

    let running = node.run(&sandbox, script("running", "sleep 1000")).await;
    node.runtime.remove_container(&running).await.unwrap();
    assert_eq!(node.container(&running).await, None);
    let last = node.run(&sandbox, script("last", "sleep 1000")).await;
    node.runtime.stop_sandbox(&sandbox).await.unwrap();
    assert!(matches!(node.ended(&last).await, ContainerState::Exited { .. }));
    assert!(!node.runtime.list_all().await.unwrap().0[0].ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_they_are() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("refusals").await;
    let error = node.runtime.run_sandbox(node.pod("refusals")).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Exists, "{error:?}");
    let next = node.pod("refusals").attempt(1);
    node.runtime.run_sandbox(next).await.unwrap();

    node.runtime.create_container(&sandbox, script("twice", "")).await.unwrap();
    let error = node.runtime.create_container(&sandbox, script("twice", "")).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Exists, "{error:?}");
    let missing = script("missing", "").image("docker.io/library/missing:1");
    let error = node.runtime.create_container(&sandbox, missing).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::ImageUnavailable, "{error:?}");
    let error = node.runtime.create_container(&"nowhere".into(), script("lost", "")).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::NotFound, "{error:?}");
    let error = node.runtime.start_container(&"nothing".into()).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::NotFound, "{error:?}");
    let error = node.runtime.stats().unwrap().usage(&"nothing".into()).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::NotFound, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_listed_removed_and_missed() {
    let Some(node) = Node::start() else { return };
    let images = node.runtime.images();
    let found = images.find(&BUSYBOX.into()).await.unwrap().unwrap();
    assert!(found.id.starts_with("sha256:") && found.size > 0, "{found:?}");
    assert!(found.names.contains(&BUSYBOX.to_owned()), "{found:?}");
    assert_eq!(images.find(&"busybox:test".into()).await.unwrap().unwrap().id, found.id);
    assert!(images.list().await.unwrap().contains(&found));
    assert_eq!(images.find(&"nothing:here".into()).await.unwrap(), None);
    let error = images.pull(&"127.0.0.1:1/nothing:here".into(), None).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::ImageUnavailable, "{error:?}");
    images.remove(&USER_1000.into()).await.unwrap();
    images.remove(&USER_1000.into()).await.unwrap();
    assert_eq!(images.find(&USER_1000.into()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_containers() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("exec").await;
    let id = node.run(&sandbox, script("main", "sleep 1000")).await;
    assert_eq!(node.exec(&id, "echo out; echo err >&2; exit 7").await, ("out\n".into(), "err\n".into(), 7));
    assert_eq!(node.exec(&id, "true").await, (String::new(), String::new(), 0));
    let (zeros, _, _) = node.exec(&id, "head -c 3000000 /dev/zero | tr '\\0' 0").await;
    assert_eq!(zeros.len(), 3_000_000);
    let usage = node.runtime.stats().unwrap().usage(&id).await.unwrap();
    assert!(usage.cpu_nanos > 0 && usage.memory_working_set > 0, "{usage:?}");

    let nowhere = ExecSpec::new(["/no/such"]);
    let exec = node.runtime.exec_stream(&id, nowhere).await.unwrap();
    let error = exec.exit.await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Invalid, "{error:?}");

    node.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let what = ExecSpec::new(["true"]);
    let error = node.runtime.exec_stream(&id, what.clone()).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::NotFound, "{error:?}");
    assert_eq!(
        node.runtime.exec_stream(&"nothing".into(), what).await.unwrap_err().kind(),
        RuntimeKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_its_input_to_the_end() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("input").await;
    let id = node.run(&sandbox, script("main", "sleep 1000")).await;
    let what = ExecSpec::new(["sh", "-c", "wc -c; exit 4"]).stdin(true);
    let mut exec = node.runtime.exec_stream(&id, what).await.unwrap();
    let mut stdin = exec.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 200_000]).await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(finish(exec).await, ("200000\n".to_owned(), String::new(), 4));

    let what = ExecSpec::new(["sh"]).stdin(true).tty(true);
    let mut exec = node.runtime.exec_stream(&id, what).await.unwrap();
    exec.resize.to(TerminalSize { columns: 101, rows: 33 }).await;
    let mut stdin = exec.stdin.take().unwrap();
    let mut screen = String::new();
    // The size arrives beside the input: asked for until it is there.
    while !screen.contains("33 101") {
        stdin.write_all(b"stty size; sleep 0.1\n").await.unwrap();
        let piece = tokio::time::timeout(PATIENCE, exec.output.next()).await.unwrap().unwrap().unwrap();
        let Output::Stdout(bytes) = piece else { panic!("a terminal has one output") };
        screen.push_str(&String::from_utf8_lossy(&bytes));
    }
    stdin.write_all(b"exit 9\n").await.unwrap();
    assert_eq!(finish(exec).await.2, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_process_can_be_joined() {
    let Some(node) = Node::start() else { return };
    let sandbox = node.sandbox("attach").await;
    let program = "while read line; do [ $line = bye ] && exit 6; echo got $line; done";
    let mut spec = script("main", program);
    spec.stdin = true;
    let id = node.run(&sandbox, spec).await;
    let what = ExecSpec::default().stdin(true);
    let mut exec = node.runtime.attach_stream(&id, what).await.unwrap();
    // Held until the end: who ends the input of a running container leaves it.
    let mut stdin = exec.stdin.take().unwrap();
    let mut said = String::new();
    // Input may be joined before the output is, whose beginning is then nobody's: said again until it is
    // heard.
    while !said.contains("got it\n") {
        stdin.write_all(b"it\n").await.unwrap();
        let heard = tokio::time::timeout(Duration::from_millis(500), exec.output.next()).await;
        if let Ok(Some(Ok(Output::Stdout(bytes)))) = heard {
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    stdin.write_all(b"bye\n").await.unwrap();
    assert_eq!(finish(exec).await.2, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_a_network_of_its_own() {
    let Some(node) = Node::start() else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dns = Dns::default().servers(["10.9.8.7"]).searches(["here.local"]).options(["ndots:5"]);
    let spec = node
        .pod("network")
        .host_network(false)
        .ports(vec![PortMapping::new(port, 80).protocol("TCP")])
        .dns(Some(dns));
    let sandbox = node.runtime.run_sandbox(spec).await.unwrap();
    let addresses = node.runtime.list_all().await.unwrap().0.remove(0).addresses;
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    let text = "hostname; cat /etc/resolv.conf; echo serving; while true; do echo hello | nc -l -p 80; done";
    let id = node.run(&sandbox, script("server", text)).await;
    let log = node.container(&id).await.unwrap().log_path;
    for host in [(addresses[0], 80), (std::net::Ipv4Addr::LOCALHOST.into(), port)] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = String::new();
            if let Ok(mut stream) = tokio::net::TcpStream::connect(host).await {
                let _ =
                    tokio::time::timeout(Duration::from_secs(1), stream.read_to_string(&mut answer)).await;
            }
            if answer == "hello\n" {
                break;
            }
            assert!(Instant::now() < deadline, "{host:?} does not answer: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // Its loopback, which no address of the host reaches. Between two connections nobody listens.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut answer = String::new();
        if let Ok(mut forwarded) = node.runtime.connect(&sandbox, 80).await {
            let _ = tokio::time::timeout(PATIENCE, forwarded.read_to_string(&mut answer)).await;
        }
        if answer == "hello\n" {
            break;
        }
        assert!(Instant::now() < deadline, "the forwarded port does not answer: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = said(&log);
    assert!(text.starts_with("network\n"), "{text}");
    for line in ["search here.local", "nameserver 10.9.8.7", "options ndots:5"] {
        assert!(text.contains(line), "{text}");
    }
    node.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_restarts_is_down_and_then_lists_all_it_held() {
    let Some(mut node) = Node::start() else { return };
    let sandbox = node.sandbox("restart").await;
    let id = node.run(&sandbox, script("main", "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 5")).await;
    let before = node.runtime.list_all().await.unwrap();
    node.containerd.crash();
    let error = node.runtime.list_all().await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Down, "{error:?}");
    assert_eq!(node.runtime.info().await.unwrap_err().kind(), RuntimeKind::Down);
    node.containerd.run();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match node.runtime.list_all().await {
            Ok(after) => break assert_eq!(after, before),
            Err(error) => {
                assert!(error.kind() == RuntimeKind::Down && Instant::now() < deadline, "{error:?}")
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // This side restarts too, and makes another container in the sandbox it did not make.
    node.runtime = connect(&node.containerd);
    assert_eq!(node.runtime.list_all().await.unwrap(), before);
    let second = node.run(&sandbox, script("second", "echo $HOSTNAME")).await;
    node.ended(&second).await;
    let log = node.container(&second).await.unwrap().log_path;
    assert!(log.starts_with(node.containerd.folder().join("logs/restart")), "{}", log.display());
    assert_eq!(node.exec(&id, "touch /tmp/go").await.2, 0);
    assert_eq!(node.ended(&id).await.exit_code(), Some(5));
}

#[tokio::test]
async fn a_runtime_that_was_never_there_is_down() {
    let settings =
        CriSettings { endpoint: "unix:///nonexistent/socket".to_owned(), ..CriSettings::default() };
    let error = CriRuntime::connect(settings).unwrap().info().await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Down);
    assert!(kubeedge_core::failure::chain(&error).contains("No such file"), "{error:?}");
}
