//! The listener of the HTTPS service: TLS with a client certificate that may be shown, HTTP/1.1 and HTTP/2.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use kubeedge_common::lobby::{Lobby, LobbyLimits};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use super::service::{Caller, Service};

/// Connections served at a time and of one address, and how long one may crawl while others wait.
const LIMITS: LobbyLimits =
    LobbyLimits { places: 512, of_one: 384, waiting: 512, undisturbed: Duration::from_secs(5) };
/// A connection may take this long in all: every exchange here is one short request.
const LIFETIME: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves connections until dropped.
pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, service: Arc<Service>) {
    let mut lobby = Lobby::new(LIMITS);
    let (mut connections, mut running) = (JoinSet::new(), HashMap::new());
    loop {
        while let Some((socket, from)) = lobby.admit() {
            let task = connections.spawn(connection(socket, from, tls.clone(), service.clone()));
            lobby.begin(task.id(), from);
            running.insert(task.id(), task);
        }
        let overdue = lobby.overdue();
        let when = overdue.map_or_else(Instant::now, |(when, _)| when);
        let done = tokio::select! {
            accepted = listener.accept(), if lobby.has_room() => {
                match accepted {
                    // Whoever has to go for it is not told: it has said nothing yet.
                    Ok((socket, from)) => drop(lobby.enter(socket, from)),
                    Err(error) => {
                        // Out of file descriptors, most likely: give others time to end.
                        tracing::warn!(error = %error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                None
            }
            Some(done) = connections.join_next_with_id() => {
                Some(done.map_or_else(|error| error.id(), |(task, ())| task))
            }
            () = tokio::time::sleep_until(when), if overdue.is_some() => overdue.map(|(_, task)| task),
        };
        if let Some(task) = done {
            lobby.done(task);
            if let Some(running) = running.remove(&task) {
                running.abort();
            }
        }
    }
}

async fn connection(socket: TcpStream, from: SocketAddr, tls: TlsAcceptor, service: Arc<Service>) {
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, error = %error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!(%from, "a TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let caller = Caller { from, certificate: certificate.map(CertificateDer::into_owned) };
    let handler = hyper::service::service_fn(move |request| {
        let (service, caller) = (service.clone(), caller.clone());
        async move { Ok::<_, std::convert::Infallible>(service.answer(&caller, request).await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(16);
    let serving = server.serve_connection(TokioIo::new(stream), handler);
    match tokio::time::timeout(LIFETIME, serving).await {
        Ok(Err(error)) => tracing::debug!(%from, error = %error, "a connection broke"),
        Ok(Ok(())) => {}
        Err(_) => tracing::debug!(%from, "a connection lasted too long"),
    }
}

/// TLS 1.2 and 1.3 with this certificate; clients may show a certificate of their own.
pub(super) fn acceptor(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Shown { provider }))
        .with_single_cert(vec![certificate], key)?;
    // A session taken up again shows the certificate of then.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Lets a client show a certificate and proves that it holds the key. Whether the certificate counts is decided per
/// request, since the answer to a foreign one is 401 and not a broken handshake.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
