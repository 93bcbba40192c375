//! The listener of the HTTPS service: TLS with a client certificate that may be shown, HTTP/1.1 and HTTP/2.

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::service::service_fn;
use kubeedge_common::{
    http::{HttpListener, Peer, ServeLimits, serve as serve_http},
    lobby::LobbyLimits,
    tls::{SignatureChecks, provider},
};
use kubeedge_core::kernel::Shutdown;
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::service::{Caller, Service};

/// Every exchange here is one short request: whoever takes long crawls.
const LIMITS: ServeLimits = ServeLimits {
    connections: LobbyLimits { places: 512, of_one: 384, waiting: 512, undisturbed: Duration::from_secs(5) },
    spare_busy: false,
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    lifetime: Some(Duration::from_secs(60)),
    streams: 16,
    grace: Duration::from_secs(1),
};

/// Serves connections until shutdown.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    service: Arc<Service>,
    shutdown: &Shutdown,
) {
    let answers = move |peer: &Peer| {
        let certificate = peer.certificate.as_deref().map(|der| CertificateDer::from(der.to_vec()));
        let caller = Caller { from: peer.address, certificate };
        let service = service.clone();
        service_fn(move |request| {
            let (service, caller) = (service.clone(), caller.clone());
            async move { Ok::<_, Infallible>(service.answer(&caller, request).await) }
        })
    };
    serve_http(HttpListener::Tls(listener, tls), LIMITS, answers, shutdown).await;
}

/// TLS 1.2 and 1.3 with this certificate; clients may show a certificate of their own.
pub(super) fn acceptor(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, rustls::Error> {
    let provider = provider();
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Shown(SignatureChecks::new(provider))))
        .with_single_cert(vec![certificate], key)?;
    // A session taken up again shows the certificate of then.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Lets a client show a certificate and proves that it holds the key. Whether the certificate counts is
/// decided per request, since the answer to a foreign one is 401 and not a broken handshake.
#[derive(Debug)]
struct Shown(SignatureChecks);

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
        self.0.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}
