//! The cloud side of KubeEdge as a library.
//!
//! A cloudcore is put together from a transport and a cluster: a real Kubernetes API server, or
//! the embedded one of `kubeedge-apiserver`.

mod assembly;
pub mod certs;
pub mod cluster;
pub mod config;
pub mod denylist;
pub mod devices;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod hub;
pub mod informer;
pub mod instance;
pub mod kubernetes;
pub mod objects;
pub mod records;
pub mod stream;
pub mod sync;
mod tasks;

pub use assembly::{CloudCore, CloudCoreBuilder, CloudCoreSettings, CloudParts, CloudStatus, CoreError};
