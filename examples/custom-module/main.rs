//! A vendor's module in two halves: one in cloudcore, one in edgecore, with messages of their own between
//! them.
//!
//! `custom-module FOLDER` runs both in a whole site in one process: a Kubernetes API, cloudcore with the
//! kitchen in it, edgecore with the oven in it as the node `oven-1`, and an MQTT broker. In production each
//! half is in a program of its own: `CloudCore::assemble(…).module_with(…)` and
//! `EdgeCore::assemble(…).module(…)` take them as they are.
//!
//! What to look at:
//! - `routes()` of both halves: which messages and topics a module takes;
//! - `kitchen.rs`: a reliable message, a request, and nodes that come and go;
//! - `oven.rs`: answers, the newest of many values, and MQTT.

mod kitchen;
mod oven;

use kubeedge_core::name::Group;
use kubeedge_runtime::memory::MemoryRuntime;
use kubeedge_site::{Site, SiteSettings};

/// The group of messages between the halves. It is the vendor's alone: the hubs hand it to whoever takes it.
const GROUP: Group = Group::of("acme-bakery");

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    kubeedge_bin::exit(run().await)
}

async fn run() -> anyhow::Result<()> {
    kubeedge_bin::start_logs()?;
    let Some(folder) = std::env::args().nth(1) else { anyhow::bail!("custom-module FOLDER") };

    // Port 0: free ports instead of KubeEdge's own.
    let (folder, node, port_base) = (folder.into(), "oven-1".to_owned(), 0);
    let settings = SiteSettings { folder, node, port_base, ..SiteSettings::default() };

    let mut site = Site::open(settings)?
        .edge(|edge| edge.module(oven::Oven::default()))
        // The kitchen hears from the hub which nodes come and go.
        .cloud(|cloud| cloud.module_with(|parts| kitchen::Kitchen::new(parts.sessions.clone())));

    // Whoever stops this program before the node is ready gets an end in order, too.
    let mut told_to_end = std::pin::pin!(kubeedge_bin::shutdown_signal());
    tokio::select! {
        started = site.start(MemoryRuntime::new(Default::default())) => drop(started?),
        () = &mut told_to_end => return Ok(site.stop().await?),
    }
    tokio::select! {
        () = told_to_end => {}
        error = site.failed() => return Err(error.into()),
    }
    Ok(site.stop().await?)
}
