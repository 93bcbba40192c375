//! Who is at either end of a link, and where.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;

/// Where to dial or listen: `host:port` with an optional path (`10.0.0.1:10000/project/node/events`); for the
/// memory transport any name. Port 0 listens on a free port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Endpoint(pub String);

impl Endpoint {
    /// The part before the first `/`.
    pub fn authority(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
    /// The part from the first `/` on; `/` when there is none.
    pub fn path(&self) -> &str {
        self.0.find('/').and_then(|at| self.0.get(at..)).unwrap_or("/")
    }
}

impl From<&str> for Endpoint {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Endpoint {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who we are and whom we trust; everything in DER.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Credentials {
    /// Certificates of the authorities that peers must chain to.
    pub roots: Vec<Bytes>,
    /// Our certificate chain, leaf first; empty for none.
    pub chain: Vec<Bytes>,
    /// The private key of the leaf: PKCS#8 or SEC1.
    pub key: Bytes,
    /// What the dialling side says of itself: header names and values, such as `node_id`.
    pub claims: Vec<(String, String)>,
}

impl Credentials {
    /// The same, trusting these authorities.
    #[must_use]
    pub fn with_roots(self, roots: impl IntoIterator<Item = Bytes>) -> Self {
        Self { roots: roots.into_iter().collect(), ..self }
    }
    /// The same with this certificate chain, leaf first.
    #[must_use]
    pub fn with_chain(self, chain: impl IntoIterator<Item = Bytes>) -> Self {
        Self { chain: chain.into_iter().collect(), ..self }
    }
    /// The same with the private key of the leaf.
    #[must_use]
    pub fn with_key(self, key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), ..self }
    }
    /// The same with these claims, in place of those before.
    #[must_use]
    pub fn with_claims(self, claims: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { claims: claims.into_iter().collect(), ..self }
    }
    /// The same with one claim more.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.claims.push((name.into(), value.into()));
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("roots", &self.roots.len())
            .field("chain", &self.chain.len())
            .field("key", &"…")
            .field("claims", &self.claims)
            .finish()
    }
}

/// What is known of the other side.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Peer {
    /// Its network address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// What it said of itself when dialling; unverified. Names in lower case; the first of repeated ones
    /// counts.
    pub claims: Vec<(String, String)>,
    /// The path it asked for.
    pub path: String,
    /// Its verified certificate chain in DER, leaf first; empty without TLS.
    pub certificates: Vec<Bytes>,
}

impl Peer {
    /// The same with a network address, if there is one.
    #[must_use]
    pub fn with_address(self, address: impl Into<Option<SocketAddr>>) -> Self {
        Self { address: address.into(), ..self }
    }
    /// The same with these claims, in place of those before. Their names are put into lower case.
    #[must_use]
    pub fn with_claims(self, claims: impl IntoIterator<Item = (String, String)>) -> Self {
        let lower = claims.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        Self { claims: lower.collect(), ..self }
    }
    /// The same with the path that it asked for.
    #[must_use]
    pub fn with_path(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }
    /// The same with a verified certificate chain in DER, leaf first.
    #[must_use]
    pub fn with_certificates(self, certificates: impl IntoIterator<Item = Bytes>) -> Self {
        Self { certificates: certificates.into_iter().collect(), ..self }
    }
    /// The first claim of this name (names are compared without case).
    pub fn claim(&self, name: &str) -> Option<&str> {
        let found = self.claims.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_splits_into_authority_and_path() {
        let endpoint = Endpoint::from("10.0.0.1:10000/project/node/events");
        assert_eq!((endpoint.authority(), endpoint.path()), ("10.0.0.1:10000", "/project/node/events"));
        assert_eq!(Endpoint::from("h:1").path(), "/");
    }

    #[test]
    fn credentials_do_not_print_their_key() {
        let who = Credentials::default().with_key(&b"very secret"[..]);
        assert!(!format!("{who:?}").contains("secret"));
    }
}
