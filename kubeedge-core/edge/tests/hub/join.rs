//! Certificates: joining with a token, keeping them in files, renewing them, over real HTTPS.

use std::{
    convert::Infallible,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use kubeedge_core::{
    message::Millis,
    pki::{self, Authority, Identity, Key, Leaf, Names, Usage},
    transport::{Credentials, Endpoint, Transport},
};
use kubeedge_edge::hub::{IdentitySource, JoinSettings};
use kubeedge_transport::WebSocket;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateSec1KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::cloud::{Node, PATIENCE, settings};

const DAY: i64 = 86_400;

fn now() -> i64 {
    Millis::now().0 / 1000
}

fn local() -> Names {
    Names { ips: vec![[127, 0, 0, 1].into()], dns: Vec::new() }
}

/// What the HTTPS service was asked.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    headers: HeaderMap,
    /// The common name of the client certificate shown.
    shown: Option<String>,
}

/// A small cloudcore: the HTTPS service of port 10002.
#[derive(Clone)]
struct Https {
    ours: Arc<Authority>,
    /// The certificate given out as the CA's.
    ca: Bytes,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// How many seconds ago the next certificate begins; it holds one day.
    age: Arc<Mutex<i64>>,
}

impl Https {
    /// `server` signs the service's own certificate, `ca` is what `/ca.crt` gives out.
    async fn start(ours: Authority, server: &Authority, ca: Bytes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(listener, ours, server, ca)
    }

    fn listen(listener: TcpListener, ours: Authority, server: &Authority, ca: Bytes) -> Self {
        let address = listener.local_addr().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ours.certificate().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let identity = server.issue_server(&local(), now() - 60).unwrap();
        let key = PrivateSec1KeyDer::from(identity.key.sec1().to_vec());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![identity.certificate.to_vec().into()], key.into())
            .unwrap();
        let peer =
            Self { ours: Arc::new(ours), ca, address, asked: Arc::default(), age: Arc::new(Mutex::new(0)) };
        tokio::spawn(peer.clone().serve(listener, TlsAcceptor::from(Arc::new(tls))));
        peer
    }

    /// One that is what it says.
    async fn honest() -> Self {
        let ours = Authority::kubeedge(now() - DAY).unwrap();
        let ca = ours.certificate().clone();
        Self::start(ours.clone(), &ours, ca).await
    }

    async fn serve(self, listener: TcpListener, tls: TlsAcceptor) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (peer, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(socket).await else { return };
                let shown = stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
                let shown = shown.map(|der| Leaf::read(&der).unwrap().common_name);
                let answer = service_fn(move |request| {
                    let (peer, shown) = (peer.clone(), shown.clone());
                    async move { Ok::<_, Infallible>(peer.answer(request, shown).await) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    }

    async fn answer(
        &self,
        request: Request<hyper::body::Incoming>,
        shown: Option<String>,
    ) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let csr = body.collect().await.unwrap().to_bytes();
        let (path, headers) = (parts.uri.path().to_owned(), parts.headers);
        self.asked.lock().unwrap().push(Asked {
            path: path.clone(),
            headers: headers.clone(),
            shown: shown.clone(),
        });
        if path == "/ca.crt" {
            return Response::new(self.ca.clone().into());
        }
        let bearer =
            headers.get("authorization").and_then(|value| value.to_str().unwrap().strip_prefix("Bearer "));
        let allowed = match (&shown, bearer) {
            (Some(name), _) => *name == format!("system:node:{}", headers["nodename"].to_str().unwrap()),
            (None, Some(jwt)) => pki::verify_token(&self.ours, jwt, now()).is_ok(),
            (None, None) => false,
        };
        if !allowed {
            let mut refused = Response::new(Full::from("token validation failure, err: token is expired"));
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            return refused;
        }
        let begin = now() - *self.age.lock().unwrap();
        Response::new(self.ours.sign(&csr, Usage::Client, begin, 1).unwrap().into())
    }

    fn token(&self) -> String {
        pki::sign_token(&self.ours, now() + 3600)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }

    async fn until_asked(&self, times: usize) {
        let enough = async {
            while self.asked().len() < times {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("the edge does not ask");
    }
}

/// A node that has to join.
struct Joining {
    node: Node,
    folder: tempfile::TempDir,
}

fn in_folder(join: JoinSettings, token: Option<String>, folder: &Path) -> JoinSettings {
    JoinSettings {
        token,
        ca_file: folder.join("ca/rootCA.crt"),
        cert_file: folder.join("certs/server.crt"),
        key_file: folder.join("certs/server.key"),
        ..join
    }
}

impl Joining {
    async fn start(https: &Https, token: Option<String>, folder: tempfile::TempDir) -> Self {
        let join = JoinSettings { https: format!("https://{}", https.address), ..JoinSettings::default() };
        Self::with(join, token, folder).await
    }

    async fn with(join: JoinSettings, token: Option<String>, folder: tempfile::TempDir) -> Self {
        let join = in_folder(join, token, folder.path());
        let mut settings = settings();
        settings.identity = IdentitySource::Join(join);
        Self { node: Node::start(settings, kubeedge_transport::Memory::new()).await, folder }
    }

    async fn credentials(&self) -> Arc<Credentials> {
        let mut credentials = self.node.hub.credentials();
        let found = tokio::time::timeout(PATIENCE, credentials.wait_for(Option::is_some)).await;
        found.expect("no certificate came").unwrap().clone().unwrap()
    }

    fn has_files(&self) -> bool {
        ["ca/rootCA.crt", "certs/server.crt", "certs/server.key"]
            .iter()
            .any(|file| self.folder.path().join(file).exists())
    }
}

fn store(folder: &Path, ca: &[u8], identity: &Identity) {
    for part in ["ca", "certs"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    std::fs::write(folder.join("ca/rootCA.crt"), pki::to_pem("CERTIFICATE", ca)).unwrap();
    let certificate = pki::to_pem("CERTIFICATE", &identity.certificate);
    std::fs::write(folder.join("certs/server.crt"), certificate).unwrap();
    std::fs::write(folder.join("certs/server.key"), identity.key.to_pem()).unwrap();
}

fn node_identity(authority: &Authority, node: &str, begin: i64) -> Identity {
    let name = format!("system:node:{node}");
    authority.issue(&name, &["system:nodes"], &Names::default(), Usage::Client, begin, 1).unwrap()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_token_becomes_a_certificate_that_a_go_style_cloud_accepts_on_the_link() {
    let https = Https::honest().await;
    let joining = Joining::start(&https, Some(https.token()), temp()).await;
    let credentials = joining.credentials().await;
    let asked = https.asked();
    assert_eq!(https.paths(), ["/ca.crt", "/edge.crt"]);
    assert!(asked[0].headers.get("authorization").is_none(), "a secret went to a server not yet known");
    assert_eq!(asked[1].headers["nodename"], "edge-1");
    assert!(asked[1].shown.is_none());
    let leaf = Leaf::read(&credentials.chain[0]).unwrap();
    assert_eq!(leaf.common_name, "system:node:edge-1");
    assert_eq!(leaf.organizations, ["system:nodes"]);
    // As a server that wants client certificates sees it.
    let server = https.ours.issue_server(&local(), now() - 60).unwrap().credentials();
    let mut door = WebSocket::default().listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let to = door.local();
    let dialling = tokio::spawn(async move { WebSocket::default().dial(&to, &credentials).await });
    let incoming = tokio::time::timeout(PATIENCE, door.next()).await.unwrap().unwrap();
    assert_eq!(incoming.peer().certificates.len(), 1);
    incoming.accept().await.unwrap();
    dialling.await.unwrap().unwrap();
}

#[tokio::test]
async fn certificates_are_kept_for_the_next_start_and_the_key_is_its_owners_alone() {
    let https = Https::honest().await;
    let first = Joining::start(&https, Some(https.token()), temp()).await;
    let credentials = first.credentials().await;
    let key = first.folder.path().join("certs/server.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&key).unwrap().starts_with("-----BEGIN EC PRIVATE KEY-----"));
    let Joining { folder, node } = first;
    drop(node);
    let second = Joining::start(&https, None, folder).await;
    assert_eq!(second.credentials().await.chain, credentials.chain);
    assert_eq!(https.asked().len(), 2);
}

/// Nothing may come of a join that is refused, and it must not be tried in a hot loop.
async fn refused(https: &Https, token: String, paths: &[&str]) {
    let joining = Joining::start(https, Some(token), temp()).await;
    https.until_asked(paths.len()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(https.paths(), paths);
    assert!(joining.node.hub.credentials().borrow().is_none());
    assert!(!joining.has_files());
}

#[tokio::test]
async fn a_token_of_another_cloud_is_never_shown_to_this_one() {
    let https = Https::honest().await;
    let other = Authority::kubeedge(now()).unwrap();
    refused(&https, pki::sign_token(&other, now() + 3600), &["/ca.crt"]).await;
}

#[tokio::test]
async fn a_server_that_gives_out_the_right_ca_but_is_not_certified_by_it_gets_no_token() {
    let ours = Authority::kubeedge(now() - DAY).unwrap();
    let foreign = Authority::kubeedge(now() - DAY).unwrap();
    let ca = ours.certificate().clone();
    let https = Https::start(ours, &foreign, ca).await;
    refused(&https, https.token(), &["/ca.crt"]).await;
}

#[tokio::test]
async fn an_expired_token_is_refused_by_the_cloud_and_asked_with_only_once_in_a_while() {
    let https = Https::honest().await;
    let token = pki::sign_token(&https.ours, now() - 10);
    refused(&https, token, &["/ca.crt", "/edge.crt"]).await;
}

#[tokio::test]
async fn stored_certificates_that_do_not_fit_this_node_are_not_used() {
    let https = Https::honest().await;
    let foreign = Authority::kubeedge(now() - DAY).unwrap();
    let good = node_identity(&https.ours, "edge-1", now());
    let other_key = Identity { key: Key::generate().unwrap(), ..good.clone() };
    let server =
        https.ours.issue("system:node:edge-1", &[], &Names::default(), Usage::Server, now(), 1).unwrap();
    for (what, stored) in [
        ("of another node", node_identity(&https.ours, "edge-2", now())),
        ("expired", node_identity(&https.ours, "edge-1", now() - 2 * DAY)),
        ("of another CA", node_identity(&foreign, "edge-1", now())),
        ("with another key", other_key),
        ("for servers", server),
    ] {
        let folder = temp();
        store(folder.path(), https.ours.certificate(), &stored);
        let before = https.asked().len();
        let joining = Joining::start(&https, Some(https.token()), folder).await;
        let credentials = joining.credentials().await;
        assert_ne!(credentials.chain[0], stored.certificate, "a certificate {what} was used");
        assert_eq!(https.asked().len(), before + 2, "{what}");
    }
    let folder = temp();
    store(folder.path(), https.ours.certificate(), &good);
    let before = https.asked().len();
    let joining = Joining::start(&https, Some(https.token()), folder).await;
    assert_eq!(joining.credentials().await.chain[0], good.certificate);
    assert_eq!(https.asked().len(), before);
}

#[tokio::test]
async fn the_files_of_a_go_edge_are_taken_as_they_are() {
    let https = Https::honest().await;
    // Made by Go's libraries: kubeedge-core/cloud/tests/data/go-pki.
    let go: serde_json::Value =
        serde_json::from_str(include_str!("../../../cloud/tests/data/go-secrets.json")).unwrap();
    let text = |key: &str| go[key].as_str().unwrap().to_owned();
    let ca = STANDARD.decode(text("cadata")).unwrap();
    let key = text("edgeKey");
    assert!(key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
    for key in [key.clone(), key.replace("EC PRIVATE KEY", "PRIVATE KEY")] {
        let folder = temp();
        for part in ["ca", "certs"] {
            std::fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        std::fs::write(folder.path().join("ca/rootCA.crt"), pki::to_pem("CERTIFICATE", &ca)).unwrap();
        std::fs::write(folder.path().join("certs/server.crt"), text("edgeCert")).unwrap();
        std::fs::write(folder.path().join("certs/server.key"), &key).unwrap();
        let joining = Joining::start(&https, None, folder).await;
        let credentials = joining.credentials().await;
        assert_eq!(credentials.roots[0], ca);
        assert_eq!(Leaf::read(&credentials.chain[0]).unwrap().common_name, "system:node:edge-1");
    }
    assert!(https.asked().is_empty(), "it has a certificate and asked for another");
}

#[tokio::test]
async fn a_certificate_that_is_only_valid_later_is_used_since_devices_start_with_a_wrong_clock() {
    let https = Https::honest().await;
    let stored = node_identity(&https.ours, "edge-1", now() + DAY / 2);
    let folder = temp();
    store(folder.path(), https.ours.certificate(), &stored);
    let joining = Joining::start(&https, None, folder).await;
    assert_eq!(joining.credentials().await.chain[0], stored.certificate);
}

#[tokio::test]
async fn a_certificate_that_is_due_is_renewed_with_itself_and_the_link_made_anew() {
    let https = Https::honest().await;
    let old = node_identity(&https.ours, "edge-1", now() - DAY * 95 / 100);
    let folder = temp();
    store(folder.path(), https.ours.certificate(), &old);
    let mut joining = Joining::start(&https, None, folder).await;
    let mut link = joining.node.cloud().await;
    if link.peer.certificates[0] == old.certificate {
        while link.try_next().await.is_some() {}
        link = joining.node.cloud().await;
    }
    assert_ne!(link.peer.certificates[0], old.certificate);
    let asked = https.asked();
    assert_eq!(https.paths(), ["/edge.crt"]);
    assert_eq!(asked[0].shown.as_deref(), Some("system:node:edge-1"));
    assert!(asked[0].headers.get("authorization").is_none());
    let stored = std::fs::read_to_string(joining.folder.path().join("certs/server.crt")).unwrap();
    assert_eq!(pki::from_pem(&stored, &["CERTIFICATE"]).unwrap(), link.peer.certificates[0]);
}

#[tokio::test]
async fn a_node_whose_cloud_was_installed_anew_joins_it_with_a_fresh_token() {
    let https = Https::honest().await;
    let before = Authority::kubeedge(now() - DAY).unwrap();
    let folder = temp();
    store(folder.path(), before.certificate(), &node_identity(&before, "edge-1", now()));
    let server = https.ours.issue_server(&local(), now() - 60).unwrap().credentials();
    let door = WebSocket::default().listen(&Endpoint::from("127.0.0.1:0"), &server).await.unwrap();
    let join = JoinSettings { https: https.address.to_string(), ..JoinSettings::default() };
    let join = in_folder(join, Some(https.token()), folder.path());
    let mut settings = settings();
    settings.servers = vec![door.local().to_string()];
    settings.identity = IdentitySource::Join(join);
    let mut node = Node::with_door(settings, WebSocket::default(), door);
    let link = node.cloud().await;
    assert_eq!(link.peer.claim("node_id"), Some("edge-1"));
    assert!(Leaf::is_client_of(&link.peer.certificates[0], https.ours.certificate(), now()));
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_renewal_leaves_a_pair_that_works() {
    let https = Https::honest().await;
    let (old, new) =
        (node_identity(&https.ours, "edge-1", now()), node_identity(&https.ours, "edge-1", now()));
    let folder = temp();
    store(folder.path(), https.ours.certificate(), &old);
    // The key has taken its place, the certificate has not.
    std::fs::write(folder.path().join("certs/server.key"), new.key.to_pem()).unwrap();
    let interim = pki::to_pem("CERTIFICATE", &new.certificate);
    std::fs::write(folder.path().join("certs/server.crt.new"), interim).unwrap();
    let joining = Joining::start(&https, None, folder).await;
    assert_eq!(joining.credentials().await.chain[0], new.certificate);
    assert!(!joining.folder.path().join("certs/server.crt.new").exists());
}

#[tokio::test]
async fn a_cloud_that_is_not_there_yet_is_joined_once_it_is() {
    let ours = Authority::kubeedge(now() - DAY).unwrap();
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap();
    let token = pki::sign_token(&ours, now() + 3600);
    let join = JoinSettings { https: address.to_string(), ..JoinSettings::default() };
    let joining = Joining::with(join, Some(token), temp()).await;
    // The first attempt reaches somebody who hangs up.
    drop(tokio::time::timeout(PATIENCE, reserved.accept()).await.unwrap().unwrap());
    drop(reserved);
    assert!(joining.node.hub.credentials().borrow().is_none());
    let ca = ours.certificate().clone();
    let https = Https::listen(TcpListener::bind(address).await.unwrap(), ours.clone(), &ours, ca);
    joining.credentials().await;
    assert_eq!(https.paths(), ["/ca.crt", "/edge.crt"]);
}

#[test]
fn the_debug_text_of_settings_hides_the_token() {
    let join = JoinSettings { token: Some("very.secret.to.ken".to_owned()), ..JoinSettings::default() };
    let text = format!("{join:?}");
    assert!(!text.contains("secret"), "{text}");
}
