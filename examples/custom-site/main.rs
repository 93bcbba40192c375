//! A whole site in one process, for a machine without a cluster: `custom-site FOLDER`
//!
//! Kubernetes API, cloudcore and edgecore are those of `edgesite`. The container runtime and the mappers are
//! chosen here.

use std::{path::PathBuf, process::ExitCode};

use kubeedge_device::{Mapper, simulated::Simulated};
use kubeedge_runtime::memory::MemoryRuntime;
use kubeedge_site::{Site, SiteSettings};

fn main() -> ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [folder] = &args[..] else { anyhow::bail!("FOLDER") };

    // Everything that is kept lies in the folder; port 0 takes free ports.
    let settings = SiteSettings { folder: PathBuf::from(folder), port_base: 0, ..SiteSettings::default() };
    let mut site = Site::open(settings)?.edge(|edge| edge.mapper(Mapper::new(Simulated::new())));
    let running = site.start(MemoryRuntime::new(Default::default())).await?;
    tracing::info!(kubeconfig = %running.kubeconfig.display(), "the site is ready");

    tokio::select! {
        error = site.failed() => return Err(error.into()),
        () = kubeedge_bin::shutdown_signal() => {}
    }
    Ok(site.stop().await?)
}
