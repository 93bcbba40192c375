//! Transports: WebSocket over TLS (feature `ws`), memory, and a wrapper that injects faults.
//!
//! All of them pass `kubeedge_core::transport_conformance!`.

mod faulty;
mod memory;
#[cfg(feature = "ws")]
mod ws;

pub use faulty::{Faults, Faulty};
pub use memory::Memory;
#[cfg(feature = "ws")]
pub use ws::{ClientCertificates, WebSocket, WebSocketSettings};
