//! The embedded cluster is a cluster: in process, and as a real API server is reached, over TLS with
//! impersonation.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_core::{cluster::ClusterApi, conformance::cluster::ClusterHarness};
use kubeedge_store::MemoryStore;
use parking_lot::Mutex;

async fn open(store: &Arc<MemoryStore>) -> EmbeddedCluster {
    let settings = EmbeddedSettings::new(Signer::new(b"secret"));
    EmbeddedCluster::open(store.clone(), settings).await.unwrap()
}

mod in_process {
    use super::*;

    struct InProcess {
        store: Arc<MemoryStore>,
        cluster: Mutex<EmbeddedCluster>,
    }

    impl InProcess {
        async fn new() -> Self {
            let store = Arc::default();
            let cluster = Mutex::new(open(&store).await);
            Self { store, cluster }
        }
    }

    #[async_trait]
    impl ClusterHarness for InProcess {
        fn cluster(&self) -> Arc<dyn ClusterApi> {
            Arc::new(self.cluster.lock().clone())
        }

        async fn forget(&self) -> bool {
            let again = open(&self.store).await;
            *self.cluster.lock() = again;
            true
        }
    }

    kubeedge_core::cluster_conformance!(async { InProcess::new().await });
}

mod over_tls {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kubeedge_apiserver::{ServeSettings, kubeconfig};
    use kubeedge_cloud::kubernetes::KubeCluster;
    use kubeedge_core::{
        kernel::Shutdown,
        message::Millis,
        pki::{Authority, Names, Usage},
    };

    use super::*;

    struct Served {
        store: Arc<MemoryStore>,
        remote: Mutex<(Arc<KubeCluster>, Shutdown)>,
    }

    /// Serves a store's cluster on a free port and connects to it as an administrator who may act for others.
    async fn serve(store: &Arc<MemoryStore>) -> (Arc<KubeCluster>, Shutdown) {
        let now = Millis::now().0 / 1000;
        let authority = Authority::generate("kit", now, 1).unwrap();
        let names = Names { ips: vec![[127, 0, 0, 1].into()], ..Names::default() };
        let identity = authority.issue("kube-apiserver", &[], &names, Usage::Server, now, 1).unwrap();
        let admin =
            authority.issue("admin", &["system:masters"], &Names::default(), Usage::Client, now, 1).unwrap();
        let settings = ServeSettings::new(([127, 0, 0, 1], 0).into(), identity);
        let serving = open(store).await.serve(settings).await.unwrap();
        let text = kubeconfig(&format!("https://{}", serving.address()), &admin);
        let shutdown = Shutdown::new();
        tokio::spawn(serving.run(shutdown.clone()));
        let file = Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        (Arc::new(KubeCluster::new(config).unwrap().impersonating(true)), shutdown)
    }

    impl Served {
        async fn new() -> Self {
            let store = Arc::default();
            let remote = Mutex::new(serve(&store).await);
            Self { store, remote }
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.remote.lock().1.request();
        }
    }

    #[async_trait]
    impl ClusterHarness for Served {
        fn cluster(&self) -> Arc<dyn ClusterApi> {
            self.remote.lock().0.clone()
        }

        async fn forget(&self) -> bool {
            let again = serve(&self.store).await;
            std::mem::replace(&mut *self.remote.lock(), again).1.request();
            true
        }
    }

    kubeedge_core::cluster_conformance!(async { Served::new().await });
}
