//! What containers of the process runtime can rely on, with programs of this host.
#![cfg(feature = "process")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use kubeedge_core::{
    conformance::runtime::{Abilities, Program, RuntimeHarness},
    failure::chain,
    runtime::{
        Container, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, Exec, ExecSpec, ImageRef,
        Images, Mount, Output, Resources, RuntimeKind, SandboxId, SandboxSpec, Stats, TerminalSize,
    },
};
use kubeedge_runtime::process::{ProcessRuntime, ProcessSettings, Shim};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const LONG: Duration = Duration::from_secs(30);

async fn open(root: &Path) -> ProcessRuntime {
    let shim = Shim { program: env!("CARGO_BIN_EXE_kubeedge-process-shim").into(), args: Vec::new() };
    ProcessRuntime::open(ProcessSettings { root: root.join("runtime"), shim }).await.unwrap()
}

async fn sandbox(runtime: &ProcessRuntime, root: &Path) -> SandboxId {
    let spec = SandboxSpec::new("web", "default", "u1").hostname("web-0").log_directory(root.join("logs"));
    runtime.run_sandbox(spec).await.unwrap()
}

fn shell(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec::new(name, "localhost/host")
        .command(["sh", "-c"])
        .args([script])
        .log_path(format!("{name}/0.log"))
}

async fn container(runtime: &ProcessRuntime, id: &ContainerId) -> Container {
    let (_, all) = runtime.list_all().await.unwrap();
    all.into_iter().find(|container| container.id == *id).unwrap()
}

async fn until(runtime: &ProcessRuntime, id: &ContainerId, wanted: impl Fn(&Container) -> bool) -> Container {
    let mut hints = runtime.events().unwrap();
    let waiting = async {
        loop {
            let found = container(runtime, id).await;
            if wanted(&found) {
                return found;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), hints.next()).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap()
}

async fn run(runtime: &ProcessRuntime, within: &SandboxId, spec: ContainerSpec) -> Container {
    let id = runtime.create_container(within, spec).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    until(runtime, &id, |container| container.state.exit_code().is_some()).await
}

fn log(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join("logs").join(name).join("0.log")).unwrap_or_default()
}

async fn logged(root: &Path, name: &str, text: &str) {
    let waiting = async {
        while !log(root, name).contains(text) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_program_finds_its_mounts_by_their_path_and_in_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let (root, volume) = (root.path(), root.path().join("a volume"));
    std::fs::create_dir_all(&volume).unwrap();
    std::fs::write(volume.join("greeting"), "hello").unwrap();
    let runtime = open(root).await;
    let within = sandbox(&runtime, root).await;
    let mount = Mount::new(volume, "/etc/app");
    let script = "cat \"/etc/app/greeting\"; echo; cat etc/app/greeting; echo; echo \"$FILE $HOSTNAME $NOTHING\" >&2; exit 3";
    let env = vec![("FILE".into(), "/etc/app/x".into())];
    let spec = shell("web", script).mounts(vec![mount]).env(env);
    let ended = run(&runtime, &within, spec).await;
    let ContainerState::Exited { code, reason, .. } = &ended.state else { panic!("{:?}", ended.state) };
    assert_eq!((*code, reason.as_str()), (3, "Error"));
    let log = log(root, "web");
    assert_eq!(log.matches("stdout F hello").count(), 2, "{log}");
    assert!(log.contains("stderr F ") && log.contains("a volume/x web-0 \n"), "{log}");
}

#[tokio::test]
async fn containers_outlive_the_runtime_and_are_found_again() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let first = open(root).await;
    let within = sandbox(&first, root).await;
    let id = first
        .create_container(&within, shell("web", "echo up; while [ ! -e go ]; do sleep 0.02; done; exit 7"))
        .await
        .unwrap();
    first.start_container(&id).await.unwrap();
    drop(first);
    let second = open(root).await;
    assert!(container(&second, &id).await.state.is_running());
    let again = SandboxSpec::new("web", "default", "u1");
    assert_eq!(second.run_sandbox(again).await.unwrap_err().kind(), RuntimeKind::Exists);
    let go = root.join("runtime/containers").join(&id.0).join("root/go");
    std::fs::write(go, "").unwrap();
    let ended = until(&second, &id, |container| container.state.exit_code().is_some()).await;
    assert_eq!(ended.state.exit_code(), Some(7));
}

#[tokio::test]
async fn a_container_ends_with_everything_it_started() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let runtime = open(root).await;
    let within = sandbox(&runtime, root).await;
    let script = "trap '' TERM; setsid sleep 1000 & echo $! > pids; sleep 1001 & echo $! >> pids; echo ready; wait; wait";
    let id = runtime.create_container(&within, shell("web", script)).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    logged(root, "web", "ready").await;
    let pids =
        std::fs::read_to_string(root.join("runtime/containers").join(&id.0).join("root/pids")).unwrap();
    assert!(pids.lines().count() == 2 && pids.lines().all(alive), "{pids}");
    runtime.stop_container(&id, Duration::from_millis(100)).await.unwrap();
    assert_eq!(container(&runtime, &id).await.state.exit_code(), Some(137));
    assert!(!pids.lines().any(alive), "{pids}");
    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    runtime.remove_sandbox(&within).await.unwrap();
    assert_eq!(runtime.list_all().await.unwrap(), (Vec::new(), Vec::new()));
    assert!(log(root, "web").contains("ready"));
}

#[tokio::test]
async fn a_container_whose_shim_was_killed_is_reported_and_leaves_nothing_running() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let runtime = open(root).await;
    let within = sandbox(&runtime, root).await;
    let id = runtime.create_container(&within, shell("web", "echo $PPID $$; exec sleep 1000")).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    logged(root, "web", "stdout F ").await;
    let line = log(root, "web");
    let mut pids = line.trim_end().rsplit(' ').take(2).collect::<Vec<_>>();
    let (shim, program) = (pids.pop().unwrap().to_owned(), pids.pop().unwrap().to_owned());
    assert!(std::process::Command::new("kill").args(["-9", &shim]).status().unwrap().success());
    let ended = until(&runtime, &id, |container| container.state.exit_code().is_some()).await;
    let ContainerState::Exited { code, reason, message, .. } = ended.state else { panic!() };
    assert_eq!((code, reason.as_str()), (255, "Unknown"));
    assert!(message.contains("gone"), "{message}");
    tokio::time::timeout(LONG, async {
        while alive(&program) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_the_reason_and_the_way_out() {
    let root = tempfile::tempdir().unwrap();
    let runtime = open(root.path()).await;
    let within = sandbox(&runtime, root.path()).await;
    let image = shell("web", "true").image("nginx:1.27");
    let error = runtime.create_container(&within, image).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::ImageUnavailable);
    let text = chain(&Images::pull(&runtime, &"nginx:1.27".into(), None).await.unwrap_err());
    assert!(text.contains("nginx:1.27") && text.contains("--runtime cri"), "{text}");
    assert!(Images::find(&runtime, &"localhost/host:v1".into()).await.unwrap().is_some());
    let missing = shell("web", "").command(["/no/such/program"]);
    let id = runtime.create_container(&within, missing).await.unwrap();
    let error = runtime.start_container(&id).await.unwrap_err();
    assert_eq!(error.kind(), RuntimeKind::Invalid);
    assert!(chain(&error).contains("/no/such/program: No such file"), "{error:?}");
    let ContainerState::Exited { code, reason, .. } = container(&runtime, &id).await.state else { panic!() };
    assert_eq!((code, reason.as_str()), (128, "StartError"));
    let nowhere = shell("web", "true").working_dir("/no/folder").attempt(1);
    let id = runtime.create_container(&within, nowhere).await.unwrap();
    assert!(
        chain(&runtime.start_container(&id).await.unwrap_err()).contains("/no/folder: the working directory")
    );
}

#[tokio::test]
async fn a_memory_limit_holds_the_program_and_not_its_shim() {
    let root = tempfile::tempdir().unwrap();
    let runtime = open(root.path()).await;
    let within = sandbox(&runtime, root.path()).await;
    let spec = shell("web", "ulimit -d; dd if=/dev/zero of=/dev/null bs=100M count=1")
        .resources(Resources::default().memory_bytes(32 << 20));
    let ended = run(&runtime, &within, spec).await;
    assert_ne!(ended.state.exit_code(), Some(0));
    let log = log(root.path(), "web");
    assert!(log.contains("stdout F 32768") && log.contains("memory"), "{log}");
}

#[tokio::test]
async fn a_command_in_a_container_has_its_environment_input_and_exit_code() {
    let root = tempfile::tempdir().unwrap();
    let runtime = open(root.path()).await;
    let within = sandbox(&runtime, root.path()).await;
    let spec = shell("web", "exec sleep 1000").env(vec![("COLOUR".into(), "blue".into())]);
    let id = runtime.create_container(&within, spec).await.unwrap();
    let what = |script: &str, tty| ExecSpec::new(["sh", "-c", script]).stdin(true).tty(tty);
    let early = runtime.exec_stream(&id, what("true", false)).await.unwrap_err();
    assert_eq!(early.kind(), RuntimeKind::NotFound);
    runtime.start_container(&id).await.unwrap();
    let script = "read line; echo \"$line $COLOUR\"; echo oops >&2; exit 5";
    let mut exec = runtime.exec_stream(&id, what(script, false)).await.unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"sky\n").await.unwrap();
    let said: Vec<_> = exec.output.try_collect().await.unwrap();
    assert!(said.contains(&Output::Stdout("sky blue\n".into())), "{said:?}");
    assert!(said.contains(&Output::Stderr("oops\n".into())), "{said:?}");
    assert_eq!(exec.exit.await.unwrap(), 5);
    let mut exec =
        runtime.exec_stream(&id, what("tty && read line && stty size; exit 6", true)).await.unwrap();
    exec.resize.to(TerminalSize { columns: 100, rows: 40 }).await;
    exec.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let said: Vec<_> = exec.output.try_collect().await.unwrap();
    let text: Vec<u8> = said
        .iter()
        .flat_map(|said| match said {
            Output::Stdout(b) | Output::Stderr(b) => b.to_vec(),
        })
        .collect();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("/dev/pts/") && text.contains("40 100"), "{text}");
    assert_eq!(exec.exit.await.unwrap(), 6);
    assert!(runtime.usage(&id).await.unwrap().memory_working_set > 0);
    runtime.stop_all(Duration::from_secs(5)).await;
}

struct Kit {
    runtime: ProcessRuntime,
    folder: TempDir,
}

impl Kit {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self { runtime: open(folder.path()).await, folder }
    }
}

#[async_trait]
impl RuntimeHarness for Kit {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(self.runtime.clone())
    }

    fn image(&self) -> ImageRef {
        "localhost/host".into()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::default();
        abilities.readonly_mounts = false;
        abilities.attach = false;
        abilities
    }

    /// Containers share the host's network, where this test itself listens.
    fn echo_server(&self, port: u16) -> Option<Vec<String>> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            }
        });
        Some(self.program(&Program::Wait))
    }

    async fn restart(&self) -> Option<Arc<dyn ContainerRuntime>> {
        Some(Arc::new(open(self.folder.path()).await))
    }
}

kubeedge_core::runtime_conformance!(async { Kit::new().await });
