//! Who is let in: a node id, a certificate that names it, and room for one more node.

use kubeedge_core::{
    name::NodeName,
    pki::{Leaf, node_of},
    transport::Peer,
};

/// How a node proves to be the one it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeIdentity {
    /// The common name of its verified certificate must be `system:node:<node id>`.
    #[default]
    Certificate,
    /// Any verified peer may use any node id, as Go's CloudHub does unless its authorization is switched on. Only for
    /// links that are trusted as a whole, such as those within one process.
    Claim,
}

/// Why a peer was turned away; the text reaches it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request names no node: header node_id is missing")]
    Nameless,
    #[error("{0:?} is not a node name: lower-case letters, digits, '-' and '.' are, 253 at most")]
    BadName(String),
    #[error("no client certificate provided")]
    NoCertificate,
    #[error("the certificate names {found:?}, not \"system:node:{node}\"")]
    OtherName { node: NodeName, found: String },
    #[error("this cloud serves {0} nodes, as many as it may")]
    NoRoom(usize),
}

/// The node a peer is, if it may be it.
pub(super) fn identify(peer: &Peer, identity: NodeIdentity) -> Result<NodeName, Refusal> {
    let name = peer.claim("node_id").filter(|name| !name.is_empty()).ok_or(Refusal::Nameless)?;
    if !is_node_name(name) {
        return Err(Refusal::BadName(name.chars().take(253).collect()));
    }
    let node = NodeName::from(name);
    if identity == NodeIdentity::Claim {
        return Ok(node);
    }
    let leaf = peer.certificates.first().ok_or(Refusal::NoCertificate)?;
    // Verified by the transport; only the name is left to read.
    let found = Leaf::read(leaf).map(|leaf| leaf.common_name).unwrap_or_default();
    if node_of(&found) == Some(name) { Ok(node) } else { Err(Refusal::OtherName { node, found }) }
}

/// A DNS-1123 subdomain, as names of nodes are.
pub(crate) fn is_node_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: Option<&str>) -> Peer {
        let claims = node.map(|node| ("node_id".to_owned(), node.to_owned()));
        Peer { claims: claims.into_iter().collect(), ..Peer::default() }
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
}
