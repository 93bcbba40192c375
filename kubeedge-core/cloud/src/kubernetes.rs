//! A real Kubernetes API server as the cluster.

use std::{error::Error, io, sync::Arc};

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body as KubeBody;
use kubeedge_common::http::{BodyError, read_body};
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, ClusterError, ClusterKind, KubeService},
    failure::BoxError,
};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// The largest request; an API server takes 3 MiB at most.
const MAX_REQUEST: usize = 16 << 20;

/// An API server reached as a kubeconfig or the pod's service account says.
pub struct KubeCluster {
    client: kube::Client,
    impersonate: bool,
}

impl std::fmt::Debug for KubeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeCluster").field("impersonate", &self.impersonate).finish_non_exhaustive()
    }
}

impl KubeCluster {
    /// A cluster by this configuration. Must be called within a tokio runtime.
    pub fn new(config: kube::Config) -> Result<Self, kube::Error> {
        Ok(Self { client: kube::Client::try_from(config)?, impersonate: false })
    }

    /// Makes the requests of a node in its name (user `system:node:<name>`, group `system:nodes`), so that
    /// the cluster's own rules for nodes hold. Needs the right to impersonate. Off, as in Go unless its
    /// authorization is on: all requests are then made as ourselves, within what the controllers themselves
    /// allow a node.
    #[must_use]
    pub fn impersonating(mut self, on: bool) -> Self {
        self.impersonate = on;
        self
    }
}

impl ClusterApi for KubeCluster {
    fn service(&self, acting_as: &Actor) -> KubeService {
        let client = self.client.clone();
        let node = match acting_as {
            Actor::Node(node) if self.impersonate => {
                HeaderValue::try_from(format!("system:node:{node}")).ok()
            }
            _ => None,
        };
        let node = Arc::new(node);
        KubeService::new(tower::service_fn(move |mut request: Request<Body>| {
            if let Some(node) = &*node {
                request.headers_mut().insert(USER, node.clone());
                request.headers_mut().insert(GROUP, HeaderValue::from_static("system:nodes"));
            }
            answer(client.clone(), request)
        }))
    }
}

async fn answer(client: kube::Client, request: Request<Body>) -> Result<Response<Body>, ClusterError> {
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let failed = |kind| ClusterError::new(kind, "asking the API server").on(path.as_str());
    let body = read_body(incoming, MAX_REQUEST).await.map_err(|error| match error {
        BodyError::TooLarge { .. } => failed(ClusterKind::TooLarge),
        BodyError::Broken(error) => failed(ClusterKind::Invalid).because(error),
    })?;
    let response = client.send(Request::from_parts(parts, KubeBody::from(body))).await;
    let response = response.map_err(|error| failed(kind_of(&error)).because(error))?;
    Ok(response.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()))
}

/// Why there was no answer.
fn kind_of(error: &kube::Error) -> ClusterKind {
    match error {
        kube::Error::Auth(_) => ClusterKind::Refused,
        kube::Error::TlsRequired | kube::Error::RustlsTls(_) => ClusterKind::Untrusted,
        kube::Error::HttpError(_) | kube::Error::BuildRequest(_) => ClusterKind::Invalid,
        error => kind_of_source(error).unwrap_or(ClusterKind::Unreachable),
    }
}

/// By the first error in a chain that tells. An I/O error keeps its own cause beside the chain.
fn kind_of_source(error: &(dyn Error + 'static)) -> Option<ClusterKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<rustls::Error>() {
            // The other side has turned our certificate down.
            Some(rustls::Error::AlertReceived(_)) => return Some(ClusterKind::Refused),
            Some(_) => return Some(ClusterKind::Untrusted),
            None => {}
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let inner = error.get_ref().and_then(|inner| kind_of_source(inner));
            return inner.or(kind_of_io(error.kind()));
        }
        next = error.source();
    }
    None
}

fn kind_of_io(kind: io::ErrorKind) -> Option<ClusterKind> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    match kind {
        TimedOut => Some(ClusterKind::Timeout),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Some(ClusterKind::Closed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use kubeedge_core::failure::Advice;
    use tower::ServiceExt;

    use super::*;

    fn of(error: impl Into<BoxError>) -> ClusterKind {
        kind_of(&kube::Error::Service(error.into()))
    }

    #[test]
    fn failures_to_ask_have_a_kind_to_act_on() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of(refused), ClusterKind::Unreachable);
        assert_eq!(of(io::Error::from(io::ErrorKind::TimedOut)), ClusterKind::Timeout);
        assert_eq!(of(io::Error::from(io::ErrorKind::ConnectionReset)), ClusterKind::Closed);
        let tls = |error: rustls::Error| of(io::Error::new(io::ErrorKind::InvalidData, error));
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(tls(unknown), ClusterKind::Untrusted);
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
        assert_eq!(tls(alert), ClusterKind::Refused);
        assert_eq!(of("something else"), ClusterKind::Unreachable);
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_is_not_sent() {
        let nobody = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let service = KubeCluster::new(nobody).unwrap().service(&Actor::Ourselves);
        let body =
            |bytes: usize| Full::from(vec![b'x'; bytes]).map_err(|never| match never {}).boxed_unsync();
        let large = Request::post("/api/v1/namespaces").body(body(MAX_REQUEST + 1)).unwrap();
        let error = service.clone().oneshot(large).await.unwrap_err();
        assert_eq!((error.kind(), error.subject()), (ClusterKind::TooLarge, "/api/v1/namespaces"));
        let error = service.oneshot(Request::get("/api").body(body(0)).unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.advice()), (ClusterKind::Unreachable, Advice::Retry));
    }
}
