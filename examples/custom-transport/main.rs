//! An edgecore that says at its end how many bytes its link took:
//! `custom-transport NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER`

mod metered;

use std::{path::Path, process::ExitCode, sync::Arc};

use kubeedge_edge::{CloudAddress, EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::memory::MemoryRuntime;
use kubeedge_store::MemoryStore;
use kubeedge_transport::WebSocket;
use metered::{Traffic, metered};

fn main() -> ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, tunnel, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER")
    };

    // Any transport can be wrapped; the edgecore does not notice.
    let traffic = Arc::<Traffic>::default();
    let transport = metered(WebSocket::default(), traffic.clone());

    let settings = EdgeCoreSettings::for_node(node.as_str()).in_folder(Path::new(folder)).on_free_ports();
    let settings = settings.joining(CloudAddress::new(hub, join, tunnel), token);
    let pods = MemoryRuntime::new(Default::default());
    let edge = EdgeCore::assemble(settings, transport, MemoryStore::new(), pods).build()?;
    edge.run(kubeedge_bin::shutdown_signal()).await?;

    tracing::info!(sent = traffic.sent(), received = traffic.received(), "bytes of messages");
    Ok(())
}
