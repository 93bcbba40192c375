//! The link: frames that are no messages, operations nobody knows, too much at once, certificates of others.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use kubeedge_core::{
    failure::chain,
    message::{Content, Message, Millis},
    pki::{Authority, Key, Names, Usage},
    transport::{Endpoint, Frame, Link, Transport, TransportKind},
    wire::{Codec, GoJson},
};
use kubeedge_tests::{PATIENCE, Site, skipped, until};
use kubeedge_transport::{WebSocket, WebSocketSettings};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::runs_a_pod;

/// The CA of this site's cloudcore.
fn authority(site: &Site) -> Authority {
    let path = ["-o", "jsonpath={.data.cadata} {.data.cakeydata}"];
    let secret = site.kubectl(&[&["get", "secret", "-n", "kubeedge", "casecret"][..], &path].concat());
    let (certificate, key) = secret.split_once(' ').unwrap();
    let der = |text: &str| STANDARD.decode(text.trim()).unwrap();
    Authority::load(der(certificate), Key::from_der(der(key)).unwrap()).unwrap()
}

/// Dials the hub of a site as this node with the certificate of that one, by this CA.
async fn dial(
    site: &Site,
    ca: &Authority,
    node: &str,
    certified: &str,
) -> Result<Link, kubeedge_core::transport::TransportError> {
    let name = format!("system:node:{certified}");
    let now = Millis::now().0 / 1000 - 60;
    let identity = ca.issue(&name, &["system:nodes"], &Names::default(), Usage::Client, now, 1).unwrap();
    let mut who = identity.credentials();
    who.roots = vec![authority(site).certificate().clone()];
    who.claims = vec![
        ("node_id".into(), node.into()),
        ("project_id".into(), "e632aba927ea4ac2b575ec1603d56f10".into()),
    ];
    // Larger than the cloud takes, to be able to send what it does not.
    let transport = WebSocket::new(WebSocketSettings { max_frame: 64 << 20, ..WebSocketSettings::default() });
    let to = format!("{}/e632aba927ea4ac2b575ec1603d56f10/{node}/events", site.address("CloudHub"));
    transport.dial(&Endpoint::from(to), &who).await
}

async fn say(link: &mut Link, source: &str, operation: &str, resource: &str, content: Content) -> Message {
    let message = Message::new(source.to_owned().into(), operation.to_owned().into(), resource.to_owned())
        .in_group("resource".into())
        .with(content);
    link.tx.send(GoJson.encode(&message).unwrap()).await.unwrap();
    message
}

/// Whether the cloud answers a question on this link.
async fn answers(link: &mut Link) -> bool {
    let asked = say(link, "edged", "query", "kube-node-lease/lease/raw-1", Content::text("")).await;
    let answer = async {
        while let Some(Ok(frame)) = link.rx.next().await {
            let message = GoJson.decode(frame).unwrap();
            if message.header.parent.as_ref() == Some(&asked.header.id) {
                return true;
            }
        }
        false
    };
    timeout(PATIENCE, answer).await.expect("neither an answer nor an end")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_certificate_of_another_node_or_another_cloud_opens_nothing_and_is_told_why() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let (runtime, ours) = (runtime(), authority(&site));
    let refusal = |ca: &Authority, node: &str, certified: &str| {
        runtime.block_on(dial(&site, ca, node, certified)).map(drop).unwrap_err()
    };
    let other = refusal(&ours, "edge-1", "raw-1");
    assert_eq!(other.kind(), TransportKind::Refused);
    let text = chain(&other);
    assert!(
        text.contains("403") && text.contains("system:node:raw-1") && text.contains("system:node:edge-1"),
        "{text}"
    );
    let unnamed = chain(&refusal(&ours, "../etc", "raw-1"));
    assert!(unnamed.contains("not a node name"), "{unnamed}");
    site.kubectl(&["get", "node", "edge-1"]);
    runs_a_pod(&site, "undisturbed");
    let foreign = Authority::kubeedge(Millis::now().0 / 1000 - 60).unwrap();
    let stranger = runtime.block_on(async {
        // With TLS 1.3 the verdict on a client's certificate comes after the client's handshake.
        match dial(&site, &foreign, "raw-1", "raw-1").await {
            Err(error) => error,
            Ok(mut link) => link.rx.next().await.expect("an end without a word").unwrap_err(),
        }
    });
    assert_eq!(stranger.kind(), TransportKind::Untrusted, "{}", chain(&stranger));
    let log = until("the hub's word on the stranger", PATIENCE, || {
        let log = site.said();
        if log.contains("a peer failed its handshake") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("the certificate names"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_is_no_message_ends_its_own_session_and_what_nobody_knows_is_passed_over() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let (runtime, ca) = (runtime(), authority(&site));
    runtime.block_on(async {
        let mut link = dial(&site, &ca, "raw-1", "raw-1").await.unwrap();
        strange_but_legal(&mut link).await;
        assert!(answers(&mut link).await, "a session must outlive what nobody knows");
        drop(link);
        for frame in [
            Frame::text("this is no JSON"),
            Frame::text("[1, 2, 3]"),
            Frame::text(r#"{"header": {"timestamp": "yesterday"}}"#),
            Frame::binary(vec![0xff; 1000]),
            Frame::text("{\"a\":".repeat(100_000)),
        ] {
            let mut link = dial(&site, &ca, "raw-1", "raw-1").await.unwrap();
            link.tx.send(frame).await.unwrap();
            let ended = async { while let Some(Ok(_)) = link.rx.next().await {} };
            timeout(PATIENCE, ended).await.expect("the session must end");
        }
        let mut link = dial(&site, &ca, "raw-1", "raw-1").await.unwrap();
        assert!(answers(&mut link).await, "the node must be able to come again");
    });
    runs_a_pod(&site, "undisturbed");
    let log = site.said();
    assert!(log.contains("a frame that is no message"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Messages of good form that ask for nothing there is.
async fn strange_but_legal(link: &mut Link) {
    for (source, operation, resource) in [
        ("edged", "explode", "default/pod/web"),
        ("nobody", "insert", "nowhere"),
        ("edged", "query", ""),
        ("edged", "query", "////"),
        ("edged", "query", "../../etc/passwd"),
        ("edged", "insert", "null/node/edge-1"),
        ("edgecontroller", "delete", "default/pod/web"),
        ("twin", "update", "device/no/such/twin/edge_updated"),
        ("twin", "get", "🚀"),
        ("metaserver", "query", "/api/v1/nodes"),
        ("edged", "patch", "null/nodepatch/raw-1"),
    ] {
        for content in
            [Content::text(""), Content::text("{"), Content::json(&json!({"a": [null, 1e9]})).unwrap()]
        {
            say(link, source, operation, resource, content).await;
        }
    }
}

#[test]
fn an_oversized_frame_ends_its_own_session_and_a_flood_holds_up_nobody_else() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    let (runtime, ca) = (runtime(), authority(&site));
    let broken = runtime.block_on(async {
        let mut link = dial(&site, &ca, "raw-1", "raw-1").await.unwrap();
        let sent = link.tx.send(Frame::text(vec![b' '; 40 << 20])).await;
        let ended = async { while let Some(Ok(_)) = link.rx.next().await {} };
        timeout(PATIENCE, ended).await.expect("the session must end");
        sent.is_err()
    });
    let log = until("the hub's word on the frame", PATIENCE, || {
        let log = site.said();
        if log.contains("too large") || log.contains("too long") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("raw-1"), "sent: {}; {log}", !broken);
    let link = runtime.block_on(dial(&site, &ca, "raw-1", "raw-1")).unwrap();
    let flood = runtime.spawn(flood(link));
    runs_a_pod(&site, "meanwhile");
    flood.abort();
    assert!(!site.said().contains("panicked"), "{}", site.said());
}

/// Asks and asks and never reads.
async fn flood(mut link: Link) {
    let question = Message::new("edged".into(), "query".into(), "default/configmap/none".to_owned())
        .in_group("resource".into())
        .with(Content::json(&json!({"pad": "x".repeat(10_000)})).unwrap());
    let frame = GoJson.encode(&question).unwrap();
    while link.tx.send(frame.clone()).await.is_ok() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[test]
fn a_node_may_not_touch_what_is_another_nodes() {
    if skipped(&["kubectl"]) {
        return;
    }
    let site = Site::start(&[]);
    runs_a_pod(&site, "victim");
    let uid = site.object("pod", "victim")["metadata"]["uid"].clone();
    let (runtime, ca) = (runtime(), Arc::new(authority(&site)));
    let answer: Vec<Value> = runtime.block_on(async {
        let mut link = dial(&site, &ca, "raw-1", "raw-1").await.unwrap();
        let mut said = Vec::new();
        let precondition = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        for (operation, resource, content) in [
            ("delete", "default/pod/victim", precondition),
            ("patch", "default/podpatch/victim", json!("{\"status\":{\"phase\":\"Failed\"}}")),
            ("patch", "null/nodepatch/edge-1", json!("{\"status\":{\"phase\":\"gone\"}}")),
            ("query", "kubeedge/secret/casecret", Value::Null),
        ] {
            let asked = say(&mut link, "edged", operation, resource, Content::json(&content).unwrap()).await;
            let answer = async {
                loop {
                    let message = GoJson.decode(link.rx.next().await.unwrap().unwrap()).unwrap();
                    if message.header.parent.as_ref() == Some(&asked.header.id) {
                        return message.content.decode().unwrap_or_default();
                    }
                }
            };
            said.push(timeout(PATIENCE, answer).await.expect("no answer"));
        }
        said
    });
    for said in &answer {
        assert!(said.to_string().contains("orbidden"), "{said}");
    }
    let pod = site.object("pod", "victim");
    assert_eq!((&pod["metadata"]["uid"], &pod["status"]["phase"]), (&uid, &json!("Running")));
}
