//! The API server as a host of its own, and the way to it: HTTP over turmoil's TCP.

use std::{convert::Infallible, io, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::TokioIo;
use kubeedge_apiserver::EmbeddedCluster;
use kubeedge_core::{
    cluster::{Actor, Body, ClusterApi, ClusterError, ClusterKind, KubeService},
    failure::{BoxError, Failure},
    name::NodeName,
};
use serde_json::Value;
use tokio::time::timeout;
use tower::{ServiceExt, util::BoxCloneSyncService};
use turmoil::net::{TcpListener, TcpStream};

/// Where the API listens.
pub(crate) const API: &str = "api:6443";
/// Who asks, as client certificates say it elsewhere.
const ACTOR: &str = "x-acting-as";
/// How long nothing may come of an answer before the link is given up: bookmarks come every minute.
const IDLE: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(5);

/// Serves this cluster until dropped.
pub(crate) async fn serve(cluster: EmbeddedCluster) -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:6443").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let cluster = cluster.clone();
        tokio::task::spawn_local(async move {
            let answer = service_fn(|request| {
                let cluster = cluster.clone();
                async move { Ok::<_, Infallible>(answer(&cluster, request).await) }
            });
            // A client that is gone needs no answer.
            let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(cluster: &EmbeddedCluster, request: Request<Incoming>) -> Response<Body> {
    let actor = match request.headers().get(ACTOR).and_then(|value| value.to_str().ok()) {
        Some(node) if !node.is_empty() => Actor::Node(NodeName::from(node)),
        _ => Actor::Ourselves,
    };
    let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
    let answered = cluster.service(&actor).oneshot(request).await;
    answered.unwrap_or_else(|error| {
        let body = Full::from(error.to_string()).map_err(|never: Infallible| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// The way to the API from another host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteApi;

impl ClusterApi for RemoteApi {
    fn service(&self, acting_as: &Actor) -> KubeService {
        let actor = match acting_as {
            Actor::Ourselves => String::new(),
            Actor::Node(node) => node.as_str().to_owned(),
        };
        BoxCloneSyncService::new(tower::service_fn(move |request| {
            let answer = ask(actor.clone(), request);
            async { answer.await.map_err(unreachable) }
        }))
    }
}

fn unreachable(error: BoxError) -> ClusterError {
    Failure::new(ClusterKind::Unreachable, "asking the API").because(error)
}

async fn ask(actor: String, mut request: Request<Body>) -> Result<Response<Body>, BoxError> {
    request.headers_mut().insert(ACTOR, HeaderValue::from_str(&actor)?);
    request.headers_mut().insert(http::header::HOST, HeaderValue::from_static("api"));
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.as_str().parse()?;
    }
    let stream = timeout(CONNECT, TcpStream::connect(API)).await??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let response = timeout(IDLE, sender.send_request(request)).await??;
    // The connection lives as long as the body is read.
    Ok(response.map(|body| {
        let frames = futures::stream::unfold(Some((body, sender)), |state| async move {
            let (mut body, sender) = state?;
            match timeout(IDLE, body.frame()).await {
                Ok(Some(Ok(frame))) => Some((Ok(frame), Some((body, sender)))),
                Ok(Some(Err(error))) => Some((Err(BoxError::from(error)), None)),
                Ok(None) => None,
                Err(late) => Some((Err(BoxError::from(late)), None)),
            }
        });
        BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames))
    }))
}

/// Asks a cluster as its administrator.
pub(crate) async fn call(
    cluster: &impl ClusterApi,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<(u16, Value), BoxError> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let body = Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    let response = cluster.service(&Actor::Ourselves).oneshot(request.body(body)?).await?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
}
