//! Containers by any runtime that speaks the Container Runtime Interface, v1: containerd 1.6 and newer,
//! CRI-O.
//!
//! The runtime is spoken to as the kubelet does, so `crictl` shows what runs. Its socket is dialled at the
//! first call and again after each loss: a runtime that restarts is [`RuntimeKind::Down`] meanwhile and then
//! lists all that it held before. One agent per runtime: what there is belongs to this one, as with the
//! kubelet.

mod client;
mod convert;
mod events;
mod exec;
mod images;
mod list;
mod messages;
mod ports;
mod spdy;
mod streams;
mod wsstream;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use kubeedge_core::{
    failure::chain,
    runtime::{
        Attach, Container, ContainerId, ContainerRuntime, ContainerSpec, Event, Exec, Images, Info,
        PortForward, RuntimeError, RuntimeKind, RuntimeResult, Sandbox, SandboxId, SandboxSpec, Security,
        Stats, Usage,
    },
};
use prost::Message;

use self::{
    client::{
        CONTAINER_STATUS, CREATE, Client, Method, REMOVE, REMOVE_SANDBOX, RUN_SANDBOX, SANDBOX_STATUS, START,
        STATS, STATUS, STOP, STOP_SANDBOX, VERSION,
    },
    convert::User,
    images::CriImages,
    list::Statuses,
    messages as cri,
};

/// How often what failed with a shim that was about to end is tried, and the pause between.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// Containerd speaks to a process beside each pod, and fails when that ends by itself in the same moment.
fn lost_its_shim(error: &RuntimeError) -> bool {
    error.kind() == RuntimeKind::Internal && chain(error).contains("ttrpc: closed")
}

/// Where a runtime is and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriSettings {
    /// The unix socket of the runtime service, as `unix:///path` or `/path`.
    pub endpoint: String,
    /// The unix socket of the image service; `None` for the same.
    pub image_endpoint: Option<String>,
    /// How long a call may take beyond what it was asked to wait for. The kubelet's is 2 minutes.
    pub request_timeout: Duration,
    /// How long pulling an image may take beyond that.
    pub pull_timeout: Duration,
    /// Which of the runtime's handlers runs pods; empty for its default.
    pub runtime_handler: String,
}

impl Default for CriSettings {
    fn default() -> Self {
        Self {
            endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            image_endpoint: None,
            request_timeout: Duration::from_secs(120),
            pull_timeout: Duration::from_secs(2 * 3600),
            runtime_handler: String::new(),
        }
    }
}

/// A runtime behind the Container Runtime Interface.
#[derive(Debug)]
pub struct CriRuntime {
    client: Client,
    images: CriImages,
    statuses: Statuses,
    runtime_handler: String,
}

impl CriRuntime {
    /// A runtime at the sockets named by `settings`. Nothing is dialled yet: a runtime that is not there
    /// shows as [`RuntimeKind::Down`] in each call until it is. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`RuntimeKind::Invalid`] when an endpoint is not the path of a unix socket.
    pub fn connect(settings: CriSettings) -> RuntimeResult<Self> {
        let client = Client::new(&settings.endpoint, settings.request_timeout)?;
        let for_images = match &settings.image_endpoint {
            Some(endpoint) => Client::new(endpoint, settings.request_timeout)?,
            None => client.clone(),
        };
        Ok(Self {
            client,
            images: CriImages::new(for_images, settings.pull_timeout),
            statuses: Statuses::default(),
            runtime_handler: settings.runtime_handler,
        })
    }

    async fn sandbox_status(&self, id: &SandboxId) -> RuntimeResult<cri::PodSandboxStatus> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.0.clone() };
        let answer = self.client.call(SANDBOX_STATUS, &id.0, request).await?;
        answer.status.ok_or_else(|| SANDBOX_STATUS.failed(RuntimeKind::NotFound, &id.0))
    }

    async fn container_status(&self, id: &ContainerId) -> RuntimeResult<cri::ContainerStatus> {
        let answer = self.client.call(CONTAINER_STATUS, &id.0, status_of(&id.0)).await?;
        answer.status.ok_or_else(|| CONTAINER_STATUS.failed(RuntimeKind::NotFound, &id.0))
    }

    /// Calls a method about one object; that the object is gone already is as good.
    async fn idempotent<Q, A>(&self, method: Method<Q, A>, id: &str, request: Q) -> RuntimeResult<()>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut tries = 1;
        loop {
            match gone_is_fine(self.client.call(method, id, request.clone()).await) {
                Err(error) if tries < TRIES && lost_its_shim(&error) => tries += 1,
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Runtimes take a group only together with a user, so that the image's own user is looked up.
    async fn user(&self, spec: &ContainerSpec) -> RuntimeResult<User> {
        match &spec.security {
            Security { run_as_user: Some(id), .. } => Ok(User::Id(*id)),
            Security { run_as_group: None, .. } => Ok(User::OfImage),
            _ => self.images.user(&spec.image).await,
        }
    }

    /// Whether creating failed because there is no image, which runtimes report as any other object not
    /// found.
    async fn why_not_created(&self, spec: &ContainerSpec, error: RuntimeError) -> RuntimeError {
        let may_be = matches!(error.kind(), RuntimeKind::NotFound | RuntimeKind::Internal);
        if may_be && matches!(self.images.find(&spec.image).await, Ok(None)) {
            return CREATE.failed(RuntimeKind::ImageUnavailable, &spec.image.0).because(error);
        }
        error
    }
}

#[async_trait]
impl ContainerRuntime for CriRuntime {
    async fn info(&self) -> RuntimeResult<Info> {
        let asked = cri::VersionRequest { version: "v1".to_owned() };
        let version = self.client.call(VERSION, "", asked).await?;
        let status = self.client.call(STATUS, "", cri::StatusRequest {}).await?;
        let conditions = status.status.unwrap_or_default().conditions;
        let holds = |kind: &str| conditions.iter().any(|found| found.r#type == kind && found.status);
        let required = ["RuntimeReady", "NetworkReady"];
        let unmet =
            conditions.iter().filter(|found| required.contains(&found.r#type.as_str()) && !found.status);
        let unmet: Vec<_> = unmet.map(|found| format!("{}: {}", found.reason, found.message)).collect();
        Ok(Info::new(version.runtime_name, version.runtime_version)
            .ready(holds("RuntimeReady"))
            .network_ready(holds("NetworkReady"))
            .message(unmet.join("; ")))
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> RuntimeResult<SandboxId> {
        let subject = format!("{}/{}", spec.namespace, spec.name);
        let runtime_handler = self.runtime_handler.clone();
        let config = Some(convert::sandbox_config(spec)?);
        let request = cri::RunPodSandboxRequest { config, runtime_handler };
        Ok(SandboxId(self.client.call(RUN_SANDBOX, &subject, request).await?.pod_sandbox_id))
    }

    async fn stop_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.0.clone() };
        self.idempotent(STOP_SANDBOX, &id.0, request).await
    }

    async fn remove_sandbox(&self, id: &SandboxId) -> RuntimeResult<()> {
        // Not every runtime removes what still runs.
        self.stop_sandbox(id).await?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.0.clone() };
        self.idempotent(REMOVE_SANDBOX, &id.0, request).await
    }

    async fn create_container(&self, within: &SandboxId, spec: ContainerSpec) -> RuntimeResult<ContainerId> {
        let mut sandbox = convert::config_of(self.sandbox_status(within).await?)?;
        if let Some(folder) =
            convert::log_file(&sandbox, &spec.log_path)?.as_deref().and_then(|file| file.parent())
        {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(|error| {
                CREATE.failed(RuntimeKind::Internal, &folder.to_string_lossy()).because(error)
            })?;
        }
        let user = self.user(&spec).await?;
        let config = convert::container_config(spec.clone(), &mut sandbox, user);
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: within.0.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox),
        };
        match self.client.call(CREATE, &spec.name, request).await {
            Ok(made) => Ok(ContainerId(made.container_id)),
            Err(error) => Err(self.why_not_created(&spec, error).await),
        }
    }

    async fn start_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        let request = cri::StartContainerRequest { container_id: id.0.clone() };
        let Err(error) = self.client.call(START, &id.0, request).await else { return Ok(()) };
        match self.container_status(id).await {
            // The program was tried and could not be started: there is no second try of the same container.
            Ok(status) if status.state() == cri::ContainerState::ContainerExited => {
                Err(START.failed(RuntimeKind::Invalid, &id.0).because(error))
            }
            _ => Err(error),
        }
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> RuntimeResult<()> {
        let seconds = grace.as_millis().div_ceil(1000);
        let timeout = i64::try_from(seconds).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.0.clone(), timeout };
        gone_is_fine(self.client.call_longer(STOP, &id.0, request, grace).await)
    }

    async fn remove_container(&self, id: &ContainerId) -> RuntimeResult<()> {
        let request = cri::RemoveContainerRequest { container_id: id.0.clone() };
        self.idempotent(REMOVE, &id.0, request).await
    }

    async fn list_all(&self) -> RuntimeResult<(Vec<Sandbox>, Vec<Container>)> {
        self.statuses.list(&self.client).await
    }

    fn images(&self) -> &dyn Images {
        &self.images
    }

    fn events(&self) -> Option<BoxStream<'static, Event>> {
        Some(events::follow(self.client.clone()))
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn attach(&self) -> Option<&dyn Attach> {
        Some(self)
    }

    fn port_forward(&self) -> Option<&dyn PortForward> {
        Some(self)
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }
}

#[async_trait]
impl Stats for CriRuntime {
    async fn usage(&self, id: &ContainerId) -> RuntimeResult<Usage> {
        let request = cri::ContainerStatsRequest { container_id: id.0.clone() };
        let answer = self.client.call(STATS, &id.0, request).await?;
        let stats = answer.stats.unwrap_or_default();
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
        Ok(Usage::default()
            .cpu_nanos(cpu.map_or(0, |number| number.value))
            .memory_working_set(memory.map_or(0, |number| number.value)))
    }
}

fn status_of(id: &str) -> cri::ContainerStatusRequest {
    cri::ContainerStatusRequest { container_id: id.to_owned() }
}

fn gone_is_fine<A>(result: RuntimeResult<A>) -> RuntimeResult<()> {
    match result {
        Err(error) if error.kind() != RuntimeKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
