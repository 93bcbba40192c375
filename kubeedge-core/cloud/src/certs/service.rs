//! What the HTTPS service answers.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use kubeedge_core::{
    bus::Bus,
    message::{Content, Message},
    name::{Group, ModuleName, Operation},
    pki::{Authority, Leaf, Usage, node_of, verify_token},
};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use super::unix_now;
use crate::cluster::{self, Clients, api_path};

/// The largest certificate signing request.
const MAX_CSR: usize = 1 << 20;
/// The largest report of a task.
const MAX_REPORT: usize = 3 << 20;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) from: SocketAddr,
    /// The certificate shown; the caller holds its key, nothing else is known of it.
    pub(super) certificate: Option<CertificateDer<'static>>,
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) authority: Arc<Authority>,
    pub(super) clients: Arc<Clients>,
    pub(super) bus: Bus,
    pub(super) days: u32,
    pub(super) refusals: Refusals,
}

type Answer = Response<Full<Bytes>>;

impl Service {
    pub(super) async fn answer<B>(&self, caller: &Caller, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<kubeedge_core::failure::BoxError>,
    {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        match (&parts.method, path.as_slice()) {
            (&Method::GET, ["ca.crt"]) => binary(self.authority.certificate().to_vec()),
            (&Method::GET, ["edge.crt"]) => match read(body, MAX_CSR).await {
                Ok(csr) => self.certificate(caller, &parts.headers, &csr),
                Err(refused) => refused,
            },
            (&Method::GET, ["node", name]) => self.node(name).await,
            (&Method::GET, ["healthz" | "readyz" | "livez"]) => text(StatusCode::OK, "ok"),
            (&Method::POST, ["nodeupgrade"]) => match read(body, MAX_REPORT).await {
                Ok(report) => self.upgrade_report(report).await,
                Err(refused) => refused,
            },
            (&Method::POST, ["task", kind, "name", task, "node", node, "status"]) => {
                let resource = format!("{kind}/{task}/node/{node}");
                match read(body, MAX_REPORT).await {
                    Ok(report) => self.report(kind, &resource, report).await,
                    Err(refused) => refused,
                }
            }
            (_, ["ca.crt" | "edge.crt" | "nodeupgrade"]) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
            _ => text(StatusCode::NOT_FOUND, "404: Page Not Found"),
        }
    }

    /// A certificate for a node: authorised by the one it has, or by a token.
    fn certificate(&self, caller: &Caller, headers: &HeaderMap, csr: &[u8]) -> Answer {
        let node = header_text(headers, "nodename");
        if let Err(why) = self.authorize(caller, headers, node) {
            self.refusals.log(caller, node, &why);
            return text(StatusCode::UNAUTHORIZED, why);
        }
        match self.sign(headers, node, csr) {
            Ok(der) => {
                tracing::info!(node, peer = %caller.from, "signed a certificate");
                binary(der)
            }
            Err((status, why)) => {
                self.refusals.log(caller, node, &why);
                text(status, why)
            }
        }
    }

    fn authorize(&self, caller: &Caller, headers: &HeaderMap, node: &str) -> Result<(), String> {
        let Some(shown) = &caller.certificate else {
            let authorization = header_text(headers, header::AUTHORIZATION.as_str());
            return check_token(&self.authority, authorization, unix_now());
        };
        let wrong =
            |why: &str| Err(format!("failed to verify the certificate for edgenode: {node}, err: {why}"));
        if !Leaf::is_client_of(shown, self.authority.certificate(), unix_now()) {
            return wrong("it is not of this CA, not for clients, or not valid now");
        }
        let Ok(leaf) = Leaf::read(shown) else { return wrong("it cannot be read") };
        let organization = leaf.organizations.first().map(String::as_str).unwrap_or_default();
        let of_node = organization == "system:nodes" && node_of(&leaf.common_name) == Some(node);
        let of_old_edge = organization == "KubeEdge" && leaf.common_name == "kubeedge.io";
        if of_node || of_old_edge {
            return Ok(());
        }
        wrong(&format!("it is of O={organization}, CN={}", leaf.common_name))
    }

    /// Go signs any name for anyone with a token; here a token is good for the node it is used for.
    fn sign(&self, headers: &HeaderMap, node: &str, csr: &[u8]) -> Result<Vec<u8>, (StatusCode, String)> {
        let bad = |why: String| (StatusCode::BAD_REQUEST, why);
        let usage = match header_text(headers, "extkeyusages") {
            "" => Some(Usage::Client),
            list => serde_json::from_str::<Vec<i64>>(list).ok().and_then(|list| Usage::from_go(&list)),
        };
        let usage = usage.ok_or_else(|| {
            bad("ExtKeyUsages must be a list of 1 (server) and 2 (client authentication)".to_owned())
        })?;
        let signed = self.authority.sign(csr, usage, unix_now(), self.days.into()).map_err(|error| {
            let why = format!("fail to sign certificate for edgenode {node}: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, why)
        })?;
        let name = Leaf::read(&signed).map(|leaf| leaf.common_name).unwrap_or_default();
        if node_of(&name) != Some(node) {
            return Err(bad(format!("the request is for {name:?}, the header NodeName says {node:?}")));
        }
        Ok(signed.to_vec())
    }

    async fn node(&self, name: &str) -> Answer {
        if !crate::hub::is_node_name(name) {
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
    async fn upgrade_report(&self, report: Bytes) -> Answer {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        #[derive(Default)]
        struct Names {
            #[serde(rename = "UpgradeID")]
            upgrade: String,
            node_name: String,
        }
        let names: Names = match serde_json::from_slice(&report) {
            Ok(names) => names,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let resource = format!("upgrade/{}/node/{}", names.upgrade, names.node_name);
        self.report("upgrade", &resource, report).await
    }

    async fn report(&self, kind: &str, resource: &str, report: Bytes) -> Answer {
        let content = match Content::from_json_bytes(report) {
            Ok(content) => content,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let message = Message::new(ModuleName::TASK_MANAGER, Operation::from(kind), resource)
            .in_group(Group::TASK_MANAGER)
            .with(content);
        for error in self.bus.publish(&Group::TASK_MANAGER, message).await {
            tracing::warn!(resource, error = %error, "a task report was not delivered");
        }
        text(StatusCode::OK, "ok")
    }
}

/// Checks the header `Authorization: <scheme> <JWT>`; the texts are Go's.
fn check_token(authority: &Authority, authorization: &str, now: i64) -> Result<(), String> {
    let failed = |why: &str| Err(format!("token validation failure, {why}"));
    if authorization.is_empty() {
        return failed("token is empty");
    }
    let words: Vec<_> = authorization.split(' ').collect();
    let [_, jwt] = words.as_slice() else { return failed("token cannot be split") };
    match verify_token(authority, jwt, now) {
        Ok(()) => Ok(()),
        Err(error) => failed(&format!("err: {error}")),
    }
}

/// Logs refusals, one a second at most, so that nobody fills the disk by knocking.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<(Option<Instant>, u64)>);

impl Refusals {
    fn log(&self, caller: &Caller, node: &str, why: &str) {
        let mut state = self.0.lock();
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| last.elapsed().as_secs() < 1) {
            *unsaid += 1;
            return;
        }
        let node: String = node.chars().take(253).collect();
        tracing::warn!(peer = %caller.from, node, why, unsaid = *unsaid, "refused a certificate");
        (*last, *unsaid) = (Some(Instant::now()), 0);
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn read<B>(body: B, limit: usize) -> Result<Bytes, Answer>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<kubeedge_core::failure::BoxError>,
{
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(text(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

fn binary(bytes: Vec<u8>) -> Answer {
    Response::new(Full::from(bytes))
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::from(text.into()));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

#[cfg(test)]
mod tests {
    use kubeedge_core::pki::{sign_token, split_token};

    use super::*;

    #[test]
    fn only_a_token_of_this_ca_that_holds_is_taken_and_the_texts_are_gos() {
        let (ours, other) = (Authority::kubeedge(0).unwrap(), Authority::kubeedge(0).unwrap());
        let bearer = |authority: &Authority, expires| {
            let token = sign_token(authority, expires);
            format!("Bearer {}", split_token(&token).unwrap().1)
        };
        assert_eq!(check_token(&ours, &bearer(&ours, 100), 99), Ok(()));
        let refused = |text: &str| check_token(&ours, text, 99).unwrap_err();
        assert_eq!(refused(""), "token validation failure, token is empty");
        assert_eq!(refused("abc"), "token validation failure, token cannot be split");
        assert_eq!(refused("Bearer a b"), "token validation failure, token cannot be split");
        for bad in [bearer(&other, 100), bearer(&ours, 99), "Bearer x".to_owned(), "Bearer ..".to_owned()] {
            assert!(refused(&bad).starts_with("token validation failure, err: "), "{bad}");
        }
    }
}
