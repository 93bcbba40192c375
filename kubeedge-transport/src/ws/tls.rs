//! Credentials as rustls wants them.

use std::{io, sync::Arc};

use kubeedge_core::{
    failure::{BoxError, Failure},
    transport::{Credentials, Endpoint, TransportError, TransportKind},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};

use super::ClientCertificates;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
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

/// For a listener.
pub(super) fn server(who: &Credentials, clients: ClientCertificates) -> Result<ServerConfig, TransportError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(who)?), provider());
    let verifier = match clients {
        ClientCertificates::Required => verifier,
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|e| wrong("preparing to verify clients", e))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("choosing TLS versions", e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(who), key(who)?);
    config.map_err(|e| wrong("using the server's certificate", e))
}

/// For a dialler.
pub(super) fn client(who: &Credentials) -> Result<ClientConfig, TransportError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong("choosing TLS versions", e))?
        .with_root_certificates(roots(who)?);
    if who.chain.is_empty() {
        return Ok(config.with_no_client_auth());
    }
    config
        .with_client_auth_cert(chain(who), key(who)?)
        .map_err(|e| wrong("using the client's certificate", e))
}

/// The name a server's certificate must stand for.
pub(super) fn server_name(to: &Endpoint) -> Result<ServerName<'static>, TransportError> {
    let host = to.authority().rsplit_once(':').map_or(to.authority(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host)
        .map_err(|e| Failure::new(TransportKind::Misconfigured, "dialling").on(to.0.clone()).because(e))
}

/// What an error of the TLS layer means.
pub(super) fn kind_of(error: &io::Error) -> TransportKind {
    use rustls::{AlertDescription as Alert, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => TransportKind::Untrusted,
        Some(Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
            | Alert::DecryptError,
        )) => TransportKind::Untrusted,
        Some(_) => TransportKind::Protocol,
        None if error.kind() == io::ErrorKind::TimedOut => TransportKind::Timeout,
        None => TransportKind::Closed,
    }
}
