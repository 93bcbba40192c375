//! A vendor's own edgecore: its own store, its own module, pods as processes.
//! `custom-edgecore NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER`

mod journal;
mod watchdog;

use std::{path::Path, process::ExitCode};

use kubeedge_edge::{CloudAddress, EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::process::{ProcessRuntime, ProcessSettings};
use kubeedge_transport::WebSocket;

fn main() -> ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, tunnel, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER")
    };
    let folder = Path::new(folder);

    // Link, tunnel, logs and exec follow from the cloud's addresses and the token.
    let settings = EdgeCoreSettings::for_node(node.as_str()).in_folder(folder).on_free_ports();
    let settings = settings.joining(CloudAddress::new(hub, join, tunnel), token);

    // The parts that every edgecore has.
    let store = journal::Journal::open(&folder.join("journal"))?;
    let pods = ProcessSettings { root: folder.join("containers"), shim: kubeedge_bin::shim()? };
    let runtime = ProcessRuntime::open(pods).await?;

    // And one of our own.
    let edge = EdgeCore::assemble(settings, WebSocket::default(), store, runtime);
    let edge = edge.module(watchdog::Watchdog).build()?;
    Ok(edge.run(kubeedge_bin::shutdown_signal()).await?)
}
