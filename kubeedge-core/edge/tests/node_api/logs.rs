use std::{io::Write, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kubeedge_core::runtime::ContainerRuntime;
use tokio::net::TcpStream;

use crate::node::{Node, WAIT};

#[tokio::test]
async fn a_log_is_read_whole_in_part_and_of_the_run_before() {
    let node = Node::start().await;
    let first = node.run(0, &["echo", "one", ";", "warn", "two\n", ";", "exit", "3"]).await;
    node.ended(&first).await;
    assert_eq!(node.log("").await, (StatusCode::OK, "one\ntwo\n".into()));
    assert_eq!(node.log("tailLines=1").await.1, "two\n");
    assert_eq!(node.log("limitBytes=5").await.1, "one\nt");
    assert_eq!(node.log("stream=Stderr").await.1, "two\n");
    assert_eq!(node.log("sinceTime=2999-01-01T00:00:00Z").await, (StatusCode::OK, String::new()));
    let (_, stamped) = node.log("timestamps=true&tailLines=1").await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!((time.len(), text), ("2026-01-01T00:00:00.000000000Z".len(), "two\n"));
    let second = node.run(1, &["echo", "again", ";", "wait"]).await;
    let expected = (StatusCode::OK, "one\ntwo\n".to_owned());
    assert_eq!(node.log("previous=true").await, expected);
    node.said("again\n").await;
    node.runtime.stop_container(&second, Duration::ZERO).await.unwrap();
    // Ended without a word on following: what is there, at once.
    assert_eq!(node.log("follow=true").await.1, "again\n");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_told_as_the_kubelet_tells_it() {
    let node = Node::start().await;
    let waiting = r#"container "c" in pod "web" is waiting to start: ContainerCreating"#;
    assert_eq!(node.log("").await, (StatusCode::BAD_REQUEST, waiting.into()));
    let previous = r#"previous terminated container "c" in pod "web" not found"#;
    assert_eq!(node.log("previous=true").await, (StatusCode::BAD_REQUEST, previous.into()));
    let (status, why) = node.get("/containerLogs/default/web/other").await;
    assert_eq!(
        (status, why.as_str()),
        (StatusCode::NOT_FOUND, r#"container "other" not found in pod "web""#)
    );
    let (status, why) = node.get("/containerLogs/default/gone/c").await;
    assert_eq!((status, why.as_str()), (StatusCode::NOT_FOUND, r#"pod "gone" does not exist"#));
    assert_eq!(node.log("tailLines=x").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(node.log("limitBytes=-1").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

async fn followed(node: &Node) -> hyper::body::Incoming {
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/containerLogs/default/web/c?follow=true").header("host", "node");
    let answer = send.send_request(request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap());
    tokio::time::timeout(WAIT, answer).await.unwrap().unwrap().into_body()
}

async fn until(body: &mut hyper::body::Incoming, seen: &mut String, end: &str) {
    let reading = async {
        while !seen.ends_with(end) {
            let frame = body.frame().await.expect("the log goes on").unwrap();
            seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(WAIT, reading).await.expect("the log comes");
}

#[tokio::test]
async fn a_followed_log_goes_on_through_a_rotation_and_ends_with_the_container() {
    let node = Node::start().await;
    let container = node.run(0, &["wait"]).await;
    let path = node.logs.join("c/0.log");
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout P tw");
    let (mut body, mut seen) = (followed(&node).await, String::new());
    until(&mut body, &mut seen, "one\n").await;
    append("o\n2026-01-01T00:00:02Z stdout F !\n");
    until(&mut body, &mut seen, "two!\n").await;
    append("2026-01-01T00:00:03Z stdout F last of the old\n");
    std::fs::rename(&path, node.logs.join("c/0.log.20260101")).unwrap();
    append("2026-01-01T00:00:04Z stdout F first of the new\n");
    until(&mut body, &mut seen, "first of the new\n").await;
    append("2026-01-01T00:00:05Z stdout F farewell\n");
    node.runtime.stop_container(&container, Duration::ZERO).await.unwrap();
    let rest = tokio::time::timeout(WAIT, body.collect()).await.expect("the log ends").unwrap().to_bytes();
    seen.push_str(std::str::from_utf8(&rest).unwrap());
    assert_eq!(seen, "one\ntwo!\nlast of the old\nfirst of the new\nfarewell\n");
}

#[tokio::test]
async fn health_and_pods_are_told_and_unknown_paths_are_not() {
    let node = Node::start().await;
    assert_eq!(node.get("/healthz/syncloop").await, (StatusCode::OK, "ok".into()));
    let list: serde_json::Value = serde_json::from_str(&node.get("/pods").await.1).unwrap();
    assert_eq!(list["kind"], "PodList");
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
    assert_eq!(node.get("/stats/summary").await.0, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(node.get("/configz").await.0, StatusCode::NOT_FOUND);
}
