//! A vendor's own edgecore: its own store, its own module, pods as processes.
//! `custom-edgecore NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER`
mod journal;
mod watchdog;

use std::path::Path;

use kubeedge_edge::{CloudAddress, EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::process::{ProcessRuntime, ProcessSettings};
use kubeedge_transport::WebSocket;

fn main() -> std::process::ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, tunnel, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TUNNEL TOKEN FOLDER")
    };
    let folder = Path::new(folder);
    let settings = EdgeCoreSettings::for_node(node.as_str()).in_folder(folder).on_free_ports();
    let settings = settings.joining(CloudAddress::new(hub, join, tunnel), token);
    let store = journal::Journal::open(&folder.join("journal"))?;
    let pods = ProcessSettings { root: folder.join("containers"), shim: kubeedge_bin::shim()? };
    let runtime = ProcessRuntime::open(pods).await?;
    let edge = EdgeCore::assemble(settings, WebSocket::default(), store, runtime);
    Ok(edge.module(watchdog::Watchdog).build()?.run(kubeedge_bin::shutdown_signal()).await?)
}
