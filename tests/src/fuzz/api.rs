//! Bodies for the embedded API.

use std::{cell::RefCell, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use kubeedge_apiserver::{EmbeddedCluster, EmbeddedSettings, Signer};
use kubeedge_core::cluster::{Actor, ClusterApi};
use kubeedge_store::MemoryStore;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// What is asked with the body, by its first byte.
pub(super) const REQUESTS: [(&str, &str, &str); 24] = [
    ("POST", PODS, JSON),
    ("POST", PODS, YAML),
    ("POST", "/apis/apps/v1/namespaces/default/deployments", PROTOBUF),
    ("POST", "/api/v1/namespaces/default/secrets", PROTOBUF),
    ("POST", "/api/v1/namespaces/default/configmaps", YAML),
    ("PUT", "/api/v1/namespaces/default/pods/a", JSON),
    ("PATCH", "/api/v1/namespaces/default/pods/a", STRATEGIC),
    ("PATCH", "/api/v1/namespaces/default/pods/a", MERGE),
    ("PATCH", "/api/v1/namespaces/default/pods/a", JSON_PATCH),
    ("PATCH", "/api/v1/namespaces/default/pods/a?fieldManager=f", APPLY),
    ("PATCH", "/api/v1/namespaces/default/pods/a/status", STRATEGIC),
    ("PATCH", "/api/v1/nodes/n/status", STRATEGIC),
    ("DELETE", "/api/v1/namespaces/default/pods/a", JSON),
    ("POST", "/api/v1/namespaces/default/pods/a/eviction", JSON),
    ("POST", "/api/v1/namespaces/default/pods/a/binding", JSON),
    ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", JSON),
    ("PATCH", "/apis/apps/v1/namespaces/default/deployments/d/scale", JSON_PATCH),
    ("PUT", "/apis/apps/v1/namespaces/default/deployments/d/scale", JSON),
    ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", JSON),
    ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", JSON),
    ("PATCH", "/api/v1/namespaces/default/configmaps/c", JSON_PATCH),
    ("PATCH", "/api/v1/namespaces/default/configmaps/c?fieldManager=f", APPLY),
    ("DELETE", PODS, JSON),
];
/// After so many requests the cluster is made anew, as objects of every name pile up in it.
const REQUESTS_OF_ONE: u32 = 2000;
/// A body of 3 MiB, the largest there is, becomes an object of no more than a few times that.
const LARGEST_ANSWER: usize = 16 << 20;

thread_local! {
    static CLUSTER: RefCell<(u32, Option<EmbeddedCluster>)> = const { RefCell::new((0, None)) };
    static RUNTIME: Runtime = runtime();
}

/// A runtime on the thread it is made on.
pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn block_on<F: Future>(work: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// An empty cluster in memory.
pub(super) async fn cluster() -> EmbeddedCluster {
    let settings = EmbeddedSettings::new(Signer::new(b"secret"));
    EmbeddedCluster::open(Arc::new(MemoryStore::new()), settings).await.expect("memory does not fail")
}

async fn ask(
    cluster: &EmbeddedCluster,
    (method, path, kind): (&str, &str, &str),
    body: Bytes,
) -> (StatusCode, Bytes) {
    let body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
    let answer = cluster.service(&Actor::Ourselves).oneshot(request.expect("the request is good")).await;
    let answer = answer.expect("in one process every request is answered");
    let status = answer.status();
    (status, answer.into_body().collect().await.expect("a body in memory").to_bytes())
}

/// What requests are about.
async fn furnish(cluster: &EmbeddedCluster) {
    let pod = r#"{"metadata":{"name":"a","finalizers":["k.io/x"]},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"i","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]}]}}"#;
    let deployment = r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    for (path, object) in [
        (PODS, pod),
        ("/apis/apps/v1/namespaces/default/deployments", deployment),
        ("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"c"},"data":{"k":"v"}}"#),
        ("/api/v1/nodes", r#"{"metadata":{"name":"n"}}"#),
        ("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
    ] {
        // What is there already stays.
        let _ = ask(cluster, ("POST", path, JSON), Bytes::from(object)).await;
    }
}

/// One request with the rest as its body. Whatever comes is answered, never by a failure of the server
/// itself, and not by more than a few times what was sent.
pub fn api(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let request = REQUESTS[usize::from(*first) % REQUESTS.len()];
    let body = Bytes::copy_from_slice(body);
    CLUSTER.with_borrow_mut(|(asked, cluster)| {
        if asked.is_multiple_of(REQUESTS_OF_ONE) {
            *cluster = Some(block_on(self::cluster()));
        }
        *asked += 1;
        let Some(cluster) = cluster else { return };
        let (status, answer) = block_on(async {
            furnish(cluster).await;
            ask(cluster, request, body).await
        });
        assert_ne!(
            status,
            StatusCode::INTERNAL_SERVER_ERROR,
            "{request:?}: {}",
            String::from_utf8_lossy(&answer)
        );
        assert!(answer.len() < LARGEST_ANSWER, "{request:?}: an answer of {} bytes", answer.len());
        assert!(
            serde_json::from_slice::<&serde_json::value::RawValue>(&answer).is_ok(),
            "an answer that is no JSON"
        );
    });
}
