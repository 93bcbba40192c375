//! What the HTTPS service answers. Statuses and texts are Go's.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use kubeedge_common::log::{Seldom, shown};
use kubeedge_core::{
    bus::Bus,
    failure::BoxError,
    message::{Content, Message},
    name::{Group, ModuleName, Operation, is_node_name},
    pki::{Authority, Names},
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::{
    cluster::{self, Clients, api_path},
    denylist::Denylist,
};

/// The largest report of a task.
const MAX_REPORT: usize = 3 << 20;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) from: SocketAddr,
    /// The certificate shown; the caller holds its key, nothing else is known of it.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) authority: Arc<Authority>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) bus: Bus,
    pub(crate) days: u32,
    /// Names that no node gets a certificate for.
    pub(crate) reserved: Names,
    pub(crate) denied: Denylist,
    /// Lines about those who get nothing.
    pub(crate) refusals: Seldom,
}

pub(super) type Answer = Response<Full<Bytes>>;

impl Service {
    pub(crate) async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        match (&parts.method, path.as_slice()) {
            (&Method::GET, ["ca.crt"]) => binary(self.authority.certificate().to_vec()),
            (&Method::GET, ["edge.crt"]) => self.certificate(caller, &parts.headers, body).await,
            (&Method::GET, ["node", name]) => self.node(name).await,
            (&Method::GET, ["healthz" | "readyz" | "livez"]) => text(StatusCode::OK, "ok"),
            (&Method::POST, ["nodeupgrade"]) => told(self.upgrade_report(caller, body).await),
            (&Method::POST, ["task", kind, "name", task, "node", node, "status"]) => {
                told(self.task_report(caller, kind, task, node, body).await)
            }
            (
                _,
                ["ca.crt" | "edge.crt" | "nodeupgrade"]
                | ["node", _]
                | ["task", _, "name", _, "node", _, "status"],
            ) => text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
            _ => text(StatusCode::NOT_FOUND, "404: Page Not Found"),
        }
    }

    /// Logs a refusal, with no more lines than are good.
    pub(super) fn tell(&self, caller: &Caller, node: &str, why: &str) {
        if let Some(unsaid) = self.refusals.line(&caller.from.ip().to_string()) {
            let (node, why) = (shown(node), shown(why));
            tracing::warn!(peer = %caller.from, %node, %why, unsaid, "refused a request");
        }
    }

    async fn node(&self, name: &str) -> Answer {
        if !is_node_name(name) {
            return text(StatusCode::BAD_REQUEST, "Invalid node name");
        }
        match cluster::get(self.clients.ours(), &api_path("/api/v1", &["nodes", name])).await {
            Ok(_) => text(StatusCode::OK, "Node found"),
            Err(status) if status.is_not_found() => text(StatusCode::NOT_FOUND, "Node not found"),
            Err(status) => {
                tracing::warn!(node = name, error = %status, "a node was not looked up");
                text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to query node information")
            }
        }
    }

    /// The report of an old edge about its upgrade; it names task and node itself.
    async fn upgrade_report<B>(&self, caller: &Caller, body: B) -> Result<(), (StatusCode, String)>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        // The node is named in the body: who shows nothing is not listened to.
        if caller.certificate.is_none() {
            self.certified(caller, "").map(drop)?;
        }
        let report = read(body, MAX_REPORT).await.map_err(bad_body)?;
        let old: Upgrade = serde_json::from_slice(&report)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("failed to marshal task info: {error}")))?;
        let content = Content::json(&old.as_task()).map_err(|error| bad_body(error.into()))?;
        self.report(caller, "upgrade", &old.upgrade, &old.node_name, content).await
    }

    async fn task_report<B>(
        &self,
        caller: &Caller,
        kind: &str,
        task: &str,
        node: &str,
        body: B,
    ) -> Result<(), (StatusCode, String)>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        self.certified(caller, node).map(drop)?;
        let report = read(body, MAX_REPORT).await.map_err(bad_body)?;
        let content = Content::from_json_bytes(report)
            .map_err(|error| (StatusCode::BAD_REQUEST, format!("failed to unmarshal task info: {error}")))?;
        self.report(caller, kind, task, node, content).await
    }

    /// To whoever looks after tasks; that nobody does is no error to the reporter, as in Go. Go believes everybody; here a
    /// report is the node's own, as its certificate says.
    async fn report(
        &self,
        caller: &Caller,
        kind: &str,
        task: &str,
        node: &str,
        content: Content,
    ) -> Result<(), (StatusCode, String)> {
        let mark = self.certified(caller, node)?;
        self.allowed(node, Some(&mark))?;
        let resource = format!("task/{task}/node/{node}");
        let message = Message::new(ModuleName::CLOUD_HUB, Operation::from(kind), resource.as_str())
            .in_group(Group::TASK_MANAGER)
            .with(content);
        for error in self.bus.publish(&Group::TASK_MANAGER, message).await {
            tracing::warn!(resource, error = %error, "a task report was not delivered");
        }
        Ok(())
    }
}

/// What an old edge says of its upgrade.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Upgrade {
    #[serde(rename = "UpgradeID")]
    upgrade: String,
    node_name: String,
    status: String,
    reason: String,
}

impl Upgrade {
    /// As the report of a task; event and action are those Go makes of it.
    fn as_task(&self) -> Value {
        let (event, action) = match self.status.as_str() {
            "upgrade_failed_rollback_success" => ("Rollback", "Failure"),
            "upgrade_failed_rollback_failed" => ("Rollback", "Success"),
            _ => ("Upgrade", "Success"),
        };
        json!({"NodeName": self.node_name, "Event": event, "Action": action, "Reason": self.reason})
    }
}

fn told(done: Result<(), (StatusCode, String)>) -> Answer {
    done.map_or_else(|(status, why)| text(status, why), |()| text(StatusCode::OK, "ok"))
}

pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A body of this many bytes at most.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err("http: request body too large".into())
        }
        Err(error) => Err(error),
    }
}

fn bad_body(error: BoxError) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("failed to get req body: {error}"))
}

pub(super) fn binary(bytes: Vec<u8>) -> Answer {
    answer(StatusCode::OK, bytes, "application/octet-stream")
}

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    answer(status, text.into(), "text/plain; charset=utf-8")
}

fn answer(status: StatusCode, body: impl Into<Bytes>, media: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_edges_upgrade_is_told_as_go_tells_it() {
        let read = |status: &str| {
            let body = json!({"UpgradeID": "u1", "NodeName": "edge-1", "Status": status, "Reason": "r"});
            let old: Upgrade = serde_json::from_value(body).unwrap();
            assert_eq!((old.upgrade.as_str(), old.node_name.as_str()), ("u1", "edge-1"));
            let task = old.as_task();
            format!("{} {} {}", task["Event"], task["Action"], task["Reason"])
        };
        assert_eq!(read("upgrade_success"), r#""Upgrade" "Success" "r""#);
        assert_eq!(read("upgrade_failed_rollback_success"), r#""Rollback" "Failure" "r""#);
        assert_eq!(read("upgrade_failed_rollback_failed"), r#""Rollback" "Success" "r""#);
    }
}
