//! What defaults take from the host.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

/// The host a component runs on, as defaults need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name in lower case; a node is called so unless configured otherwise.
    pub name: String,
    /// The address by which other hosts reach it.
    pub address: IpAddr,
}

impl Host {
    /// What the system says: the kernel's host name, and the source address of the default route (no packet
    /// is sent). Without a name it is `localhost`, without a route `127.0.0.1`.
    pub fn detect() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = kernel.or_else(|| env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_lowercase();
        let name = if name.is_empty() { "localhost".to_owned() } else { name };
        Self { name, address: source_address().unwrap_or(Ipv4Addr::LOCALHOST.into()) }
    }

    pub(super) fn endpoint(&self, port: u16) -> String {
        std::net::SocketAddr::new(self.address, port).to_string()
    }
}

/// An address for documentation (RFC 5737) stands for anywhere; connecting a datagram socket only asks for
/// the route.
fn source_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}
