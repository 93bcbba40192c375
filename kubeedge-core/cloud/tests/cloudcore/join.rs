//! Joining through the HTTPS service.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kubeedge_core::{
    message::Millis,
    pki::{self, Key, Leaf, node_request, split_token, token_names_ca},
};
use rustls::pki_types::{CertificateDer, PrivateSec1KeyDer, ServerName};
use serde_json::Value;

use crate::edge::{Cloud, settings};

/// Makes one request; the client shows a certificate if it has one.
async fn ask(
    cloud: &Cloud,
    who: Option<&pki::Identity>,
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
    let mut request = Request::get(path).header("host", "cloud");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = answer.status();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
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
    let token = cloud.status.token.borrow().clone();
    let bearer = format!("Bearer {}", split_token(&token).unwrap().1);
    let good = ("authorization", bearer.as_str());
    // A certificate that is shown counts alone, also beside a good token.
    let foreign = pki::Authority::kubeedge(0).unwrap();
    let names = pki::Names::default();
    let foreign = foreign
        .issue("system:node:edge-1", &["system:nodes"], &names, pki::Usage::Client, 0, 36_500)
        .unwrap();
    let (status, _) = ask(&cloud, Some(&foreign), "/edge.crt", &[named, good], csr.clone()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = ask(&cloud, None, "/edge.crt", &[("nodename", "edge-2"), good], csr.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let headers = [named, good, ("extkeyusages", "[3]")];
    let (status, _) = ask(&cloud, None, "/edge.crt", &headers, csr).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = ask(&cloud, None, "/edge.crt", &[named, good], vec![0; 2 << 20].into()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
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
