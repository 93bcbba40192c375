//! What a newcomer sees first.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use kubeedge_bin::Table;
use kubeedge_site::Running;

use crate::Runtime;

/// Prints what runs where, and three commands to try.
pub(crate) fn print(running: &Running, runtime: Runtime, took: Duration) -> io::Result<()> {
    let none = || "not running".to_owned();
    let broker = *running.edge.broker.borrow();
    let join = running.cloud.https.borrow().map_or_else(none, |at| format!("https://{at}"));
    let runtime = if runtime == Runtime::Cri { "cri" } else { "process" };
    let mut table = Table::default()
        .row("node", format!("{} ({runtime} runtime)", running.node))
        .row("kubeconfig", running.kubeconfig.display())
        .row("data", running.folder.display())
        .row("Kubernetes API", format!("https://{}", running.api))
        .row("CloudHub", format!("wss://{}", running.hub()))
        .row("join", join)
        .row("tunnel", format!("wss://{}", running.tunnel()))
        .row("MQTT broker", broker.map_or_else(none, |at| format!("mqtt://{at}")));
    if let Some(plc) = running.plc {
        table = table.row("simulated PLC", format!("Modbus TCP {plc}"));
    }
    let green = if io::stdout().is_terminal() { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}KubeEdge site is ready{} after {:.1} s\n", green.0, green.1, took.as_secs_f64())?;
    drop(out);
    table.print()?;
    let mut out = io::stdout().lock();
    writeln!(out, "\nTry in another terminal:\n")?;
    writeln!(out, "  export KUBECONFIG={}", running.kubeconfig.display())?;
    writeln!(out, "  kubectl get nodes")?;
    writeln!(out, "  kubectl apply -f examples/quickstart/")?;
    if let Some(broker) = broker {
        writeln!(out, "  mosquitto_sub -h {} -p {} -v -t '$hw/events/#'", broker.ip(), broker.port())?;
    }
    writeln!(out, "\nCtrl-C stops it; everything is kept for the next start.")?;
    out.flush()
}
