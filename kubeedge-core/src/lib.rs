//! The contracts of KubeEdge in Rust.
//!
//! Everything a vendor's own cloudcore or edgecore is put together from is named here: the message that
//! travels between cloud and edge, the bus and the kernel that run modules, and the *seams*, traits with
//! several implementations each. The crate holds no socket, no database and no TLS of its own; with default
//! features it does not even link one.
//!
//! ```text
//!  bins, examples, tests
//!  kubeedge-edge        | kubeedge-cloud
//!  kubeedge-transport   | kubeedge-store | kubeedge-device
//!  kubeedge-core  ← you are here
//! ```
//!
//! Read in this order: [`message`], [`bus`], [`kernel`], [`routes`] (what a module of yours takes, and how its
//! messages cross the link), then the seam you want to implement:
//! [`transport`], [`store`], [`runtime`], [`device`], and `cluster` (feature `cluster`). KubeEdge's
//! own Kubernetes kinds are in `api` (feature `k8s`).
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
pub mod bus;
pub mod clock;
pub mod device;
pub mod failure;
pub mod kernel;
pub mod message;
pub mod name;
pub mod routes;
pub mod runtime;
pub mod store;
pub mod transport;
pub mod tunnel;
pub mod wire;

#[cfg(feature = "k8s")]
pub mod api;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "cluster")]
pub mod node_streams;
#[cfg(feature = "pki")]
pub mod pki;
