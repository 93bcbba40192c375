//! The seam to the cluster: an HTTP service that speaks Kubernetes, for an actor.
//!
//! A real API server, the embedded one and a test's script are all the same here, and `kube::Client` runs on any of
//! them: `kube::Client::new(cluster.service(&Actor::Ourselves).map_request(…), "default")`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;

use crate::{failure::BoxError, name::NodeName};

/// A request's or response's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A service that answers Kubernetes API requests. Paths are those of the API server (`/api/v1/…`).
pub type KubeService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

/// On whose behalf a request is made. Against a real API server this becomes impersonation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// cloudcore itself.
    Ourselves,
    /// A node: user `system:node:<name>`, group `system:nodes`.
    Node(NodeName),
}

/// A cluster.
pub trait ClusterApi: fmt::Debug + Send + Sync + 'static {
    /// A service for this actor. Cheap; connections are shared.
    fn service(&self, acting_as: &Actor) -> KubeService;
}

#[deny(clippy::missing_trait_methods)]
impl<C: ClusterApi + ?Sized> ClusterApi for Arc<C> {
    fn service(&self, acting_as: &Actor) -> KubeService {
        (**self).service(acting_as)
    }
}
