//! Logs, exec and attach: passed on to the node through whatever reaches it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, header};
use kubeedge_common::http::{Query, with_query};
use kubeedge_core::{cluster::Body, tunnel::Duplex};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::{
    answer::{Answer, full},
    kinds::PODS,
    object::Object,
    registry::Registry,
    status::Refusal,
    tasks::Tasks,
};
use kubeedge_core::node_streams::NodeStreams;

/// What a node is asked for: `log`, `exec` or `attach` of a pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub sub: &'a str,
}

/// Passes a request on to the node of a pod. A stream between client and node is a task of `tasks`.
pub(super) async fn proxy(
    registry: &Registry,
    streams: Option<Arc<dyn NodeStreams>>,
    place: &Place<'_>,
    request: Request<Body>,
    tasks: &Tasks,
) -> Answer {
    let Place { namespace, pod: name, sub } = *place;
    let pod = registry.get(&PODS, namespace, name).await?;
    let node = pod.node_name().to_owned();
    if node.is_empty() {
        return Err(Refusal::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let query = Query::of(request.uri());
    let container = container(&pod, query.first("container").unwrap_or_default())?;
    let streams = streams.ok_or_else(|| {
        Refusal::unavailable("logs and exec are not available: no stream server is running")
    })?;
    let rest = query.pairs().filter(|(name, _)| *name != "container");
    if sub == "log" {
        waits(&pod, &container)?;
        let path = with_query(&format!("/containerLogs/{namespace}/{name}/{container}"), rest);
        return logs(&*streams, &node, path).await;
    }
    let path = with_query(&format!("/{sub}/{namespace}/{name}/{container}"), rest.map(renamed));
    upgrade(&*streams, &node, path, request, tasks).await
}

/// A parameter as the kubelet names it.
fn renamed<'a>(pair: (&'a str, &'a str)) -> (&'a str, &'a str) {
    match pair {
        ("stdin", "true") => ("input", "1"),
        ("stdout", "true") => ("output", "1"),
        ("stderr", "true") => ("error", "1"),
        ("tty", "true") => ("tty", "1"),
        other => other,
    }
}

async fn logs(streams: &dyn NodeStreams, node: &str, path: String) -> Answer {
    let logs = streams.logs(&node.into(), path, HeaderMap::new()).await;
    let body = logs.map_err(|error| Refusal::unavailable(error.to_string()))?;
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// How long a node may take to answer a request for a command.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest head of an answer.
const MAX_HEAD: usize = 16 << 10;
/// How much of a refusal's text is passed on.
const MAX_REFUSAL: u64 = 4 << 10;

/// The head of the kubelet's own HTTP response, byte by byte so that nothing behind it is swallowed.
async fn read_head(from: &mut Box<dyn Duplex>) -> Option<(StatusCode, HeaderMap)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return None;
        }
        head.push(from.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((header::HeaderName::try_from(name).ok()?, header::HeaderValue::try_from(value.trim()).ok()?))
    });
    Some((status, pairs.collect()))
}

async fn refused(status: StatusCode, from: &mut Box<dyn Duplex>) -> Refusal {
    let mut text = Vec::new();
    let mut limited = from.take(MAX_REFUSAL);
    let _ = tokio::time::timeout(Duration::from_secs(1), limited.read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Refusal { code: status, ..Refusal::bad_request(format!("the node refused: {text}")) }
}

async fn upgrade(
    streams: &dyn NodeStreams,
    node: &str,
    path: String,
    mut request: Request<Body>,
    tasks: &Tasks,
) -> Answer {
    if request.headers().get(header::UPGRADE).is_none() {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    let method = request.method().clone();
    let headers = request.headers().clone();
    let ours = hyper::upgrade::on(&mut request);
    let opened = streams.upgrade(&node.into(), method, path, headers).await;
    let mut theirs = opened.map_err(|error| Refusal::unavailable(error.to_string()))?;
    let head = tokio::time::timeout(ANSWER, read_head(&mut theirs)).await;
    let (status, headers) =
        head.ok().flatten().ok_or_else(|| Refusal::unavailable("the node did not answer"))?;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(status, &mut theirs).await);
    }
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    // The copying ends with either side; the node's end is closed when it is dropped.
    tasks.spawn(async move {
        match ours.await {
            Ok(upgraded) => {
                let mut upgraded = hyper_util::rt::TokioIo::new(upgraded);
                let _ = tokio::io::copy_bidirectional(&mut upgraded, &mut theirs).await;
            }
            Err(error) => tracing::debug!(error = %error, "client went away before the upgrade"),
        }
    });
    Ok(response)
}

/// The container that is meant: the named one, else the annotated default, else the only or first one.
fn container(pod: &Value, asked: &str) -> Result<String, Refusal> {
    let name = pod.name();
    let lists = ["containers", "initContainers"].map(|list| pod.list(&["spec", list]));
    let names: Vec<_> = lists.into_iter().flatten().map(|container| container.text(&["name"])).collect();
    if asked.is_empty() {
        let default = pod.annotation("kubectl.kubernetes.io/default-container");
        let first = default.or_else(|| names.first().copied());
        return first
            .map(str::to_owned)
            .ok_or_else(|| Refusal::bad_request(format!("pod {name} has no containers")));
    }
    if names.contains(&asked) {
        return Ok(asked.to_owned());
    }
    Err(Refusal::bad_request(format!("container {asked} is not valid for pod {name}")))
}

/// A container that has not started has no log yet; Kubernetes says so.
fn waits(pod: &Value, container: &str) -> Result<(), Refusal> {
    let lists = ["containerStatuses", "initContainerStatuses"].map(|list| pod.list(&["status", list]));
    let status = lists.into_iter().flatten().find(|status| status.text(&["name"]) == container);
    let Some(status) = status else { return Ok(()) };
    let reason = status.text(&["state", "waiting", "reason"]);
    let ran = status.get("restartCount").and_then(Value::as_i64).unwrap_or(0) > 0
        || status.at(&["lastState", "terminated"]).is_some();
    if reason.is_empty() || ran {
        return Ok(());
    }
    let pod_name = pod.name();
    let why = status.text(&["state", "waiting", "message"]);
    let text = if why.is_empty() { reason.to_owned() } else { format!("{reason}: {why}") };
    Err(Refusal::bad_request(format!(
        "container {container:?} in pod {pod_name:?} is waiting to start: {text}"
    )))
}
