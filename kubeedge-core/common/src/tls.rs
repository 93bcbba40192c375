//! What verifiers of certificates have in common, and certificates valid by a [`Clock`].

use std::{sync::Arc, time::Duration};

use kubeedge_core::clock::Clock;
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    time_provider::TimeProvider,
};

/// The one provider of cryptography in the whole tree: ring.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Verifies the signatures of handshakes: that the other side holds the key of the certificate that it shows.
/// A verifier of certificates that decides by itself which certificates count delegates the rest to this.
#[derive(Clone, Debug)]
pub struct SignatureChecks(Arc<CryptoProvider>);

impl SignatureChecks {
    /// Checks with the algorithms of this provider.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }

    /// The provider.
    pub fn provider(&self) -> Arc<CryptoProvider> {
        self.0.clone()
    }

    /// For `verify_tls12_signature`.
    pub fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    /// For `verify_tls13_signature`.
    pub fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    /// For `supported_verify_schemes`.
    pub fn schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Certificates are valid by this clock.
#[derive(Debug)]
pub struct ClockTime(Clock);

impl ClockTime {
    /// The time of this clock.
    pub fn new(clock: Clock) -> Self {
        Self(clock)
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.now().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}
