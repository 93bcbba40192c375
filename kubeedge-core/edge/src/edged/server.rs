//! The node's own HTTP API, as the kubelet's read-only server offers it: logs, commands, lists, health and
//! usage.
//!
//! Plain HTTP without authentication, so it is for the loopback alone; the cloud reaches it through
//! EdgeStream. Because web pages can reach the loopback too, commands with an `Origin` are refused;
//! EdgeStream takes it off, as the cloud has asked who the caller is.
//!
//! | path | answers |
//! |---|---|
//! | `/containerLogs/{namespace}/{pod}/{container}` | the log; `follow`, `previous`, `tailLines`, `sinceSeconds`, `sinceTime`, `timestamps`, `limitBytes`, `stream` |
//! | `/exec`, `/attach` `/{namespace}/{pod}[/{uid}]/{container}` | a WebSocket of `v5.channel.k8s.io` or `v4.channel.k8s.io`; SPDY is refused |
//! | `/pods`, `/runningpods/` | a PodList |
//! | `/stats/summary`, `/metrics/resource` | usage of containers, where the runtime tells it |
//! | `/healthz…` | `ok` |

mod cri_log;
pub(crate) mod exec;
mod lists;
mod logs;
pub(crate) mod remote;
mod tail;

use std::{convert::Infallible, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use k8s_openapi::jiff::Timestamp;
use kubeedge_common::{
    http::{HttpListener, Peer, Query, ServeLimits, serve},
    lobby::LobbyLimits,
};
use kubeedge_core::{
    clock::Clock,
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, NodeName},
    runtime::ContainerRuntime,
};
use percent_encoding::percent_decode_str;
use tokio::{net::TcpListener, sync::watch};

use super::book::PodBook;

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for the node's API; set readOnlyPort of modules.edged.tailoredKubeletConfig (EdgedServerSettings::address) to a free port"
)]
struct CannotListen {
    address: SocketAddr,
    source: std::io::Error,
}

/// How the server is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EdgedServerSettings {
    /// Where to listen; port 0 for a free one. KubeEdge: `127.0.0.1:10350`.
    pub address: SocketAddr,
    /// The folder for logs; Kubernetes: `/var/log/pods`.
    pub logs: PathBuf,
    /// Connections at once; further ones wait, and take the place of one that has no request.
    pub connections: usize,
    /// After how long without a byte in either direction a command's connection is ended. KubeEdge: 4 h.
    pub idle: Duration,
}

impl Default for EdgedServerSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 10350)),
            logs: "/var/log/pods".into(),
            connections: 512,
            idle: Duration::from_secs(4 * 60 * 60),
        }
    }
}

/// The name of the module.
pub const EDGED_SERVER: ModuleName = ModuleName::of("edgedServer");

/// How long a connection may be without a request, head included.
const IDLE: Duration = Duration::from_secs(30);
/// How long requests under way have when the module ends.
const GRACE: Duration = Duration::from_secs(1);

/// The module. A clone takes over where the original ended, for a supervisor to start after a failure.
#[derive(Clone, Debug)]
pub struct EdgedServer {
    node: NodeName,
    settings: EdgedServerSettings,
    runtime: Arc<dyn ContainerRuntime>,
    pods: PodBook,
    bound: watch::Sender<Option<SocketAddr>>,
}

/// What requests are answered from.
#[derive(Debug)]
struct Local {
    node: NodeName,
    settings: EdgedServerSettings,
    runtime: Arc<dyn ContainerRuntime>,
    pods: PodBook,
    clock: Clock,
}

impl EdgedServer {
    /// Serves the pods of this book, whose containers this runtime runs on this node.
    pub fn new(
        node: NodeName,
        settings: EdgedServerSettings,
        runtime: Arc<dyn ContainerRuntime>,
        pods: PodBook,
    ) -> Self {
        Self { node, settings, runtime, pods, bound: watch::Sender::new(None) }
    }

    /// What requests are answered from, at this time of day.
    fn local(&self, clock: Clock) -> Local {
        let (node, settings) = (self.node.clone(), self.settings.clone());
        Local { node, settings, runtime: self.runtime.clone(), pods: self.pods.clone(), clock }
    }

    /// Where it listens, while it does.
    pub fn bound(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.bound.subscribe()
    }
}

#[async_trait]
impl Module for EdgedServer {
    fn name(&self) -> ModuleName {
        EDGED_SERVER
    }

    fn group(&self) -> Group {
        Group::of("edgedServer")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let address = self.settings.address;
        let failed = |source| CannotListen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %local, "the node's API listens");
        self.bound.send_replace(Some(local));
        let (limits, local) = (limits(&self.settings), Arc::new(self.local(ctx.clock.clone())));
        let service = move |_: &Peer| {
            let local = local.clone();
            service_fn(move |request| {
                let local = local.clone();
                async move { Ok::<_, Infallible>(answer(&local, request).await) }
            })
        };
        serve(HttpListener::Plain(listener), limits, service, &ctx.shutdown).await;
        self.bound.send_replace(None);
        Ok(())
    }
}

/// All callers are of one address, the loopback.
fn limits(settings: &EdgedServerSettings) -> ServeLimits {
    let places = settings.connections.max(1);
    ServeLimits {
        connections: LobbyLimits {
            places,
            of_one: places,
            waiting: places,
            undisturbed: Duration::from_secs(5),
        },
        spare_busy: true,
        handshake: IDLE,
        idle: IDLE,
        lifetime: None,
        streams: 1,
        grace: GRACE,
    }
}

/// The body of an answer.
type Body = UnsyncBoxBody<Bytes, BoxError>;
/// An answer, or why there is none.
type Answer = Result<Response<Body>, Refusal>;

/// Why a request is not answered: a status and plain text, as the kubelet does it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    why: String,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl Local {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.clock.now().0).unwrap_or_default()
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// The parts of a path between its slashes, decoded.
pub(crate) fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

async fn answer(local: &Local, request: Request<Incoming>) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match route(local, request).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(%method, path, status = %refusal.status, why = %refusal, "refused a request to the node's API");
            text(refusal.status, PLAIN, refusal.why)
        }
    }
}

async fn route(local: &Local, request: Request<Incoming>) -> Answer {
    let parts = parts(request.uri().path());
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    let query = Query::of(request.uri());
    if let ["exec" | "attach", ..] = parts[..] {
        return exec::upgrade(local, request, &parts, &query).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"));
    }
    match parts[..] {
        ["containerLogs", namespace, pod, container] => {
            logs::logs(local, [namespace, pod, container], &query).await
        }
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(text(StatusCode::OK, PLAIN, "ok")),
        ["pods"] => Ok(lists::pods(local)),
        ["runningpods"] => lists::running(local).await,
        ["stats", "summary"] => lists::summary(local).await,
        ["metrics", "resource"] => lists::resource_metrics(local).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_part_by_part() {
        assert_eq!(parts("/exec/default/my%2Dweb/c"), ["exec", "default", "my-web", "c"]);
    }
}
