//! A harness with a sandbox to run containers in, and what cases ask of it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Program, RuntimeHarness};
use crate::{
    failure::chain,
    runtime::{
        Container, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, RuntimeError, RuntimeKind,
        RuntimeResult, Sandbox, SandboxId, SandboxSpec,
    },
};

/// How long anything may take on a loaded machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A grace nobody waits for to the end.
pub(super) const LONG: Duration = Duration::from_secs(50);

/// A line of a container's log, as CRI writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Nanoseconds since the Unix epoch.
    pub at: i128,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the line goes on in the next one of this stream.
    pub partial: bool,
    /// What was printed, without the line's end.
    pub text: String,
}

impl LogLine {
    fn parse(line: &str) -> Self {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_else(|| panic!("not a line of a CRI log: {line:?}"));
        let (at, stream, tag, text) = (part(), part(), part(), part());
        let at = OffsetDateTime::parse(at, &Rfc3339).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        assert!(matches!(stream, "stdout" | "stderr"), "{line:?}");
        // CRI reserves further tags behind a colon.
        let tag = tag.split(':').next().unwrap_or_default();
        assert!(matches!(tag, "F" | "P"), "{line:?}");
        let (stream, text) = (stream.to_owned(), text.to_owned());
        Self { at: at.unix_timestamp_nanos(), stream, partial: tag == "P", text }
    }
}

/// A harness and one sandbox of a pod nobody else has.
pub struct Bench<H> {
    pub(super) harness: H,
    pub(super) runtime: Arc<dyn ContainerRuntime>,
    pub(super) pod: SandboxSpec,
    pub(super) sandbox: SandboxId,
}

impl<H> fmt::Debug for Bench<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("runtime", &self.runtime).field("sandbox", &self.sandbox).finish()
    }
}

impl<H: RuntimeHarness> Bench<H> {
    pub(super) async fn of(harness: H) -> Self {
        let (runtime, pod) = (harness.runtime(), pod(&harness));
        let sandbox = must(runtime.run_sandbox(pod.clone()).await, "running a sandbox");
        Self { harness, runtime, pod, sandbox }
    }

    /// A container that runs a program.
    pub(super) fn spec(&self, name: &str, program: &Program) -> ContainerSpec {
        let mut command = self.harness.program(program);
        let args = command.split_off(1);
        let log_path = Path::new(name).join("0.log");
        ContainerSpec {
            name: name.to_owned(),
            image: self.harness.image(),
            command,
            args,
            log_path,
            ..ContainerSpec::default()
        }
    }

    pub(super) async fn start(&self, spec: ContainerSpec) -> ContainerId {
        let id = must(self.runtime.create_container(&self.sandbox, spec).await, "making a container");
        must(self.runtime.start_container(&id).await, "starting a container");
        id
    }

    /// Starts a program that waits, until it says so.
    pub(super) async fn wait_in(&self, name: &str, program: &Program) -> ContainerId {
        let id = self.start(self.spec(name, program)).await;
        self.until_logged(&format!("{name}/0.log"), "ready").await;
        id
    }

    /// Runs a program to its end: the code and what it said on stdout.
    pub(super) async fn run(&self, spec: ContainerSpec) -> (i32, String) {
        let log = spec.log_path.clone();
        let id = self.start(spec).await;
        let code = exit_of(&self.until_exited(&id).await);
        // Its log may be complete a little later than its end is known.
        let mut said = self.said(&log);
        for _ in 0..50 {
            sleep(Duration::from_millis(20)).await;
            let more = self.said(&log);
            if more == said && !said.is_empty() {
                break;
            }
            said = more;
        }
        (code, said)
    }

    fn said(&self, log: &Path) -> String {
        let lines = self.log(log);
        let ends = |line: &LogLine| if line.partial { "" } else { "\n" };
        lines.iter().filter(|line| line.stream == "stdout").map(|l| l.text.clone() + ends(l)).collect()
    }

    pub(super) async fn until_exited(&self, id: &ContainerId) -> Container {
        self.until(id, |container| container.state.exit_code().is_some()).await
    }

    async fn until(&self, id: &ContainerId, is_so: impl Fn(&Container) -> bool) -> Container {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.container(id).await;
            match found {
                Some(container) if is_so(&container) => return container,
                found => assert!(Instant::now() < deadline, "not so within {PATIENCE:?}: {found:?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn container(&self, id: &ContainerId) -> Option<Container> {
        self.containers().await.into_iter().find(|container| container.id == *id)
    }

    /// The containers of this sandbox.
    pub(super) async fn containers(&self) -> Vec<Container> {
        let (_, mut containers) = must(self.runtime.list_all().await, "listing");
        containers.retain(|container| container.sandbox == self.sandbox);
        containers
    }

    /// The sandboxes of this pod.
    pub(super) async fn sandboxes(&self) -> Vec<Sandbox> {
        let (mut sandboxes, _) = must(self.runtime.list_all().await, "listing");
        sandboxes.retain(|sandbox| sandbox.uid == self.pod.uid);
        sandboxes
    }

    pub(super) fn log_file(&self, log: impl AsRef<Path>) -> PathBuf {
        self.pod.log_directory.join(log)
    }

    /// The complete lines of a log so far.
    pub(super) fn log(&self, log: impl AsRef<Path>) -> Vec<LogLine> {
        let text = std::fs::read_to_string(self.log_file(log)).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(LogLine::parse).collect()
    }

    /// Waits until a line of a log contains this.
    pub(super) async fn until_logged(&self, log: &str, text: &str) -> Vec<LogLine> {
        self.until_log(log, text, |lines| lines.iter().any(|line| line.text.contains(text))).await
    }

    pub(super) async fn until_log(
        &self,
        log: &str,
        what: &str,
        is_so: impl Fn(&[LogLine]) -> bool,
    ) -> Vec<LogLine> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.log(log);
            if is_so(&lines) {
                return lines;
            }
            assert!(Instant::now() < deadline, "not logged within {PATIENCE:?}: {what}; but {lines:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Leaves nothing behind, for runtimes that other cases use too.
    pub(super) async fn close(self) {
        for sandbox in self.sandboxes().await {
            must(self.runtime.remove_sandbox(&sandbox.id).await, "removing a sandbox");
        }
    }
}

/// A pod nobody else has.
pub(super) fn pod(harness: &impl RuntimeHarness) -> SandboxSpec {
    let uid = Uuid::new_v4().to_string();
    let name = format!("kit-{}", &uid[..8]);
    let log_directory = harness.folder().join("logs").join(&name);
    std::fs::create_dir_all(&log_directory).expect("the harness' folder can be written");
    let mut pod = SandboxSpec {
        hostname: name.clone(),
        namespace: "conformance".to_owned(),
        host_network: true,
        log_directory,
        name,
        uid,
        ..SandboxSpec::default()
    };
    harness.adapt(&mut pod);
    pod
}

#[track_caller]
pub(super) fn must<T>(result: RuntimeResult<T>, doing: &str) -> T {
    result.unwrap_or_else(|error| panic!("{doing}: {}", chain(&error)))
}

#[track_caller]
pub(super) fn refused<T>(result: RuntimeResult<T>, kind: RuntimeKind) -> RuntimeError {
    match result {
        Ok(_) => panic!("{kind:?} expected, but it succeeded"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{}", chain(&error));
            error
        }
    }
}

/// The exit code of a container that has ended, its reason checked.
#[track_caller]
pub(super) fn exit_of(container: &Container) -> i32 {
    let ContainerState::Exited { code, reason, .. } = &container.state else {
        panic!("has not ended: {container:?}")
    };
    let expected = if *code == 0 { "Completed" } else { "Error" };
    assert_eq!(reason, expected, "{container:?}");
    *code
}
