//! A node with a runtime in memory and its own API.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use k8s_openapi::api::core::v1::Pod;
use kubeedge_core::{
    bus::Bus,
    kernel::{Module, ModuleContext, Shutdown},
    runtime::{ContainerId, ContainerRuntime, ContainerSpec, SandboxId, SandboxSpec},
};
use kubeedge_edge::edged::{
    PodBook,
    server::{EdgedServer, EdgedServerSettings},
};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use serde_json::json;
use tokio::sync::watch;

pub(crate) const WAIT: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    pub(crate) runtime: MemoryRuntime,
    pub(crate) pods: PodBook,
    pub(crate) logs: PathBuf,
    pub(crate) bound: watch::Receiver<Option<SocketAddr>>,
    pub(crate) address: SocketAddr,
    sandbox: SandboxId,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

/// Runs a module of no mailbox beside a test.
pub(crate) fn spawn(mut module: impl Module) -> Shutdown {
    let name = module.name();
    let (bus, mut inboxes) = Bus::new([(name.clone(), module.group(), 8)]);
    let shutdown = Shutdown::new();
    let inbox = inboxes.remove(&name).unwrap();
    let mut ctx = ModuleContext::new(bus, inbox, shutdown.clone());
    tokio::spawn(async move { module.run(&mut ctx).await.unwrap() });
    shutdown
}

impl Node {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("default_web_u1");
        let runtime = MemoryRuntime::new(MemorySettings {
            images: [("box".to_owned(), vec!["wait".to_owned()])].into(),
            ..MemorySettings::default()
        });
        let spec = SandboxSpec::new("web", "default", "u1").log_directory(&logs).host_network(true);
        let sandbox = runtime.run_sandbox(spec).await.unwrap();
        let pods = PodBook::default();
        let mut settings = EdgedServerSettings::default();
        settings.address = SocketAddr::from(([127, 0, 0, 1], 0));
        settings.logs = folder.path().to_owned();
        let server = EdgedServer::new("edge-1".into(), settings, Arc::new(runtime.clone()), pods.clone());
        let mut bound = server.bound();
        let shutdown = spawn(server);
        let address = bound.wait_for(Option::is_some).await.unwrap().unwrap();
        let node = Self { runtime, pods, logs, bound, address, sandbox, shutdown, _folder: folder };
        node.enter(json!({"waiting": {"reason": "ContainerCreating"}}));
        node
    }

    /// Enters the pod with this state of its container.
    pub(crate) fn enter(&self, state: serde_json::Value) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"name": "c", "image": "box"}]},
            "status": {"containerStatuses": [{
                "name": "c", "image": "box", "imageID": "", "ready": false, "restartCount": 0, "state": state,
            }]},
        }))
        .unwrap();
        self.pods.enter(pod);
    }

    /// Starts the container for the nth time.
    pub(crate) async fn run(&self, attempt: u32, program: &[&str]) -> ContainerId {
        let spec = ContainerSpec::new("c", "box")
            .attempt(attempt)
            .command(program.iter().copied())
            .log_path(format!("c/{attempt}.log"))
            .stdin(true);
        let id = self.runtime.create_container(&self.sandbox, spec).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        self.enter(json!({"running": {}}));
        id
    }

    /// Waits for a container's end.
    pub(crate) async fn ended(&self, id: &ContainerId) {
        let looking = async {
            loop {
                let (_, all) = self.runtime.list_all().await.unwrap();
                if all.iter().any(|found| found.id == *id && found.state.exit_code().is_some()) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT, looking).await.expect("the container ends");
    }

    /// Waits until the log of the container that runs has this text.
    pub(crate) async fn said(&self, text: &str) {
        let looking = async {
            while !self.log("").await.1.contains(text) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT, looking).await.expect("the container says it");
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("http://{}{path}", self.address));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap());
        let answer = tokio::time::timeout(WAIT, answer).await.unwrap().unwrap();
        let status = answer.status();
        let body = tokio::time::timeout(WAIT, answer.into_body().collect()).await.unwrap().unwrap();
        (status, String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    pub(crate) async fn log(&self, query: &str) -> (StatusCode, String) {
        self.get(&format!("/containerLogs/default/web/c?{query}")).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}
