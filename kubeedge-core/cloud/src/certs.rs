//! Certificates: the CA, the hub's own certificate, the join token, and the HTTPS service that edges join
//! through.
//!
//! CA and server certificate come from local files, else from secrets in namespace `kubeedge`, else they are
//! made; what was found is kept in the secrets, which Go's cloudcore reads and writes as well. The join token
//! is renewed every twelve hours and holds twice as long. All of it goes by the clock of the [`Clients`].
//!
//! Where we differ from Go: a token signs a certificate only for the node the request is for (Go signs any
//! name), and none for cloudcore's own addresses; a certificate renews itself only if it names its node (Go
//! takes `kubeedge.io` of edges before 1.18 for any node); a token that is still good is kept over restarts
//! and shared by all cloudcores; its renewal goes on after a failure; certificates are for client and server
//! authentication only; there are `/healthz` and `/readyz`.

mod https;
mod pair;
mod secrets;
pub(crate) mod service;
pub(crate) mod signing;
mod tokens;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kube::core::Status;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Fatal, Module, ModuleContext},
    message::Millis,
    name::{Group, ModuleName},
    pki::{self, Authority, Key, Leaf, Names, PkiError},
    transport::Credentials,
};
use rustls::pki_types::PrivateSec1KeyDer;
use tokio::{net::TcpListener, sync::watch};

pub use self::secrets::{CA_SECRET, SERVER_SECRET, TOKEN_SECRET};
use self::{pair::Pair, service::Service, signing::Signer, tokens::Tokens};
use crate::{cluster::Clients, denylist::Denylist};

/// The name of the module that runs the HTTPS service.
pub const HTTPS: ModuleName = ModuleName::of("https");

/// Where certificates come from and how the service works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertSettings {
    /// PEM or DER files of the CA's certificate and key; both or neither.
    pub ca_files: Option<(PathBuf, PathBuf)>,
    /// PEM or DER files of the hub's certificate and key; both or neither.
    pub server_files: Option<(PathBuf, PathBuf)>,
    /// Addresses and names edges dial; they stand in a server certificate that is made.
    pub names: Vec<String>,
    /// Where the HTTPS service listens. KubeEdge: `0.0.0.0:10002`.
    pub listen: SocketAddr,
    /// How long a node's certificate holds, in days. KubeEdge: 365.
    pub node_certificate_days: u32,
    /// How often the join token is renewed; it holds twice as long. KubeEdge: 12 h.
    pub token_refresh: Duration,
}

impl Default for CertSettings {
    fn default() -> Self {
        Self {
            ca_files: None,
            server_files: None,
            names: Vec::new(),
            listen: SocketAddr::from(([0, 0, 0, 0], 10002)),
            node_certificate_days: 365,
            token_refresh: Duration::from_secs(12 * 3600),
        }
    }
}

/// Certificates or token could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The cluster did not give or take a secret.
    #[error("{doing}: {source}")]
    Cluster {
        /// What was being done.
        doing: &'static str,
        /// The API server's answer.
        source: Box<Status>,
    },
    /// A certificate or key is no good.
    #[error("{place}: {source}")]
    Certificate {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        source: PkiError,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A secret or file lacks what it should hold.
    #[error("{place} lacks {what}")]
    Incomplete {
        /// The secret or file.
        place: String,
        /// What is missing.
        what: &'static str,
    },
}

/// The CA and the hub's certificate, ready for use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Identity {
    /// The CA.
    pub authority: Arc<Authority>,
    /// The hub's certificate and key.
    pub server: pki::Identity,
}

impl Identity {
    /// Finds or makes CA and server certificate, and keeps them in the secrets.
    pub async fn prepare(settings: &CertSettings, clients: &Clients) -> Result<Self, PrepareError> {
        let client = clients.ours();
        let now = || unix(clients.clock().now());
        let cluster = |source| PrepareError::Cluster { doing: "making namespace kubeedge", source };
        secrets::ensure_namespace(client).await.map_err(cluster)?;
        let ca = Pair { secret: CA_SECRET, keys: ["cadata", "cakeydata"], files: &settings.ca_files };
        let bad = |place: String| move |source| PrepareError::Certificate { place, source };
        let (certificate, key) = ca
            .find_or_make(client, || {
                let made = Authority::kubeedge(now())?;
                Ok((made.certificate().to_vec(), made.key().sec1().to_vec()))
            })
            .await?;
        let key = Key::from_der(key).map_err(bad(ca.place()))?;
        let authority = Authority::load(certificate, key).map_err(bad(ca.place()))?;
        let server = Pair {
            secret: SERVER_SECRET,
            keys: ["cloudcoredata", "cloudcorekeydata"],
            files: &settings.server_files,
        };
        let (certificate, key) = server
            .find_or_make(client, || {
                let made = authority.issue_server(&names(&settings.names), now())?;
                Ok((made.certificate.to_vec(), made.key.sec1().to_vec()))
            })
            .await?;
        let key = Key::from_der(key).map_err(bad(server.place()))?;
        advise(&certificate, &authority, &names(&settings.names), &server.place());
        let server =
            pki::Identity { ca: authority.certificate().clone(), certificate: certificate.into(), key };
        Ok(Self { authority: Arc::new(authority), server })
    }

    /// Who the hub is to edges, and whose certificates it takes.
    pub fn credentials(&self) -> Credentials {
        self.server.credentials()
    }
}

/// Addresses and host names apart.
fn names(all: &[String]) -> Names {
    let mut names = Names::default();
    for name in all.iter().filter(|name| !name.is_empty()) {
        match name.parse() {
            Ok(address) => names.ips.push(address),
            Err(_) => names.dns.push(name.clone()),
        }
    }
    names
}

/// Says what will keep edges from trusting a server certificate that was made before. It is kept all the
/// same: who put it there may know better.
fn advise(certificate: &[u8], authority: &Authority, wanted: &Names, place: &str) {
    if !Leaf::is_signed_by(certificate, authority.certificate()) {
        return tracing::error!(
            place,
            "the server certificate is not by cloudcore's CA: no edge will trust it; put the CA it is by into the \
             secret casecret, or delete the secret cloudcoresecret to have it made anew"
        );
    }
    let has = Leaf::read(certificate).map(|leaf| leaf.names).unwrap_or_default();
    let dns = wanted.dns.iter().filter(|name| !has.dns.contains(name)).cloned();
    let ips = wanted.ips.iter().filter(|ip| !has.ips.contains(ip)).map(ToString::to_string);
    let missing: Vec<_> = dns.chain(ips).collect();
    if !missing.is_empty() {
        tracing::warn!(
            place,
            ?missing,
            "the server certificate lacks addresses that edges may dial; delete the secret cloudcoresecret to have it \
             made anew"
        );
    }
}

/// Seconds since the Unix epoch.
fn unix(moment: Millis) -> i64 {
    moment.0.div_euclid(1000)
}

/// The module that keeps the join token and serves HTTPS; see the module's documentation.
#[derive(Clone, Debug)]
pub struct CertService {
    settings: CertSettings,
    identity: Identity,
    clients: Arc<Clients>,
    tokens: Tokens,
    denied: Denylist,
    token: watch::Sender<String>,
    bound: watch::Sender<Option<SocketAddr>>,
}

/// The longest pause between looks at the token: the clock may be set, and the secret changed.
const LOOK: Duration = Duration::from_secs(600);

impl CertService {
    /// A service for this identity. The first token is there at once: the one in the secret, if it is good
    /// for a while.
    pub async fn new(
        settings: CertSettings,
        identity: Identity,
        clients: &Arc<Clients>,
    ) -> Result<Self, PrepareError> {
        let tokens = Tokens {
            authority: identity.authority.clone(),
            clients: clients.clone(),
            refresh: settings.token_refresh,
        };
        let found = tokens.find().await;
        let (token, _) =
            found.map_err(|source| PrepareError::Cluster { doing: "reading the join token", source })?;
        let (token, bound) = (watch::Sender::new(token), watch::Sender::new(None));
        let (clients, denied) = (clients.clone(), Denylist::default());
        Ok(Self { settings, identity, clients, tokens, denied, token, bound })
    }

    /// Gives those on this list no certificate.
    #[must_use]
    pub fn with_denylist(mut self, list: Denylist) -> Self {
        self.denied = list;
        self
    }

    /// The join token, now and later.
    pub fn token(&self) -> watch::Receiver<String> {
        self.token.subscribe()
    }

    /// Where the service listens, once it does.
    pub fn bound(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.bound.subscribe()
    }

    /// Keeps the token in its secret and renews it in time; a failure is tried again after a minute.
    async fn renew(&self) {
        loop {
            let known = self.token.borrow().clone();
            let pause = match self.tokens.keep(&known).await {
                Ok(token) => {
                    let pause = self.tokens.rest(&token).clamp(Duration::from_secs(1), LOOK);
                    self.publish(token.0);
                    pause
                }
                Err(status) => {
                    tracing::error!(error = %status, "the join token was not kept");
                    Duration::from_secs(60).min(self.settings.token_refresh)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The names by which edges know cloudcore: no node gets a certificate for them.
    fn reserved(&self) -> Names {
        let mut reserved = names(&self.settings.names);
        let leaf = Leaf::read(&self.identity.server.certificate);
        let shown = leaf.map(|leaf| leaf.names).unwrap_or_default();
        reserved.dns.extend(shown.dns);
        reserved.ips.extend(shown.ips);
        reserved
    }

    fn publish(&self, token: String) {
        self.token.send_if_modified(|known| {
            let is_new = *known != token;
            *known = token;
            is_new
        });
    }
}

#[async_trait]
impl Module for CertService {
    fn name(&self) -> ModuleName {
        HTTPS
    }

    fn group(&self) -> Group {
        Group::of("https")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        tokio::select! {
            () = self.denied.ready() => {}
            () = ctx.shutdown.requested() => return Ok(()),
        }
        let server = &self.identity.server;
        let key = PrivateSec1KeyDer::from(server.key.sec1().to_vec()).into();
        let tls = https::acceptor(server.certificate.to_vec().into(), key)?;
        // Should the one before have been broken off.
        self.bound.send_replace(None);
        let address = self.settings.listen;
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Fatal::new(format!(
                "HTTPS service cannot listen on {address}: {error}; if the port is taken, set modules.cloudHub.https.port (CertSettings::listen) to a free one"
            ))
        })?;
        let bound = listener.local_addr()?;
        tracing::info!(address = %bound, "the HTTPS service listens");
        self.bound.send_replace(Some(bound));
        let signer = Signer {
            authority: self.identity.authority.clone(),
            clock: self.clients.clock().clone(),
            days: self.settings.node_certificate_days,
            reserved: self.reserved(),
            denied: self.denied.clone(),
        };
        let (clients, bus) = (self.clients.clone(), ctx.bus.clone());
        let service = Arc::new(Service { signer, clients, bus, refusals: Default::default() });
        tokio::select! {
            () = https::serve(listener, tls, service, &ctx.shutdown) => {}
            () = self.renew() => {}
        }
        self.bound.send_replace(None);
        Ok(())
    }
}
