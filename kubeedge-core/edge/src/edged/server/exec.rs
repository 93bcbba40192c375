//! `/exec` and `/attach`: from a request to a WebSocket with a running command behind it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use kubeedge_core::runtime::{
    ContainerId, ContainerRuntime, ExecSpec, RuntimeError, RuntimeKind, RuntimeResult, Streams,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{Answer, Local, PLAIN, Refusal, logs, remote, text};
use kubeedge_common::{
    channel::{V4, V5},
    http::{Query, Upgrades},
};

/// The protocols spoken, best first.
const PROTOCOLS: [&str; 2] = [V5, V4];
/// The largest message of a client.
const MAX_MESSAGE: usize = 1 << 20;

/// What is to run once the connection has changed its protocol.
#[derive(Debug)]
struct Session {
    upgrade: OnUpgrade,
    runtime: Arc<dyn ContainerRuntime>,
    container: ContainerId,
    task: Task,
}

/// A command and who wants what of it.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) attach: bool,
    pub(crate) what: ExecSpec,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Whether the client can end its input without ending the connection.
    pub(crate) half_closes: bool,
}

impl Task {
    fn read(query: &Query, attach: bool, half_closes: bool) -> Result<Self, Refusal> {
        let tty = query.is_set("tty");
        let (stdin, stdout) = (query.is_set("input"), query.is_set("output"));
        // A terminal has one output only.
        let stderr = query.is_set("error") && !tty;
        if !stdin && !stdout && !stderr {
            return Err(bad("you must specify at least 1 of stdin, stdout, stderr"));
        }
        let command: Vec<_> = query.all("command").map(str::to_owned).collect();
        if command.is_empty() && !attach {
            return Err(bad("you must specify at least 1 command for the container"));
        }
        let what = ExecSpec::new(command).stdin(stdin).tty(tty);
        Ok(Self { attach, what, stdout, stderr, half_closes })
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, why)
}

fn unsupported(why: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, why)
}

/// Whether a header that lists words has this one.
fn lists(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Checks the client's side of the handshake; returns the accepting key and the protocol.
fn handshake(method: &Method, headers: &HeaderMap) -> Result<(String, &'static str), Refusal> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.to_ascii_uppercase().starts_with("SPDY/") {
        return Err(unsupported(
            "this node speaks WebSocket for exec and attach, not SPDY; use kubectl 1.31 or later with cloudcore's API",
        ));
    }
    let wants = lists(headers, header::CONNECTION, "upgrade") && upgrade.eq_ignore_ascii_case("websocket");
    if !wants {
        return Err(bad("Upgrade request required"));
    }
    if *method != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET"));
    }
    // A page in a browser on this machine must not run commands.
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "requests of web pages are not served here"));
    }
    if !lists(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(bad("WebSocket version 13 required"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key missing"))?;
    let offered = |protocol: &&&str| lists(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol);
    let protocol = PROTOCOLS.iter().find(offered);
    let protocol = protocol.ok_or_else(|| {
        bad(format!("no protocol in common: this node speaks {} and {}", PROTOCOLS[0], PROTOCOLS[1]))
    })?;
    Ok((derive_accept_key(key.as_bytes()), protocol))
}

/// Answers a request for a command; the command starts when the connection has changed its protocol.
pub(super) async fn upgrade(
    local: &Local,
    mut request: Request<Incoming>,
    parts: &[&str],
    query: &Query,
) -> Answer {
    let (verb, namespace, name, uid, container) = match *parts {
        [verb, namespace, name, container] => (verb, namespace, name, None, container),
        [verb, namespace, name, uid, container] => (verb, namespace, name, Some(uid), container),
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
    };
    let attach = verb == "attach";
    // Before what is wrong with the request: no other client would fare better.
    offered(&*local.runtime, attach)?;
    let (key, protocol) = handshake(request.method(), request.headers())?;
    let task = Task::read(query, attach, protocol == PROTOCOLS[0])?;
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "pod does not exist");
    let pod = local.pods.find(namespace, name, uid).ok_or_else(missing)?;
    let container = logs::running(local, &pod, container).await?.id;
    let upgrades = request.extensions().get::<Upgrades>().cloned();
    let upgrade = hyper::upgrade::on(&mut request);
    let session = Session { upgrade, runtime: local.runtime.clone(), container, task };
    let session = serve(session, local.settings.idle);
    if !upgrades.is_some_and(|upgrades| upgrades.run(session)) {
        return Err(bad("one command a connection"));
    }
    Ok(switching(&key, protocol))
}

/// Fails when the runtime cannot do this at all.
fn offered(runtime: &dyn ContainerRuntime, attach: bool) -> Result<(), Refusal> {
    let why = match attach {
        true if runtime.attach().is_none() => {
            "the container runtime of this node cannot attach to containers; `kubectl logs -f` shows what one says, `kubectl exec` runs a command"
        }
        false if runtime.exec().is_none() => {
            "the container runtime of this node cannot run commands in containers"
        }
        _ => return Ok(()),
    };
    Err(unsupported(why))
}

fn switching(key: &str, protocol: &'static str) -> Response<super::Body> {
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, PLAIN, "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(key) = HeaderValue::from_str(key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    response
}

/// Runs a session to its end.
async fn serve(session: Session, idle: Duration) {
    let Session { upgrade, runtime, container, task } = session;
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => {
            tracing::debug!(error = %error, "a client left before its command started");
            return;
        }
    };
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await;
    let started = begin(&*runtime, &container, &task).await;
    if let Err(error) = remote::run(socket, &task, started, idle).await {
        tracing::debug!(%container, error = %error, "the client of a command left");
    }
}

async fn begin(runtime: &dyn ContainerRuntime, id: &ContainerId, task: &Task) -> RuntimeResult<Streams> {
    let what = task.what.clone();
    match (task.attach, runtime.attach(), runtime.exec()) {
        (true, Some(attach), _) => attach.attach_stream(id, what).await,
        (false, _, Some(exec)) => exec.exec_stream(id, what).await,
        // Asked before the connection was accepted.
        _ => Err(RuntimeError::new(RuntimeKind::Unsupported, "running a command")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in base.iter().chain(pairs) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn refused(pairs: &[(&'static str, &'static str)]) -> StatusCode {
        handshake(&Method::GET, &headers(pairs)).unwrap_err().status
    }

    #[test]
    fn the_best_protocol_both_sides_speak_is_taken() {
        let (key, protocol) = handshake(&Method::GET, &headers(&[])).unwrap();
        assert_eq!((key.as_str(), protocol), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "v5.channel.k8s.io"));
        let older = headers(&[("sec-websocket-protocol", "v4.channel.k8s.io")]);
        assert_eq!(handshake(&Method::GET, &older).unwrap().1, "v4.channel.k8s.io");
    }

    #[test]
    fn spdy_web_pages_and_unknown_protocols_are_refused_with_a_reason() {
        assert_eq!(refused(&[("upgrade", "SPDY/3.1")]), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(refused(&[("origin", "http://evil")]), StatusCode::FORBIDDEN);
        assert_eq!(refused(&[("sec-websocket-protocol", "base64.channel.k8s.io")]), StatusCode::BAD_REQUEST);
        assert_eq!(refused(&[("upgrade", "h2c")]), StatusCode::BAD_REQUEST);
        let post = handshake(&Method::POST, &headers(&[])).unwrap_err();
        assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
    }
}
