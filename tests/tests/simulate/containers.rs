//! A container runtime whose containers outlive edgecore, as a machine's do: every call takes time, may fail,
//! and may have had its effect when its caller dies.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kubeedge_core::{
    clock::Clock,
    runtime::{
        Container, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, Image, ImageRef, Images,
        Info, RegistryAuth, RuntimeError, RuntimeKind, RuntimeResult, Sandbox, SandboxId, SandboxSpec,
    },
};
use parking_lot::Mutex;

use crate::{checks::TWICE, dice::Dice, plan::Planted, trace::Trace};

/// The runtime of one machine. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Containers {
    host: String,
    clock: Clock,
    dice: Dice,
    trace: Trace,
    planted: Option<Planted>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    made: u32,
    sandboxes: BTreeMap<SandboxId, Sandbox>,
    containers: BTreeMap<ContainerId, Container>,
    /// How often each container of each pod was started, by uid and name.
    starts: BTreeMap<(String, String), u32>,
}

fn failure(kind: RuntimeKind, doing: &'static str, on: &str) -> RuntimeError {
    RuntimeError::new(kind, doing).on(on)
}

impl Containers {
    pub(crate) fn new(host: &str, dice: Dice, trace: Trace, planted: Option<Planted>) -> Self {
        let clock = dice.clock();
        Self { host: host.to_owned(), clock, dice, trace, planted, state: Arc::default() }
    }

    /// Pods by uid with how many of their containers run; those with a sandbox and nothing running count as
    /// 0.
    pub(crate) fn running(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for container in state.containers.values() {
            if let Some(sandbox) = state.sandboxes.get(&container.sandbox) {
                *found.entry(sandbox.uid.clone()).or_default() += usize::from(container.state.is_running());
            }
        }
        for sandbox in state.sandboxes.values() {
            found.entry(sandbox.uid.clone()).or_default();
        }
        found
    }

    /// An edgecore that does not know its pods stops what it finds, as a kubelet does, and may start it
    /// again.
    pub(crate) fn may_start_again(&self) {
        self.state.lock().starts.clear();
    }

    async fn begins(&self, doing: &'static str, on: &str) -> RuntimeResult<()> {
        tokio::time::sleep(self.dice.runtime_pause()).await;
        if self.dice.runtime_fails() {
            self.trace.note(&self.host, format!("{doing} {on} fails"));
            return Err(failure(RuntimeKind::Internal, doing, on).because("the runtime fails"));
        }
        self.trace.note(&self.host, format!("{doing} {on}"));
        Ok(())
    }

    /// After the effect: whoever dies here does not know of it.
    async fn ends(&self) {
        tokio::time::sleep(self.dice.runtime_pause() / 4).await;
    }

    fn exit(&self, container: &mut Container) {
        if let ContainerState::Running { started_at } = container.state {
            let (finished_at, code) = (self.clock.now(), 143);
            let (reason, message) = ("Error".to_owned(), String::new());
            container.state = ContainerState::Exited { started_at, finished_at, code, reason, message };
        }
    }

    fn starts(&self, id: &ContainerId) -> RuntimeResult<()> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        let missing = || failure(RuntimeKind::NotFound, "starting a container", &id.0);
        let (sandbox, name) = match state.containers.get(id) {
            Some(found) if found.state == ContainerState::Created => {
                (found.sandbox.clone(), found.name.clone())
            }
            Some(_) => return Err(failure(RuntimeKind::Invalid, "starting a container", &id.0)),
            None => return Err(missing()),
        };
        let uid = state.sandboxes.get(&sandbox).map(|place| place.uid.clone()).ok_or_else(missing)?;
        let count = state.starts.entry((uid.clone(), name.clone())).or_default();
        *count += 1;
        let count = *count;
        if let Some(found) = state.containers.get_mut(id) {
            found.state = ContainerState::Running { started_at: now };
        }
        drop(state);
        if count > 1 {
            let what = format!("{} starts container {name} of pod {uid} for the {count}. time", self.host);
            self.trace.broken(TWICE, what);
        }
        Ok(())
    }
}

#[async_trait]
impl ContainerRuntime for Containers {
    async fn info(&self) -> RuntimeResult<Info> {
        Ok(Info::new("simulated", "1"))
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        self.begins("makes a sandbox for", &spec.name).await?;
        let id = {
            let mut state = self.state.lock();
            let same = |known: &Sandbox| known.uid == spec.uid && known.attempt == spec.attempt;
            let is_honest = self.planted != Some(Planted::ForgetfulRuntime);
            if is_honest && state.sandboxes.values().any(same) {
                return Err(failure(RuntimeKind::Exists, "running a sandbox", &spec.name));
            }
            state.made += 1;
            let id = SandboxId(format!("sandbox-{:06}", state.made));
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, state.made.to_le_bytes()[0]));
            let made = Sandbox::new(id.clone(), &spec, self.clock.now()).addresses(vec![address]);
            state.sandboxes.insert(id.clone(), made);
            id
        };
        self.ends().await;
        Ok(id)
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        self.begins("stops", &id.0).await?;
        {
            let mut state = self.state.lock();
            if let Some(place) = state.sandboxes.get_mut(id) {
                place.ready = false;
                place.addresses.clear();
            }
            let inside = state.containers.values_mut().filter(|container| container.sandbox == *id);
            inside.for_each(|container| self.exit(container));
        }
        self.ends().await;
        Ok(())
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        self.begins("removes", &id.0).await?;
        {
            let mut state = self.state.lock();
            state.sandboxes.remove(id);
            state.containers.retain(|_, container| container.sandbox != *id);
        }
        self.ends().await;
        Ok(())
    }

    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        self.begins("makes a container in", &within.0).await?;
        let id = {
            let mut state = self.state.lock();
            if !state.sandboxes.get(within).is_some_and(|place| place.ready) {
                return Err(failure(RuntimeKind::NotFound, "making a container", &within.0));
            }
            let same = |known: &Container| {
                (&known.sandbox, &known.name, known.attempt) == (within, &spec.name, spec.attempt)
            };
            if state.containers.values().any(same) {
                return Err(failure(RuntimeKind::Exists, "making a container", &spec.name));
            }
            state.made += 1;
            let id = ContainerId(format!("container-{:06}", state.made));
            let made = Container::new(id.clone(), within.clone(), &spec, self.clock.now())
                .image_id(format!("simulated:{}", spec.image));
            state.containers.insert(id.clone(), made);
            id
        };
        self.ends().await;
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        self.begins("starts", &id.0).await?;
        self.starts(id)?;
        self.ends().await;
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, _grace: Duration) -> RuntimeResult<()> {
        self.begins("stops", &id.0).await?;
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            self.exit(container);
        }
        self.ends().await;
        Ok(())
    }

    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        self.begins("removes", &id.0).await?;
        self.state.lock().containers.remove(id);
        self.ends().await;
        Ok(())
    }

    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        tokio::time::sleep(self.dice.disk_pause()).await;
        if self.dice.runtime_fails() {
            return Err(failure(RuntimeKind::Internal, "listing", "").because("the runtime fails"));
        }
        let state = self.state.lock();
        if self.planted == Some(Planted::ForgetfulRuntime) && self.trace.now() % 20_000 < 2000 {
            return Ok((Vec::new(), Vec::new()));
        }
        Ok((state.sandboxes.values().cloned().collect(), state.containers.values().cloned().collect()))
    }

    fn images(&self) -> &dyn Images {
        self
    }
}

#[async_trait]
impl Images for Containers {
    async fn find(&self, wanted: &ImageRef) -> RuntimeResult<Option<Image>> {
        let id = format!("simulated:{}", wanted.0);
        Ok(Some(Image::new(id).names([wanted.0.as_str()])))
    }

    async fn pull(&self, wanted: &ImageRef, _auth: Option<&RegistryAuth>) -> RuntimeResult<String> {
        Ok(format!("simulated:{}", wanted.0))
    }

    async fn list(&self) -> RuntimeResult<Vec<Image>> {
        Ok(Vec::new())
    }

    async fn remove(&self, _unwanted: &ImageRef) -> RuntimeResult<()> {
        Ok(())
    }
}
