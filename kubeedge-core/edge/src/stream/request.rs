//! From what the cloud asks to the request the node's API gets. Pure.

use std::fmt::Write;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use kubeedge_core::tunnel::{Connector, GoUrl};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands for itself in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// A request the cloud makes that cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the cloud's connector is not readable: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the cloud asks for a path or query that cannot be in a request: {0}")]
    Target(#[from] http::uri::InvalidUri),
    #[error("the cloud asks with a method that is none: {0}")]
    Method(#[from] http::method::InvalidMethod),
}

/// A request for the node's API.
#[derive(Debug)]
pub(crate) struct Local {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl Local {
    /// Reads a connector. Its host is not looked at: there is one API only.
    pub(crate) fn read(data: &[u8]) -> Result<Self, RequestError> {
        let connector: Connector = serde_json::from_slice(data)?;
        let method = match &connector.method {
            Some(method) => Method::from_bytes(method.as_bytes())?,
            None => Method::GET,
        };
        Ok(Self { method, target: target(&connector.url)?, headers: headers(&connector) })
    }

    /// The request for a body: a plain GET.
    pub(crate) fn plain(mut self) -> Self {
        for name in [CONNECTION, UPGRADE] {
            self.headers.remove(name);
        }
        // The bytes go on as they come.
        self.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self { method: Method::GET, ..self }
    }

    /// The request as it is written to a connection.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = String::new();
        // Writing to a String does not fail.
        let _ = write!(head, "{} {} HTTP/1.1\r\n", self.method, self.target);
        let mut head = head.into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn target(url: &GoUrl) -> Result<PathAndQuery, http::uri::InvalidUri> {
    let path = match url.raw_path.as_str() {
        "" => utf8_percent_encode(&url.path, PATH).to_string(),
        raw => raw.to_owned(),
    };
    let path = path.trim_start_matches('/');
    if url.raw_query.is_empty() {
        format!("/{path}").parse()
    } else {
        format!("/{path}?{}", url.raw_query).parse()
    }
}

/// The caller's headers; those that cannot be headers are left out, and so are those that speak of another
/// connection.
fn headers(connector: &Connector) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in &connector.header {
        let Ok(name) = HeaderName::try_from(name) else { continue };
        if [HOST, ORIGIN, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            continue;
        }
        for value in values.iter().filter_map(|value| HeaderValue::try_from(value).ok()) {
            headers.append(name.clone(), value);
        }
    }
    headers.insert(HOST, HeaderValue::from_static("127.0.0.1:10350"));
    headers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(path: &str, query: &str, header: serde_json::Value) -> Result<Local, RequestError> {
        let url = GoUrl::to_kubelet(path, query);
        let connector = json!({"MessID": 1, "url": url, "header": header, "method": "POST"});
        Local::read(connector.to_string().as_bytes())
    }

    #[test]
    fn a_request_is_written_as_the_caller_made_it() {
        let header = json!({"Upgrade": ["SPDY/3.1"], "Connection": ["Upgrade"], "Origin": ["http://x"], "Host": ["y"], "Content-Length": ["5"]});
        let local = read("/exec/default/web/a b", "command=ls&command=%2Fetc", header).unwrap();
        let head = String::from_utf8(local.head()).unwrap();
        assert!(head.starts_with("POST /exec/default/web/a%20b?command=ls&command=%2Fetc HTTP/1.1\r\n"));
        assert!(head.contains("upgrade: SPDY/3.1\r\n") && head.ends_with("\r\n\r\n"));
        assert!(!head.contains("origin") && !head.contains("content-length") && head.contains("host: 127"));
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_request() {
        assert!(read("/a", "x=1 HTTP/1.1\r\nEvil: 1", json!({})).is_err());
        let head =
            read("/a\r\nEvil: 1", "", json!({"Good": ["1\r\nEvil: 2"], "Ev il": ["3"]})).unwrap().head();
        let head = String::from_utf8(head).unwrap();
        assert_eq!(head, "POST /a%0D%0AEvil:%201 HTTP/1.1\r\nhost: 127.0.0.1:10350\r\n\r\n");
    }
}
