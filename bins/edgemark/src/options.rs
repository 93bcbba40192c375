//! The flags of `edgemark run`, and what they make together.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use kubeedge_config::GoDuration;
use kubeedge_core::name::NodeName;

/// CloudHub's usual port for QUIC.
const QUIC_PORT: u16 = 10_001;

/// What the edges do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// All connect and stay for the duration
    Hold,
    /// All connect; then all but the bystanders leave at once and return
    Storm,
    /// All connect; then messages flow for the duration as fast as they are answered
    Flood,
}

/// Which way a flood flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    /// Questions of the edges to the cloud's link, answered by it at once
    Up,
    /// Renewals of leases, answered by way of the cluster
    Lease,
    /// ConfigMaps that change in the cluster (--kubeconfig), confirmed by every edge
    Down,
}

/// How edges and cloud are linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// WebSocket over TLS, as Go speaks it
    Websocket,
    /// QUIC as in RFC 9000, which Go does not speak
    Quic,
}

/// Flags of `edgemark run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunOptions {
    /// Where cloudcore is; several addresses, separated by commas, share the nodes
    #[arg(long, value_name = "HOST", required = true, value_delimiter = ',')]
    cloud: Vec<String>,
    /// CloudHub's port; 10000 for WebSocket and 10001 for QUIC unless given
    #[arg(long)]
    port: Option<u16>,
    /// The port of the service that gives certificates
    #[arg(long, value_name = "PORT", default_value_t = 10_002)]
    https_port: u16,
    /// The join token
    #[arg(long, env = "EDGEMARK_TOKEN", hide_env_values = true, required_unless_present = "token_file")]
    token: Option<String>,
    /// A file with the join token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// How many edges
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    nodes: u32,
    /// What their names begin with; numbers follow
    #[arg(long, default_value = "edgemark-")]
    prefix: String,
    /// What they do
    #[arg(long, value_enum)]
    mode: Mode,
    /// How long, once all are connected
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    duration: Duration,
    /// Write the report there, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep certificates in this folder for the next run
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Watch memory and CPU time of this process, which should be cloudcore
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// How edges and cloud are linked
    #[arg(long, value_enum, default_value_t = Wire::Websocket)]
    transport: Wire,
    /// Link so many of them, the last, over QUIC and the others over WebSocket, as in a fleet that has both
    #[arg(long, value_name = "N", default_value_t = 0)]
    over_quic: u32,
    /// CloudHub's port for the edges of --over-quic
    #[arg(long, value_name = "PORT", default_value_t = QUIC_PORT)]
    quic_port: u16,
    /// How many join or connect at the same time
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// How long edges may take to connect, and to return
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    within: Duration,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    storm: Storm,
    #[command(flatten)]
    flood: Flood,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The edges")]
struct Life {
    /// Links alone: no Node, no lease, no pods
    #[arg(long)]
    links_only: bool,
    /// How often an edge says that it is alive
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time)]
    keepalive: Duration,
    /// How often an edge renews its lease
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    lease: Duration,
    /// How often an edge reports the twins of its devices; 0 for once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = any_time)]
    twins: Duration,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storm")]
struct Storm {
    /// Edges that stay connected meanwhile, whose leases must not be late
    #[arg(long, value_name = "N", default_value_t = 0)]
    bystanders: u32,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Flood")]
struct Flood {
    /// Which way messages flow
    #[arg(long, value_enum, default_value_t = Direction::Up)]
    direction: Direction,
    /// The cluster behind the cloud, for --direction down: pods and ConfigMaps are made in its namespace
    /// default, and removed at the end
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Bytes of content of a message
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    message_size: u32,
    /// Messages of one edge that may wait for their answer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Messages a second of one edge; 0 for no limit. Go's edges send 30
    #[arg(long, value_name = "N", default_value_t = 0)]
    qps: u32,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) clouds: Vec<String>,
    /// The ports for WebSocket and for QUIC.
    ports: [u16; 2],
    /// How many edges, the last, are linked over QUIC.
    pub(crate) over_quic: u32,
    pub(crate) https: String,
    pub(crate) token: String,
    pub(crate) nodes: u32,
    pub(crate) prefix: String,
    pub(crate) mode: Mode,
    pub(crate) duration: Duration,
    pub(crate) report: Option<PathBuf>,
    pub(crate) certs: Option<PathBuf>,
    pub(crate) pid: Option<u32>,
    pub(crate) concurrency: usize,
    pub(crate) within: Duration,
    pub(crate) links_only: bool,
    pub(crate) keepalive: Duration,
    pub(crate) lease: Duration,
    pub(crate) twins: Option<Duration>,
    pub(crate) bystanders: u32,
    pub(crate) direction: Direction,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) message_size: usize,
    pub(crate) window: usize,
    pub(crate) qps: u32,
}

impl RunOptions {
    /// Checks what clap cannot.
    pub(crate) fn plan(self) -> Result<Plan, String> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => fs::read_to_string(file)
                .map_err(|error| format!("--token-file {}: {error}", file.display()))?,
            (None, None) => String::new(),
        };
        let token = token.trim().to_owned();
        if token.is_empty() {
            return Err("--token: empty".to_owned());
        }
        let Self { life, storm, flood, .. } = self;
        if self.mode == Mode::Storm && storm.bystanders >= self.nodes {
            return Err(format!(
                "--bystanders {}: of --nodes {} somebody must leave",
                storm.bystanders, self.nodes
            ));
        }
        if life.links_only && self.mode == Mode::Flood && flood.direction == Direction::Lease {
            return Err("--direction lease: edges with --links-only have no lease".to_owned());
        }
        if self.mode == Mode::Flood && flood.direction == Direction::Down {
            if flood.kubeconfig.is_none() {
                return Err(
                    "--direction down: needs --kubeconfig, to change something in the cluster".to_owned()
                );
            }
            if life.links_only {
                return Err("--direction down: edges with --links-only have no pods".to_owned());
            }
        }
        let first = self.cloud.first().map(String::as_str).unwrap_or_default();
        let (over_quic, ports) = match self.transport {
            Wire::Quic if self.over_quic > 0 => {
                return Err("--over-quic: with --transport quic all edges are linked over QUIC".to_owned());
            }
            Wire::Quic => (self.nodes, [0, self.port.unwrap_or(QUIC_PORT)]),
            Wire::Websocket => (self.over_quic, [self.port.unwrap_or(10_000), self.quic_port]),
        };
        if over_quic > self.nodes {
            return Err(format!("--over-quic {over_quic}: there are --nodes {}", self.nodes));
        }
        let plan = Plan {
            https: authority(first, self.https_port),
            clouds: self.cloud,
            ports,
            over_quic,
            token,
            nodes: self.nodes,
            prefix: self.prefix,
            mode: self.mode,
            duration: self.duration,
            report: self.report,
            certs: self.certs,
            pid: self.pid,
            concurrency: usize::from(self.concurrency),
            within: self.within,
            links_only: life.links_only,
            keepalive: life.keepalive,
            lease: life.lease,
            twins: Some(life.twins).filter(|every| !every.is_zero()),
            bystanders: storm.bystanders,
            direction: flood.direction,
            kubeconfig: flood.kubeconfig,
            message_size: usize::try_from(flood.message_size).unwrap_or(usize::MAX),
            window: usize::from(flood.window),
            qps: flood.qps,
        };
        plan.check_names()
    }
}

impl Plan {
    /// The node of this number.
    pub(crate) fn node(&self, number: u32) -> NodeName {
        NodeName::from(format!("{}{number}", self.prefix))
    }

    /// Where the node of this number connects.
    pub(crate) fn server(&self, number: u32) -> String {
        let turn = usize::try_from(number).unwrap_or_default() % self.clouds.len().max(1);
        let [websocket, quic] = self.ports;
        let port = if self.wire(number) == Wire::Quic { quic } else { websocket };
        authority(self.clouds.get(turn).map(String::as_str).unwrap_or_default(), port)
    }

    /// How the node of this number is linked.
    pub(crate) fn wire(&self, number: u32) -> Wire {
        if number >= self.nodes.saturating_sub(self.over_quic) { Wire::Quic } else { Wire::Websocket }
    }

    fn check_names(self) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let begins = self.prefix.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins || !self.prefix.chars().all(allowed) || self.prefix.len() > 200 {
            return Err(format!(
                "--prefix {:?}: names of nodes are lower-case letters, digits, '-' and '.', and begin with a letter or digit",
                self.prefix
            ));
        }
        Ok(self)
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A time in Go's notation; a bare number is seconds.
fn any_time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed = text.parse::<GoDuration>();
    parsed.map(|time| time.0).map_err(|()| "not a time such as 60s, 500ms or 10m".to_owned())
}

/// A time that is more than nothing.
fn time(text: &str) -> Result<Duration, String> {
    any_time(text)
        .and_then(|time| if time.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(time) })
}
