//! WebSocket over TLS, as Go KubeEdge speaks it.
//!
//! TLS 1.3, or 1.2 with the ECDSA suites that Go's cloudcore takes, by ring unless told otherwise
//! ([`WebSocket::with_provider`]), always verified on both sides and never resumed, so that a certificate is
//! verified anew with each connection; no ALPN is offered, because a Go server that picks `h2` breaks the
//! upgrade. The listener requires client certificates unless told that they are optional. Idle links are kept
//! small: a read buffer of 1 KiB. Identity travels in headers (`node_id`, `project_id`, `ConnectionUse`),
//! which become claims; any path is accepted and shown.
//!
//! Peers that vanish without a close handshake are normal: Go never performs one.

pub(crate) mod accept;
pub(crate) mod link;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use kubeedge_core::{
    clock::Clock,
    failure::Failure,
    transport::{
        Credentials, Endpoint, Limits, Link, Listener, Peer, Transport, TransportError, TransportKind,
    },
};
use rustls::crypto::CryptoProvider;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::{
    handshakes::{Door, DoorLimits},
    tls::{self, ClientCertificates},
};

pub use self::{
    link::join,
    wire::{Way, Wire},
};

/// How the transport works.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketSettings {
    /// The largest message in bytes, both ways.
    pub max_frame: usize,
    /// How long TLS and WebSocket handshakes may take together.
    pub handshake: Duration,
    /// How many handshakes a listener carries out at once; further peers wait.
    pub handshakes: usize,
    /// How many of them with one address, so that another always finds a place; an IPv6 network of 64 bits
    /// counts as one. Further peers of the address wait.
    pub handshakes_of_one: usize,
    /// Whether listeners want client certificates.
    pub client_certificates: ClientCertificates,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self {
            max_frame: 16 << 20,
            handshake: Duration::from_secs(30),
            handshakes: 256,
            handshakes_of_one: 192,
            client_certificates: ClientCertificates::Required,
        }
    }
}

/// The transport.
#[derive(Clone, Debug, Default)]
pub struct WebSocket {
    settings: WebSocketSettings,
    tls: tls::Tls,
}

impl WebSocket {
    /// With these settings.
    pub fn new(settings: WebSocketSettings) -> Self {
        Self { settings, tls: tls::Tls::default() }
    }

    /// Does its cryptography with another provider than ring, such as one whose key exchange withstands
    /// quantum computers (X25519MLKEM768 of `rustls`'s `aws_lc_rs`, when that feature is on). Suites of TLS
    /// 1.2 that are not for ECDSA are left out.
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

    pub(crate) fn config(&self) -> WebSocketConfig {
        let mut config = WebSocketConfig::default();
        // The first is held by every idle link, the second filled only when much goes out at once; a larger
        // frame gets the room it needs.
        config.read_buffer_size = 1 << 10;
        config.write_buffer_size = 64 << 10;
        config.max_write_buffer_size = self.settings.max_frame + (64 << 10);
        config.max_message_size = Some(self.settings.max_frame);
        config.max_frame_size = Some(self.settings.max_frame);
        config
    }
}

fn late(doing: &'static str, on: &str) -> TransportError {
    Failure::new(TransportKind::Timeout, doing).on(on)
}

#[async_trait]
impl Transport for WebSocket {
    fn scheme(&self) -> &'static str {
        "wss"
    }

    fn limits(&self) -> Limits {
        Limits::new(self.settings.max_frame)
    }

    async fn dial(&self, to: &Endpoint, who: &Credentials) -> Result<Link, TransportError> {
        let dialling = self.dial_now(to, who);
        let dialled = tokio::time::timeout(self.settings.handshake, dialling).await;
        dialled.map_err(|_| late("dialling", &to.0))?
    }

    async fn listen(&self, on: &Endpoint, who: &Credentials) -> Result<Box<dyn Listener>, TransportError> {
        let wrong = |error: std::io::Error| {
            Failure::new(TransportKind::Misconfigured, "listening").on(on.0.clone()).because(error)
        };
        let tls = self.tls.server(who, self.settings.client_certificates)?;
        let listener = TcpListener::bind(on.authority()).await.map_err(wrong)?;
        let local = listener.local_addr().map_err(wrong)?;
        let tls = TlsAcceptor::from(Arc::new(tls));
        let (max_frame, config) = (self.settings.max_frame, self.config());
        let WebSocketSettings { handshake, handshakes, handshakes_of_one: of_one, .. } = self.settings;
        let limits = DoorLimits { handshake, handshakes, of_one };
        Ok(Box::new(Door::open(local, accept::Sockets { listener, tls, max_frame, config }, limits)))
    }
}

impl WebSocket {
    fn dial_now<'a>(
        &'a self,
        to: &'a Endpoint,
        who: &'a Credentials,
    ) -> BoxFuture<'a, Result<Link, TransportError>> {
        Box::pin(async move {
            let fail = |kind| Failure::new(kind, "dialling").on(to.0.clone());
            let connector = TlsConnector::from(Arc::new(self.tls.client(who)?));
            let name = tls::server_name(to)?;
            let tcp = TcpStream::connect(to.authority())
                .await
                .map_err(|e| fail(TransportKind::Unreachable).because(e))?;
            let address = tcp.peer_addr().ok();
            let _ = tcp.set_nodelay(true);
            let tls = connector.connect(name, tcp).await.map_err(|e| fail(tls::kind_of(&e)).because(e))?;
            let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates: Vec<_> = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
            let request = request(to, who).map_err(|e| fail(TransportKind::Misconfigured).because(e))?;
            let (socket, _) = match client_async_with_config(request, tls, Some(self.config())).await {
                Ok(done) => done,
                Err(tungstenite::Error::Http(response)) => {
                    let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                    let why = format!("{}: {} {}", to.0, response.status(), text.trim());
                    return Err(Failure::new(TransportKind::Refused, "dialling").on(why));
                }
                Err(error) => return Err(link::failure("dialling", error)),
            };
            let peer =
                Peer::default().with_address(address).with_certificates(certificates).with_path(to.path());
            Ok(link::join(socket, peer, self.settings.max_frame))
        })
    }
}

fn request(
    to: &Endpoint,
    who: &Credentials,
) -> Result<tungstenite::handshake::client::Request, tungstenite::Error> {
    let mut request = format!("wss://{}{}", to.authority(), to.path()).into_client_request()?;
    for (name, value) in &who.claims {
        let name = http::HeaderName::try_from(name).map_err(http::Error::from)?;
        let value = http::HeaderValue::try_from(value).map_err(http::Error::from)?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
