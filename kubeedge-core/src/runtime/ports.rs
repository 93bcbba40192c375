//! Connections to ports inside sandboxes.

use std::fmt;

use async_trait::async_trait;

use super::{AsyncRead, AsyncWrite, RuntimeResult, SandboxId};

/// A connection: bytes in both directions. Dropping it closes it.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

impl fmt::Debug for dyn Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Connections to ports inside sandboxes.
#[async_trait]
pub trait PortForward: Send + Sync {
    /// Opens a connection to a TCP port of a sandbox, as a program inside reaches it at its loopback.
    ///
    /// # Errors
    /// [`super::RuntimeKind::NotFound`] when the sandbox does not run. Where nobody listens at the port, this
    /// fails or the connection ends before it says anything.
    async fn connect(&self, id: &SandboxId, port: u16) -> RuntimeResult<Box<dyn Connection>>;
}
