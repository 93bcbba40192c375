//! A vendor's own edgecore: its own store, its own module, pods as processes.
//! `custom-edgecore NODE CLOUDHUB JOIN TOKEN FOLDER`
mod journal;
mod watchdog;

use std::{path::Path, sync::Arc};

use kubeedge_edge::{EdgeCore, EdgeCoreSettings};
use kubeedge_runtime::process::{ProcessRuntime, ProcessSettings};
use kubeedge_transport::WebSocket;

fn main() -> std::process::ExitCode {
    kubeedge_bin::process_shim().unwrap_or_else(|| kubeedge_bin::exit(run()))
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> anyhow::Result<()> {
    kubeedge_bin::start_logs()?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [node, hub, join, token, folder] = &args[..] else {
        anyhow::bail!("NODE CLOUDHUB JOIN TOKEN FOLDER")
    };
    let folder = Path::new(folder);
    let settings = EdgeCoreSettings::for_node(node).in_folder(folder).joining(hub, join, token);
    let store = Arc::new(journal::Journal::open(&folder.join("journal"))?);
    let pods = ProcessSettings { root: folder.join("containers"), shim: kubeedge_bin::shim()? };
    let runtime = Arc::new(ProcessRuntime::open(pods).await?);
    let edge = EdgeCore::assemble(settings, Arc::new(WebSocket::default()), store, runtime);
    Ok(edge.module(watchdog::Watchdog).build()?.run(kubeedge_bin::shutdown_signal()).await?)
}
