//! The edge side of KubeEdge as a library.
//!
//! An edgecore is put together from a transport, a store and a container runtime; modules talk over the bus
//! of [`kubeedge_core`]. Each module takes a plain `…Settings` struct, so that any of them can be used alone.

mod assembly;
mod backlog;
pub mod config;
pub mod edged;
pub mod eventbus;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod hub;
pub mod meta;
mod queue;
mod refusals;
pub mod stream;
pub mod twin;

pub use assembly::{CloudAddress, EdgeCore, EdgeCoreBuilder, EdgeCoreSettings, EdgeParts, EdgeStatus};
