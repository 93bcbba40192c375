//! Certificates: the CA, the hub's own certificate, the join token, and the HTTPS service that edges join through.
//!
//! CA and server certificate come from local files, else from secrets in namespace `kubeedge`, else they are made; what
//! was found is kept in the secrets. The join token is renewed every twelve hours and holds twice as long.
//!
//! Where we differ from Go: a token signs a certificate only for the node the request is for (Go signs any name); the
//! renewal of the token goes on after a failure; certificates are for client and server authentication only; there
//! are `/healthz` and `/readyz`.

mod https;
mod secrets;
mod service;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use kube::core::Status;
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName},
    pki::{self, Authority, Key, Names, PkiError},
    transport::Credentials,
};
use rustls::pki_types::PrivateSec1KeyDer;
use tokio::{net::TcpListener, sync::watch};

pub use self::secrets::{CA_SECRET, NAMESPACE, SERVER_SECRET, TOKEN_SECRET};
use self::{
    secrets::Values,
    service::{Refusals, Service},
};
use crate::cluster::Clients;

/// The name of the module that runs the HTTPS service.
pub const HTTPS: ModuleName = ModuleName::of("https");

/// Where certificates come from and how the service works.
#[derive(Clone, Debug)]
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
        let cluster = |doing| move |source| PrepareError::Cluster { doing, source };
        secrets::ensure_namespace(client).await.map_err(cluster("making namespace kubeedge"))?;
        let ca = Pair { secret: CA_SECRET, keys: ["cadata", "cakeydata"], files: &settings.ca_files };
        let bad = |place: String| move |source| PrepareError::Certificate { place, source };
        let (certificate, key) = ca
            .find_or_make(client, || {
                let made = Authority::kubeedge(unix_now())?;
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
                let made = authority.issue_server(&names(&settings.names), unix_now())?;
                Ok((made.certificate.to_vec(), made.key.sec1().to_vec()))
            })
            .await?;
        let key = Key::from_der(key).map_err(bad(server.place()))?;
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

/// Seconds since the Unix epoch.
fn unix_now() -> i64 {
    kubeedge_core::message::Millis::now().0 / 1000
}

/// A certificate with its key, and where it may be found.
struct Pair<'a> {
    secret: &'static str,
    keys: [&'static str; 2],
    files: &'a Option<(PathBuf, PathBuf)>,
}

type Der = (Vec<u8>, Vec<u8>);

impl Pair<'_> {
    fn place(&self) -> String {
        match self.files {
            Some((certificate, _)) => certificate.display().to_string(),
            None => format!("secret {NAMESPACE}/{}", self.secret),
        }
    }

    async fn find_or_make(
        &self,
        client: &kube::Client,
        make: impl FnOnce() -> Result<Der, PkiError>,
    ) -> Result<Der, PrepareError> {
        let cluster = |doing| move |source| PrepareError::Cluster { doing, source };
        if let Some((certificate, key)) = self.files {
            let found = (self.file(certificate).await?, self.file(key).await?);
            let written = secrets::write(client, self.secret, &self.values(&found)).await;
            written.map_err(cluster("keeping a certificate"))?;
            return Ok(found);
        }
        if let Some(found) = self.in_secret(client).await? {
            return Ok(found);
        }
        let made = make().map_err(|source| PrepareError::Certificate { place: self.place(), source })?;
        match secrets::create(client, self.secret, &self.values(&made)).await {
            Ok(()) => Ok(made),
            // Another cloudcore was faster: its certificate counts.
            Err(status) if status.is_already_exists() => {
                let theirs = self.in_secret(client).await?;
                theirs.ok_or_else(|| PrepareError::Incomplete { place: self.place(), what: "its data" })
            }
            Err(source) => Err(PrepareError::Cluster { doing: "keeping a certificate", source }),
        }
    }

    async fn in_secret(&self, client: &kube::Client) -> Result<Option<Der>, PrepareError> {
        let found = secrets::read(client, self.secret).await;
        let Some(mut values) =
            found.map_err(|source| PrepareError::Cluster { doing: "reading a certificate", source })?
        else {
            return Ok(None);
        };
        let mut take = |what: &'static str| {
            values.remove(what).ok_or_else(|| PrepareError::Incomplete { place: self.place(), what })
        };
        let [certificate, key] = self.keys;
        Ok(Some((take(certificate)?, take(key)?)))
    }

    fn values(&self, (certificate, key): &Der) -> Values {
        let [certificate_key, key_key] = self.keys.map(str::to_owned);
        [(certificate_key, certificate.clone()), (key_key, key.clone())].into()
    }

    async fn file(&self, path: &PathBuf) -> Result<Vec<u8>, PrepareError> {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|source| PrepareError::File { path: path.clone(), source })?;
        der_of(&bytes).ok_or_else(|| PrepareError::Incomplete {
            place: path.display().to_string(),
            what: "a certificate or key in PEM or DER",
        })
    }
}

/// The DER in a PEM text, or the bytes themselves when they are DER.
fn der_of(file: &[u8]) -> Option<Vec<u8>> {
    if file.starts_with(&[0x30]) {
        return Some(file.to_vec());
    }
    let text = std::str::from_utf8(file).ok()?;
    let der = pki::from_pem(text, &["CERTIFICATE", "EC PRIVATE KEY", "PRIVATE KEY"]).ok()?;
    Some(der.to_vec())
}

/// The module that keeps the join token and serves HTTPS; see the module's documentation.
#[derive(Debug)]
pub struct CertService {
    settings: CertSettings,
    identity: Identity,
    clients: Arc<Clients>,
    token: watch::Sender<String>,
    bound: watch::Sender<Option<SocketAddr>>,
}

impl CertService {
    /// A service for this identity. The first token is there at once.
    pub fn new(settings: CertSettings, identity: Identity, clients: &Arc<Clients>) -> Self {
        let token = token(&identity.authority, settings.token_refresh);
        let (token, bound) = (watch::Sender::new(token), watch::Sender::new(None));
        Self { settings, identity, clients: clients.clone(), token, bound }
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
            let token = token(&self.identity.authority, self.settings.token_refresh);
            let values = [("tokendata".to_owned(), token.clone().into_bytes())].into();
            self.token.send_replace(token);
            let pause = match secrets::write(self.clients.ours(), TOKEN_SECRET, &values).await {
                Ok(()) => self.settings.token_refresh,
                Err(status) => {
                    tracing::error!(error = %status, "the join token was not kept");
                    Duration::from_secs(60).min(self.settings.token_refresh)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

/// A token that outlives two renewals.
fn token(authority: &Authority, refresh: Duration) -> String {
    let valid_for = i64::try_from(refresh.saturating_mul(2).as_secs()).unwrap_or(i64::MAX / 2);
    pki::sign_token(authority, unix_now().saturating_add(valid_for))
}

#[async_trait]
impl Module for CertService {
    fn name(&self) -> ModuleName {
        HTTPS
    }

    fn group(&self) -> Group {
        Group::of("https")
    }

    async fn start(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let server = &self.identity.server;
        let key = PrivateSec1KeyDer::from(server.key.sec1().to_vec()).into();
        let tls = https::acceptor(server.certificate.to_vec().into(), key)?;
        let listener = TcpListener::bind(self.settings.listen)
            .await
            .map_err(|error| format!("HTTPS service cannot listen on {}: {error}", self.settings.listen))?;
        let bound = listener.local_addr()?;
        tracing::info!(address = %bound, "the HTTPS service listens");
        self.bound.send_replace(Some(bound));
        let service = Arc::new(Service {
            authority: self.identity.authority.clone(),
            clients: self.clients.clone(),
            bus: ctx.bus.clone(),
            days: self.settings.node_certificate_days,
            refusals: Refusals::default(),
        });
        tokio::select! {
            () = ctx.shutdown.requested() => {}
            () = https::serve(listener, tls, service) => {}
            () = self.renew() => {}
        }
        self.bound.send_replace(None);
        Ok(())
    }
}
