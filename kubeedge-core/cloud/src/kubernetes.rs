//! A real Kubernetes API server as the cluster.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body as KubeBody;
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, KubeService},
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

    /// Makes the requests of a node in its name (user `system:node:<name>`, group `system:nodes`), so that the cluster's
    /// own rules for nodes hold. Needs the right to impersonate. Off, as in Go unless its authorization is on: all
    /// requests are then made as ourselves, within what the controllers themselves allow a node.
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

async fn answer(client: kube::Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        if body.len() + data.len() > MAX_REQUEST {
            return Err("the request is too large for an API server".into());
        }
        body.extend_from_slice(&data);
    }
    let response = client.send(Request::from_parts(parts, KubeBody::from(body))).await;
    let response = response.map_err(|error| Box::new(error) as BoxError)?;
    Ok(response.map(|body| body.map_err(|error| Box::new(error) as BoxError).boxed_unsync()))
}
