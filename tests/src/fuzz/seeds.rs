//! Where fuzzers start: what Go peers were recorded to say, the manifests of the quickstart, and
//! certificates.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kubeedge_core::{
    message::json,
    pki::{Key, Names, Usage, node_request, sign_token, split_token, to_pem},
    transport::Frame,
};
use serde_json::{Value, json};

use super::{
    api::REQUESTS,
    pki::{NOW, authority},
};

const FRAMES: &str = include_str!("../../../kubeedge-core/tests/data/frames.jsonl");
const CLOUD_FRAMES: &str = include_str!("../../../kubeedge-core/edge/tests/data/go-cloud-frames.jsonl");
const TUNNEL: &str = include_str!("../../../kubeedge-core/tests/data/tunnel.txt");
const TUNNEL_FRAMES: &str = include_str!("../../../kubeedge-core/edge/tests/data/tunnel-frames.jsonl");
const MANIFESTS: [&str; 4] = [
    include_str!("../../../examples/quickstart/10-config.yaml"),
    include_str!("../../../examples/quickstart/20-pod.yaml"),
    include_str!("../../../examples/quickstart/30-deployment.yaml"),
    include_str!("../../../examples/quickstart/40-device.yaml"),
];

/// What the target of this name starts from.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "websocket" => frames().into_iter().flat_map(|frame| websocket(frame.as_bytes())).collect(),
        "message" => frames().into_iter().flat_map(messages).collect(),
        "resource" => resources(),
        "pki" => pki(),
        "join" => join(),
        "api" => api(),
        "protobuf" => protobufs(),
        "exec" => exec(),
        "tunnel" => tunnel(),
        other => panic!("no target is named {other:?}"),
    }
}

fn frames() -> Vec<&'static str> {
    FRAMES.lines().chain(CLOUD_FRAMES.lines()).collect()
}

/// A message in both forms.
fn messages(frame: &str) -> Vec<Vec<u8>> {
    let codec = super::compact();
    let compact =
        codec.decode(Frame::text(frame.as_bytes().to_vec())).and_then(|message| codec.encode(&message));
    let compact = compact.map(|frame| frame.payload.to_vec());
    std::iter::once(frame.as_bytes().to_vec()).chain(compact).collect()
}

/// A frame of a client: whole, in two fragments, and after a ping.
fn websocket(payload: &[u8]) -> [Vec<u8>; 3] {
    let masked = |first: u8, payload: &[u8]| {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(0x80 | short as u8),
            middle @ 126..=0xffff => out.extend([&[0xfe][..], &(middle as u16).to_be_bytes()].concat()),
            long => out.extend([&[0xff][..], &(long as u64).to_be_bytes()].concat()),
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    };
    let (head, tail) = payload.split_at(payload.len() / 2);
    let whole = masked(0x81, payload);
    [
        whole.clone(),
        [masked(0x01, head), masked(0x80, tail)].concat(),
        [masked(0x89, b"ping you"), whole, masked(0x88, &[])].concat(),
    ]
}

fn resources() -> Vec<Vec<u8>> {
    let of = |frame: &str| json::decode(&Bytes::copy_from_slice(frame.as_bytes())).ok();
    let resources = frames().into_iter().filter_map(of).map(|message| message.route.resource);
    let mut all: Vec<_> = resources.map(|resource| resource.as_str().as_bytes().to_vec()).collect();
    all.push(b"containerLogs/default/web/c?follow=true&tailLines=10".to_vec());
    all.sort();
    all.dedup();
    all
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag], bytes].concat()
}

fn pki() -> Vec<Vec<u8>> {
    let authority = authority();
    let identity = authority
        .issue("system:node:edge-1", &["system:nodes"], &Names::default(), Usage::Client, NOW, 1)
        .expect("an identity");
    let key = Key::generate().expect("a key");
    let token = sign_token(&authority, NOW + 1);
    vec![
        tagged(0, &identity.certificate),
        tagged(0, authority.certificate()),
        tagged(1, &node_request("edge-1", &key).expect("a request")),
        tagged(2, key.sec1()),
        tagged(3, key.to_pem().as_bytes()),
        tagged(3, to_pem("CERTIFICATE", authority.certificate()).as_bytes()),
        tagged(4, token.as_bytes()),
        tagged(4, split_token(&token).expect("a token").1.as_bytes()),
    ]
}

fn join() -> Vec<Vec<u8>> {
    let authority = authority();
    let identity = authority
        .issue(
            "system:node:edge-1",
            &["system:nodes"],
            &Names::default(),
            Usage::Client,
            NOW - 900_000_000,
            9999,
        )
        .expect("an identity");
    let token = sign_token(&authority, NOW + 900_000_000);
    let jwt = split_token(&token).expect("a token").1;
    let csr = node_request("edge-1", &Key::generate().expect("a key")).expect("a request");
    let shown = to_pem("CERTIFICATE", &identity.certificate).replace('\n', "|");
    let with = |head: String, body: &[u8]| [head.as_bytes(), b"\n\n", body].concat();
    vec![
        with(format!("GET /edge.crt\nauthorization: Bearer {jwt}\nnodename: edge-1"), &csr),
        with(format!("GET /edge.crt\nshown: {shown}\nnodename: edge-1\nextkeyusages: [1, 2]"), &csr),
        with("GET /ca.crt".to_owned(), b""),
        with("GET /node/edge-1".to_owned(), b""),
        with("POST /nodeupgrade".to_owned(), br#"{"UpgradeID":"u","NodeName":"edge-1"}"#),
        with("POST /task/upgrade/name/t/node/edge-1/status".to_owned(), br#"{"Event":"Upgrade"}"#),
    ]
}

/// The objects within recorded messages and manifests, for every kind of request.
fn api() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = MANIFESTS
        .iter()
        .flat_map(|file| file.split("\n---"))
        .map(|document| document.as_bytes().to_vec())
        .collect();
    for frame in frames() {
        let content = serde_json::from_str::<Value>(frame).unwrap_or_default()["content"].take();
        let body = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        if body.starts_with('{') && body.len() < 4000 {
            bodies.push(body.into_bytes());
        }
    }
    for more in [
        json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}, {"op": "copy", "from": "/metadata", "path": "/spec/x"}]),
        json!({"gracePeriodSeconds": 5, "preconditions": {"uid": "u"}, "propagationPolicy": "Background"}),
        json!({"spec": {"expirationSeconds": 3600, "boundObjectRef": {"kind": "Pod", "name": "a"}}}),
        json!({"spec": {"replicas": 3}}),
        json!({"spec": {"containers": [{"name": "c", "$patch": "delete"}], "$setElementOrder/containers": [{"name": "c"}], "$retainKeys": ["containers"]}}),
    ] {
        bodies.push(more.to_string().into_bytes());
    }
    let requests = 0..u8::try_from(REQUESTS.len()).unwrap_or(0);
    let mut all: Vec<_> =
        bodies.iter().enumerate().map(|(at, body)| tagged((at % REQUESTS.len()) as u8, body)).collect();
    all.extend(
        requests.flat_map(|request| bodies.iter().rev().take(6).map(move |body| tagged(request, body))),
    );
    all.extend(protobufs().iter().map(|body| tagged(2, body)));
    all
}

fn protobufs() -> Vec<Vec<u8>> {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let body = |version: &[u8], kind: &[u8], object: &[u8]| {
        let of = [field(1, version), field(2, kind)].concat();
        [b"k8s\0".to_vec(), field(1, &of), field(2, object)].concat()
    };
    let meta =
        [field(1, b"p"), field(2, b""), field(11, &[field(1, b"k"), field(2, b"v")].concat())].concat();
    let secret =
        [field(1, &meta), field(2, &[field(1, b"f"), field(2, b"\0\x01")].concat()), field(3, b"Opaque")];
    let deployment =
        [field(1, &meta), field(2, &[vec![8, 3], field(2, &field(1, &field(1, b"k")))].concat())];
    vec![
        body(b"v1", b"Secret", &secret.concat()),
        body(b"apps/v1", b"Deployment", &deployment.concat()),
        body(b"v1", b"DeleteOptions", &[8, 0]),
    ]
}

fn exec() -> Vec<Vec<u8>> {
    let message = |data: &[u8]| [&(data.len() as u16).to_be_bytes(), data].concat();
    let size = br#"_{"Width":80,"Height":24}"#.map(|byte| if byte == b'_' { 4 } else { byte });
    let talk = [message(b"\0ls -l\n"), message(&size), message(b"\xff\0")].concat();
    vec![tagged(0, &talk), tagged(1, &talk), tagged(1, &message(b"\0"))]
}

fn tunnel() -> Vec<Vec<u8>> {
    let pair = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap_or_default(), 16).ok();
    let hex = |line: &str| {
        let digits = line.split_once(' ').map(|(_, digits)| digits.as_bytes()).unwrap_or_default();
        digits.chunks(2).filter_map(pair).collect()
    };
    let recorded = TUNNEL_FRAMES.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        STANDARD.decode(line["b64"].as_str()?).ok()
    });
    TUNNEL.lines().map(hex).chain(recorded).collect()
}
