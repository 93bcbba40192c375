//! Joining through the HTTPS service.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kubeedge_core::{
    message::Millis,
    pki::{self, Authority, Key, Leaf, Names, Usage, node_request, split_token, token_names_ca},
};
use rustls::pki_types::{CertificateDer, PrivateSec1KeyDer, ServerName};
use serde_json::Value;

use crate::{
    cluster::FakeCluster,
    edge::{Cloud, settings},
};

/// Gets something; the client shows a certificate if it has one.
pub(crate) async fn ask(
    cloud: &Cloud,
    who: Option<&pki::Identity>,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> (StatusCode, Bytes) {
    request(cloud, who, Method::GET, path, headers, body).await
}

/// Makes one request; the client shows a certificate if it has one.
async fn request(
    cloud: &Cloud,
    who: Option<&pki::Identity>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> (StatusCode, Bytes) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(cloud.status.ca.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match who {
        Some(who) => {
            let chain = vec![CertificateDer::from(who.certificate.to_vec())];
            let key = PrivateSec1KeyDer::from(who.key.sec1().to_vec()).into();
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let address = cloud.status.https.borrow().unwrap();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "cloud");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

pub(crate) fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The `Authorization` header of a node that joins.
pub(crate) fn bearer(cloud: &Cloud) -> String {
    let token = cloud.status.token.borrow().clone();
    format!("Bearer {}", split_token(&token).unwrap().1)
}

/// The CA that a cluster's secrets hold.
pub(crate) fn authority(cluster: &FakeCluster) -> Authority {
    let secret = cluster.get("/api/v1/namespaces/kubeedge/secrets/casecret").unwrap();
    let value = |key: &str| STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
    Authority::load(value("cadata"), Key::from_der(value("cakeydata")).unwrap()).unwrap()
}

/// The certificate of a node, as this CA gives it out at a moment (seconds since the Unix epoch).
pub(crate) fn node(ca: &Authority, name: &str, begin: i64) -> pki::Identity {
    let name = format!("system:node:{name}");
    ca.issue(&name, &["system:nodes"], &Names::default(), Usage::Client, begin, 2).unwrap()
}

pub(crate) fn now() -> i64 {
    Millis::now().0 / 1000
}

#[tokio::test]
async fn a_node_joins_by_token_and_renews_by_certificate() {
    let cloud = Cloud::start(settings()).await;
    let token = cloud.status.token.borrow().clone();
    let (_, ca) = ask(&cloud, None, "/ca.crt", &[], Bytes::new()).await;
    assert_eq!(token_names_ca(&token, &ca), Ok(()));
    let bearer = format!("Bearer {}", split_token(&token).unwrap().1);
    let key = Key::generate().unwrap();
    let csr = node_request("edge-1", &key).unwrap();
    let joining = [("nodename", "edge-1"), ("authorization", bearer.as_str())];
    let (status, certificate) = ask(&cloud, None, "/edge.crt", &joining, csr.clone()).await;
    assert_eq!(status, StatusCode::OK, "{}", text(&certificate));
    let leaf = Leaf::read(&certificate).unwrap();
    assert_eq!((leaf.common_name.as_str(), leaf.is_ca), ("system:node:edge-1", false));
    assert!(Leaf::is_client_of(&certificate, &ca, Millis::now().0 / 1000));

    let node = pki::Identity { ca, certificate, key };
    let renewing = [("nodename", "edge-1")];
    let (status, _) = ask(&cloud, Some(&node), "/edge.crt", &renewing, csr.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let (status, why) = ask(&cloud, Some(&node), "/edge.crt", &[("nodename", "edge-2")], csr).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(
        text(&why).starts_with("failed to verify the certificate for edgenode: edge-2"),
        "{}",
        text(&why)
    );
    cloud.stop().await;
}

#[tokio::test]
async fn wrong_tokens_foreign_certificates_and_other_names_get_nothing() {
    let cloud = Cloud::start(settings()).await;
    let key = Key::generate().unwrap();
    let csr = node_request("edge-1", &key).unwrap();
    let named = ("nodename", "edge-1");
    for (authorization, why) in [
        ("", "token validation failure, token is empty"),
        ("Bearer", "token validation failure, token cannot be split"),
        ("Bearer a.b.c", "token validation failure, err: "),
    ] {
        let headers = [named, ("authorization", authorization)];
        let (status, body) = ask(&cloud, None, "/edge.crt", &headers, csr.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(text(&body).starts_with(why), "{}", text(&body));
    }
    let bearer = bearer(&cloud);
    let good = ("authorization", bearer.as_str());
    // A certificate that is shown counts alone, also beside a good token.
    let ours = authority(&cloud.cluster);
    let foreign = Authority::kubeedge(now()).unwrap();
    let issue = |name: &str, organization: &str, usage| {
        ours.issue(name, &[organization], &Names::default(), usage, now(), 2).unwrap()
    };
    for (what, shown) in [
        ("of a foreign CA", node(&foreign, "edge-1", now())),
        ("expired", node(&ours, "edge-1", now() - 3 * 86_400)),
        ("not valid yet", node(&ours, "edge-1", now() + 86_400)),
        ("of another node", node(&ours, "edge-2", now())),
        ("of a server", issue("system:node:edge-1", "system:nodes", Usage::Server)),
        ("of no node", issue("system:node:edge-1", "else", Usage::Client)),
        ("of any edge of long ago", issue("kubeedge.io", "KubeEdge", Usage::Client)),
    ] {
        let (status, why) = ask(&cloud, Some(&shown), "/edge.crt", &[named, good], csr.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
        assert!(
            text(&why).starts_with("failed to verify the certificate for edgenode: edge-1, err: "),
            "{what}"
        );
    }
    let (status, _) = ask(&cloud, None, "/edge.crt", &[("nodename", "edge-2"), good], csr.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let too_much: Bytes = vec![0; (1 << 20) + 1].into();
    for (usages, body, status, why) in [
        ("[3]", csr.clone(), StatusCode::BAD_REQUEST, "ExtKeyUsages must be a list"),
        (
            "x",
            csr.clone(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "err: unmarshal http header ExtKeyUsages fail, err: ",
        ),
        ("[]", csr.clone(), StatusCode::INTERNAL_SERVER_ERROR, "must specify at least one ExtKeyUsage"),
        (
            "[2]",
            Bytes::from_static(b"junk"),
            StatusCode::INTERNAL_SERVER_ERROR,
            "err: fail to signCerts, err: ",
        ),
        ("[2]", too_much.clone(), StatusCode::INTERNAL_SERVER_ERROR, "http: request body too large"),
    ] {
        let headers = [named, good, ("extkeyusages", usages)];
        let answer = ask(&cloud, None, "/edge.crt", &headers, body).await;
        assert_eq!(answer.0, status, "{usages}");
        let answer = text(&answer.1);
        assert!(answer.contains(why), "{answer}");
        let as_go = answer.starts_with("failed to sign certs for edgenode edge-1, err: ");
        assert_eq!(as_go, status == StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    }
    // Who may have nothing is refused before what he sends is read.
    let (status, why) = ask(&cloud, None, "/edge.crt", &[named], too_much).await;
    assert_eq!(
        (status, text(&why).as_str()),
        (StatusCode::UNAUTHORIZED, "token validation failure, token is empty")
    );
    let headers = [named, good, ("extkeyusages", "[1,2]")];
    let (status, signed) = ask(&cloud, None, "/edge.crt", &headers, csr).await;
    assert_eq!(status, StatusCode::OK);
    assert!(Leaf::is_client_of(&signed, &cloud.status.ca, now()));
    cloud.stop().await;
}

#[tokio::test]
async fn a_node_reports_its_tasks_in_its_own_name_and_nobody_else_does() {
    let cloud = Cloud::start(settings()).await;
    let edge = node(&authority(&cloud.cluster), "edge-1", now());
    let path = |node: &str| format!("/task/upgrade/name/t1/node/{node}/status");
    let report = Bytes::from_static(br#"{"NodeName":"edge-1","Event":"Check","Action":"Success"}"#);
    let old = Bytes::from_static(br#"{"UpgradeID":"u","NodeName":"edge-1","Status":"upgrade_success"}"#);
    let others = Bytes::from_static(br#"{"UpgradeID":"u","NodeName":"edge-2","Status":"upgrade_success"}"#);
    let (junk, huge) = (Bytes::from_static(b"{"), Bytes::from(vec![b' '; (3 << 20) + 1]));
    let (ok, bad, no) = (StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED);
    for (who, path, body, status, answer) in [
        // As Go answers although nobody looks after tasks.
        (Some(&edge), path("edge-1"), report.clone(), ok, "ok"),
        (Some(&edge), "/nodeupgrade".to_owned(), old.clone(), ok, "ok"),
        (Some(&edge), path("edge-1"), junk.clone(), bad, "failed to unmarshal task info: "),
        (Some(&edge), "/nodeupgrade".to_owned(), junk, bad, "failed to marshal task info: "),
        (Some(&edge), path("edge-1"), huge, bad, "failed to get req body: "),
        (
            Some(&edge),
            path("edge-2"),
            report.clone(),
            no,
            "failed to verify the certificate for edgenode: edge-2",
        ),
        (Some(&edge), "/nodeupgrade".to_owned(), others, no, "failed to verify the certificate"),
        (None, path("edge-1"), report, no, "failed to verify the certificate"),
        (None, "/nodeupgrade".to_owned(), old, no, "failed to verify the certificate"),
    ] {
        let got = request(&cloud, who, Method::POST, &path, &[], body).await;
        assert_eq!(got.0, status, "{path}: {}", text(&got.1));
        assert!(text(&got.1).starts_with(answer), "{path}: {}", text(&got.1));
    }
    let (status, _) = request(&cloud, None, Method::POST, "/ca.crt", &[], Bytes::new()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    cloud.stop().await;
}

#[tokio::test]
async fn the_ca_outlives_a_restart_and_nodes_can_be_looked_up() {
    let cloud = Cloud::start(settings()).await;
    cloud.edge("edge-1").await;
    for (path, status, body) in [
        ("/node/edge-1", StatusCode::OK, "Node found"),
        ("/node/edge-2", StatusCode::NOT_FOUND, "Node not found"),
        ("/node/Edge_2", StatusCode::BAD_REQUEST, "Invalid node name"),
        ("/readyz", StatusCode::OK, "ok"),
        ("/nothing", StatusCode::NOT_FOUND, "404: Page Not Found"),
    ] {
        let answer = ask(&cloud, None, path, &[], Bytes::new()).await;
        assert_eq!((answer.0, text(&answer.1).as_str()), (status, body), "{path}");
    }
    let ca = cloud.status.ca.clone();
    let secret = "/api/v1/namespaces/kubeedge/secrets/tokensecret";
    cloud.cluster.until(secret, |secret| secret["data"]["tokendata"] != Value::Null).await;
    let cluster = cloud.stop().await;
    let cloud = Cloud::start_on(cluster, settings()).await;
    assert_eq!(cloud.status.ca, ca);
    cloud.stop().await;
}
