//! How a site is set up, and what can go wrong with it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use kubeedge_core::failure::BoxError;

/// How a site is set up.
#[derive(Clone, Debug)]
pub struct SiteSettings {
    /// Folder for everything that is kept; made when it is missing.
    pub folder: PathBuf,
    /// The address that everything listens on; the default is loopback.
    pub address: IpAddr,
    /// The first of the ports, see [`Port`]; 0 takes free ones. Default: 10000, KubeEdge's own ports.
    pub port_base: u16,
    /// The name of the node; default `edge-1`.
    pub node: String,
    /// Starts a simulated PLC.
    pub plc: bool,
}

impl Default for SiteSettings {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("edgesite-data"),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_base: 10_000,
            node: "edge-1".to_owned(),
            plc: false,
        }
    }
}

impl SiteSettings {
    /// Where a part listens; port 0 for a free one.
    pub fn at(&self, port: Port) -> Result<SocketAddr, SiteError> {
        let number = match self.port_base {
            0 => 0,
            base => base.checked_add(port as u16).ok_or(SiteError::PortBase(base))?,
        };
        Ok(SocketAddr::new(self.address, number))
    }
}

/// Ports in their distance from the first one: KubeEdge's own numbers for a base of 10000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// CloudHub.
    Hub = 0,
    /// Cloudcore's HTTPS service, where nodes join.
    Https = 2,
    /// The tunnel for logs and exec.
    Tunnel = 4,
    /// The Kubernetes API.
    Api = 6,
    /// The MQTT broker.
    Mqtt = 8,
    /// The node's kubelet server.
    Kubelet = 10,
    /// The simulated PLC.
    Plc = 12,
}

/// A site cannot start, or a part of it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The folder cannot be used.
    #[error("the data folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// The ports would go past 65535.
    #[error("the port base {0} is too high; at most 65000")]
    PortBase(u16),
    /// A part cannot listen.
    #[error("starting to listen on ports from {base} on")]
    Ports {
        /// The base port in use.
        base: u16,
        /// What the part said.
        source: BoxError,
    },
    /// A part failed.
    #[error("{0}")]
    Part(&'static str, #[source] BoxError),
    /// A part ended though nobody asked it to.
    #[error("{0} has ended by itself")]
    Ended(&'static str),
    /// A part takes too long.
    #[error("{0} is not ready after {1:?}; see the log")]
    Late(&'static str, Duration),
}
