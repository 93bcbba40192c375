//! The conformance kits: what every implementation of a seam must do, as tests to run over one's own.
//!
//! Each kit is a module of async functions, one per case, and a macro that makes a `#[tokio::test]` of each.

#[cfg(feature = "cluster")]
pub mod cluster;
pub mod mapper;
pub mod runtime;
pub mod store;
pub mod transport;
