//! gRPC to a runtime over its unix socket, and what its refusals mean.

use std::{error::Error, io, marker::PhantomData, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use kubeedge_core::{
    failure::chain,
    runtime::{RuntimeError, RuntimeKind, RuntimeResult},
};
use prost::Message;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status, Streaming, TimeoutExpired,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::messages::{self as cri, containerd};

/// The largest answer taken, in bytes; the kubelet's limit.
const MAX_ANSWER: usize = 16 << 20;

/// Which method of the runtime, and what is being done by calling it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    path: &'static str,
    doing: &'static str,
}

impl Call {
    /// A failure of this call.
    pub(crate) fn failed(self, kind: RuntimeKind, subject: &str) -> RuntimeError {
        RuntimeError::new(kind, self.doing).on(subject)
    }
}

/// A method with the messages that it takes and answers with.
#[derive(Debug)]
pub(crate) struct Method<Q, A> {
    pub(crate) call: Call,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Clone for Method<Q, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, A> Copy for Method<Q, A> {}

impl<Q, A> Method<Q, A> {
    const fn new(path: &'static str, doing: &'static str) -> Self {
        Self { call: Call { path, doing }, messages: PhantomData }
    }

    /// A failure of this method.
    pub(crate) fn failed(self, kind: RuntimeKind, subject: &str) -> RuntimeError {
        self.call.failed(kind, subject)
    }
}

macro_rules! methods {
    ($($name:ident = $service:literal $method:literal ($request:ident) -> $answer:ident, $doing:literal;)*) => { $(
        pub(crate) const $name: Method<cri::$request, cri::$answer> =
            Method::new(concat!("/runtime.v1.", $service, "/", $method), $doing);
    )* };
}

methods! {
    VERSION = "RuntimeService" "Version" (VersionRequest) -> VersionResponse, "asking the runtime's version";
    STATUS = "RuntimeService" "Status" (StatusRequest) -> StatusResponse, "asking the runtime's status";
    RUN_SANDBOX = "RuntimeService" "RunPodSandbox" (RunPodSandboxRequest) -> RunPodSandboxResponse, "running a sandbox";
    STOP_SANDBOX = "RuntimeService" "StopPodSandbox" (StopPodSandboxRequest) -> StopPodSandboxResponse, "stopping a sandbox";
    REMOVE_SANDBOX = "RuntimeService" "RemovePodSandbox" (RemovePodSandboxRequest) -> RemovePodSandboxResponse, "removing a sandbox";
    SANDBOX_STATUS = "RuntimeService" "PodSandboxStatus" (PodSandboxStatusRequest) -> PodSandboxStatusResponse, "reading a sandbox";
    LIST_SANDBOXES = "RuntimeService" "ListPodSandbox" (ListPodSandboxRequest) -> ListPodSandboxResponse, "listing sandboxes";
    CREATE = "RuntimeService" "CreateContainer" (CreateContainerRequest) -> CreateContainerResponse, "creating a container";
    START = "RuntimeService" "StartContainer" (StartContainerRequest) -> StartContainerResponse, "starting a container";
    STOP = "RuntimeService" "StopContainer" (StopContainerRequest) -> StopContainerResponse, "stopping a container";
    REMOVE = "RuntimeService" "RemoveContainer" (RemoveContainerRequest) -> RemoveContainerResponse, "removing a container";
    CONTAINER_STATUS = "RuntimeService" "ContainerStatus" (ContainerStatusRequest) -> ContainerStatusResponse, "reading a container";
    LIST_CONTAINERS = "RuntimeService" "ListContainers" (ListContainersRequest) -> ListContainersResponse, "listing containers";
    EXEC_SYNC = "RuntimeService" "ExecSync" (ExecSyncRequest) -> ExecSyncResponse, "running a command in a container";
    EXEC = "RuntimeService" "Exec" (ExecRequest) -> ExecResponse, "running a command in a container";
    ATTACH = "RuntimeService" "Attach" (AttachRequest) -> AttachResponse, "attaching to a container";
    PORT_FORWARD = "RuntimeService" "PortForward" (PortForwardRequest) -> PortForwardResponse, "connecting to a port of a sandbox";
    STATS = "RuntimeService" "ContainerStats" (ContainerStatsRequest) -> ContainerStatsResponse, "reading a container's usage";
    EVENTS = "RuntimeService" "GetContainerEvents" (GetEventsRequest) -> ContainerEventResponse, "following container events";
    LIST_IMAGES = "ImageService" "ListImages" (ListImagesRequest) -> ListImagesResponse, "listing images";
    IMAGE_STATUS = "ImageService" "ImageStatus" (ImageStatusRequest) -> ImageStatusResponse, "looking for an image";
    PULL_IMAGE = "ImageService" "PullImage" (PullImageRequest) -> PullImageResponse, "pulling an image";
    REMOVE_IMAGE = "ImageService" "RemoveImage" (RemoveImageRequest) -> RemoveImageResponse, "removing an image";
}

/// containerd's own stream of events.
pub(crate) const CONTAINERD_EVENTS: Method<containerd::SubscribeRequest, containerd::Envelope> =
    Method::new("/containerd.services.events.v1.Events/Subscribe", "following containerd's events");

/// What a runtime answered instead of doing what it was asked, as Kubernetes' tools print it.
#[derive(Debug, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
struct Refusal {
    code: Code,
    message: String,
}

/// A connection to one service, made at the first call and again after each loss.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    channel: Channel,
    timeout: Duration,
}

impl Client {
    /// A client of the socket named by `endpoint`. Nothing is dialled yet.
    pub(crate) fn new(endpoint: &str, timeout: Duration) -> RuntimeResult<Self> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        if !path.starts_with('/') {
            let why = "a runtime's endpoint is the path of a unix socket, as in unix:///run/containerd/containerd.sock";
            return Err(RuntimeError::new(RuntimeKind::Invalid, "reading the runtime's endpoint")
                .on(endpoint)
                .because(why));
        }
        let path: Arc<Path> = Path::new(path).into();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The address is not used to connect; it becomes the request's authority.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Self { channel, timeout })
    }

    /// Calls a method and waits for its answer for the usual time.
    pub(crate) async fn call<Q, A>(&self, method: Method<Q, A>, subject: &str, request: Q) -> RuntimeResult<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_within(method.call, subject, request, self.timeout).await
    }

    /// Calls a method that may take `longer` than others do.
    pub(crate) async fn call_longer<Q, A>(
        &self,
        method: Method<Q, A>,
        subject: &str,
        request: Q,
        longer: Duration,
    ) -> RuntimeResult<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_within(method.call, subject, request, self.timeout.saturating_add(longer)).await
    }

    async fn call_within<Q, A>(
        &self,
        call: Call,
        subject: &str,
        request: Q,
        limit: Duration,
    ) -> RuntimeResult<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(request);
        // The runtime is told too, so that it gives up and cleans up.
        request.set_timeout(limit);
        let answer = async {
            let mut grpc = self.grpc();
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(request, PathAndQuery::from_static(call.path), ProstCodec::<Q, A>::default()).await
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(refused(call, subject, &status)),
            Err(elapsed) => Err(call.failed(RuntimeKind::Timeout, subject).because(elapsed)),
        }
    }

    /// Calls a method that answers again and again.
    pub(crate) async fn follow<Q, A>(&self, method: Method<Q, A>, request: Q) -> RuntimeResult<Streaming<A>>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        let answers = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let path = PathAndQuery::from_static(method.call.path);
            grpc.server_streaming(Request::new(request), path, ProstCodec::<Q, A>::default()).await
        };
        answers.await.map(tonic::Response::into_inner).map_err(|status| refused(method.call, "", &status))
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }
}

fn refused(call: Call, subject: &str, status: &Status) -> RuntimeError {
    let message = status.source().map_or_else(|| status.message().to_owned(), chain);
    call.failed(kind(status), subject).because(Refusal { code: status.code(), message })
}

/// Runtimes answer most refusals with the code Unknown and a text; the texts looked for are containerd's and
/// CRI-O's.
fn kind(status: &Status) -> RuntimeKind {
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        _ if caused_by_timeout(status) => RuntimeKind::Timeout,
        // Only what this side's transport reports has a source.
        _ if status.source().is_some() => RuntimeKind::Down,
        Code::NotFound => RuntimeKind::NotFound,
        Code::AlreadyExists => RuntimeKind::Exists,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => RuntimeKind::Invalid,
        Code::Unimplemented => RuntimeKind::Unsupported,
        Code::Unavailable => RuntimeKind::Down,
        Code::DeadlineExceeded | Code::Cancelled => RuntimeKind::Timeout,
        _ if says("is reserved") => RuntimeKind::Exists,
        _ if says("server is not initialized yet") => RuntimeKind::Down,
        _ if says("context deadline exceeded") => RuntimeKind::Timeout,
        _ => RuntimeKind::Internal,
    }
}

fn caused_by_timeout(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_understood_by_its_code_and_else_by_its_text() {
        for (code, text, expected) in [
            (Code::NotFound, "failed to find container", RuntimeKind::NotFound),
            (Code::AlreadyExists, "", RuntimeKind::Exists),
            (Code::Unimplemented, "unknown service runtime.v1.RuntimeService", RuntimeKind::Unsupported),
            (Code::Unavailable, "", RuntimeKind::Down),
            (Code::DeadlineExceeded, "", RuntimeKind::Timeout),
            (Code::InvalidArgument, "", RuntimeKind::Invalid),
            (
                Code::Unknown,
                r#"failed to reserve sandbox name "a_b_c_0": name "a_b_c_0" is reserved for "1""#,
                RuntimeKind::Exists,
            ),
            (Code::Unknown, "server is not initialized yet", RuntimeKind::Down),
            (Code::Unknown, "something else", RuntimeKind::Internal),
        ] {
            assert_eq!(kind(&Status::new(code, text)), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_unix_socket_is_refused_by_name() {
        let error = Client::new("tcp://localhost:1", Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), RuntimeKind::Invalid);
        assert_eq!(error.subject(), "tcp://localhost:1");
    }
}
