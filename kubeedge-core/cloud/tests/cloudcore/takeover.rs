//! A cluster that Go's cloudcore has initialised becomes ours, and one of ours Go's.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Method, Request, Response, StatusCode};
use kubeedge_cloud::{
    certs::{CertSettings, Identity},
    cluster::Clients,
};
use kubeedge_core::{
    clock::Clock,
    cluster::{Actor, Body, ClusterApi, ClusterError, KubeService},
    message::Millis,
    pki::{self, Key, Leaf, node_request},
    transport::Credentials,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::{
    cluster::FakeCluster,
    edge::{Cloud, settings},
    join::{ask, bearer, text},
};

const SECRETS: &str = "/api/v1/namespaces/kubeedge/secrets";
/// Which values each secret holds.
const KEPT: [(&str, &[&str]); 3] = [
    ("casecret", &["cadata", "cakeydata"]),
    ("cloudcoresecret", &["cloudcoredata", "cloudcorekeydata"]),
    ("tokensecret", &["tokendata"]),
];

/// Made by `go run tests/data/go-pki/main.go make`.
fn by_go() -> Value {
    serde_json::from_str(include_str!("../data/go-secrets.json")).unwrap()
}

/// A cluster with the secrets of Go's cloudcore.
fn gos_cluster(go: &Value) -> FakeCluster {
    let cluster = FakeCluster::new();
    cluster.create("/api/v1/namespaces", json!({"metadata": {"name": "kubeedge"}}));
    for (name, keys) in KEPT {
        let data: Value = keys.iter().map(|key| ((*key).to_owned(), go[key].clone())).collect();
        cluster.create(SECRETS, json!({"metadata": {"name": name}, "type": "Opaque", "data": data}));
    }
    cluster
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// So many hours after Go's cloudcore has made what it keeps.
fn later(go: &Value, hours: i64) -> kubeedge_cloud::CloudCoreSettings {
    let mut settings = settings();
    settings.hub.identity = Default::default();
    let made = go["madeAt"].as_i64().unwrap();
    settings.clock = Clock::simulated(Millis((made + hours * 3600) * 1000));
    settings
}

/// Go's edge with the files it joined with.
fn gos_edge(go: &Value) -> pki::Identity {
    let certificate = pki::from_pem(go["edgeCert"].as_str().unwrap(), &["CERTIFICATE"]).unwrap();
    let key = Key::from_pem(go["edgeKey"].as_str().unwrap()).unwrap();
    pki::Identity { ca: decoded(&go["cadata"]).into(), certificate, key }
}

#[tokio::test]
async fn a_cluster_initialised_by_go_keeps_its_ca_certificate_and_token_and_its_edges_stay_trusted() {
    let go = by_go();
    let cloud = Cloud::start_on(gos_cluster(&go), later(&go, 11)).await;
    assert_eq!(cloud.status.ca, decoded(&go["cadata"]));
    assert_eq!(cloud.status.token.borrow().as_bytes(), decoded(&go["tokendata"]));
    // An edge that joined Go's cloudcore connects, and renews its certificate, over TLS with Go's server
    // certificate.
    let edge = gos_edge(&go);
    cloud.dial_with("edge-1", edge.credentials()).await.unwrap();
    let csr = node_request("edge-1", &Key::generate().unwrap()).unwrap();
    let named = ("nodename", "edge-1");
    let (status, renewed) = ask(&cloud, Some(&edge), "/edge.crt", &[named], csr).await;
    assert_eq!(status, StatusCode::OK, "{}", text(&renewed));
    let renewed = pki::Identity { certificate: renewed, ..edge };
    cloud.dial_with("edge-1", renewed.credentials()).await.unwrap();
    // One that has only the token joins.
    let csr = node_request("edge-2", &Key::generate().unwrap()).unwrap();
    let headers = [("nodename", "edge-2"), ("authorization", &*bearer(&cloud))];
    let (status, joined) = ask(&cloud, None, "/edge.crt", &headers, csr).await;
    assert_eq!(status, StatusCode::OK, "{}", text(&joined));
    let who = Credentials::default().with_chain([joined]);
    cloud.dial_with("edge-2", who).await.unwrap();
    let cluster = cloud.stop().await;
    for (name, keys) in KEPT {
        let secret = cluster.get(&format!("{SECRETS}/{name}")).unwrap();
        for key in keys {
            assert_eq!(secret["data"][key], go[key], "{name} {key}");
        }
    }
}

#[tokio::test]
async fn a_token_of_go_that_is_due_is_renewed_and_good_for_those_who_have_it() {
    let go = by_go();
    let old = decoded(&go["tokendata"]);
    let cloud = Cloud::start_on(gos_cluster(&go), later(&go, 13)).await;
    let path = format!("{SECRETS}/tokensecret");
    let secret = cloud.cluster.until(&path, |secret| secret["data"]["tokendata"] != go["tokendata"]).await;
    let new = String::from_utf8(decoded(&secret["data"]["tokendata"])).unwrap();
    assert_eq!(*cloud.status.token.clone().wait_for(|token| *token == new).await.unwrap(), new);
    for token in [String::from_utf8(old).unwrap(), new] {
        let jwt = format!("Bearer {}", pki::split_token(&token).unwrap().1);
        let csr = node_request("edge-3", &Key::generate().unwrap()).unwrap();
        let headers = [("nodename", "edge-3"), ("authorization", jwt.as_str())];
        assert_eq!(ask(&cloud, None, "/edge.crt", &headers, csr).await.0, StatusCode::OK);
    }
    cloud.stop().await;
}

#[tokio::test]
async fn files_go_before_secrets_and_secrets_before_what_is_made() {
    let (go, cluster, folder) = (by_go(), FakeCluster::new(), tempfile::tempdir().unwrap());
    let clients = Clients::new(Arc::new(cluster.clone()));
    let file = |name: &str, label: &str, key: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pki::to_pem(label, &decoded(&go[key]))).unwrap();
        path
    };
    let mut files = CertSettings::default();
    // As Go's cloudcore labels a key in SEC1.
    files.ca_files =
        Some((file("ca.crt", "CERTIFICATE", "cadata"), file("ca.key", "PRIVATE KEY", "cakeydata")));
    files.server_files = Some((
        file("server.crt", "CERTIFICATE", "cloudcoredata"),
        file("server.key", "EC PRIVATE KEY", "cloudcorekeydata"),
    ));
    let prepare = async |settings: &CertSettings| {
        let found = Identity::prepare(settings, &clients).await.unwrap();
        (found.authority.certificate().clone(), found.server.certificate)
    };
    let made = prepare(&CertSettings::default()).await;
    assert_eq!(prepare(&CertSettings::default()).await, made, "made once");
    let gos = (decoded(&go["cadata"]).into(), decoded(&go["cloudcoredata"]).into());
    assert_eq!(prepare(&files).await, gos);
    for (name, keys) in KEPT.iter().take(2) {
        let secret = cluster.get(&format!("{SECRETS}/{name}")).unwrap();
        assert!(keys.iter().all(|key| secret["data"][key] == go[key]), "{name}");
    }
    assert_eq!(prepare(&CertSettings::default()).await, gos, "the secrets hold what the files held");
    std::fs::remove_file(folder.path().join("ca.key")).unwrap();
    let error = Identity::prepare(&files, &clients).await.unwrap_err().to_string();
    assert!(error.contains("ca.key"), "{error}");
}

/// A cluster that lets nobody go on who has asked for the CA until all have.
#[derive(Clone, Debug)]
struct AtOnce {
    cluster: FakeCluster,
    all: Arc<Barrier>,
    asked: Arc<AtomicBool>,
}

#[deny(clippy::missing_trait_methods)]
impl ClusterApi for AtOnce {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        let this = self.clone();
        KubeService::new(tower::service_fn(move |request| this.clone().serve(request)))
    }
}

impl AtOnce {
    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, ClusterError> {
        let reads = *request.method() == Method::GET && request.uri().path().ends_with("/casecret");
        let answer = self.cluster.clone().serve(request).await;
        if reads && !self.asked.swap(true, Ordering::Relaxed) {
            self.all.wait().await;
        }
        answer
    }
}

#[tokio::test]
async fn cloudcores_that_start_at_once_end_with_one_ca_and_one_certificate() {
    let (cluster, all) = (FakeCluster::new(), Arc::new(Barrier::new(3)));
    let starting = (0..3).map(|_| {
        let (cluster, all) = (cluster.clone(), all.clone());
        tokio::spawn(async move {
            let api = AtOnce { cluster, all, asked: Arc::default() };
            Identity::prepare(&CertSettings::default(), &Clients::new(Arc::new(api))).await.unwrap()
        })
    });
    let found = futures::future::join_all(starting).await;
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    let kept = crate::join::authority(&cluster);
    for one in &found {
        assert_eq!(one.authority.certificate(), kept.certificate());
        assert_eq!(one.server.certificate, found[0].server.certificate);
        assert!(Leaf::is_signed_by(&one.server.certificate, kept.certificate()));
    }
}

#[tokio::test]
async fn cloudcores_of_one_cluster_share_one_join_token() {
    let first = Cloud::start(settings()).await;
    let mut late = settings();
    late.clock = Clock::simulated(Millis(Millis::now().0 + 5000));
    let second = Cloud::start_on(first.cluster.clone(), late).await;
    let secret = first.cluster.until(&format!("{SECRETS}/tokensecret"), |_| true).await;
    let kept = String::from_utf8(decoded(&secret["data"]["tokendata"])).unwrap();
    for cloud in [&first, &second] {
        assert_eq!(*cloud.status.token.clone().wait_for(|token| *token == kept).await.unwrap(), kept);
    }
    first.stop().await;
    second.stop().await;
}

/// What ours keeps in this cluster, and an edge of ours.
async fn by_ours(cluster: FakeCluster) -> Value {
    let cloud = Cloud::start_on(cluster, settings()).await;
    let key = Key::generate().unwrap();
    let request = node_request("edge-1", &key).unwrap();
    let headers = [("nodename", "edge-1"), ("authorization", &*bearer(&cloud))];
    let (status, certificate) = ask(&cloud, None, "/edge.crt", &headers, request.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let token = cloud.status.token.borrow().clone();
    let is_kept = |secret: &Value| decoded(&secret["data"]["tokendata"]) == token.as_bytes();
    cloud.cluster.until(&format!("{SECRETS}/tokensecret"), is_kept).await;
    let cluster = cloud.stop().await;
    let mut kept = json!({
        "madeAt": 0, "request": STANDARD.encode(&request), "edgeKey": key.to_pem(),
        "edgeCert": pki::to_pem("CERTIFICATE", &certificate),
    });
    for (name, keys) in KEPT {
        let secret = cluster.get(&format!("{SECRETS}/{name}")).unwrap();
        assert_eq!(secret["type"], "Opaque");
        let data = secret["data"].as_object().unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
        kept.as_object_mut().unwrap().extend(data.clone());
    }
    kept
}

#[tokio::test]
async fn what_ours_keeps_in_the_secrets_is_taken_by_gos_own_libraries() {
    if Command::new("go").arg("version").output().is_err() {
        println!("SKIPPED: go is not installed; that Go takes over our secrets is NOT tested");
        return;
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/go-pki/main.go");
    let cache = tempfile::tempdir().unwrap();
    let check = |input: Value| {
        let mut go = Command::new("go")
            .args(["run", program, "check"])
            .env("GOCACHE", cache.path())
            .env("GOTOOLCHAIN", "local")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        go.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        go.wait_with_output().unwrap()
    };
    let kept = by_ours(FakeCluster::new()).await;
    for kept in [&kept, &by_ours(gos_cluster(&by_go())).await] {
        let done = check(kept.clone());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    // That it is a test at all: the key of another CA.
    let mut wrong = kept;
    let other = pki::Authority::kubeedge(Millis::now().0 / 1000).unwrap();
    wrong["cakeydata"] = STANDARD.encode(other.key().sec1()).into();
    assert!(!check(wrong).status.success());
}
