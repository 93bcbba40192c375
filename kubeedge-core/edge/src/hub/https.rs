//! The two questions a node asks cloudcore's HTTPS service: which CA, and a certificate please.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use kubeedge_common::{
    http::read_body,
    tls::{ClockTime, SignatureChecks, provider},
};
use kubeedge_core::{
    clock::Clock,
    failure::BoxError,
    pki::{Identity, TokenError, token_names_ca},
};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateSec1KeyDer, ServerName, UnixTime},
};

use super::identity::JoinError;

/// The largest answer, as in Go.
const MOST: usize = 1 << 20;
/// How long one exchange may take in all.
const WITHIN: Duration = Duration::from_secs(30);

/// With what a node shows that it may have a certificate.
pub(super) enum Proof<'a> {
    /// The JWT part of a join token.
    Token(&'a str),
    /// The certificate it has.
    Certificate(&'a Identity),
}

/// `host:port` of a setting that may be a URL.
pub(super) fn authority(setting: &str) -> Result<String, JoinError> {
    let bad = || JoinError::BadServer(setting.to_owned());
    let text = setting.trim();
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let parsed: http::uri::Authority = text.parse().map_err(|_| bad())?;
    let plain = parsed.port().is_some() && !parsed.host().is_empty() && !text.contains('@');
    if plain { Ok(text.to_owned()) } else { Err(bad()) }
}

/// Whom a node asks for the CA and for certificates: cloudcore, or a stand-in for it in a test of time.
#[async_trait]
pub(super) trait Registrar: fmt::Debug + Send + Sync {
    /// The CA certificate in DER, if it is the one the token names and the server that gave it has a
    /// certificate by it.
    async fn ca(&self, host: &str, token: &str) -> Result<Bytes, JoinError>;

    /// A certificate in DER for a request in DER. The server is verified by this CA.
    async fn certify(
        &self,
        host: &str,
        ca: &Bytes,
        node: &str,
        csr: Bytes,
        proof: Proof<'_>,
    ) -> Result<Bytes, JoinError>;
}

/// Cloudcore's HTTPS service.
#[derive(Clone, Debug)]
pub(super) struct Https {
    clock: Clock,
}

impl Https {
    /// Certificates are verified by this clock.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    fn tls(
        &self,
        host: &str,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, JoinError> {
        ClientConfig::builder_with_details(provider(), Arc::new(ClockTime::new(self.clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| untrusted(host, error))
    }
}

#[async_trait]
impl Registrar for Https {
    async fn ca(&self, host: &str, token: &str) -> Result<Bytes, JoinError> {
        let witness =
            Arc::new(Witness { signatures: SignatureChecks::new(provider()), shown: Mutex::default() });
        let tls = self
            .tls(host)?
            .dangerous()
            .with_custom_certificate_verifier(witness.clone())
            .with_no_client_auth();
        let request = Request::get(format!("https://{host}/ca.crt")).body(Full::default());
        let ca = exchange(host, tls, request).await?;
        token_names_ca(token, &ca).map_err(|error| match error {
            TokenError::OtherAuthority => JoinError::OtherAuthority { host: host.to_owned() },
            error => error.into(),
        })?;
        witness.confirm(&ca).map_err(|error| untrusted(host, error))?;
        Ok(ca)
    }

    async fn certify(
        &self,
        host: &str,
        ca: &Bytes,
        node: &str,
        csr: Bytes,
        proof: Proof<'_>,
    ) -> Result<Bytes, JoinError> {
        let failed = |error: rustls::Error| untrusted(host, error);
        let tls = self.tls(host)?.with_root_certificates(roots(ca).map_err(failed)?);
        let request = Request::get(format!("https://{host}/edge.crt")).header("NodeName", node);
        let (tls, request) = match proof {
            Proof::Token(jwt) => {
                (tls.with_no_client_auth(), request.header(header::AUTHORIZATION, format!("Bearer {jwt}")))
            }
            Proof::Certificate(identity) => {
                let chain = vec![CertificateDer::from(identity.certificate.to_vec())];
                let key = PrivateSec1KeyDer::from(identity.key.sec1().to_vec());
                (tls.with_client_auth_cert(chain, key.into()).map_err(failed)?, request)
            }
        };
        exchange(host, tls, request.body(Full::from(csr))).await
    }
}

fn roots(ca: &Bytes) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec()))?;
    Ok(roots)
}

fn untrusted(host: &str, error: rustls::Error) -> JoinError {
    JoinError::Untrusted { host: host.to_owned(), source: error.into() }
}

/// One request over a connection of its own; the body of a good answer.
async fn exchange(
    host: &str,
    tls: ClientConfig,
    request: http::Result<Request<Full<Bytes>>>,
) -> Result<Bytes, JoinError> {
    let request = request.map_err(|_| JoinError::BadServer(host.to_owned()))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let work = async {
        let answer = client.request(request).await.map_err(|error| broken(host, Box::new(error)))?;
        let (parts, body) = answer.into_parts();
        let body = read_body(body, MOST).await.map_err(|error| broken(host, error.into()))?;
        Ok::<_, JoinError>((parts.status, body))
    };
    let late = |_| JoinError::Unreachable {
        host: host.to_owned(),
        source: format!("no answer within {WITHIN:?}").into(),
    };
    let (status, body) = tokio::time::timeout(WITHIN, work).await.map_err(late)??;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let text: String = String::from_utf8_lossy(&body).trim().chars().take(512).collect();
    Err(JoinError::Refused { host: host.to_owned(), status, text })
}

/// Tells a peer that is not trusted from one that is not there.
fn broken(host: &str, error: BoxError) -> JoinError {
    let host = host.to_owned();
    let tls = tls_error(&*error);
    match tls {
        Some(error @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))) => {
            JoinError::Untrusted { host, source: error.into() }
        }
        _ => JoinError::Unreachable { host, source: kubeedge_core::failure::chain(&*error).into() },
    }
}

fn tls_error(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(found) = inner.or_else(|| error.downcast_ref()) {
            return Some(found.clone());
        }
        next = error.source();
    }
    None
}

/// What a server showed of itself before its CA was known.
#[derive(Debug)]
struct Shown {
    leaf: CertificateDer<'static>,
    rest: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
    at: UnixTime,
}

/// Remembers what the server shows and verifies it later. That the server holds the key of what it shows is
/// verified at once.
#[derive(Debug)]
struct Witness {
    signatures: SignatureChecks,
    shown: Mutex<Option<Shown>>,
}

impl Witness {
    /// Verifies what was shown, by a CA that is known now.
    fn confirm(&self, ca: &Bytes) -> Result<(), rustls::Error> {
        let shown = self.shown.lock().take();
        let shown = shown.ok_or(rustls::Error::NoCertificatesPresented)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(ca)?), self.signatures.provider())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(&shown.leaf, &shown.rest, &shown.name, &[], shown.at).map(|_| ())
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        at: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let rest = rest.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let shown = Shown { leaf: leaf.clone().into_owned(), rest, name: name.to_owned(), at };
        *self.shown.lock() = Some(shown);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_https_service_may_be_given_as_url_or_as_host_and_port() {
        for good in
            ["https://10.0.0.1:10002", "10.0.0.1:10002", "https://cloud.example:10002/", "[::1]:10002"]
        {
            let host = authority(good).unwrap();
            assert!(host.ends_with(":10002") && !host.contains('/'), "{host}");
        }
        for bad in ["", "http://10.0.0.1:10002", "10.0.0.1", "https://user@h:1", "https://h:1/path"] {
            assert!(authority(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
