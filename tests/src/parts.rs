//! Cloudcore and edgecore as processes of their own, with Go's configuration files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    kubectl::Kubectl,
    peers::free_port,
    process::{Background, binary},
};

/// A cloudcore beside a site's: on the site's API by its kubeconfig.
#[derive(Debug)]
pub struct Cloud {
    folder: PathBuf,
    hub: u16,
    https: u16,
    tunnel: u16,
    quic: u16,
    args: Vec<String>,
    running: Option<Background>,
}

impl Cloud {
    /// Starts one with a cluster of its own.
    pub fn embedded(folder: &Path) -> (Self, Kubectl) {
        Self::embedded_for(folder, 10)
    }

    /// Starts one with a cluster of its own, for so many nodes.
    pub fn embedded_for(folder: &Path, limit: u32) -> (Self, Kubectl) {
        let (data, api) = (folder.join("cluster"), format!("127.0.0.1:{}", free_port()));
        let kubectl = Kubectl::new(folder, &data.join("kubeconfig"));
        let args = ["--embedded", &data.display().to_string(), "--api-address", &api].map(str::to_owned);
        (Self::with(folder.join("cloudcore"), Path::new("\"\""), limit, args.to_vec()), kubectl)
    }

    /// Starts one on the cluster of this kubeconfig.
    pub fn start(folder: &Path, kubeconfig: &Path) -> Self {
        Self::with(folder.join("cloudcore"), kubeconfig, 10, Vec::new())
    }

    /// Starts a further one on the cluster of this kubeconfig.
    pub fn another(folder: &Path, kubeconfig: &Path, name: &str) -> Self {
        Self::with(folder.join(name), kubeconfig, 10, Vec::new())
    }

    /// Kills it, as a power cut does.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }

    fn with(folder: PathBuf, kubeconfig: &Path, limit: u32, args: Vec<String>) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let [hub, https, tunnel, quic] = std::array::from_fn(|_| free_port());
        let config = format!(
            r#"
apiVersion: cloudcore.config.kubeedge.io/v1alpha1
kind: CloudCore
kubeAPIConfig:
  kubeConfig: {}
  qps: 50
modules:
  cloudHub:
    advertiseAddress: [127.0.0.1]
    dnsNames: [localhost]
    nodeLimit: {limit}
    websocket: {{enable: true, address: 127.0.0.1, port: {hub}}}
    quic: {{enable: true, address: 127.0.0.1, port: {quic}}}
    https: {{enable: true, address: 127.0.0.1, port: {https}}}
    tlsCAFile: {dir}/absent.crt
    tlsCAKeyFile: {dir}/absent.key
    tlsCertFile: {dir}/absent-server.crt
    tlsPrivateKeyFile: {dir}/absent-server.key
  cloudStream: {{enable: true, tunnelPort: {tunnel}}}
  router: {{enable: true, port: 9443}}
"#,
            kubeconfig.display(),
            dir = folder.display(),
        );
        std::fs::write(folder.join("cloudcore.yaml"), config).unwrap();
        let mut cloud = Self { folder, hub, https, tunnel, quic, args, running: None };
        cloud.start_again();
        cloud
    }

    /// The ports where edges connect over WebSocket and over QUIC.
    pub fn links(&self) -> (u16, u16) {
        (self.hub, self.quic)
    }

    /// Starts it again, on the same ports.
    pub fn start_again(&mut self) {
        let mut command = Command::new(binary("cloudcore"));
        command.arg("--config").arg(self.folder.join("cloudcore.yaml")).args(&self.args);
        let running = Background::start(&mut command);
        running.until_said("edges can join and connect", super::PATIENCE);
        self.running = Some(running);
    }

    /// Stops it in order: the link is cut. What it said.
    pub fn stop(&mut self) -> String {
        let mut running = self.running.take().unwrap();
        assert_eq!(running.stop(), Some(0), "{}", running.said());
        running.said()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.running.as_ref().map(Background::said).unwrap_or_default()
    }

    /// Its process; 0 when it does not run.
    pub fn id(&self) -> u32 {
        self.running.as_ref().map_or(0, Background::id)
    }

    /// The ports of the hub and of the service that gives certificates.
    pub fn ports(&self) -> (u16, u16) {
        (self.hub, self.https)
    }

    /// Where edges connect to, where they join, and where their tunnels are dialled.
    pub fn doors(&self) -> [SocketAddr; 3] {
        [self.hub, self.https, self.tunnel].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The memory it holds just now, in bytes.
    pub fn memory(&self) -> usize {
        self.running.as_ref().map_or(0, Background::memory)
    }
}

/// An edgecore with the process runtime.
#[derive(Debug)]
pub struct Edge {
    folder: PathBuf,
    running: Option<Background>,
}

impl Edge {
    /// Joins a cloud as a node of this name with the join token of the site's cluster; `modules` are further
    /// lines of its configuration, indented by two.
    pub fn join(site: &Kubectl, cloud: &Cloud, node: &str, modules: &str) -> Self {
        Self::join_all(site, &[cloud], node, "", modules)
    }

    /// The same with several clouds to connect to, the first of which signs its certificate.
    pub fn join_any(site: &Kubectl, clouds: &[&Cloud], node: &str, modules: &str) -> Self {
        Self::join_all(site, clouds, node, "", modules)
    }

    /// As [`Edge::join`]; `links` are further lines of edgeHub, indented by four.
    pub fn join_over(site: &Kubectl, cloud: &Cloud, node: &str, links: &str, modules: &str) -> Self {
        Self::join_all(site, &[cloud], node, links, modules)
    }

    fn join_all(site: &Kubectl, clouds: &[&Cloud], node: &str, links: &str, modules: &str) -> Self {
        let listed = |port: &dyn Fn(&Cloud) -> u16| {
            clouds.iter().map(|cloud| format!("127.0.0.1:{}", port(cloud))).collect::<Vec<_>>().join(",")
        };
        let (hubs, tunnels) = (listed(&|cloud| cloud.hub), listed(&|cloud| cloud.tunnel));
        let folder = site.folder().join(node);
        std::fs::create_dir_all(&folder).unwrap();
        let token = site.join_token();
        let config = format!(
            r#"
apiVersion: edgecore.config.kubeedge.io/v1alpha2
kind: EdgeCore
database: {{aliasName: default, driverName: sqlite3, dataSource: {dir}/edgecore.db}}
modules:
  edgeHub:
    enable: true
    heartbeat: 5
    httpServer: https://127.0.0.1:{https}
    token: {token}
    websocket: {{enable: true, server: "{hubs}", handshakeTimeout: 30, writeDeadline: 15}}
{links}
  edgeStream: {{enable: true, server: "{tunnels}"}}
  edged:
    hostnameOverride: {node}
    nodeIP: 127.0.0.1
    reportEvent: true
    tailoredKubeletConfig: {{readOnlyPort: {kubelet}}}
  serviceBus: {{enable: true, port: 9061}}
{modules}
"#,
            dir = folder.display(),
            https = clouds[0].https,
            token = token.trim(),
            kubelet = free_port(),
        );
        std::fs::write(folder.join("edgecore.yaml"), config).unwrap();
        let mut edge = Self { folder, running: None };
        edge.start_again();
        site.until(&["get", "node", node], |said| said.contains(" Ready "));
        edge
    }

    /// Starts it again on the same folder.
    pub fn start_again(&mut self) {
        let mut command = Command::new(binary("edgecore"));
        command.arg("--config").arg(self.folder.join("edgecore.yaml"));
        command.args(["--runtime", "process", "--data-dir"]).arg(&self.folder);
        self.running = Some(Background::start(&mut command));
    }

    /// Stops it in order; pods go on.
    pub fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        assert_eq!(running.stop(), Some(0), "{}", running.said());
    }

    /// Kills it and everything its pods run, as a power cut does.
    pub fn power_cut(&mut self) {
        drop(self.running.take());
        crate::process::kill_below(&self.folder);
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.running.as_ref().map(Background::said).unwrap_or_default()
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
