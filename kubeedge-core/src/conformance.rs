//! The conformance kits: what every implementation of a seam must do, as tests to run over one's own.
//!
//! Each kit is a module of async functions, one per case, and a macro that makes a `#[tokio::test]` of each. Beside them stand
//! what kits share: `certificates` for both ends of a link, and `executor`, which finds what blocks a runtime.

#[cfg(feature = "pki")]
pub mod certificates;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod executor;
pub mod mapper;
pub mod runtime;
pub mod skips;
pub mod store;
pub mod transport;
