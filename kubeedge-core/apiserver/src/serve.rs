//! The embedded API over TLS: for kubectl and every other client.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use ::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use kubeedge_common::{
    http::{HttpListener, Peer, ServeLimits, serve},
    lobby::LobbyLimits,
    tls::provider,
};
use kubeedge_core::{
    kernel::Shutdown,
    pki::{Identity, Leaf, to_pem},
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{
    answer::refused,
    server::ApiServer,
    status::{Refusal, Subject},
    tasks::Tasks,
    user::User,
};

/// Clients often come from one address, such as a proxy's or the loopback's, and watches stay for long.
const LIMITS: ServeLimits = ServeLimits {
    connections: LobbyLimits {
        places: 1024,
        of_one: 1024,
        waiting: 1024,
        undisturbed: Duration::from_secs(5),
    },
    spare_busy: true,
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(90),
    lifetime: None,
    streams: 256,
    grace: Duration::from_secs(1),
};

/// How the API is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServeSettings {
    /// Where to listen; port 0 for a free one. Keep it on loopback unless the network is trusted.
    pub address: SocketAddr,
    /// The server's certificate and key, under the authority that client certificates must be of.
    pub identity: Identity,
    /// Bearer tokens that stand for an administrator.
    pub admin_tokens: Vec<String>,
}

impl ServeSettings {
    /// Listens on an address, as this server; administrators have certificates.
    pub fn new(address: SocketAddr, identity: Identity) -> Self {
        Self { address, identity, admin_tokens: Vec::new() }
    }

    /// Takes these bearer tokens for an administrator's.
    #[must_use]
    pub fn admin_tokens(mut self, admin_tokens: Vec<String>) -> Self {
        self.admin_tokens = admin_tokens;
        self
    }
}

/// The API could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("certificate or key of the API server cannot be used: {0}")]
    Tls(String),
}

/// A listening API.
pub struct Serving {
    server: ApiServer,
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    admin_tokens: Arc<Vec<String>>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish_non_exhaustive()
    }
}

fn tls(identity: &Identity) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.ca.to_vec()))?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    // People without a certificate may have a token.
    let clients = clients.allow_unauthenticated().build()?;
    let key = PrivateKeyDer::try_from(identity.key.sec1().to_vec())?;
    let chain = vec![CertificateDer::from(identity.certificate.to_vec())];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl Serving {
    /// Starts to listen; requests are answered once [`Serving::run`] runs.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the identity cannot be used.
    pub async fn bind(server: &ApiServer, settings: ServeSettings) -> Result<Self, ServeError> {
        let tls = tls(&settings.identity).map_err(|error| ServeError::Tls(error.to_string()))?;
        let fail = |source| ServeError::Listen { address: settings.address, source };
        let listener = TcpListener::bind(settings.address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let admin_tokens = Arc::new(settings.admin_tokens);
        let tls = TlsAcceptor::from(Arc::new(tls));
        Ok(Self { server: server.clone(), listener, address, tls, admin_tokens })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until shutdown; streams of its clients end with it.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { server, listener, tls, admin_tokens, .. } = self;
        let streams = Tasks::default();
        let of_clients = streams.clone();
        let answers = move |peer: &Peer| {
            let leaf = peer.certificate.as_ref().and_then(|der| Leaf::read(der).ok());
            let certified = leaf.map(|leaf| User { name: leaf.common_name, groups: leaf.organizations });
            let (server, tokens, streams) = (server.clone(), admin_tokens.clone(), of_clients.clone());
            service_fn(move |request: Request<Incoming>| {
                let (server, certified) = (server.clone(), certified.clone());
                let (tokens, streams) = (tokens.clone(), streams.clone());
                async move {
                    let (headers, path) = (request.headers(), request.uri().path());
                    let user = authenticated(&server, certified, &tokens, headers, path);
                    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                    Ok::<_, Infallible>(match user {
                        Ok(user) => server.respond(user, request, &streams).await,
                        Err(refusal) => refused(&refusal),
                    })
                }
            })
        };
        serve(HttpListener::Tls(listener, tls), LIMITS, answers, &shutdown).await;
        streams.shutdown().await;
    }
}

/// Who makes a request: as the certificate, or else the token, says, or whom that one acts for.
fn authenticated(
    server: &ApiServer,
    certified: Option<User>,
    tokens: &[String],
    headers: &HeaderMap,
    path: &str,
) -> Result<User, Refusal> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let by_token = bearer.and_then(|token| token_user(server, tokens, token));
    let is_health = matches!(path, "/healthz" | "/livez" | "/readyz" | "/version");
    let anonymous = is_health.then(|| User { name: "system:anonymous".to_owned(), groups: Vec::new() });
    let user = certified.or(by_token).or(anonymous).ok_or_else(Refusal::unauthorized)?;
    impersonated(&user, headers)
}

/// Whom an administrator acts for (`Impersonate-User`, `Impersonate-Group`); nobody else may.
fn impersonated(user: &User, headers: &HeaderMap) -> Result<User, Refusal> {
    let text = |value: &header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let Some(name) = headers.get("impersonate-user").and_then(text) else { return Ok(user.clone()) };
    if !user.groups.iter().any(|group| group == "system:masters") {
        let subject = Subject { group: "", plural: "users", name: &name };
        return Err(Refusal::forbidden(&user.name, "impersonate", &subject));
    }
    let groups = headers.get_all("impersonate-group").iter().filter_map(text).collect();
    Ok(User { name, groups })
}

fn token_user(server: &ApiServer, tokens: &[String], token: &str) -> Option<User> {
    // Digests are compared: how much of a guess is right cannot be told from the time it takes.
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let is_it = |known: &String| digest(known).as_ref() == digest(token).as_ref();
    if tokens.iter().any(is_it) {
        return Some(User { name: "admin".to_owned(), groups: vec!["system:masters".to_owned()] });
    }
    server.user_of(token)
}

/// A kubeconfig for a client certificate.
pub fn kubeconfig(server: &str, client: &Identity) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let encode = |pem: String| STANDARD.encode(pem);
    let (ca, certificate) = (to_pem("CERTIFICATE", &client.ca), to_pem("CERTIFICATE", &client.certificate));
    let (ca, certificate, key) = (encode(ca), encode(certificate), encode(client.key.to_pem()));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kubeedge\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n- name: admin\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n- name: kubeedge\n  context:\n    cluster: kubeedge\n    user: admin\ncurrent-context: kubeedge\n"
    )
}
