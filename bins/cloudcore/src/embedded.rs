//! A cluster of cloudcore's own, where there is no Kubernetes.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use kubeedge_apiserver::{EmbeddedCluster, LocalCluster, LocalSettings};
use kubeedge_cloud::config::ConfiguredCluster;
use kubeedge_core::{kernel::Shutdown, store::MetaStore};
use kubeedge_store::{SqliteOptions, SqliteStore};
use tokio::task::JoinHandle;

/// Whether and how cloudcore serves the Kubernetes API itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Without a cluster")]
pub(crate) struct Embedded {
    /// Serve the Kubernetes API too, its objects kept in this folder; the kubeconfig is DIR/kubeconfig and
    /// kubeAPIConfig is not used
    #[arg(long, value_name = "DIR")]
    embedded: Option<PathBuf>,
    /// Where that API listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6443", requires = "embedded")]
    api_address: SocketAddr,
}

/// A cluster that runs in this process until it is stopped.
pub(crate) struct Running {
    pub(crate) cluster: EmbeddedCluster,
    stop: Shutdown,
    task: JoinHandle<Result<(), kubeedge_core::failure::BoxError>>,
    store: Arc<SqliteStore>,
}

impl Embedded {
    /// Starts the cluster, if one is wished for.
    pub(crate) async fn start(&self) -> anyhow::Result<Option<(Running, ConfiguredCluster)>> {
        let Some(folder) = &self.embedded else { return Ok(None) };
        let made = std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize());
        let folder = made.with_context(|| format!("--embedded {}", folder.display()))?;
        let store = SqliteStore::open(&folder.join("cluster.db"), SqliteOptions::default()).await?;
        let store = Arc::new(store);
        let settings = LocalSettings::at(self.api_address);
        let local = LocalCluster::open(store.clone(), settings).await.context("--api-address")?;
        let kubeconfig = folder.join("kubeconfig");
        kubeedge_common::file::replace(&kubeconfig, local.kubeconfig().as_bytes(), 0o600)
            .with_context(|| format!("writing {}", kubeconfig.display()))?;
        tracing::info!(address = %local.address(), kubeconfig = %kubeconfig.display(), "the Kubernetes API listens");
        let cluster = local.cluster().clone();
        let configured = ConfiguredCluster { api: Arc::new(cluster.clone()), ca: local.ca_pem().into() };
        let stop = Shutdown::new();
        let task = tokio::spawn(local.run(stop.clone()));
        Ok(Some((Running { cluster, stop, task, store }, configured)))
    }
}

impl Running {
    /// Stops it, after those who use it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.request();
        let ended = self.task.await?.map_err(anyhow::Error::from_boxed);
        // From here on the file is whole without its write-ahead log.
        self.store.close().await?;
        ended
    }
}
