//! The node's certificates: kept in files, got with a join token, renewed in time.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use kubeedge_core::{
    backoff::Backoff,
    failure::{BoxError, chain},
    message::Millis,
    name::NodeName,
    pki::{self, Identity, Key, Leaf, PkiError, TokenError},
    transport::Credentials,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::sync::{Notify, watch};

use super::{
    EdgeHubSettings, files,
    https::{self, Proof},
};

/// Where the node's certificates come from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// These, for ever: for transports inside one process, or certificates somebody else looks after.
    Fixed(Credentials),
    /// Files, filled with a join token where they are missing or no good.
    Join(JoinSettings),
}

/// How a node joins and keeps its certificates, as Go edges and cloudcores do it.
///
/// Stored files are used when they are the certificate of this node, by this CA, with this key, and not expired. Otherwise
/// the CA certificate is fetched and accepted only if the join token holds its hash; then a certificate is asked for with
/// the token over a connection verified by that CA. Before the CA is known its server cannot be verified, since Go's
/// shows its own certificate only. So nothing secret goes over that first connection, and once the CA is known by its hash,
/// the certificate shown on that connection is verified by it after all.
#[derive(Clone)]
pub struct JoinSettings {
    /// The HTTPS service of cloudcore: `host:port` or `https://host:port`. KubeEdge: port 10002.
    pub https: String,
    /// The join token, whole; without one only stored certificates are used.
    pub token: Option<String>,
    /// The CA certificate, PEM. KubeEdge: `/etc/kubeedge/ca/rootCA.crt`.
    pub ca_file: PathBuf,
    /// The node's certificate, PEM. KubeEdge: `/etc/kubeedge/certs/server.crt`.
    pub cert_file: PathBuf,
    /// Its key, PEM, readable by its owner alone. KubeEdge: `/etc/kubeedge/certs/server.key`.
    pub key_file: PathBuf,
    /// Whether the certificate is renewed at 70 to 90 % of its life.
    pub rotate: bool,
}

impl Default for JoinSettings {
    fn default() -> Self {
        Self {
            https: String::new(),
            token: None,
            ca_file: "/etc/kubeedge/ca/rootCA.crt".into(),
            cert_file: "/etc/kubeedge/certs/server.crt".into(),
            key_file: "/etc/kubeedge/certs/server.key".into(),
            rotate: true,
        }
    }
}

impl fmt::Debug for JoinSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSettings")
            .field("https", &self.https)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("rotate", &self.rotate)
            .finish()
    }
}

/// The node has no certificates, or cannot renew them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Stored certificates cannot be used, and there is no token to get others.
    #[error(
        "no usable certificate ({why}) and no join token: set modules.edgeHub.token to the output of keadm gettoken"
    )]
    NoToken {
        /// What is wrong with the stored certificates.
        why: Box<JoinError>,
    },
    /// The token is not one.
    #[error("modules.edgeHub.token: {0}")]
    Token(#[from] TokenError),
    /// The cloud's CA is not the token's.
    #[error(
        "CA certificate of {host} is not the one the join token names: the token is of another cloudcore, or {host} is not cloudcore; take a fresh token with keadm gettoken"
    )]
    OtherAuthority {
        /// Who was asked.
        host: String,
    },
    /// The address of the HTTPS service is none.
    #[error("modules.edgeHub.httpServer {0:?} must be https://host:port")]
    BadServer(String),
    /// The HTTPS service does not answer.
    #[error("HTTPS service of cloudcore at {host} does not answer: {source}")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// Why there is no answer.
        source: BoxError,
    },
    /// The server, or our certificate in its eyes, is not to be trusted.
    #[error(
        "cloudcore at {host} and this node do not trust each other: {source}; is this address among cloudcore's advertiseAddress, and is this node's clock right?"
    )]
    Untrusted {
        /// Who was asked.
        host: String,
        /// What the verification says.
        source: BoxError,
    },
    /// The cloud says no.
    #[error(
        "cloudcore at {host} refused a certificate: {status} {text}; if it is the token, take a fresh one with keadm gettoken"
    )]
    Refused {
        /// Who was asked.
        host: String,
        /// The status.
        status: StatusCode,
        /// The cloud's reason.
        text: String,
    },
    /// The cloud's answer is not what was asked for.
    #[error("cloudcore at {host} answered with what is no certificate for this node: {why}")]
    BadAnswer {
        /// Who was asked.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// A stored certificate is not for use.
    #[error("{path}: {why}", path = path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key or request cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl JoinError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// Whether trying again soon may help without anybody doing something.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BadAnswer { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix_now() -> i64 {
    Millis::now().0 / 1000
}

/// Checks that a certificate is a client's, of this node, by this CA, with this key, and not expired. That it is valid
/// only later is left to the cloud to judge: devices without a clock of their own start in the past.
pub(super) fn fits(identity: &Identity, node: &NodeName, now: i64) -> Result<Leaf, String> {
    let leaf = Leaf::read(&identity.certificate).map_err(|error| error.to_string())?;
    if pki::node_of(&leaf.common_name) != Some(node.as_str()) {
        return Err(format!("it is the certificate of {:?}, not of node {node}", leaf.common_name));
    }
    if leaf.not_after < now {
        return Err(format!("it expired {} hours ago", (now - leaf.not_after) / 3600));
    }
    if !Leaf::is_client_of(&identity.certificate, &identity.ca, now.max(leaf.not_before)) {
        return Err("it is not a client certificate by the CA certificate".to_owned());
    }
    if !files::is_key_of(&identity.key, &identity.certificate) {
        return Err("the key is not the certificate's".to_owned());
    }
    Ok(leaf)
}

/// Gets the certificates, publishes them and renews them.
pub(super) struct Keeper {
    source: IdentitySource,
    node: NodeName,
    publish: watch::Sender<Option<Arc<Credentials>>>,
    doubt: Arc<Notify>,
    random: SmallRng,
    backoff: Backoff,
    said: String,
}

/// The first pause after a failure, and the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);
/// The longest pause between looks at the clock: it may be set while we sleep.
const LOOK: Duration = Duration::from_secs(600);

impl Keeper {
    /// A keeper, and the way to make it look again.
    pub(super) fn new(
        settings: &EdgeHubSettings,
        publish: watch::Sender<Option<Arc<Credentials>>>,
    ) -> (Self, Arc<Notify>) {
        let doubt = Arc::<Notify>::default();
        let keeper = Self {
            source: settings.identity.clone(),
            node: settings.node.clone(),
            publish,
            doubt: doubt.clone(),
            random: SmallRng::seed_from_u64(settings.seed),
            backoff: Backoff::new(FIRST, LONGEST, settings.seed),
            said: String::new(),
        };
        (keeper, doubt)
    }

    /// Works until dropped.
    pub(super) async fn run(mut self) {
        let join = match &self.source {
            IdentitySource::Join(join) => Arc::new(join.clone()),
            IdentitySource::Fixed(credentials) => {
                self.publish(credentials.clone());
                return std::future::pending().await;
            }
        };
        let mut doubted = false;
        loop {
            match self.obtain(&join, doubted).await {
                Ok((identity, leaf)) => {
                    self.backoff.reset();
                    self.said.clear();
                    self.publish(identity.credentials());
                    let doubt = self.doubt.clone();
                    tokio::select! {
                        () = self.rotate(&join, &identity, &leaf) => doubted = false,
                        () = doubt.notified() => {
                            doubted = true;
                            tokio::time::sleep(FIRST).await;
                        }
                    }
                }
                Err(error) => {
                    self.failed(&error, "this node has no certificate").await;
                    // A token that does not help is no reason to stop looking after what there is.
                    doubted = false;
                }
            }
        }
    }

    /// Publishes what is new: the link is made anew for it.
    fn publish(&self, found: Credentials) {
        let same = |known: &Arc<Credentials>| known.chain == found.chain && known.roots == found.roots;
        let is_known = self.publish.borrow().as_ref().is_some_and(same);
        if !is_known {
            self.publish.send_replace(Some(Arc::new(found)));
        }
    }

    /// The stored certificates, or new ones.
    async fn obtain(&self, join: &Arc<JoinSettings>, doubted: bool) -> Result<(Identity, Leaf), JoinError> {
        let why = match files::load(join, &self.node, unix_now()).await {
            Ok(found) if !(doubted && is_outdated(join, &found.0)) => return Ok(found),
            Ok(_) => JoinError::Unfit {
                path: join.ca_file.clone(),
                why: "cloudcore refused the certificate, and the join token is of a newer CA".to_owned(),
            },
            Err(why) => why,
        };
        let Some(token) = join.token.as_deref().filter(|token| !token.trim().is_empty()) else {
            return Err(JoinError::NoToken { why: Box::new(why) });
        };
        tracing::info!(why = %why, "asking cloudcore for a certificate");
        let (_, jwt) = pki::split_token(token)?;
        let host = https::authority(&join.https)?;
        let ca = https::fetch_ca(&host, token).await?;
        let found = self.ask(&host, ca, Proof::Token(jwt)).await?;
        files::save(join, &found.0).await?;
        tracing::info!("this node has its certificate");
        Ok(found)
    }

    /// Has a new key certified.
    async fn ask(&self, host: &str, ca: Bytes, proof: Proof<'_>) -> Result<(Identity, Leaf), JoinError> {
        let key = Key::generate()?;
        let request = pki::node_request(self.node.as_str(), &key)?;
        let certificate = https::certify(host, &ca, self.node.as_str(), request, proof).await?;
        let identity = Identity { ca, certificate, key };
        let bad = |why| JoinError::BadAnswer { host: host.to_owned(), why };
        let leaf = fits(&identity, &self.node, unix_now()).map_err(bad)?;
        Ok((identity, leaf))
    }

    /// Waits until the certificate is due and renews it; returns when new files are there.
    async fn rotate(&mut self, join: &Arc<JoinSettings>, identity: &Identity, leaf: &Leaf) {
        if !join.rotate {
            return std::future::pending().await;
        }
        let due = pki::rotation_point(leaf, self.random.random_range(0.0..=1.0));
        loop {
            let left = u64::try_from(due.saturating_sub(unix_now())).unwrap_or(0);
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
        }
        while let Err(error) = self.renew(join, identity).await {
            self.failed(&error, "the certificate of this node is due and was not renewed").await;
            if leaf.not_after < unix_now() {
                // What is left is the token.
                return;
            }
        }
        tracing::info!("the certificate of this node was renewed");
    }

    /// Proves itself with the certificate there is, as Go edges do.
    async fn renew(&self, join: &Arc<JoinSettings>, identity: &Identity) -> Result<(), JoinError> {
        let host = https::authority(&join.https)?;
        let proof = Proof::Certificate(identity);
        let (renewed, _) = self.ask(&host, identity.ca.clone(), proof).await?;
        files::save(join, &renewed).await
    }

    /// Says what is wrong, once for each reason, and pauses.
    async fn failed(&mut self, error: &JoinError, what: &'static str) {
        let why = chain(error);
        if self.said != why {
            tracing::error!(error = %why, "{what}");
            self.said = why;
        }
        let pause = if error.may_pass() { self.backoff.next_pause() } else { LONGEST };
        tokio::time::sleep(pause).await;
    }
}

/// Whether there is a token, and of another CA than the stored one.
fn is_outdated(join: &JoinSettings, stored: &Identity) -> bool {
    let token = join.token.as_deref();
    token.is_some_and(|token| pki::token_names_ca(token, &stored.ca) == Err(TokenError::OtherAuthority))
}
