//! Certificates, requests, keys, tokens, and the HTTPS service that takes them.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use kubeedge_cloud::fuzz::Certificates;
use kubeedge_core::pki::{self, Authority, Key, Leaf, Usage};
use tokio::runtime::Runtime;

use super::api::{cluster, runtime};

/// A moment at which what seeds are made of is good.
pub(super) const NOW: i64 = 1_800_000_000;

thread_local! {
    static AUTHORITY: Authority = authority();
    static SERVICE: (Runtime, Certificates) = service();
}

/// The same authority in every process, so that a corpus stays good.
pub(super) fn authority() -> Authority {
    let read =
        |name: &str, text: &'static str| pki::from_pem(text, &["CERTIFICATE", "EC PRIVATE KEY"]).expect(name);
    let (certificate, key) = (include_str!("ca.crt"), include_str!("ca.key"));
    let key = Key::from_der(read("key", key)).expect("the key is good");
    Authority::load(read("certificate", certificate), key).expect("key and certificate go together")
}

fn service() -> (Runtime, Certificates) {
    let runtime = runtime();
    let service = runtime.block_on(async { Certificates::new(authority(), Arc::new(cluster().await)) });
    (runtime, service)
}

/// By the first byte: a certificate, a request, a key, PEM, or a token. What is signed names whom the request
/// names and is no authority; what is read as a key is a key when it is written.
pub fn pki(bytes: &[u8]) {
    let Some((first, input)) = bytes.split_first() else { return };
    let text = std::str::from_utf8(input).unwrap_or_default();
    AUTHORITY.with(|authority| match first % 5 {
        0 => {
            let _ = Leaf::read(input).map(|leaf| pki::node_of(&leaf.common_name).map(str::len));
            let _ = Leaf::is_client_of(input, authority.certificate(), NOW);
        }
        1 => {
            if let Ok(signed) = authority.sign(input, Usage::Client, NOW, 1) {
                let leaf = Leaf::read(&signed).expect("what was signed is a certificate");
                assert!(!leaf.is_ca, "a request made itself an authority");
                assert!(Leaf::is_client_of(&signed, authority.certificate(), NOW));
            }
        }
        2 => {
            if let Ok(key) = Key::from_der(input.to_vec()) {
                assert_eq!(Key::from_pem(&key.to_pem()).expect("its PEM is read"), key);
            }
        }
        3 => {
            let _ = (Key::from_pem(text), pki::from_pem(text, &["CERTIFICATE"]));
        }
        _ => {
            let _ = (pki::split_token(text), pki::token_names_ca(text, authority.certificate()));
            if pki::verify_token(authority, text, NOW).is_ok() {
                assert_eq!(text.split('.').count(), 3);
            }
        }
    });
}

/// A request to the HTTPS service: method, path and headers in lines, a blank line, and the body. A
/// certificate is given to none who shows neither a token nor a certificate of the authority.
pub fn join(bytes: &[u8]) {
    let at = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = bytes.split_at(at.unwrap_or(bytes.len()));
    let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap_or_default().split_once(' ').unwrap_or(("GET", "/edge.crt"));
    let (mut request, mut shown) = (Request::builder().method(method).uri(path), None);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name == "shown" {
            shown = pki::from_pem(&value.replace('|', "\n"), &["CERTIFICATE"]).ok();
        } else {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(Full::new(body)) else { return };
    let is_join = request.uri().path() == "/edge.crt";
    let has_proof = shown.is_some() || request.headers().contains_key("authorization");
    let answer = SERVICE.with(|(runtime, service)| runtime.block_on(service.answer(shown, request)));
    assert!(has_proof || !is_join || !answer.status().is_success(), "a certificate for nothing");
}
