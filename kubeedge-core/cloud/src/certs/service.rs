//! What the HTTPS service answers. Statuses and texts are Go's.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use kubeedge_common::{
    http::{BodyError, read_body},
    log::{Seldom, shown},
};
use kubeedge_core::{bus::Bus, failure::BoxError, name::is_node_name, pki::Leaf};
use rustls::pki_types::CertificateDer;

use super::signing::{Refused, Signer};
use crate::{
    cluster::{Clients, api_path},
    tasks::{MAX_REPORT, Report},
};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) from: SocketAddr,
    /// The certificate shown; the caller holds its key, nothing else is known of it.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) signer: Signer,
    pub(crate) clients: Arc<Clients>,
    pub(crate) bus: Bus,
    /// Lines about those who get nothing.
    pub(crate) refusals: Seldom,
}

pub(super) type Answer = Response<Full<Bytes>>;

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    CaCertificate,
    NodeCertificate,
    /// Whether there is a Node of this name.
    Node(&'a str),
    Health,
    /// The report of an old edge about its upgrade.
    OldUpgrade,
    TaskReport {
        kind: &'a str,
        task: &'a str,
        node: &'a str,
    },
}

impl<'a> Route<'a> {
    /// The table: a path, its method, and what is served there.
    fn of(method: &Method, path: &'a str) -> Result<Self, StatusCode> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (takes, route) = match *segments.as_slice() {
            ["ca.crt"] => (Method::GET, Self::CaCertificate),
            ["edge.crt"] => (Method::GET, Self::NodeCertificate),
            ["node", name] => (Method::GET, Self::Node(name)),
            ["healthz" | "readyz" | "livez"] => (Method::GET, Self::Health),
            ["nodeupgrade"] => (Method::POST, Self::OldUpgrade),
            ["task", kind, "name", task, "node", node, "status"] => {
                (Method::POST, Self::TaskReport { kind, task, node })
            }
            _ => return Err(StatusCode::NOT_FOUND),
        };
        match route {
            _ if *method == takes => Ok(route),
            Self::Health => Err(StatusCode::NOT_FOUND),
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

impl Service {
    pub(crate) async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        match Route::of(&parts.method, parts.uri.path()) {
            Ok(Route::CaCertificate) => binary(self.signer.authority.certificate().to_vec()),
            Ok(Route::NodeCertificate) => self.certificate(caller, &parts.headers, body).await,
            Ok(Route::Node(name)) => self.node(name).await,
            Ok(Route::Health) => text(StatusCode::OK, "ok"),
            Ok(Route::OldUpgrade) => told(self.upgrade_report(caller, body).await),
            Ok(Route::TaskReport { kind, task, node }) => {
                told(self.task_report(caller, (kind, task, node), body).await)
            }
            Err(status) if status == StatusCode::METHOD_NOT_ALLOWED => {
                text(status, "405: Method Not Allowed")
            }
            Err(status) => text(status, "404: Page Not Found"),
        }
    }

    /// Logs a refusal, with no more lines than are good.
    fn tell(&self, caller: &Caller, node: &str, why: &str) {
        if let Some(unsaid) = self.refusals.line(&caller.from.ip().to_string()) {
            let (node, why) = (shown(node), shown(why));
            tracing::warn!(peer = %caller.from, %node, %why, unsaid, "refused a request");
        }
    }

    async fn node(&self, name: &str) -> Answer {
        if !is_node_name(name) {
            return text(StatusCode::BAD_REQUEST, "Invalid node name");
        }
        match self.clients.ours().get(&api_path("/api/v1", &["nodes", name])).await {
            Ok(_) => text(StatusCode::OK, "Node found"),
            Err(status) if status.is_not_found() => text(StatusCode::NOT_FOUND, "Node not found"),
            Err(status) => {
                tracing::warn!(node = name, error = %status, "a node was not looked up");
                text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to query node information")
            }
        }
    }

    /// A certificate for a node: authorised by the one it has, or by a token.
    async fn certificate<B>(&self, caller: &Caller, headers: &HeaderMap, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let node = header_text(headers, "nodename");
        match self.signer.certify(caller, headers, node, body).await {
            Ok(der) => {
                let serial = Leaf::read(&der).map(|leaf| leaf.serial).unwrap_or_default();
                tracing::info!(node, serial, peer = %caller.from, "signed a certificate");
                binary(der)
            }
            Err((status, why)) => {
                self.tell(caller, node, &why);
                text(status, why)
            }
        }
    }

    /// The report of an old edge about its upgrade; it names task and node itself.
    async fn upgrade_report<B>(&self, caller: &Caller, body: B) -> Result<(), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        // The node is named in the body: who shows nothing is not listened to.
        if caller.certificate.is_none() {
            self.signer.certified(caller, "").map(drop)?;
        }
        let body = read(body, MAX_REPORT).await.map_err(bad_body)?;
        self.pass_on(caller, Report::of_old_upgrade(&body)).await
    }

    async fn task_report<B>(
        &self,
        caller: &Caller,
        (kind, task, node): (&str, &str, &str),
        body: B,
    ) -> Result<(), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        self.signer.certified(caller, node).map(drop)?;
        let body = read(body, MAX_REPORT).await.map_err(bad_body)?;
        self.pass_on(caller, Report::of_task(kind, task, node, body)).await
    }

    /// Passes a report on. Go believes everybody; here a report is the node's own, as its certificate says.
    async fn pass_on(&self, caller: &Caller, report: Result<Report, String>) -> Result<(), Refused> {
        let report = report.map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        let mark = self.signer.certified(caller, &report.node)?;
        self.signer.allowed(&report.node, Some(&mark))?;
        report.publish(&self.bus).await;
        Ok(())
    }
}

fn told(done: Result<(), Refused>) -> Answer {
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
    read_body(body, limit).await.map_err(|error| match error {
        BodyError::TooLarge { .. } => "http: request body too large".into(),
        BodyError::Broken(error) => error,
    })
}

fn bad_body(error: BoxError) -> Refused {
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
    fn each_path_is_served_with_its_own_method_only() {
        let report = Route::TaskReport { kind: "upgrade", task: "t", node: "n" };
        for (path, method, route) in [
            ("/ca.crt", Method::GET, Route::CaCertificate),
            ("//edge.crt", Method::GET, Route::NodeCertificate),
            ("/node/edge-1", Method::GET, Route::Node("edge-1")),
            ("/nodeupgrade", Method::POST, Route::OldUpgrade),
            ("/task/upgrade/name/t/node/n/status", Method::POST, report),
        ] {
            assert_eq!(Route::of(&method, path), Ok(route), "{path}");
            assert_eq!(Route::of(&Method::PUT, path), Err(StatusCode::METHOD_NOT_ALLOWED), "{path}");
        }
        for path in ["/healthz", "/readyz", "/livez"] {
            assert_eq!(Route::of(&Method::GET, path), Ok(Route::Health));
            assert_eq!(Route::of(&Method::POST, path), Err(StatusCode::NOT_FOUND), "{path}");
        }
        for path in ["/", "/node", "/node/a/b", "/task/upgrade/name/t/node/n", "/ca.crt/"] {
            assert_eq!(Route::of(&Method::GET, path), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }
}
