//! Transports: WebSocket over TLS (feature `ws`), QUIC (feature `quic`), memory; wrappers: one that falls
//! back from one transport to another, and one that injects faults; [`Adaptive`], the codec that speaks a
//! compact form with our own peers (feature `compact`); and for tests [`Wire`], WebSocket over a byte stream
//! that breaks after any byte.
//!
//! All of them pass `kubeedge_core::transport_conformance!`.
//!
//! ```
//! use futures::StreamExt;
//! use kubeedge_core::transport::{Credentials, Endpoint, Frame, Transport};
//! use kubeedge_transport::Memory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), kubeedge_core::transport::TransportError> {
//! let transport = Memory::new();
//! let (here, nobody) = (Endpoint::from("cloud"), Credentials::default());
//! let mut door = transport.listen(&here, &nobody).await?;
//!
//! let named = Credentials::default().with_claim("node_id", "edge-1");
//! let cloud = async {
//!     let incoming = door.next().await?;
//!     assert_eq!(incoming.peer().claim("node_id"), Some("edge-1"));
//!     incoming.accept().await
//! };
//! let (edge, cloud) = tokio::join!(transport.dial(&here, &named), cloud);
//!
//! edge?.tx.send(Frame::text("hello")).await?;
//! assert_eq!(cloud?.rx.next().await.transpose()?, Some(Frame::text("hello")));
//! # Ok(()) }
//! ```

#[cfg(feature = "compact")]
mod compact;
mod doors;
mod fallback;
mod faulty;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(any(feature = "ws", feature = "quic"))]
mod handshakes;
mod memory;
#[cfg(any(feature = "ws", feature = "quic"))]
mod pings;
#[cfg(feature = "quic")]
mod quic;
#[cfg(any(feature = "ws", feature = "quic"))]
mod tls;
#[cfg(feature = "ws")]
mod ws;

#[cfg(feature = "compact")]
pub use compact::Adaptive;
pub use fallback::{Fallback, FallbackSettings};
pub use faulty::{Faults, Faulty};
pub use memory::Memory;
#[cfg(feature = "quic")]
pub use quic::{ALPN, Quic, QuicSettings};
#[cfg(any(feature = "ws", feature = "quic"))]
pub use tls::ClientCertificates;
#[cfg(feature = "ws")]
pub use ws::{Way, WebSocket, WebSocketSettings, Wire, join as websocket_link};
