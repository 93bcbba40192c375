//! QUIC as in RFC 9000, with a stream for each lane. **Not what Go KubeEdge calls QUIC.**
//!
//! Go's edgecore and cloudcore speak Google's QUIC of 2018 (version Q044, its own handshake, no client
//! certificates), which no stack of RFC 9000 understands. A Go edge cannot use our port, nor our edge a Go
//! cloudcore's: such a dial fails with [`TransportKind::Protocol`] or [`TransportKind::Unreachable`]. Between
//! us and Go peers there is WebSocket.
//!
//! TLS 1.3, by ring unless told otherwise, always verified on both sides and never resumed; no 0-RTT. Both
//! sides insist on [`ALPN`], which names the version of what follows:
//!
//! - A frame on a stream is one byte of kind (0 binary, 1 text, 2 hello, 3 welcome, 4 refusal, 5 ping, 6
//!   pong, 7 heard), four bytes of length, big-endian, and the payload. All numbers are big-endian.
//! - The dialler opens one bidirectional stream and says hello: the path it asks for on the first line, then
//!   a claim a line, `name: value`, at most 8 KiB together. The listener answers with welcome or with a
//!   refusal, which is the reason in UTF-8. From then on this stream is [`Lane::Control`], both ways.
//! - The claim `transport-can` belongs to the transport: words, with spaces between them, for what the
//!   dialler can beyond this. The welcome repeats those that the listener can too. It is empty for a dialler
//!   without the claim, and an older listener's always is. The one word so far is `ping`: both sides answer
//!   pings.
//! - Whoever first sends in another lane opens a unidirectional stream for it, which begins with one byte: 1
//!   for [`Lane::Twins`], 2 for [`Lane::Bulk`]. A peer that allows no more streams gets these frames in the
//!   control lane.
//! - A ping (5) travels in the control stream and holds three numbers of eight bytes: its own, larger than
//!   that of any ping before it, and how many frames its sender has put into its streams of twins and of
//!   bulk. When as many of either stream were taken by the program that reads them, and all that came before
//!   the ping in the control stream, the number goes back as a pong (6), which answers earlier pings as well.
//!   Where it has to wait for that, the number goes back as *heard* (7) first: a peer that is slow is not
//!   gone.
//! - To end, a side ends its other streams, then the control stream, and closes the connection when all has
//!   arrived.
//!
//! Each lane has a window of its own, and the connection has room for all of them: what is full or waits for
//! a lost packet holds up nothing else, and when all have something to send, control goes first. An idle link
//! holds no buffers of ours; the stack holds 31 kB for it, nearly half of that in two pieces (its state, and
//! the first block of its queue of packets), and 3.5 kB more once it has sent a few packets at once.
//!
//! A link outlives a change of the dialler's address, such as another network or a rebooted NAT: the
//! certificate makes the peer, not the address. [`Peer::address`](kubeedge_core::transport::Peer) stays the
//! first one. The dialler keeps the path open with a packet every [`QuicSettings::keep_alive`]; who is silent
//! for [`QuicSettings::idle`] has gone.

mod accept;
mod answers;
mod control;
mod dial;
mod frames;
mod hello;
mod link;
mod socket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use kubeedge_core::{
    clock::Clock,
    failure::Failure,
    transport::{
        Credentials, Endpoint, Lane, Limits, Link, Listener, Transport, TransportError, TransportKind,
    },
};
use parking_lot::Mutex;
use quinn::{ConnectionError, MtuDiscoveryConfig, StoppedError, TransportConfig, VarInt, WriteError};
use rustls::crypto::CryptoProvider;

use self::socket::endpoint;
use crate::tls::{self, ClientCertificates, Tls};

/// What both sides must speak above QUIC.
pub const ALPN: &[u8] = b"kubeedge/1";

/// With this a side closes when its last frame has arrived.
const DONE: VarInt = VarInt::from_u32(1);
/// With this a side closes when the other broke the rules above.
const WRONG: VarInt = VarInt::from_u32(2);
/// With this a stream is cut off instead of ended.
const CUT: VarInt = VarInt::from_u32(3);

const SENDING: &str = "sending a frame";

/// What a listening socket may hold while we are busy, in bytes: it is one for all peers. The system may
/// allow less.
const SOCKET_BUFFER: usize = 4 << 20;

/// How much of a peer is kept before its handshake begins, in bytes.
const FIRST_FLIGHT: u64 = 16 << 10;

/// Half of what lies between the datagrams that every path must take and the largest ever sent, in bytes, and
/// one more: the first that is tried is the largest.
const MTU_STEP: u16 = (1452 - 1200) / 2 + 1;

/// How the transport works.
#[derive(Clone, Copy, Debug)]
pub struct QuicSettings {
    /// The largest frame in bytes, both ways.
    pub max_frame: usize,
    /// How long a dial waits for the first word of the peer. UDP that is blocked or that nobody listens to is
    /// mostly silent.
    pub answer: Duration,
    /// How long the TLS handshake and the hello may take together.
    pub handshake: Duration,
    /// How many handshakes a listener carries out at once; as many peers wait. When more than half of them
    /// are under way, peers must first show that their address is theirs.
    pub handshakes: usize,
    /// How many of them with one address, so that another always finds a place; an IPv6 network of 64 bits
    /// counts as one. Further peers of the address wait.
    pub handshakes_of_one: usize,
    /// Whether listeners want client certificates.
    pub client_certificates: ClientCertificates,
    /// After how long without a packet a peer has gone. At least a millisecond.
    pub idle: Duration,
    /// After how long without a packet a dialler sends one, for NATs on the way; less than `idle`.
    pub keep_alive: Duration,
    /// How many bytes of one lane may be under way, or arrive before they are read. The same on both sides,
    /// or a full lane may hold up others.
    pub window: u32,
    /// How many streams a peer may open, the control stream included; lanes that get none share it.
    pub streams: u32,
    /// Whether all links this transport dials share one socket, for programs with thousands of them; all in
    /// one tokio runtime. Otherwise each has its own, and with it another port, which a broken path may need.
    pub shared_socket: bool,
}

impl Default for QuicSettings {
    fn default() -> Self {
        Self {
            max_frame: 16 << 20,
            answer: Duration::from_millis(1500),
            handshake: Duration::from_secs(30),
            handshakes: 256,
            handshakes_of_one: 192,
            client_certificates: ClientCertificates::Required,
            idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(20),
            window: 256 << 10,
            streams: 3,
            shared_socket: false,
        }
    }
}

/// The transport.
#[derive(Clone, Debug, Default)]
pub struct Quic {
    settings: QuicSettings,
    tls: Tls,
    /// The sockets that are shared: of IPv4 and IPv6.
    shared: Arc<Mutex<[Option<quinn::Endpoint>; 2]>>,
}

impl Quic {
    /// With these settings.
    pub fn new(settings: QuicSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Does its cryptography with another provider than ring; it must have the suite
    /// TLS13_AES_128_GCM_SHA256.
    #[must_use]
    pub fn with_provider(mut self, provider: CryptoProvider) -> Self {
        self.tls = self.tls.with_provider(provider);
        self
    }

    /// Tells by this clock whether a certificate is valid now. The machine's unless told otherwise.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.tls = self.tls.with_clock(clock);
        self
    }

    /// The socket that dials this address.
    fn socket(&self, to: SocketAddr) -> std::io::Result<quinn::Endpoint> {
        if !self.settings.shared_socket {
            return dialling_endpoint(to);
        }
        let mut shared = self.shared.lock();
        let [four, six] = &mut *shared;
        let place = if to.is_ipv4() { four } else { six };
        if let Some(socket) = place {
            return Ok(socket.clone());
        }
        Ok(place.insert(dialling_endpoint(to)?).clone())
    }

    fn client_config(&self, who: &Credentials) -> Result<quinn::ClientConfig, TransportError> {
        let mut tls = self.tls.client(who)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(unusable)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = transport_config(&self.settings)?;
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .keep_alive_interval(Some(self.settings.keep_alive));
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    fn server_config(&self, who: &Credentials) -> Result<quinn::ServerConfig, TransportError> {
        let mut tls = self.tls.server(who, self.settings.client_certificates)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(unusable)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = transport_config(&self.settings)?;
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1));
        config.transport_config(Arc::new(transport));
        let most = self.settings.handshakes.saturating_mul(4);
        config.max_incoming(most).incoming_buffer_size(FIRST_FLIGHT);
        config.incoming_buffer_size_total(FIRST_FLIGHT.saturating_mul(most as u64));
        Ok(config)
    }
}

#[async_trait]
impl Transport for Quic {
    fn scheme(&self) -> &'static str {
        "quic"
    }

    fn limits(&self) -> Limits {
        Limits::new(self.settings.max_frame)
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let dialling = Box::pin(dial::dial(self, to, who));
        let dialled = tokio::time::timeout(self.settings.handshake, dialling).await;
        dialled.map_err(|_| Failure::new(TransportKind::Timeout, "dialling").on(to.0.clone()))?
    }

    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let config = self.server_config(who)?;
        let wrong = |error: std::io::Error| {
            Failure::new(TransportKind::Misconfigured, "listening").on(on.0.clone()).because(error)
        };
        let socket = tokio::net::UdpSocket::bind(on.authority()).await.map_err(wrong)?;
        let socket = socket.into_std().map_err(wrong)?;
        let state = quinn::udp::UdpSocketState::new((&socket).into()).map_err(wrong)?;
        for set in [
            state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER),
            state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER),
        ] {
            if let Err(error) = set {
                tracing::debug!(error = %error, "the buffers of the socket stay as they are");
            }
        }
        let endpoint = endpoint(socket, Some(config)).map_err(wrong)?;
        Ok(Box::new(accept::Door::open(endpoint, self.settings).map_err(wrong)?))
    }
}

fn dialling_endpoint(to: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    endpoint(std::net::UdpSocket::bind(any)?, None)
}

fn unusable(error: quinn::crypto::rustls::NoInitialCipherSuite) -> TransportError {
    Failure::new(TransportKind::Misconfigured, "preparing TLS for QUIC").because(error)
}

fn transport_config(settings: &QuicSettings) -> Result<TransportConfig, TransportError> {
    let lanes = u32::try_from(Lane::ALL.len()).unwrap_or(u32::MAX);
    let idle = settings.idle.try_into().map_err(|error: quinn::VarIntBoundsExceeded| {
        Failure::new(TransportKind::Misconfigured, "setting the idle timeout").because(error)
    })?;
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle))
        .mtu_discovery_config(Some(datagrams()))
        .stream_receive_window(VarInt::from_u32(settings.window))
        .receive_window(VarInt::from_u32(settings.window.saturating_mul(lanes)))
        // Twice, as confirmations may come later than the room to send more.
        .send_window(u64::from(settings.window) * u64::from(lanes) * 2)
        .max_concurrent_uni_streams(VarInt::from_u32(settings.streams.clamp(1, lanes) - 1))
        .datagram_receive_buffer_size(None);
    Ok(config)
}

/// How it is found out how large a datagram may be: by a try of the largest, and where that is lost by one
/// halfway. Quinn would halve from below, with five tries or six at each connect that a metered link pays
/// for.
fn datagrams() -> MtuDiscoveryConfig {
    let mut search = MtuDiscoveryConfig::default();
    search.minimum_change(MTU_STEP);
    search
}

/// What the end of a connection means.
fn kind_of(error: &ConnectionError) -> TransportKind {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        ConnectionError::ApplicationClosed(close) if close.error_code == WRONG => {
            return TransportKind::Protocol;
        }
        ConnectionError::TimedOut => return TransportKind::Timeout,
        ConnectionError::VersionMismatch => return TransportKind::Protocol,
        _ => return TransportKind::Closed,
    };
    // RFC 9001, 4.8: an alert of TLS is 0x100 and its number.
    match code.checked_sub(0x100).map(u8::try_from) {
        Some(Ok(alert)) => tls::kind_of_alert(alert.into()),
        _ => TransportKind::Protocol,
    }
}

fn lost(doing: &'static str, error: ConnectionError) -> TransportError {
    Failure::new(kind_of(&error), doing).because(error)
}

fn closed(doing: &'static str) -> TransportError {
    Failure::new(TransportKind::Closed, doing)
}

fn unwritten(error: WriteError) -> TransportError {
    match error {
        WriteError::ConnectionLost(error) => lost(SENDING, error),
        error => closed(SENDING).because(error),
    }
}

/// Waits until the peer has everything of a stream that was finished.
async fn arrived(
    stopped: impl Future<Output = Result<Option<VarInt>, StoppedError>>,
) -> Result<(), TransportError> {
    match stopped.await {
        // A peer that leaves at the end has seen it.
        Ok(None) | Err(StoppedError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => Ok(()),
        Ok(Some(_)) => Err(closed("closing a link")),
        Err(StoppedError::ConnectionLost(error)) => Err(lost("closing a link", error)),
        Err(error) => Err(closed("closing a link").because(error)),
    }
}

/// The peer's verified certificate chain in DER, leaf first.
fn certificates(connection: &quinn::Connection) -> Vec<bytes::Bytes> {
    let identity = connection.peer_identity();
    let chain =
        identity.and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
    chain.iter().flat_map(|chain| chain.iter()).map(|der| bytes::Bytes::copy_from_slice(der)).collect()
}

#[cfg(test)]
mod tests;
