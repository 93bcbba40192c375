//! Who is let in: a node id, a certificate that names it, and room for one more node.

use kubeedge_core::{
    name::{NodeName, is_node_name},
    pki::{Leaf, node_of},
    transport::Peer,
};

use crate::denylist::{Denylist, Mark};

/// How a node proves to be the one it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeIdentity {
    /// The common name of its verified certificate must be `system:node:<node id>`.
    #[default]
    Certificate,
    /// Any verified peer may use any node id, as Go's CloudHub does unless its authorization is switched on.
    /// Only for links that are trusted as a whole, such as those within one process.
    Claim,
}

/// Why a peer was turned away; the text reaches it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request names no node: header node_id is missing")]
    Nameless,
    #[error("{0:?} is not a node name: lower-case letters, digits, '-' and '.' are, 253 at most")]
    BadName(String),
    #[error("no client certificate provided")]
    NoCertificate,
    #[error("intermediate certificates are not supported: show the node's certificate alone")]
    Chain,
    #[error("the certificate names {found:?}, not \"system:node:{node}\"")]
    OtherName { node: NodeName, found: String },
    #[error("this cloud serves {0} nodes, as many as it may")]
    NoRoom(usize),
    #[error("{0}")]
    Denied(&'static str),
}

/// A node that is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdmittedNode {
    pub(crate) node: NodeName,
    /// Of the certificate it shows; none where nodes are believed without.
    pub(crate) mark: Option<Mark>,
}

impl AdmittedNode {
    /// The serial number of its certificate, for logs.
    pub(crate) fn serial(&self) -> &str {
        self.mark.as_ref().map(Mark::serial).unwrap_or_default()
    }

    /// Completes when the node is on the deny list.
    pub(crate) async fn denied(&self, list: &Denylist) -> &'static str {
        list.clone().denied(self.node.as_str(), self.mark.as_ref()).await
    }
}

/// The node a peer is, if it may be it.
pub(super) fn identify(
    peer: &Peer,
    identity: NodeIdentity,
    list: &Denylist,
) -> Result<AdmittedNode, Refusal> {
    let name = peer.claim("node_id").filter(|name| !name.is_empty()).ok_or(Refusal::Nameless)?;
    if !is_node_name(name) {
        return Err(Refusal::BadName(name.chars().take(253).collect()));
    }
    certified(peer, name.into(), identity, list)
}

/// The peer as this node, if its certificate says so and nobody denies it.
pub(crate) fn certified(
    peer: &Peer,
    node: NodeName,
    identity: NodeIdentity,
    list: &Denylist,
) -> Result<AdmittedNode, Refusal> {
    // Verified by the transport; only the name is left to read.
    let mark = match (identity, peer.certificates.as_slice()) {
        (NodeIdentity::Claim, []) => None,
        (NodeIdentity::Claim, [leaf, ..]) => Leaf::read(leaf).ok().as_ref().map(Mark::from),
        (NodeIdentity::Certificate, []) => return Err(Refusal::NoCertificate),
        (NodeIdentity::Certificate, [leaf]) => Some(named(leaf, &node)?),
        (NodeIdentity::Certificate, _) => return Err(Refusal::Chain),
    };
    match list.why(node.as_str(), mark.as_ref()) {
        Some(why) => Err(Refusal::Denied(why)),
        None => Ok(AdmittedNode { node, mark }),
    }
}

/// The mark of a certificate that names this node.
fn named(der: &[u8], node: &NodeName) -> Result<Mark, Refusal> {
    let leaf = Leaf::read(der);
    match leaf {
        Ok(leaf) if node_of(&leaf.common_name) == Some(node.as_str()) => Ok(Mark::from(&leaf)),
        other => {
            let found = other.map(|leaf| leaf.common_name).unwrap_or_default();
            Err(Refusal::OtherName { node: node.clone(), found })
        }
    }
}

#[cfg(test)]
mod tests {
    use kubeedge_core::pki::{Authority, Names, Usage};

    use super::*;

    fn peer(node: Option<&str>) -> Peer {
        let claims = node.map(|node| ("node_id".to_owned(), node.to_owned()));
        Peer::default().with_claims(claims)
    }

    fn identify(peer: &Peer, identity: NodeIdentity) -> Result<NodeName, Refusal> {
        super::identify(peer, identity, &Denylist::default()).map(|admitted| admitted.node)
    }

    #[test]
    fn a_peer_without_name_or_with_a_name_no_node_can_have_is_refused() {
        assert_eq!(identify(&peer(None), NodeIdentity::Claim), Err(Refusal::Nameless));
        assert_eq!(identify(&peer(Some("")), NodeIdentity::Claim), Err(Refusal::Nameless));
        for bad in ["a/b", "..", "Edge", "a_b", "-a", &"a".repeat(254), "a b"] {
            assert!(
                matches!(identify(&peer(Some(bad)), NodeIdentity::Claim), Err(Refusal::BadName(_))),
                "{bad}"
            );
        }
        assert_eq!(identify(&peer(Some("edge-1.lab")), NodeIdentity::Claim).unwrap(), "edge-1.lab");
    }

    #[test]
    fn by_default_a_node_must_show_a_certificate_that_names_it() {
        assert_eq!(identify(&peer(Some("edge-1")), NodeIdentity::default()), Err(Refusal::NoCertificate));
        let mut peer = peer(Some("edge-1"));
        peer.certificates = vec![bytes::Bytes::from_static(b"not a certificate")];
        let refused = identify(&peer, NodeIdentity::Certificate).unwrap_err();
        assert_eq!(refused.to_string(), r#"the certificate names "", not "system:node:edge-1""#);
    }

    #[test]
    fn one_certificate_alone_that_names_the_node_makes_it_the_node() {
        let authority = Authority::kubeedge(0).unwrap();
        let certificate = |name: &str| {
            let names = Names::default();
            authority.issue(name, &["system:nodes"], &names, Usage::Client, 0, 36_500).unwrap().certificate
        };
        let shown = |certificates: &[&bytes::Bytes]| {
            let certificates = certificates.iter().map(|der| (*der).clone());
            identify(&peer(Some("edge-1")).with_certificates(certificates), NodeIdentity::Certificate)
        };
        let ours = certificate("system:node:edge-1");
        assert_eq!(shown(&[&ours]).unwrap(), "edge-1");
        assert_eq!(shown(&[&ours, authority.certificate()]), Err(Refusal::Chain));
        for other in ["system:node:edge-10", "system:node:Edge-1", "edge-1", "kubeedge.io", "system:node:"] {
            let refused = shown(&[&certificate(other)]);
            assert!(matches!(refused, Err(Refusal::OtherName { .. })), "{other}: {refused:?}");
        }
        assert!(matches!(shown(&[authority.certificate()]), Err(Refusal::OtherName { .. })));
    }
}
