//! The process runtime: a container is a program of the host, in its own process group and folder.
//!
//! It needs no root, no images and no network of its own, and so is what a node starts with. The one image is
//! [`IMAGE`], which stands for the host's own programs; any other is refused with the way out.
//!
//! What a container has: its command, its environment and nothing of edgecore's, a folder of its own to start
//! in, its mounts, a log file in CRI's format (a new one begins at 10 MiB, one old one is kept), a memory
//! limit on the data of each of its processes (`RLIMIT_DATA`), an OOM score and, where edgecore runs as root,
//! its user and group. Ending it ends every process it left behind.
//!
//! What it does **not** isolate: a container sees the host's files, processes, users and network, and ports
//! are the host's. CPU limits, capabilities, read-only mounts and read-only root file systems are not
//! enforced. Run nothing in it that you would not run on the host.
//!
//! Mounts are links in the container's folder. A program that names a mount by its absolute path
//! (`cat /etc/app/greeting`) finds it as well: where a word of the command, of the arguments or of the
//! environment holds the path of a mount, it is replaced by where that mount is on the host.
//!
//! Every container is held by a small process of its own, the [`Shim`], so that containers outlive edgecore:
//! a new [`ProcessRuntime`] over the same folder finds them as they are.

mod exec;
mod log;
mod records;
mod shim;
mod text;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kubeedge_common::{
    blocking::Blocking,
    owner::{Owner, StartError},
};
use kubeedge_core::{
    failure::Failure,
    message::Millis,
    runtime::{
        Connection, Container, ContainerId, ContainerRuntime, ContainerSpec, Event, Exec, ExecSpec, Image,
        ImageRef, Images, Info, PortForward, RegistryAuth, RuntimeError, RuntimeKind, RuntimeResult, Sandbox,
        SandboxId, SandboxSpec, Stats, Streams, Usage,
    },
};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{net::TcpStream, sync::broadcast, task::JoinSet};

use self::records::{Folders, Held, Records};
pub use self::shim::shim_main;

/// The image that stands for the host's own programs; any tag will do.
pub const IMAGE: &str = "localhost/host";
/// How long a shim may take to say whether the program started.
const START: Duration = Duration::from_secs(30);
/// How long a killed container may take to be gone.
const KILLED: Duration = Duration::from_secs(20);

const STARTING: &str = "starting a container";
const STOPPED: &str = "its sandbox was stopped";

/// The program that holds one container: it must call [`shim_main`] with its further arguments.
///
/// `kubeedge-process-shim` of this crate is one; a binary may as well serve itself with a hidden subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shim {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the shim's own.
    pub args: Vec<String>,
}

/// How a [`ProcessRuntime`] is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The folder for everything it keeps.
    pub root: PathBuf,
    /// What holds the containers.
    pub shim: Shim,
}

/// Runs containers as processes of the host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folders: Folders,
    shim: Shim,
    /// The records are read from a disk and written to it: a thread of its own does so.
    records: Owner<Records>,
    events: broadcast::Sender<Event>,
    /// What waits for ends: of containers, and of shims so that they do not stay as zombies.
    tasks: Mutex<JoinSet<()>>,
}

fn fail(kind: RuntimeKind, doing: &'static str, on: impl Into<String>) -> RuntimeError {
    Failure::new(kind, doing).on(on)
}

fn broken(doing: &'static str, on: &Path, error: std::io::Error) -> RuntimeError {
    fail(RuntimeKind::Internal, doing, on.display().to_string()).because(error)
}

/// Does work that blocks and needs no records.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> RuntimeResult<T> + Send + 'static,
) -> RuntimeResult<T> {
    let done = Blocking::Threads.run(work).await;
    done.unwrap_or_else(|error| Err(Failure::new(RuntimeKind::Internal, "working on files").because(error)))
}

impl ProcessRuntime {
    /// Opens the folder, making it if need be, and finds the containers of an earlier runtime. Must be called
    /// within a tokio runtime.
    pub async fn open(settings: ProcessSettings) -> RuntimeResult<Self> {
        let folders = Folders::new(settings.root);
        let found = folders.clone();
        let records = Owner::start("containers", move || Records::open(found)).await;
        let records = records.map_err(|error| match error {
            StartError::Open(error) => error,
            thread @ StartError::Thread(_) => {
                Failure::new(RuntimeKind::Internal, "starting the process runtime").because(thread)
            }
        })?;
        let shared = Shared {
            folders,
            shim: settings.shim,
            records,
            events: broadcast::Sender::new(256),
            tasks: Mutex::default(),
        };
        let runtime = Self { shared: Arc::new(shared) };
        for (id, held) in runtime.records(|records| records.running()).await? {
            runtime.watch(id, held);
        }
        Ok(runtime)
    }

    /// Stops and removes every sandbox, all at once: what a program does at its own end when its containers
    /// shall not outlive it.
    pub async fn stop_all(&self, grace: Duration) {
        let (sandboxes, containers) = self.records(|records| records.list()).await.unwrap_or_default();
        let stops = containers.iter().map(|container| self.stop_container(&container.id, grace));
        for error in futures::future::join_all(stops).await.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %kubeedge_core::failure::chain(&error), "cannot stop a container");
        }
        for sandbox in sandboxes {
            if let Err(error) = self.remove_sandbox(&sandbox.id).await {
                tracing::warn!(error = %kubeedge_core::failure::chain(&error), "cannot remove a sandbox");
            }
        }
    }

    /// Does something with the records, in their thread.
    async fn records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Records) -> T + Send + 'static,
    ) -> RuntimeResult<T> {
        let done = self.shared.records.run(work).await;
        done.map_err(|error| {
            Failure::new(RuntimeKind::Internal, "looking at the records of containers").because(error)
        })
    }

    /// Does something with the record of one container.
    async fn record<T: Send + 'static>(
        &self,
        id: &ContainerId,
        work: impl FnOnce(&mut Records, &ContainerId) -> T + Send + 'static,
    ) -> RuntimeResult<T> {
        let id = id.clone();
        self.records(move |records| work(records, &id)).await
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.shared.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Hints at the end of a container's shim.
    fn watch(&self, id: ContainerId, held: Held) {
        // Without the runtime itself, so that it ends with its last user.
        let folder = self.shared.folders.container(&id);
        let (records, events) = (self.shared.records.clone(), self.shared.events.clone());
        self.spawn(async move {
            held.ended(&folder).await;
            let ended = id.clone();
            let _ = records.run(move |records| records.refresh(&ended)).await;
            // Nobody may be listening.
            let _ = events.send(Event::new(id));
        });
    }

    async fn held(&self, id: &ContainerId) -> RuntimeResult<Option<Held>> {
        self.record(id, Records::held).await
    }

    /// Kills what is left of a container and waits until that is so.
    async fn kill(&self, id: &ContainerId, held: &Held) -> RuntimeResult<()> {
        held.signal(Signal::KILL);
        if tokio::time::timeout(KILLED, held.ended(&self.shared.folders.container(id))).await.is_err() {
            return Err(fail(RuntimeKind::Timeout, "killing a container", id.0.clone()));
        }
        self.record(id, Records::refresh).await
    }

    /// Has a shim start the container; what the shim has noted of it.
    async fn launch(&self, id: &ContainerId) -> RuntimeResult<Held> {
        let folder = self.shared.folders.container(id);
        let reap = |mut child: tokio::process::Child| {
            self.spawn(async move {
                let _ = child.wait().await;
            });
        };
        let launched = shim::launch(&self.shared.shim, &folder, reap);
        let launched = tokio::time::timeout(START, launched)
            .await
            .unwrap_or_else(|_| Err(fail(RuntimeKind::Timeout, STARTING, folder.display().to_string())));
        // Looked at in any case: the shim notes as well why it could not start it.
        let held = self.record(id, Records::launched).await?;
        launched?;
        held.ok_or_else(|| {
            fail(RuntimeKind::Internal, STARTING, id.0.clone()).because("the shim left no record")
        })
    }

    async fn erase(&self, folder: PathBuf) -> RuntimeResult<()> {
        blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(broken("removing a folder", &folder, error))
            }
            _ => Ok(()),
        })
        .await
    }
}

#[async_trait]
impl ContainerRuntime for ProcessRuntime {
    async fn info(&self) -> RuntimeResult<Info> {
        Ok(Info::new("process", env!("CARGO_PKG_VERSION")))
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        let id = SandboxId(uuid::Uuid::new_v4().simple().to_string());
        let new = id.clone();
        self.records(move |records| records.add_sandbox(new, spec)).await??;
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        let stopped = id.clone();
        let inside = self.records(move |records| {
            // From here on nothing starts in it any more.
            records.stop_sandbox(&stopped).map(|()| records.inside(&stopped))
        });
        let inside = inside.await??;
        let killing = inside.iter().map(|container| async {
            match self.held(container).await? {
                Some(held) => self.kill(container, &held).await,
                None => Ok(()),
            }
        });
        futures::future::try_join_all(killing).await.map(drop)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        self.stop_sandbox(id).await?;
        let gone = id.clone();
        for container in self.records(move |records| records.inside(&gone)).await? {
            self.remove_container(&container).await?;
        }
        self.erase(self.shared.folders.sandbox(id)).await?;
        let gone = id.clone();
        self.records(move |records| records.forget_sandbox(&gone)).await
    }

    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        if !is_host(&spec.image) {
            return Err(refused(&spec.image));
        }
        let id = ContainerId(uuid::Uuid::new_v4().simple().to_string());
        let (new, within) = (id.clone(), within.clone());
        self.records(move |records| records.add_container(new, within, spec)).await??;
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        self.record(id, |records, id| records.startable(id)).await??;
        let held = self.launch(id).await?;
        self.watch(id.clone(), held.clone());
        if !self.record(id, |records, id| records.may_run(id)).await? {
            self.kill(id, &held).await?;
            return Err(fail(RuntimeKind::Invalid, STARTING, id.0.clone()).because(STOPPED));
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        let Some(held) = self.held(id).await? else { return Ok(()) };
        held.signal(Signal::TERM);
        if tokio::time::timeout(grace, held.ended(&self.shared.folders.container(id))).await.is_ok() {
            return self.record(id, Records::refresh).await;
        }
        self.kill(id, &held).await
    }

    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        if let Some(held) = self.held(id).await? {
            self.kill(id, &held).await?;
        }
        self.erase(self.shared.folders.container(id)).await?;
        self.record(id, |records, id| records.forget_container(id)).await
    }

    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        self.records(|records| {
            records.refresh_all();
            records.list()
        })
        .await
    }

    fn images(&self) -> &dyn Images {
        self
    }

    fn events(&self) -> Option<BoxStream<'static, Event>> {
        Some(super::hints(&self.shared.events))
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn port_forward(&self) -> Option<&dyn PortForward> {
        Some(self)
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }
}

/// Whether an image is [`IMAGE`], with any tag.
fn is_host(image: &ImageRef) -> bool {
    let name = image.0.rsplit_once(':').map_or(image.0.as_str(), |(name, _)| name);
    name == IMAGE
}

fn refused(image: &ImageRef) -> RuntimeError {
    let why = format!(
        "the process runtime has no images and runs the host's own programs as image \"{IMAGE}\"; \
         to run images, start edgecore with --runtime cri"
    );
    fail(RuntimeKind::ImageUnavailable, "looking for an image", image.0.clone()).because(why)
}

fn host_image() -> Image {
    Image::new(IMAGE).names([format!("{IMAGE}:latest")])
}

#[async_trait]
impl Images for ProcessRuntime {
    async fn find(&self, image: &ImageRef) -> RuntimeResult<Option<Image>> {
        Ok(is_host(image).then(host_image))
    }

    async fn pull(&self, image: &ImageRef, _auth: Option<&RegistryAuth>) -> RuntimeResult<String> {
        if is_host(image) { Ok(IMAGE.to_owned()) } else { Err(refused(image)) }
    }

    async fn list(&self) -> RuntimeResult<Vec<Image>> {
        Ok(vec![host_image()])
    }

    /// The host's programs stay.
    async fn remove(&self, _image: &ImageRef) -> RuntimeResult<()> {
        Ok(())
    }
}

#[async_trait]
impl Exec for ProcessRuntime {
    async fn exec_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams> {
        let doing = "running a command in a container";
        let made = self.record(id, Records::running_made).await?;
        let made = made.ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
        let folder = self.shared.folders.container(id);
        exec::start(&self.shared.shim, &folder, &made, what)
    }
}

/// Every sandbox shares the host's network: its loopback is the host's.
#[async_trait]
impl PortForward for ProcessRuntime {
    async fn connect(&self, id: &SandboxId, port: u16) -> RuntimeResult<Box<dyn Connection>> {
        let doing = "connecting to a port of a sandbox";
        let asked = id.clone();
        if !self.records(move |records| records.is_ready(&asked)).await? {
            return Err(fail(RuntimeKind::NotFound, doing, id.0.clone()));
        }
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        let connected = connected.map_err(|error| {
            fail(RuntimeKind::Internal, doing, format!("{id} port {port}")).because(error)
        })?;
        Ok(Box::new(connected))
    }
}

#[async_trait]
impl Stats for ProcessRuntime {
    async fn usage(&self, id: &ContainerId) -> RuntimeResult<Usage> {
        let doing = "measuring a container";
        let held = self.held(id).await?.ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
        blocking(move || Ok(records::usage(&held))).await
    }
}

/// Environment and such that a shim needs; kept with the container so that exec has the same.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Run {
    program: String,
    args: Vec<String>,
    env: HashMap<String, String>,
    folder: PathBuf,
    log: PathBuf,
    memory_bytes: u64,
    oom_score_adj: i32,
    user: Option<u32>,
    group: Option<u32>,
    links: Vec<(PathBuf, PathBuf)>,
}

/// The time now, to the millisecond.
fn now() -> Millis {
    Millis::now()
}
