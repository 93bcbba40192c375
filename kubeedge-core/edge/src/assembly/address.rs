//! Where the servers of a cloudcore are reached.

/// Where an edge reaches a cloudcore: three servers, in KubeEdge on the ports 10000, 10002 and 10004 of one
/// host.
///
/// ```
/// use kubeedge_edge::CloudAddress;
///
/// let cloud = CloudAddress::from("cloud.example.com");
/// assert_eq!(cloud.hub, "cloud.example.com:10000");
/// assert_eq!(CloudAddress::from("2001:db8::1").tunnel, "[2001:db8::1]:10004");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloudAddress {
    /// CloudHub, `host:port`: the link.
    pub hub: String,
    /// The HTTPS service, `host:port`: CA, certificates.
    pub https: String,
    /// CloudStream, `host:port`: the tunnel for logs and commands.
    pub tunnel: String,
}

impl CloudAddress {
    /// The three servers of a cloudcore, `host:port` each.
    pub fn new(hub: impl Into<String>, https: impl Into<String>, tunnel: impl Into<String>) -> Self {
        Self { hub: hub.into(), https: https.into(), tunnel: tunnel.into() }
    }
}

/// The cloudcore on a host, a name or an IP address, with KubeEdge's ports.
impl From<&str> for CloudAddress {
    fn from(host: &str) -> Self {
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        let host = if bare_ipv6 { format!("[{host}]") } else { host.to_owned() };
        let at = |port: u16| format!("{host}:{port}");
        Self { hub: at(10000), https: at(10002), tunnel: at(10004) }
    }
}
