//! The process runtime: a container is a program of the host, in its own process group and folder.
//!
//! It needs no root, no images and no network of its own, and so is what a node starts with. The one image is
//! [`IMAGE`], which stands for the host's own programs; any other is refused with the way out.
//!
//! What a container has: its command, its environment and nothing of edgecore's, a folder of its own to start in, its
//! mounts, a log file in CRI's format (a new one begins at 10 MiB, one old one is kept), a memory limit on the data of each of its processes
//! (`RLIMIT_DATA`), an OOM score and, where edgecore runs as root, its user and group. Ending it ends every process it
//! left behind.
//!
//! What it does **not** isolate: a container sees the host's files, processes, users and network, and ports are the
//! host's. CPU limits, capabilities, read-only mounts and read-only root file systems are not enforced. Run nothing in
//! it that you would not run on the host.
//!
//! Mounts are links in the container's folder. A program that names a mount by its absolute path
//! (`cat /etc/app/greeting`) finds it as well: where a word of the command, of the arguments or of the environment
//! holds the path of a mount, it is replaced by where that mount is on the host.
//!
//! Every container is held by a small process of its own, the [`Shim`], so that containers outlive edgecore: a new
//! [`ProcessRuntime`] over the same folder finds them as they are.

mod exec;
mod log;
mod records;
mod shim;
mod text;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use kubeedge_core::{
    failure::Failure,
    message::Millis,
    runtime::{
        Container, ContainerId, ContainerRuntime, ContainerSpec, Event, Exec, ExecSpec, Image, ImageRef,
        Images, Info, RegistryAuth, RuntimeError, RuntimeKind, RuntimeResult, Sandbox, SandboxId,
        SandboxSpec, Stats, Streaming, Usage,
    },
};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::broadcast;

use self::records::{Folders, Held, Made, Records};
pub use self::shim::shim_main;

/// The image that stands for the host's own programs; any tag will do.
pub const IMAGE: &str = "localhost/host";
/// How long a shim may take to say whether the program started.
const START: Duration = Duration::from_secs(30);
/// How long a killed container may take to be gone.
const KILLED: Duration = Duration::from_secs(20);

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
    records: Mutex<Records>,
    events: broadcast::Sender<Event>,
}

fn fail(kind: RuntimeKind, doing: &'static str, on: impl Into<String>) -> RuntimeError {
    Failure::new(kind, doing).on(on)
}

fn broken(doing: &'static str, on: &Path, error: std::io::Error) -> RuntimeError {
    fail(RuntimeKind::Internal, doing, on.display().to_string()).because(error)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> RuntimeResult<T> + Send + 'static,
) -> RuntimeResult<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::new(RuntimeKind::Internal, "working on files").because(error)))
}

impl ProcessRuntime {
    /// Opens the folder, making it if need be, and finds the containers of an earlier runtime. Must be called within
    /// a tokio runtime.
    pub async fn open(settings: ProcessSettings) -> RuntimeResult<Self> {
        let folders = Folders::new(settings.root);
        let found = folders.clone();
        let records = blocking(move || found.open()).await?;
        let shared = Shared {
            folders,
            shim: settings.shim,
            records: Mutex::new(records),
            events: broadcast::Sender::new(256),
        };
        let runtime = Self { shared: Arc::new(shared) };
        let running: Vec<_> = runtime.shared.records.lock().running().collect();
        for (id, held) in running {
            runtime.watch(id, held);
        }
        Ok(runtime)
    }

    /// Stops and removes every sandbox, all at once: what a program does at its own end when its containers shall not
    /// outlive it.
    pub async fn stop_all(&self, grace: Duration) {
        let (sandboxes, containers) = self.shared.records.lock().list();
        let stops = containers.iter().map(|container| ContainerRuntime::stop(self, &container.id, grace));
        for error in futures::future::join_all(stops).await.into_iter().filter_map(Result::err) {
            tracing::warn!(error = %kubeedge_core::failure::chain(&error), "cannot stop a container");
        }
        for sandbox in sandboxes {
            if let Err(error) = self.remove_sandbox(&sandbox.id).await {
                tracing::warn!(error = %kubeedge_core::failure::chain(&error), "cannot remove a sandbox");
            }
        }
    }

    /// Hints at the end of a container's shim.
    fn watch(&self, id: ContainerId, held: Held) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            held.ended(&shared.folders.container(&id)).await;
            shared.records.lock().refresh(&shared.folders, &id);
            // Nobody may be listening.
            let _ = shared.events.send(Event { container: id });
        });
    }

    fn held(&self, id: &ContainerId) -> Option<Held> {
        let mut records = self.shared.records.lock();
        records.refresh(&self.shared.folders, id);
        let container = records.container(id)?;
        container.held.clone().filter(|_| container.exit.is_none())
    }

    /// Kills what is left of a container and waits until that is so.
    async fn kill(&self, id: &ContainerId, held: &Held) -> RuntimeResult<()> {
        held.signal(Signal::KILL);
        if tokio::time::timeout(KILLED, held.ended(&self.shared.folders.container(id))).await.is_err() {
            return Err(fail(RuntimeKind::Timeout, "killing a container", id.0.clone()));
        }
        self.shared.records.lock().refresh(&self.shared.folders, id);
        Ok(())
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
        Ok(Info {
            name: "process".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: true,
            network_ready: true,
            message: String::new(),
        })
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        let id = SandboxId(uuid::Uuid::new_v4().simple().to_string());
        let (shared, new) = (Arc::clone(&self.shared), id.clone());
        blocking(move || {
            let mut records = shared.records.lock();
            if records.has_sandbox(&spec) {
                let pod = format!("{}/{} attempt {}", spec.namespace, spec.name, spec.attempt);
                return Err(fail(RuntimeKind::Exists, "making a sandbox", pod));
            }
            records.add_sandbox(&shared.folders, new, spec)
        })
        .await?;
        Ok(id)
    }

    async fn addresses(&self, id: &SandboxId) -> RuntimeResult<Vec<IpAddr>> {
        match self.shared.records.lock().sandbox(id) {
            // Every sandbox shares the host's network.
            Some(_) => Ok(Vec::new()),
            None => Err(fail(RuntimeKind::NotFound, "looking for the addresses of a sandbox", id.0.clone())),
        }
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        // From here on nothing starts in it any more.
        let (shared, stopped) = (Arc::clone(&self.shared), id.clone());
        blocking(move || shared.records.lock().stop_sandbox(&shared.folders, &stopped)).await?;
        let inside = self.shared.records.lock().inside(id);
        let killing = inside.iter().map(|container| async {
            match self.held(container) {
                Some(held) => self.kill(container, &held).await,
                None => Ok(()),
            }
        });
        futures::future::try_join_all(killing).await.map(drop)
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        self.stop_sandbox(id).await?;
        let inside = self.shared.records.lock().inside(id);
        for container in inside {
            ContainerRuntime::remove(self, &container).await?;
        }
        self.erase(self.shared.folders.sandbox(id)).await?;
        self.shared.records.lock().forget_sandbox(id);
        Ok(())
    }

    async fn create(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        if !is_host(&spec.image) {
            return Err(refused(&spec.image));
        }
        let id = ContainerId(uuid::Uuid::new_v4().simple().to_string());
        let (shared, new, within) = (Arc::clone(&self.shared), id.clone(), within.clone());
        blocking(move || {
            let mut records = shared.records.lock();
            let sandbox = records.sandbox(&within).filter(|sandbox| sandbox.ready);
            let Some(sandbox) = sandbox.cloned() else {
                return Err(fail(RuntimeKind::NotFound, "making a container in a sandbox", within.0));
            };
            if records.has_container(&within, &spec.name, spec.attempt) {
                let name = format!("{} attempt {}", spec.name, spec.attempt);
                return Err(fail(RuntimeKind::Exists, "making a container", name));
            }
            let run = text::run(&shared.folders.container(&new), &sandbox.spec, &spec)?;
            records.add_container(&shared.folders, new, Made::now(within, spec, run))
        })
        .await?;
        Ok(id)
    }

    async fn start(&self, id: &ContainerId) -> RuntimeResult<()> {
        let doing = "starting a container";
        let folder = self.shared.folders.container(id);
        {
            let records = self.shared.records.lock();
            let container =
                records.container(id).ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
            if container.held.is_some() || container.exit.is_some() {
                let why = "it was started before; make a new one with the next attempt";
                return Err(fail(RuntimeKind::Invalid, doing, id.0.clone()).because(why));
            }
            if !records.may_run(id) {
                return Err(fail(RuntimeKind::Invalid, doing, id.0.clone()).because(STOPPED));
            }
        }
        let started = tokio::time::timeout(START, shim::launch(&self.shared.shim, &folder)).await;
        let started =
            started.unwrap_or_else(|_| Err(fail(RuntimeKind::Timeout, doing, folder.display().to_string())));
        let held = {
            let mut records = self.shared.records.lock();
            records.refresh(&self.shared.folders, id);
            records.container(id).and_then(|container| container.held.clone())
        };
        started?;
        let held = held.ok_or_else(|| {
            fail(RuntimeKind::Internal, doing, id.0.clone()).because("the shim left no record")
        })?;
        self.watch(id.clone(), held.clone());
        if !self.shared.records.lock().may_run(id) {
            self.kill(id, &held).await?;
            return Err(fail(RuntimeKind::Invalid, doing, id.0.clone()).because(STOPPED));
        }
        Ok(())
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        let Some(held) = self.held(id) else { return Ok(()) };
        held.signal(Signal::TERM);
        if tokio::time::timeout(grace, held.ended(&self.shared.folders.container(id))).await.is_ok() {
            self.shared.records.lock().refresh(&self.shared.folders, id);
            return Ok(());
        }
        self.kill(id, &held).await
    }

    async fn remove(&self, id: &ContainerId) -> RuntimeResult<()> {
        if let Some(held) = self.held(id) {
            self.kill(id, &held).await?;
        }
        self.erase(self.shared.folders.container(id)).await?;
        self.shared.records.lock().forget_container(id);
        Ok(())
    }

    async fn list(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let mut records = shared.records.lock();
            records.refresh_all(&shared.folders);
            Ok(records.list())
        })
        .await
    }

    fn images(&self) -> &dyn Images {
        self
    }

    fn events(&self) -> Option<BoxStream<'static, Event>> {
        Some(super::hints(&self.shared.events))
    }

    fn streaming(&self) -> Option<&dyn Streaming> {
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
    Image { id: IMAGE.to_owned(), names: vec![format!("{IMAGE}:latest")], size: 0 }
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
impl Streaming for ProcessRuntime {
    async fn exec(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Exec> {
        let doing = "running a command in a container";
        self.held(id).ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
        let made = self.shared.records.lock().container(id).map(|container| container.made.clone());
        let made = made.ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
        let folder = self.shared.folders.container(id);
        exec::start(&self.shared.shim, &folder, &made, what)
    }

    /// Containers are held by their shims without a way to their input: use logs and exec.
    async fn attach(&self, id: &ContainerId, _what: ExecSpec) -> RuntimeResult<Exec> {
        let why = "the process runtime cannot attach; `kubectl logs -f` shows the output, `kubectl exec` runs a command";
        Err(fail(RuntimeKind::Unsupported, "attaching to a container", id.0.clone()).because(why))
    }
}

#[async_trait]
impl Stats for ProcessRuntime {
    async fn usage(&self, id: &ContainerId) -> RuntimeResult<Usage> {
        let doing = "measuring a container";
        let held = self.held(id).ok_or_else(|| fail(RuntimeKind::NotFound, doing, id.0.clone()))?;
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
