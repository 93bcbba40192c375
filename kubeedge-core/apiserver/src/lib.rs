//! A Kubernetes API server over any storage, for one machine, a small site, or an edge.
//!
//! [`ApiServer`] answers HTTP requests for the objects of a [`Storage`]: discovery and OpenAPI v3; get, list,
//! watch with bookmarks and 410, create, update, delete with grace and finalizers; JSON, merge and strategic
//! merge patches and server-side apply with field managers; status, scale, binding, eviction, token, log,
//! exec and attach; label and field selectors; tables; impersonation by administrators; protobuf bodies of
//! what kubectl itself sends, answered in JSON. The kinds are those a small cluster needs, and any
//! CustomResourceDefinition. It is a [`ClusterApi`] like any other: in process it costs a function call, and
//! [`Serving`] opens it to kubectl and client-go over TLS.
//!
//! Not yet: all other protobuf (told with 415), port forwarding, admission webhooks, RBAC (whoever has a
//! certificate or token of this server may do everything, a node only what is its own).
//!
//! # Which storage
//!
//! - [`EmbeddedStorage`] keeps objects in a [`MetaStore`]; [`EmbeddedCluster`] serves it with what every
//!   cluster has from the start. Objects survive a restart.
//! - KubeEdge's MetaServer serves the edge's own view: its storage asks the cloud while the link is up, and
//!   reads what MetaManager keeps when it is not; writes are then unavailable (503). It needs [`ApiServer`]
//!   and one [`Storage`], and none of the features.
//! - A vendor's: write [`Storage`], run `storage_conformance!` over it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use kubeedge_apiserver::{ApiServer, EmbeddedStorage};
//! use kubeedge_core::{clock::Clock, cluster::{Actor, ClusterApi, KubeService}};
//! use kubeedge_store::MemoryStore;
//!
//! # async fn example() -> Result<KubeService, Box<dyn std::error::Error>> {
//! let storage = EmbeddedStorage::open(Arc::new(MemoryStore::new())).await?;
//! let server = ApiServer::new(Arc::new(storage), Clock::wall());
//! Ok(server.service(&Actor::Ourselves))
//! # }
//! ```
//!
//! # Features
//!
//! - `controllers`: what makes Deployments run, places pods and collects garbage, over an
//!   [`EmbeddedCluster`]; and `LocalCluster`, a whole cluster with its own authority and kubeconfig.
//! - `conformance`: the kit that every [`Storage`] is held to.
//! - `fuzz`: doors for fuzz targets; no stable interface.
//!
//! [`ClusterApi`]: kubeedge_core::cluster::ClusterApi
//! [`MetaStore`]: kubeedge_core::store::MetaStore

mod admission;
mod answer;
mod apply;
mod call;
mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "controllers")]
pub mod controllers;
mod definitions;
mod discovery;
mod embedded;
mod fields;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod jsonpath;
mod key;
mod kinds;
mod kubelet;
mod layout;
#[cfg(feature = "controllers")]
mod local;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod registry;
mod schema;
mod selectors;
mod serve;
mod server;
mod status;
pub mod storage;
mod table;
mod tasks;
mod times;
mod tokens;
mod user;
mod watch;

pub use cluster::{EmbeddedCluster, EmbeddedSettings};
pub use embedded::EmbeddedStorage;
pub use key::{Collection, ObjectKey};
#[cfg(feature = "controllers")]
pub use local::{LocalCluster, LocalError, LocalSettings};
pub use selectors::Selector;
pub use serve::{ServeError, ServeSettings, Serving, kubeconfig};
pub use server::ApiServer;
pub use storage::Storage;
pub use tokens::Signer;
