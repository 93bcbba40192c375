//! Joining without files: for programs that look after certificates themselves, or join many nodes.

use bytes::Bytes;
use kubeedge_core::{
    clock::Clock,
    name::NodeName,
    pki::{self, Identity, Key, Leaf},
};

use super::{
    https::{self, Https, Proof, Registrar},
    identity::{JoinError, fits, unix},
};

/// A cloudcore whose CA is the one a join token names; it gives certificates for that token.
///
/// ```no_run
/// # async fn join() -> Result<(), kubeedge_edge::hub::JoinError> {
/// use kubeedge_core::clock::Clock;
/// use kubeedge_edge::hub::Joiner;
///
/// let joiner = Joiner::new("10.0.0.1:10002", "the token of keadm gettoken", Clock::wall()).await?;
/// let identity = joiner.join(&"edge-1".into()).await?;
/// let credentials = identity.credentials();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Joiner {
    service: Https,
    clock: Clock,
    host: String,
    ca: Bytes,
    jwt: String,
}

impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joiner").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Joiner {
    /// Asks the HTTPS service (`host:port` or `https://host:port`) for its CA and checks it against the
    /// token, as [`JoinSettings`](super::JoinSettings) says. Certificates are verified by the clock.
    pub async fn new(https: &str, token: &str, clock: Clock) -> Result<Self, JoinError> {
        let (_, jwt) = pki::split_token(token)?;
        let (host, service) = (https::authority(https)?, Https::new(clock.clone()));
        let ca = service.ca(&host, token).await?;
        Ok(Self { service, clock, host, ca, jwt: jwt.to_owned() })
    }

    /// A new key and a certificate for it that names this node.
    pub async fn join(&self, node: &NodeName) -> Result<Identity, JoinError> {
        let (ca, proof) = (self.ca.clone(), Proof::Token(&self.jwt));
        certified(&self.service, &self.clock, &self.host, ca, node, proof).await.map(|(identity, _)| identity)
    }

    /// A certificate got earlier with its key, if it is this node's, by this CA and not expired; else what is
    /// wrong with it.
    pub fn accept(&self, node: &NodeName, certificate: Bytes, key: Key) -> Result<Identity, String> {
        let identity = Identity { ca: self.ca.clone(), certificate, key };
        fits(&identity, node, unix(self.clock.now())).map(|_| identity)
    }
}

/// Has a new key certified.
pub(super) async fn certified(
    registrar: &dyn Registrar,
    clock: &Clock,
    host: &str,
    ca: Bytes,
    node: &NodeName,
    proof: Proof<'_>,
) -> Result<(Identity, Leaf), JoinError> {
    let key = Key::generate()?;
    let request = pki::node_request(node.as_str(), &key)?;
    let certificate = registrar.certify(host, &ca, node.as_str(), request, proof).await?;
    let identity = Identity { ca, certificate, key };
    let bad = |why| JoinError::BadAnswer { host: host.to_owned(), why };
    let leaf = fits(&identity, node, unix(clock.now())).map_err(bad)?;
    Ok((identity, leaf))
}
