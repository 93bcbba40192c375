//! Credentials as rustls wants them.

#[cfg(feature = "ws")]
use std::io;
use std::sync::Arc;

use kubeedge_common::tls::ClockTime;
use kubeedge_core::{
    clock::Clock,
    failure::{BoxError, Failure},
    transport::{Credentials, Endpoint, TransportError, TransportKind},
};
use rustls::{
    AlertDescription, ClientConfig, RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};

/// Whether a listener wants client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No handshake without one.
    #[default]
    Required,
    /// One that is shown must be good; none is fine.
    Optional,
}

/// What TLS is done with: TLS 1.3, and TLS 1.2 with the suites that Go's cloudcore takes.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    clock: Clock,
}

impl Default for Tls {
    fn default() -> Self {
        Self::new(rustls::crypto::ring::default_provider(), Clock::wall())
    }
}

impl Tls {
    fn new(mut provider: CryptoProvider, clock: Clock) -> Self {
        provider.cipher_suites.retain(is_spoken);
        Self { provider: Arc::new(provider), clock }
    }

    pub(crate) fn with_provider(self, provider: CryptoProvider) -> Self {
        Self::new(provider, self.clock)
    }

    pub(crate) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    fn time(&self) -> Arc<ClockTime> {
        Arc::new(ClockTime::new(self.clock.clone()))
    }

    /// For a listener.
    pub(crate) fn server(
        &self,
        who: &Credentials,
        clients: ClientCertificates,
    ) -> Result<ServerConfig, TransportError> {
        let provider = || self.provider.clone();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(who)?), provider());
        let verifier = match clients {
            ClientCertificates::Required => verifier,
            ClientCertificates::Optional => verifier.allow_unauthenticated(),
        };
        let verifier = verifier.build().map_err(|e| wrong("preparing to verify clients", e))?;
        let config = ServerConfig::builder_with_details(provider(), self.time())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("choosing TLS versions", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(who), key(who)?);
        let mut config = config.map_err(|e| wrong("using the server's certificate", e))?;
        // A session taken up again shows the certificate of then, and nobody verifies whether it still holds.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// For a dialler.
    pub(crate) fn client(&self, who: &Credentials) -> Result<ClientConfig, TransportError> {
        let config = ClientConfig::builder_with_details(self.provider.clone(), self.time())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("choosing TLS versions", e))?
            .with_root_certificates(roots(who)?);
        let mut config = if who.chain.is_empty() {
            config.with_no_client_auth()
        } else {
            config
                .with_client_auth_cert(chain(who), key(who)?)
                .map_err(|e| wrong("using the client's certificate", e))?
        };
        // Nothing is taken up again, see above: room for it would be memory for nothing, with every dial.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// All of TLS 1.3; of TLS 1.2 what is for ECDSA certificates, which KubeEdge's are.
fn is_spoken(suite: &SupportedCipherSuite) -> bool {
    match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(suite) => suite.sign.contains(&SignatureScheme::ECDSA_NISTP256_SHA256),
    }
}

fn wrong(what: &'static str, error: impl Into<BoxError>) -> TransportError {
    Failure::new(TransportKind::Misconfigured, what).because(error)
}

fn roots(who: &Credentials) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    for der in &who.roots {
        roots.add(CertificateDer::from(der.to_vec())).map_err(|e| wrong("reading a CA certificate", e))?;
    }
    Ok(roots)
}

fn chain(who: &Credentials) -> Vec<CertificateDer<'static>> {
    who.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect()
}

fn key(who: &Credentials) -> Result<PrivateKeyDer<'static>, TransportError> {
    PrivateKeyDer::try_from(who.key.to_vec()).map_err(|e| wrong("reading a private key", e))
}

/// The name a server's certificate must stand for.
pub(crate) fn server_name(to: &Endpoint) -> Result<ServerName<'static>, TransportError> {
    let host = to.authority().rsplit_once(':').map_or(to.authority(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host)
        .map_err(|e| Failure::new(TransportKind::Misconfigured, "dialling").on(to.0.clone()).because(e))
}

/// What an error of the TLS layer means.
#[cfg(feature = "ws")]
pub(crate) fn kind_of(error: &io::Error) -> TransportKind {
    use rustls::Error;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => TransportKind::Untrusted,
        Some(Error::AlertReceived(alert)) => kind_of_alert(*alert),
        Some(_) => TransportKind::Protocol,
        None if error.kind() == io::ErrorKind::TimedOut => TransportKind::Timeout,
        None => TransportKind::Closed,
    }
}

/// What an alert of either side means.
pub(crate) fn kind_of_alert(alert: AlertDescription) -> TransportKind {
    use AlertDescription as Alert;
    match alert {
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::CertificateRequired
        | Alert::DecryptError => TransportKind::Untrusted,
        _ => TransportKind::Protocol,
    }
}
