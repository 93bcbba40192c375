//! The node's certificates: where they come from, when they fit, and why there are none.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use http::StatusCode;
use kubeedge_core::{
    failure::BoxError,
    message::Millis,
    name::NodeName,
    pki::{self, Identity, Leaf, PkiError, TokenError},
    transport::Credentials,
};

use super::files;

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
/// Stored files are used when they are the certificate of this node, by this CA, with this key, and not
/// expired. Otherwise the CA certificate is fetched and accepted only if the join token holds its hash; then
/// a certificate is asked for with the token over a connection verified by that CA. Before the CA is known
/// its server cannot be verified, since Go's shows its own certificate only. So nothing secret goes over that
/// first connection, and once the CA is known by its hash, the certificate shown on that connection is
/// verified by it after all.
///
/// A certificate is renewed at a random 70 to 90 % of its life, with itself as proof: at once, after 2, 4, 8
/// and 16 s, then every 32 s, as Go does it; the link is made anew with the new one. A certificate that
/// expired, because the node was off or cut off all that time, is kept in its files and not used: the node
/// asks with the join token if it has one, and looks again every minute, as what is wrong may be its clock.
/// Pods, devices and MQTT go on meanwhile.
#[derive(Clone)]
pub struct JoinSettings {
    /// The HTTPS service of cloudcore: `host:port` or `https://host:port`. KubeEdge: port 10002.
    pub https: String,
    /// The join token, whole; without one only stored certificates are used.
    pub token: Option<String>,
    /// A file whose content, if it is there, goes before [`Self::token`]. It is looked at each time a token
    /// is wanted, so that a fresh one can be put there while edgecore runs, and removed once it has served.
    /// KubeEdge: `/etc/kubeedge/bootstrap-edgecore.conf`.
    pub token_file: Option<PathBuf>,
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
            token_file: None,
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
            .field("token_file", &self.token_file)
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
        "no usable certificate ({why}) and no join token: put the output of keadm gettoken into /etc/kubeedge/bootstrap-edgecore.conf, or into modules.edgeHub.token and restart edgecore"
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
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::BadAnswer { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}

/// Seconds since the Unix epoch.
pub(super) fn unix(moment: Millis) -> i64 {
    moment.0.div_euclid(1000)
}

/// Checks that a certificate is a client's, of this node, by this CA, with this key, and not expired. That it
/// is valid only later is left to the cloud to judge: devices without a clock of their own start in the past.
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
