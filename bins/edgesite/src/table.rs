//! What a newcomer sees first.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use kubeedge_bin::Table;

/// What runs where.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    pub(crate) node: &'a str,
    pub(crate) runtime: &'a str,
    pub(crate) data: &'a Path,
    pub(crate) kubeconfig: &'a Path,
    pub(crate) api: SocketAddr,
    pub(crate) hub: String,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) tunnel: String,
    pub(crate) broker: Option<SocketAddr>,
    pub(crate) plc: Option<SocketAddr>,
}

impl Running<'_> {
    /// Prints the table and three commands to try.
    pub(crate) fn print(&self, took: Duration) -> io::Result<()> {
        let none = || "not running".to_owned();
        let broker = self.broker.map_or_else(none, |at| format!("mqtt://{at}"));
        let join = self.https.map_or_else(none, |at| format!("https://{at}"));
        let mut table = Table::default()
            .row("node", format!("{} ({} runtime)", self.node, self.runtime))
            .row("kubeconfig", self.kubeconfig.display())
            .row("data", self.data.display())
            .row("Kubernetes API", format!("https://{}", self.api))
            .row("CloudHub", format!("wss://{}", self.hub))
            .row("join", join)
            .row("tunnel", format!("wss://{}", self.tunnel))
            .row("MQTT broker", &broker);
        if let Some(plc) = self.plc {
            table = table.row("simulated PLC", format!("Modbus TCP {plc}"));
        }
        let green = if io::stdout().is_terminal() { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}KubeEdge site is ready{} after {:.1} s\n", green.0, green.1, took.as_secs_f64())?;
        drop(out);
        table.print()?;
        let mut out = io::stdout().lock();
        writeln!(out, "\nTry in another terminal:\n")?;
        writeln!(out, "  export KUBECONFIG={}", self.kubeconfig.display())?;
        writeln!(out, "  kubectl get nodes")?;
        writeln!(out, "  kubectl apply -f examples/quickstart/")?;
        if let Some(broker) = self.broker {
            writeln!(out, "  mosquitto_sub -h {} -p {} -v -t '$hw/events/#'", broker.ip(), broker.port())?;
        }
        writeln!(out, "\nCtrl-C stops it; everything is kept for the next start.")?;
        out.flush()
    }
}
