//! What several crates of KubeEdge in Rust share, each thing written once. No promise is made to anybody
//! else: a vendor's crate stands on `kubeedge-core` and on the crates with the implementations.

pub mod blocking;
pub mod channel;
pub mod deliveries;
pub mod digest;
pub mod file;
pub mod fnv;
#[cfg(feature = "http")]
pub mod http;
pub mod lobby;
pub mod log;
pub mod owner;
pub mod quantity;
pub mod rate;
pub mod stamp;
#[cfg(feature = "tls")]
pub mod tls;
