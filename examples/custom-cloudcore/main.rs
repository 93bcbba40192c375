//! A vendor's own cloudcore, with a Kubernetes API of its own and a module: `custom-cloudcore FOLDER`
//!
//! Where there is a cluster, `kubeedge_cloud::kubernetes::KubeCluster` takes the place of the API.

mod census;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc};

use census::Census;
use kubeedge_apiserver::{LocalCluster, LocalSettings};
use kubeedge_cloud::{CloudCore, CloudCoreSettings};
use kubeedge_core::{kernel::Shutdown, transport::Endpoint};
use kubeedge_store::{SqliteOptions, SqliteStore};
use kubeedge_transport::{Adaptive, WebSocket};

/// Free ports; cloudcore's own are 10000 to 10004.
const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn main() -> ExitCode {
    kubeedge_bin::run(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [folder] = &args[..] else { anyhow::bail!("FOLDER") };
    let folder = Path::new(folder);

    // The Kubernetes API: objects in a file, a kubeconfig beside it.
    let store = SqliteStore::open(&folder.join("cluster.db"), SqliteOptions::default()).await?;
    let api = LocalCluster::open(Arc::new(store), LocalSettings::at(SocketAddr::from(ANY_PORT))).await?;
    std::fs::write(folder.join("kubeconfig"), api.kubeconfig())?;
    let (cluster, ca) = (api.cluster().clone(), api.ca_pem().to_owned());
    let stop = Shutdown::new();
    let serving = tokio::spawn(api.run(stop.clone()));

    // Cloudcore over it. `Adaptive` speaks Go's JSON with Go edges, and a compact form with ours.
    let mut settings = CloudCoreSettings::default();
    settings.listen = Endpoint::from(SocketAddr::from(ANY_PORT));
    settings.certs.listen = SocketAddr::from(ANY_PORT);
    settings.certs.names = vec!["127.0.0.1".to_owned()];
    settings.hub.cluster_ca = ca.into();
    let core = CloudCore::assemble(settings, WebSocket::default(), cluster)
        .module_with(|parts| Census::new(parts.sessions.clone()))
        .codec(Arc::new(Adaptive::default()))
        .build()
        .await?;
    core.run(kubeedge_bin::shutdown_signal()).await?;

    // The API is stopped after those who use it.
    stop.request();
    serving.await?.map_err(anyhow::Error::from_boxed)
}
