//! Cutting off a certificate that was stolen.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, ClusterError, KubeService},
    failure::{BoxError, chain},
    name::NodeName,
    pki::{self, Authority, Key, Leaf},
    transport::{Endpoint, Transport},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cluster::FakeCluster,
    edge::{Cloud, settings},
    join::{ask, authority, bearer, node, now, text},
    names::{dial_tunnel, shown, strict},
};

const MAPS: &str = "/api/v1/namespaces/kubeedge/configmaps";
const LIST: &str = "/api/v1/namespaces/kubeedge/configmaps/cloudcore-denylist";
const MINUTE: Duration = Duration::from_secs(60);

/// Puts the list there, or another in its place.
fn deny(cluster: &FakeCluster, nodes: &str, serials: &str) {
    if cluster.get(LIST).is_some() {
        cluster.delete(LIST);
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cloudcore-denylist"},
        "data": {"nodes": nodes, "serials": serials}});
    cluster.create(MAPS, object);
}

fn serial(identity: &pki::Identity) -> String {
    Leaf::read(&identity.certificate).unwrap().serial
}

/// Tries until the list has come to the hub.
async fn until_refused(cloud: &Cloud, name: &str, identity: &pki::Identity) -> String {
    let mut who = shown(identity);
    who.claims.push(("node_id".to_owned(), name.to_owned()));
    let refused = async {
        loop {
            match cloud.network.dial(&Endpoint::from("hub"), &who).await {
                Err(error) => return chain(&error),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(MINUTE, refused).await.expect("the node is still let in")
}

async fn renew(cloud: &Cloud, name: &str, who: &pki::Identity) -> (StatusCode, String) {
    let csr = pki::node_request(name, &Key::generate().unwrap()).unwrap();
    let (status, body) = ask(cloud, Some(who), "/edge.crt", &[("nodename", name)], csr).await;
    (status, text(&body))
}

async fn join(cloud: &Cloud, name: &str) -> StatusCode {
    let csr = pki::node_request(name, &Key::generate().unwrap()).unwrap();
    let headers = [("nodename", name), ("authorization", &*bearer(cloud))];
    ask(cloud, None, "/edge.crt", &headers, csr).await.0
}

#[tokio::test]
async fn a_denied_node_is_refused_everywhere_and_let_in_again_when_it_is_off_the_list() {
    let (cloud, ca) = strict().await;
    let (stolen, good) = (node(&ca, "edge-1", now()), node(&ca, "edge-2", now()));
    deny(&cloud.cluster, "edge-1 # lost in the train", "");
    let why = until_refused(&cloud, "edge-1", &stolen).await;
    assert!(why.contains("the node is on the deny list of this cloud"), "{why}");
    let why = dial_tunnel(&cloud, "edge-1", shown(&stolen)).await.map(drop).unwrap_err();
    assert!(why.contains("deny list"), "{why}");
    let (status, why) = renew(&cloud, "edge-1", &stolen).await;
    assert_eq!((status, why.as_str()), (StatusCode::FORBIDDEN, "the node is on the deny list of this cloud"));
    assert_eq!(join(&cloud, "edge-1").await, StatusCode::FORBIDDEN, "not with a token either");

    cloud.dial_with("edge-2", shown(&good)).await.unwrap();
    dial_tunnel(&cloud, "edge-2", shown(&good)).await.unwrap();
    assert_eq!(renew(&cloud, "edge-2", &good).await.0, StatusCode::OK);
    assert_eq!(join(&cloud, "edge-2").await, StatusCode::OK);

    cloud.cluster.delete(LIST);
    let again = async {
        while cloud.dial_with("edge-1", shown(&stolen)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, again).await.expect("the node is let in again");
    cloud.stop().await;
}

#[tokio::test]
async fn a_stolen_certificate_is_denied_by_serial_or_age_and_the_node_goes_on_with_a_new_one() {
    let (cloud, ca) = strict().await;
    let (stolen, fresh) = (node(&ca, "edge-1", now() - 7200), node(&ca, "edge-1", now()));
    deny(&cloud.cluster, "", &serial(&stolen).to_uppercase());
    let why = until_refused(&cloud, "edge-1", &stolen).await;
    assert!(why.contains("the certificate is on the deny list"), "{why}");
    assert_eq!(renew(&cloud, "edge-1", &stolen).await.0, StatusCode::FORBIDDEN);
    cloud.dial_with("edge-1", shown(&fresh)).await.unwrap();

    // The thief may have renewed it meanwhile: all that is older than an hour.
    let renewed = node(&ca, "edge-1", now() - 7000);
    let moment = time::OffsetDateTime::from_unix_timestamp(now() - 3600).unwrap();
    let moment = moment.format(&time::format_description::well_known::Rfc3339).unwrap();
    deny(&cloud.cluster, &format!("edge-1 before {moment}"), "");
    let why = until_refused(&cloud, "edge-1", &renewed).await;
    assert!(why.contains("as old as this one"), "{why}");
    cloud.dial_with("edge-1", shown(&fresh)).await.unwrap();
    assert_eq!(join(&cloud, "edge-1").await, StatusCode::OK);
    cloud.stop().await;
}

/// A cluster whose watches say nothing, as behind a connection that died in silence.
#[derive(Clone, Debug)]
struct Mute(FakeCluster);

#[deny(clippy::missing_trait_methods)]
impl ClusterApi for Mute {
    fn service(&self, _acting_as: &Actor) -> KubeService {
        let inner = self.0.clone();
        KubeService::new(tower::service_fn(move |request| muted(inner.clone(), request)))
    }
}

async fn muted(inner: FakeCluster, request: Request<Body>) -> Result<Response<Body>, ClusterError> {
    let query = request.uri().query().unwrap_or_default();
    if request.uri().path() == "/api/v1/configmaps" && query.contains("watch=true") {
        let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>();
        return Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(silence.boxed()))));
    }
    inner.serve(request).await
}

/// Denies nodes that are connected, in paused time.
async fn cut_off(cloud: Cloud, ca: Authority) {
    let (stolen, good) = (node(&ca, "edge-1", now()), node(&ca, "edge-2", now()));
    let mut edge = cloud.dial_with("edge-1", shown(&stolen)).await.unwrap();
    let mut tunnel = dial_tunnel(&cloud, "edge-1", shown(&stolen)).await.unwrap();
    let _other = cloud.dial_with("edge-2", shown(&good)).await.unwrap();
    let mut others = dial_tunnel(&cloud, "edge-2", shown(&good)).await.unwrap();
    while cloud.status.sessions.count() < 2 || !cloud.status.tunnels.has(&NodeName::of("edge-2")) {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let began = Instant::now();
    deny(&cloud.cluster, "", &serial(&stolen));
    while edge.next().await.is_some() {}
    while tunnel.rx.next().await.is_some() {}
    assert!(began.elapsed() <= MINUTE, "{:?}", began.elapsed());
    assert!(
        cloud.status.sessions.has(&NodeName::of("edge-2"))
            && !cloud.status.tunnels.has(&NodeName::of("edge-1"))
    );
    assert!(futures::FutureExt::now_or_never(others.rx.next()).is_none(), "another tunnel ended");
    let refused = cloud.dial_with("edge-1", shown(&stolen)).await.map(drop).unwrap_err();
    assert!(chain(&refused).contains("deny list"));
    tokio::time::resume();
    cloud.stop().await;
}

#[tokio::test]
async fn links_and_tunnels_of_a_denied_certificate_are_cut_within_a_minute_and_no_others() {
    let (cloud, ca) = strict().await;
    cut_off(cloud, ca).await;
}

#[tokio::test]
async fn a_watch_that_died_in_silence_delays_the_cut_by_less_than_a_minute() {
    let cluster = FakeCluster::new();
    let mut settings = settings();
    settings.hub.identity = Default::default();
    let cloud = Cloud::start_over(cluster.clone(), Arc::new(Mute(cluster)), settings).await;
    let ca = authority(&cloud.cluster);
    cut_off(cloud, ca).await;
}
