//! Certificates for a kit's harness: an authority, and what each side of a link shows.

// A kit fails by panicking, as tests do.
#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    pki::{Authority, Names, Usage},
    transport::Credentials,
};

/// An authority with the credentials of a cloud on this machine and of one node. Valid from a minute ago.
#[derive(Debug)]
#[non_exhaustive]
pub struct Certificates {
    /// The authority that both sides trust.
    pub authority: Authority,
    /// A server's, for `localhost` and the addresses of the loopback interface.
    pub server: Credentials,
    /// The node's, as KubeEdge's cloud signs it: `system:node:NAME`.
    pub client: Credentials,
}

impl Certificates {
    /// A new authority and what it issues for this node.
    ///
    /// # Panics
    /// When no keys can be made.
    pub fn new(node: &str) -> Self {
        let now =
            i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() - 60;
        let authority = Authority::kubeedge(now).unwrap();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let names = Names { dns: vec!["localhost".to_owned()], ips: loopback.to_vec() };
        let server = authority.issue_server(&names, now).unwrap().credentials();
        let name = format!("system:node:{node}");
        let client = authority.issue(&name, &["system:nodes"], &Names::default(), Usage::Client, now, 2);
        Self { server, client: client.unwrap().credentials(), authority }
    }
}
