//! A container runtime in memory, for tests and simulations: what it runs is no process but a small program
//! of its own, driven by tokio's time, which tests may pause.
//!
//! Images are those of its settings. Logs are real files in CRI's format, mounts are real folders, pods
//! without the host's network get addresses of `10.0.0.0/8` nobody can reach. Containers end when the last
//! handle is dropped.
//!
//! A program is a container's command and arguments: steps, each a word and its operands, with `;` between
//! them.
//!
//! | step | does |
//! |---|---|
//! | `exit CODE` | ends |
//! | `signal N` | ends as if killed by signal N: with 128 + N |
//! | `sleep SECONDS` | waits that long; asked to end, ends with 143 |
//! | `wait` | waits for ever; asked to end, ends with 143 |
//! | `trap TEXT` | from here on: asked to end while it waits, prints the line and ends with 0 |
//! | `ignore` | from here on: does not care to be asked |
//! | `echo TEXT`, `print TEXT`, `warn TEXT` | prints a line; prints exactly this; the same on stderr |
//! | `env NAME` | prints a variable, as a line |
//! | `args WORD…` | prints every word to the end of the command, bracketed, as a line |
//! | `read PATH` | prints a file of a mount, from the working folder on; ends with 1 when it cannot |
//! | `write PATH TEXT` | writes a file of a mount; ends with 1 when it cannot |
//! | `copy` | copies stdin to stdout until the input ends |
//!
//! After the last step a program ends with 0.
//!
//! ```
//! use kubeedge_core::runtime::{ContainerRuntime, ContainerSpec, SandboxSpec};
//! use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> kubeedge_core::runtime::RuntimeResult<()> {
//! let images = [("app:1".to_owned(), vec!["exit".to_owned(), "7".to_owned()])].into();
//! let runtime = MemoryRuntime::new(MemorySettings { images, ..MemorySettings::default() });
//! let sandbox = runtime.run_sandbox(SandboxSpec::new("web", "default", "1")).await?;
//! let container = runtime.create_container(&sandbox, ContainerSpec::new("app", "app:1")).await?;
//! runtime.start_container(&container).await?;
//!
//! let code = loop {
//!     let (_, containers) = runtime.list_all().await?;
//!     match containers.iter().find_map(|found| found.state.exit_code()) {
//!         Some(code) => break code,
//!         None => tokio::task::yield_now().await,
//!     }
//! };
//! assert_eq!(code, 7);
//! # Ok(()) }
//! ```

mod container;
mod exec;
mod log;
mod program;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{future::join_all, stream::BoxStream};
use kubeedge_core::{
    clock::Clock,
    runtime::{
        Attach, Container, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, Event, Exec, Image,
        ImageRef, Images, Info, RegistryAuth, RuntimeError, RuntimeKind, RuntimeResult, Sandbox, SandboxId,
        SandboxSpec,
    },
};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use self::container::{Held, Run};

/// How many hints wait for a slow listener; further ones are dropped, as hints may be.
const HINTS: usize = 1024;

/// How a [`MemoryRuntime`] is set up.
#[derive(Clone, Debug, Default)]
pub struct MemorySettings {
    /// The images there are, each with the program of containers that name none.
    pub images: BTreeMap<String, Vec<String>>,
    /// The time containers and logs are stamped with.
    pub clock: Clock,
}

/// The runtime. A clone is another handle to the same containers.
#[derive(Clone, Debug)]
pub struct MemoryRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    events: broadcast::Sender<Event>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_down: bool,
    made: u32,
    images: BTreeMap<String, Vec<String>>,
    sandboxes: BTreeMap<SandboxId, Place>,
    containers: BTreeMap<ContainerId, Held>,
}

/// A sandbox and what containers in it need.
#[derive(Debug)]
struct Place {
    listed: Sandbox,
    log_directory: PathBuf,
}

fn failure(kind: RuntimeKind, doing: &'static str, on: &str) -> RuntimeError {
    RuntimeError::new(kind, doing).on(on)
}

impl MemoryRuntime {
    /// A runtime with these images and no containers.
    pub fn new(settings: MemorySettings) -> Self {
        let state = Mutex::new(State { images: settings.images, ..State::default() });
        Self {
            inner: Arc::new(Inner { clock: settings.clock, events: broadcast::Sender::new(HINTS), state }),
        }
    }

    /// From now on, says nothing of itself and of what it runs, as a runtime whose service is stopped, or
    /// does so again. Containers run on.
    pub fn be_down(&self, is_down: bool) {
        self.inner.state.lock().is_down = is_down;
    }

    fn is_up(&self) -> RuntimeResult<()> {
        let is_down = self.inner.state.lock().is_down;
        if is_down { Err(RuntimeError::new(RuntimeKind::Down, "asking the runtime")) } else { Ok(()) }
    }

    /// Asks all these to end, kills them after the grace and returns when they have ended.
    async fn end(&self, containers: Vec<ContainerId>, grace: Duration) {
        let runs: Vec<Run> = {
            let state = self.inner.state.lock();
            let held = containers.iter().filter_map(|id| state.containers.get(id));
            held.filter_map(|held| held.run.clone()).collect()
        };
        join_all(runs.iter().map(|run| run.end(grace))).await;
    }

    fn within(&self, sandbox: &SandboxId) -> Vec<ContainerId> {
        let state = self.inner.state.lock();
        let inside = state.containers.values().filter(|held| held.listed.sandbox == *sandbox);
        inside.map(|held| held.listed.id.clone()).collect()
    }
}

impl Inner {
    fn hint(&self, container: &ContainerId) {
        // Nobody may be listening.
        let _ = self.events.send(Event::new(container.clone()));
    }

    /// Notes that a container ended.
    fn ended(&self, id: &ContainerId, code: i32) {
        let now = self.clock.now();
        if let Some(held) = self.state.lock().containers.get_mut(id)
            && let ContainerState::Running { started_at } = held.listed.state
        {
            let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
            let message = String::new();
            held.listed.state =
                ContainerState::Exited { started_at, finished_at: now, code, reason, message };
        }
        self.hint(id);
    }
}

impl State {
    fn next(&mut self, what: &str) -> (u32, String) {
        self.made += 1;
        (self.made, format!("{what}-{:08x}", self.made))
    }
}

#[async_trait]
impl ContainerRuntime for MemoryRuntime {
    async fn info(&self) -> RuntimeResult<Info> {
        self.is_up()?;
        Ok(Info::new("memory", env!("CARGO_PKG_VERSION")))
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        let mut state = self.inner.state.lock();
        let same = |place: &Place| {
            let known = &place.listed;
            (&known.name, &known.namespace, &known.uid, known.attempt)
                == (&spec.name, &spec.namespace, &spec.uid, spec.attempt)
        };
        if state.sandboxes.values().any(same) {
            let subject = format!("{}/{} attempt {}", spec.namespace, spec.name, spec.attempt);
            return Err(failure(RuntimeKind::Exists, "running a sandbox", &subject));
        }
        let (n, id) = state.next("sandbox");
        let [_, high, middle, low] = n.to_be_bytes();
        let address = (!spec.host_network).then(|| IpAddr::V4(Ipv4Addr::new(10, high, middle, low)));
        let listed = Sandbox::new(SandboxId(id), &spec, self.inner.clock.now())
            .addresses(address.into_iter().collect());
        let id = listed.id.clone();
        state.sandboxes.insert(id.clone(), Place { listed, log_directory: spec.log_directory });
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        if let Some(place) = self.inner.state.lock().sandboxes.get_mut(id) {
            place.listed.ready = false;
            place.listed.addresses.clear();
        }
        self.end(self.within(id), Duration::ZERO).await;
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        self.stop_sandbox(id).await?;
        let mut state = self.inner.state.lock();
        state.sandboxes.remove(id);
        state.containers.retain(|_, held| held.listed.sandbox != *id);
        Ok(())
    }

    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        let doing = "making a container";
        let mut state = self.inner.state.lock();
        let Some(place) = state.sandboxes.get(within).filter(|place| place.listed.ready) else {
            return Err(
                failure(RuntimeKind::NotFound, doing, &within.0).because("no sandbox of this id runs")
            );
        };
        let log_path = place.log_directory.join(&spec.log_path);
        if !state.images.contains_key(&spec.image.0) {
            return Err(failure(RuntimeKind::ImageUnavailable, doing, &spec.image.0));
        }
        let same = |held: &Held| {
            let known = &held.listed;
            (&known.sandbox, &known.name, known.attempt) == (within, &spec.name, spec.attempt)
        };
        if state.containers.values().any(same) {
            let subject = format!("{} attempt {} in {within}", spec.name, spec.attempt);
            return Err(failure(RuntimeKind::Exists, doing, &subject));
        }
        let id = ContainerId(state.next("container").1);
        let listed = Container::new(id, within.clone(), &spec, self.inner.clock.now())
            .image_id(image_id(&spec.image.0))
            .log_path(log_path);
        let id = listed.id.clone();
        state.containers.insert(id.clone(), Held { listed, spec: Arc::new(spec), run: None });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        self.inner.start(id).await
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        self.end(vec![id.clone()], grace).await;
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        self.end(vec![id.clone()], Duration::ZERO).await;
        if self.inner.state.lock().containers.remove(id).is_some() {
            self.inner.hint(id);
        }
        Ok(())
    }

    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        self.is_up()?;
        let state = self.inner.state.lock();
        let sandboxes = state.sandboxes.values().map(|place| place.listed.clone()).collect();
        let containers = state.containers.values().map(|held| held.listed.clone()).collect();
        Ok((sandboxes, containers))
    }

    fn images(&self) -> &dyn Images {
        self
    }

    fn events(&self) -> Option<BoxStream<'static, Event>> {
        Some(super::hints(&self.inner.events))
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn attach(&self) -> Option<&dyn Attach> {
        Some(self)
    }
}

fn image_id(name: &str) -> String {
    format!("memory:{name}")
}

fn image(name: &str) -> Image {
    Image::new(image_id(name)).names([name])
}

#[async_trait]
impl Images for MemoryRuntime {
    async fn find(&self, wanted: &ImageRef) -> RuntimeResult<Option<Image>> {
        Ok(self.inner.state.lock().images.contains_key(&wanted.0).then(|| image(&wanted.0)))
    }

    async fn pull(&self, wanted: &ImageRef, _auth: Option<&RegistryAuth>) -> RuntimeResult<String> {
        let unavailable = || {
            failure(RuntimeKind::ImageUnavailable, "pulling an image", &wanted.0)
                .because("it is not among the images of the settings")
        };
        self.find(wanted).await?.map(|image| image.id).ok_or_else(unavailable)
    }

    async fn list(&self) -> RuntimeResult<Vec<Image>> {
        Ok(self.inner.state.lock().images.keys().map(|name| image(name)).collect())
    }

    async fn remove(&self, unwanted: &ImageRef) -> RuntimeResult<()> {
        self.inner.state.lock().images.remove(&unwanted.0);
        Ok(())
    }
}
