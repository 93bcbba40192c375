//! Talking to the cluster: clients per actor, and raw requests whose bodies stay bytes.
//!
//! Everything goes through the [`ClusterApi`] seam, so a real API server, the embedded one and a test's
//! script are alike. Requests made for a node act as that node (user `system:node:<name>`), all others as
//! cloudcore.

use std::{fmt, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use kube::core::{Status, response::StatusSummary};
use kubeedge_common::http::{BodyError, read_body};
use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, Body, ClusterApi, ClusterError, ClusterKind, KubeService},
    name::NodeName,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tower::{Service, ServiceExt};

/// The namespace where KubeEdge keeps its own objects.
pub const NAMESPACE: &str = "kubeedge";

/// How long one request may take before it counts as failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read; a list of everything may be large.
const MOST: usize = 64 << 20;

/// A `kube` client on a cluster, for an actor.
pub fn client(cluster: &dyn ClusterApi, acting_as: &Actor) -> kube::Client {
    let service = cluster.service(acting_as);
    let service = service.map_request(|request: Request<kube::client::Body>| {
        request.map(|body| body.map_err(Into::into).boxed_unsync())
    });
    kube::Client::new(service, "default")
}

/// The clients of one cluster: ours, and one for any node that asks for something.
pub struct Clients {
    cluster: Arc<dyn ClusterApi>,
    ours: ApiClient,
    kube: kube::Client,
    clock: Clock,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Clients {
    /// Clients on this cluster. Must be called within a tokio runtime.
    pub fn new(cluster: Arc<dyn ClusterApi>) -> Self {
        let ours = ApiClient(cluster.service(&Actor::Ourselves));
        let kube = client(&*cluster, &Actor::Ourselves);
        Self { cluster, ours, kube, clock: Clock::wall() }
    }

    /// Stamps with this clock instead of the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What is written to the cluster is stamped with this.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The client that acts as cloudcore.
    pub fn ours(&self) -> &ApiClient {
        &self.ours
    }

    /// The same as a `kube` client, for watches and typed objects.
    pub fn kube(&self) -> &kube::Client {
        &self.kube
    }

    /// The client that acts as a node. Made anew each time, which is cheap.
    pub fn of(&self, node: &NodeName) -> ApiClient {
        ApiClient(self.cluster.service(&Actor::Node(node.clone())))
    }
}

/// Makes single requests for an actor; an answer is the body as it came, of at most 64 MiB. Every failure is
/// a Kubernetes status with reason and code, also where the API server was not reached at all: edges are told
/// of it as of a refusal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiClient(KubeService);

impl ApiClient {
    /// Makes one request, which may take [`REQUEST_TIMEOUT`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        media: Media,
        body: impl Into<Vec<u8>>,
    ) -> Result<Bytes, Box<Status>> {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media.as_str());
        let body = Full::from(body.into()).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|error| unavailable(&error))?;
        match tokio::time::timeout(REQUEST_TIMEOUT, self.ask(request)).await {
            Ok(answer) => answer.map_err(complete),
            Err(_) => Err(failure(504, "Timeout", format!("no answer from the API server to {path}"))),
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Bytes, Box<Status>> {
        self.call(Method::GET, path, Media::Json, Vec::new()).await
    }

    /// `POST` of an object.
    pub async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Result<Bytes, Box<Status>> {
        self.call(Method::POST, path, Media::Json, body).await
    }

    /// A JSON merge patch (RFC 7386).
    pub async fn merge(&self, path: &str, patch: &serde_json::Value) -> Result<Bytes, Box<Status>> {
        self.call(Method::PATCH, path, Media::MergePatch, patch.to_string()).await
    }

    async fn ask(&self, request: Request<Body>) -> Result<Bytes, Box<Status>> {
        let mut service = self.0.clone();
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(|error| unanswered(&error))?;
        let response = service.call(request).await.map_err(|error| unanswered(&error))?;
        let (head, body) = response.into_parts();
        let body = read(body).await?;
        if !head.status.is_client_error() && !head.status.is_server_error() {
            return Ok(body);
        }
        let told = serde_json::from_slice::<Status>(&body).map(Status::boxed);
        let text = || String::from_utf8_lossy(&body).trim().to_owned();
        Err(told.unwrap_or_else(|_| failure(head.status.as_u16(), "InternalError", text())))
    }
}

async fn read(body: Body) -> Result<Bytes, Box<Status>> {
    read_body(body, MOST).await.map_err(|error| match error {
        BodyError::TooLarge { limit } => {
            failure(502, "InternalError", format!("the answer exceeds {limit} bytes"))
        }
        BodyError::Broken(error) => unavailable(&*error),
    })
}

/// How the body of a request is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Media {
    /// An object, or none.
    Json,
    /// A JSON merge patch (RFC 7386).
    MergePatch,
    /// A strategic merge patch, as Kubernetes has it.
    StrategicPatch,
}

impl Media {
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicPatch => "application/strategic-merge-patch+json",
        }
    }
}

/// A status for a failure of our own making.
pub(crate) fn failure(code: u16, reason: &str, message: impl Into<String>) -> Box<Status> {
    Status::failure(&message.into(), reason).with_code(code).boxed()
}

#[cfg(test)]
/// `<resource> "<name>" not found`, as an API server says it.
pub(crate) fn not_found(plural: &str, name: &str) -> Box<Status> {
    let details = kube::core::response::StatusDetails {
        name: name.to_owned(),
        group: String::new(),
        kind: plural.to_owned(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    };
    let status = Status::failure(&format!("{plural} {name:?} not found"), "NotFound").with_code(404);
    status.with_details(details).boxed()
}

/// There was no answer; whoever asked acts on the code.
fn unanswered(error: &ClusterError) -> Box<Status> {
    let (code, reason) = match error.kind() {
        ClusterKind::Timeout => (504, "Timeout"),
        ClusterKind::TooLarge => (413, "RequestEntityTooLarge"),
        _ => (503, "ServiceUnavailable"),
    };
    failure(code, reason, kubeedge_core::failure::chain(error))
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Box<Status> {
    failure(503, "ServiceUnavailable", kubeedge_core::failure::chain(error))
}

/// An edge takes an empty error for success: fill in what a server may have left out.
fn complete(mut status: Box<Status>) -> Box<Status> {
    status.status = Some(StatusSummary::Failure);
    if status.reason.is_empty() {
        status.reason = "InternalError".to_owned();
    }
    if status.message.is_empty() {
        status.message = format!("the API server answered {}", status.code);
    }
    if status.code == 0 {
        status.code = 500;
    }
    status
}

const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?').add(b'`');

/// A path of the API from its segments; names from a peer cannot break out of theirs.
pub(crate) fn api_path(prefix: &str, segments: &[&str]) -> String {
    let mut path = prefix.to_owned();
    for segment in segments {
        path.push('/');
        // `.` and `..` would be resolved away by a URL library.
        match *segment {
            "." => path.push_str("%2E"),
            ".." => path.push_str("%2E%2E"),
            other => path.extend(utf8_percent_encode(other, SEGMENT)),
        }
    }
    path
}

/// The path of a namespaced object's collection, or of the object when a name is given.
pub(crate) fn namespaced(prefix: &str, namespace: &str, plural: &str, rest: &[&str]) -> String {
    let mut segments = vec!["namespaces", namespace, plural];
    segments.extend(rest);
    api_path(prefix, &segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_peer_stays_one_segment_of_the_path() {
        assert_eq!(namespaced("/api/v1", "default", "pods", &["web"]), "/api/v1/namespaces/default/pods/web");
        assert_eq!(api_path("/api/v1", &["nodes", "../secrets?x"]), "/api/v1/nodes/..%2Fsecrets%3Fx");
        assert_eq!(api_path("/api/v1", &["nodes", ".."]), "/api/v1/nodes/%2E%2E");
    }

    #[test]
    fn a_request_without_answer_has_a_status_by_its_kind() {
        for (kind, code) in [
            (ClusterKind::Timeout, 504),
            (ClusterKind::TooLarge, 413),
            (ClusterKind::Unreachable, 503),
            (ClusterKind::Untrusted, 503),
        ] {
            let status = unanswered(&ClusterError::new(kind, "asking").on("/api").because("no route"));
            assert_eq!(status.code, code);
            assert!(status.message.ends_with("while asking (/api): no route"), "{}", status.message);
        }
    }

    #[test]
    fn not_found_reads_as_the_api_server_writes_it() {
        let status = not_found("configmaps", "cm1");
        assert_eq!(status.message, r#"configmaps "cm1" not found"#);
        assert_eq!(
            serde_json::to_value(&*status).unwrap()["details"],
            serde_json::json!({"name":"cm1","kind":"configmaps"})
        );
    }
}
