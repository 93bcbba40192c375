//! KubeEdge's certificates and tokens: authorities, requests, leaves, keys in Go's encoding, join tokens.
//!
//! What Go peers check is exactly as Go writes it (certificate fields, SEC1 keys, the four-part token); what
//! a request asks for beyond a name and a key is overwritten, never copied: no request can make itself an
//! authority.
//!
//! Nothing here reads a clock by itself: moments are passed in, so that expiry can be tested.

mod ca;
mod key;
mod leaf;
mod token;

use bytes::Bytes;
pub use ca::{Authority, Usage};
pub use key::Key;
pub use leaf::{Leaf, Names, node_of, node_request, rotation_point};
pub use token::{TokenError, sign_token, split_token, token_expiry, token_names_ca, verify_token};

use crate::transport::Credentials;

/// Certificates or keys are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// Bytes that are no certificate.
    #[error("not a certificate: {0}")]
    Certificate(String),
    /// Bytes that are no ECDSA P-256 key in SEC1 or PKCS#8.
    #[error("not an ECDSA P-256 private key in SEC1 or PKCS#8: {0}")]
    Key(String),
    /// Bytes that are no certificate signing request, or one that cannot be honoured.
    #[error("not a usable certificate signing request: {0}")]
    Request(String),
    /// Text that holds no block of the wanted kind.
    #[error("no PEM block {0}")]
    Pem(&'static str),
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Sign(String),
}

/// A key, its certificate and the authority both stand under.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The authority's certificate in DER.
    pub ca: Bytes,
    /// Our certificate in DER.
    pub certificate: Bytes,
    /// Our key.
    pub key: Key,
}

impl Identity {
    /// As a transport wants it.
    pub fn credentials(&self) -> Credentials {
        let who = Credentials::default().with_roots([self.ca.clone()]);
        who.with_chain([self.certificate.clone()]).with_key(self.key.sec1().clone())
    }
}

/// A DER document as PEM.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The first PEM block of one of these labels, as DER.
pub fn from_pem(text: &str, labels: &[&'static str]) -> Result<Bytes, PkiError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let missing = || PkiError::Pem(labels.first().copied().unwrap_or_default());
    let block = labels.iter().find_map(|label| {
        let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
        rest.split_once(&format!("-----END {label}-----")).map(|(body, _)| body)
    });
    let body: String = block.ok_or_else(missing)?.split_whitespace().collect();
    STANDARD.decode(body).map(Bytes::from).map_err(|_| missing())
}

#[cfg(test)]
mod tests;
