//! The seam to the cluster: an HTTP service that speaks Kubernetes, for an actor.
//!
//! A real API server, the embedded one and a test's script are all the same here, and `kube::Client` runs on
//! any of them: `kube::Client::new(cluster.service(&Actor::Ourselves).map_request(…), "default")`.
//!
//! What the API server answers, a refusal too, is a response. A [`ClusterError`] says that there was no
//! answer, and by its [`ClusterKind`] what to do about that.
//!
//! A cluster of a test's own, which says who asked:
//!
//! ```
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use kubeedge_core::{cluster::{Actor, Body, ClusterApi, ClusterError, KubeService}, name::NodeName};
//! use tower::{ServiceExt, service_fn, util::BoxCloneSyncService};
//!
//! fn body(text: String) -> Body {
//!     Full::from(text).map_err(|never| match never {}).boxed_unsync()
//! }
//!
//! #[derive(Debug)]
//! struct Script;
//!
//! impl ClusterApi for Script {
//!     fn service(&self, acting_as: &Actor) -> KubeService {
//!         let user = match acting_as {
//!             Actor::Ourselves => "cloudcore".to_owned(),
//!             Actor::Node(name) => format!("system:node:{name}"),
//!         };
//!         BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
//!             let answer = format!("{user} asks for {}", request.uri().path());
//!             async move { Ok::<_, ClusterError>(Response::new(body(answer))) }
//!         }))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let node = Actor::Node(NodeName::from("edge-1"));
//! let request = Request::get("/api/v1/nodes/edge-1").body(body(String::new()))?;
//! let answer = Script.service(&node).oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(answer, "system:node:edge-1 asks for /api/v1/nodes/edge-1");
//! # Ok(()) }
//! ```

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;

use crate::{
    failure::{BoxError, Failure},
    kinds,
    name::NodeName,
};

kinds! {
    /// Why an API server has not answered.
    ClusterKind {
        Unreachable => "API server unreachable", Retry;
        Untrusted => "API server not trusted", GiveUp;
        Refused => "API server refused the client", GiveUp;
        Closed => "connection to the API server broken", Retry;
        Timeout => "no answer from the API server in time", Retry;
        TooLarge => "request or answer too large", GiveUp;
        Invalid => "request that cannot be sent", GiveUp;
    }
}

/// There was no answer of an API server. What it answers, a refusal too, is a response.
pub type ClusterError = Failure<ClusterKind>;

/// A request's or response's body. An error in it means that the other side broke off.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A service that answers Kubernetes API requests. Paths are those of the API server (`/api/v1/…`).
pub type KubeService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, ClusterError>;

/// On whose behalf a request is made. Against a real API server this becomes impersonation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// cloudcore itself.
    Ourselves,
    /// A node: user `system:node:<name>`, group `system:nodes`.
    Node(NodeName),
}

/// A cluster. What every one must do is in `kubeedge_core::cluster_conformance!` (feature `conformance`).
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
