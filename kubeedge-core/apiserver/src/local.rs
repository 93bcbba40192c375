//! The embedded cluster with all it takes to be used: its own authority, a kubeconfig, controllers.

use std::{net::SocketAddr, sync::Arc};

use futures::future;
use kubeedge_core::{
    api,
    clock::Clock,
    failure::BoxError,
    kernel::Shutdown,
    pki::{Authority, Key as PrivateKey, Names, PkiError, Usage, to_pem},
    store::{Bucket, Key, MetaStore, MetaStoreExt, StoreError},
};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{
    cluster::{EmbeddedCluster, EmbeddedSettings},
    controllers,
    serve::{ServeError, ServeSettings, Serving, kubeconfig},
    tokens::Signer,
};

/// Where authority and secret are kept, beside the objects.
const OWN: Bucket = Bucket("apiserver-own");
const CA_DAYS: i64 = 3650;
/// How long certificates made at each start hold.
const LEAF_DAYS: i64 = 365;

/// How a [`LocalCluster`] is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalSettings {
    /// Where the API listens; port 0 for a free one.
    pub address: SocketAddr,
    /// Further names and addresses clients reach it by, for its certificate. Loopback is always among them.
    pub names: Names,
    /// The time of the cluster.
    pub clock: Clock,
}

impl Default for LocalSettings {
    /// Loopback, port 6443.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 6443)),
            names: Names::default(),
            clock: Clock::wall(),
        }
    }
}

impl LocalSettings {
    /// Listens on an address; port 0 for a free one.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, ..Self::default() }
    }

    /// Is reached by these names and addresses too.
    #[must_use]
    pub fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// Counts with this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

/// No cluster came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The store failed.
    #[error("the store of the embedded cluster: {0}")]
    Store(#[from] StoreError),
    /// The kept authority is no good, or no certificate could be made.
    #[error("certificates of the embedded cluster: {0}")]
    Certificates(#[from] PkiError),
    /// The API cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A whole small cluster that lives in one store: the API over TLS and its controllers, with KubeEdge's
/// kinds.
///
/// The authority and the secret that signs tokens are made once and kept in the store, so that kubeconfigs
/// and tokens stay good after a restart. Whoever can read the store can act as administrator.
#[derive(Debug)]
pub struct LocalCluster {
    cluster: EmbeddedCluster,
    serving: Serving,
    kubeconfig: String,
    ca_pem: String,
}

#[derive(Serialize, Deserialize)]
struct Own {
    certificate: Vec<u8>,
    key: Vec<u8>,
    secret: Vec<u8>,
}

impl Own {
    async fn of(store: &dyn MetaStore, now: i64) -> Result<Self, LocalError> {
        let key = Key::new(OWN, "authority");
        if let Some(kept) = store.get_as::<Self>(&key).await? {
            return Ok(kept);
        }
        let made = Authority::generate("kubeedge-embedded", now, CA_DAYS)?;
        let secret: [u8; 32] = rand::rng().random();
        let own = Self {
            certificate: made.certificate().to_vec(),
            key: made.key().sec1().to_vec(),
            secret: secret.to_vec(),
        };
        store.put(key, &own).await?;
        Ok(own)
    }
}

impl LocalCluster {
    /// Opens the cluster this store holds and listens; requests are answered once [`LocalCluster::run`] runs.
    pub async fn open(store: Arc<dyn MetaStore>, settings: LocalSettings) -> Result<Self, LocalError> {
        let now = settings.clock.now().0 / 1000;
        let own = Own::of(&*store, now).await?;
        let authority = Authority::load(own.certificate, PrivateKey::from_der(own.key)?)?;
        let mut names = settings.names;
        names.dns.extend(["localhost", "kubernetes", "kubernetes.default.svc"].map(str::to_owned));
        names.ips.extend([settings.address.ip(), [127, 0, 0, 1].into()]);
        let identity = authority.issue("kube-apiserver", &[], &names, Usage::Server, now, LEAF_DAYS)?;
        let admin = ("kubernetes-admin", ["system:masters"]);
        let admin = authority.issue(admin.0, &admin.1, &Names::default(), Usage::Client, now, LEAF_DAYS)?;
        let ca_pem = to_pem("CERTIFICATE", authority.certificate());
        let cluster = EmbeddedSettings::new(Signer::new(&own.secret))
            .definitions(api::definitions())
            .root_ca_pem(ca_pem.clone())
            .clock(settings.clock);
        let cluster = EmbeddedCluster::open(store, cluster).await?;
        let serving = cluster.serve(ServeSettings::new(settings.address, identity)).await?;
        let kubeconfig = kubeconfig(&format!("https://{}", serving.address()), &admin);
        Ok(Self { cluster, serving, kubeconfig, ca_pem })
    }

    /// The cluster, for those in this process.
    pub fn cluster(&self) -> &EmbeddedCluster {
        &self.cluster
    }

    /// A kubeconfig of its administrator, with the real port.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// The certificate of its authority.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where the API listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// Serves the API and runs the controllers until shutdown.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), BoxError> {
        let controllers = tokio::spawn(controllers::run(self.cluster, shutdown.clone()));
        let serving = tokio::spawn(self.serving.run(shutdown));
        future::try_join(controllers, serving).await?;
        Ok(())
    }
}
