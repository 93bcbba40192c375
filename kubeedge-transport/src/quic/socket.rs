//! The sockets of QUIC.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

use quinn::{
    AsyncUdpSocket, EndpointConfig, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::runtime::Handle;

/// How many packets of a link go to the system at once. Once it has sent that much, a link keeps a buffer for
/// them as long as it lasts: 14.5 kB for the ten that quinn would take, and 5.8 kB for four, which cost half
/// as much CPU again where a link does nothing but send, and a third of what one at a time does.
const AT_ONCE: usize = 4;

/// An endpoint over this socket.
pub(super) fn endpoint(
    socket: std::net::UdpSocket,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let (socket, runtime, here) = (frugal(socket)?, Arc::new(TokioRuntime), Handle::current());
    let make = || {
        let _here = here.enter();
        quinn::Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, socket, runtime)
    };
    // An endpoint has 3 MB of zeroes for what may come in, most of which it never writes to. Allocators hand
    // a new thread memory that is fresh from the system, whose zeroes cost nothing; on a thread that has
    // worked they would be written.
    let made = thread::scope(|scope| scope.spawn(make).join());
    made.unwrap_or_else(|_| Err(io::Error::other("quinn could not make an endpoint")))
}

pub(super) fn frugal(socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    Ok(Arc::new(Frugal(TokioRuntime.wrap_udp_socket(socket)?)))
}

/// A socket that takes no more than [`AT_ONCE`].
struct Frugal(Arc<dyn AsyncUdpSocket>);

impl fmt::Debug for Frugal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[deny(clippy::missing_trait_methods)]
impl AsyncUdpSocket for Frugal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments().min(AT_ONCE)
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
