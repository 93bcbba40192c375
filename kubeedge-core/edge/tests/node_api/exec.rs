use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::node::{Node, WAIT};

type Socket = WebSocketStream<TcpStream>;

/// Connects as kubectl does.
async fn connect(node: &Node, path: &str, protocols: &str) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", node.address).into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let stream = TcpStream::connect(node.address).await?;
    let (socket, answer) = client_async(request, stream).await?;
    let chosen = answer.headers()["sec-websocket-protocol"].to_str().unwrap();
    assert_eq!(chosen, protocols.split(',').next().unwrap());
    Ok(socket)
}

/// Everything said on stdout, on stderr, and the status.
async fn outcome(mut socket: Socket) -> (String, String, Value) {
    let (mut said, mut status) = ([String::new(), String::new()], Value::Null);
    let reading = async {
        while let Some(message) = socket.next().await {
            let Message::Binary(data) = message.unwrap() else { continue };
            let (channel, data) = data.split_first().unwrap();
            let text = String::from_utf8(data.to_vec()).unwrap();
            match channel {
                1 | 2 => said[usize::from(*channel) - 1].push_str(&text),
                3 => status = serde_json::from_str(&text).unwrap(),
                other => panic!("channel {other}"),
            }
        }
    };
    tokio::time::timeout(WAIT, reading).await.expect("the command ends");
    let [out, err] = said;
    (out, err, status)
}

async fn send(socket: &mut Socket, channel: u8, data: &[u8]) {
    let message: Vec<u8> = std::iter::once(channel).chain(data.iter().copied()).collect();
    socket.send(Message::Binary(message.into())).await.unwrap();
}

const BOTH: &str = "v5.channel.k8s.io,v4.channel.k8s.io";

#[tokio::test]
async fn a_command_tells_its_outputs_and_its_exit_code() {
    let node = Node::start().await;
    node.run(0, &["wait"]).await;
    let path = "/exec/default/web/c?command=echo&command=out&command=%3B&command=warn&command=err&command=%3B&command=exit&command=3&output=1&error=1";
    let (out, err, status) = outcome(connect(&node, path, BOTH).await.unwrap()).await;
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err"));
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
    let path = "/exec/default/web/u1/c?command=echo&command=fine&output=1";
    let (out, _, status) = outcome(connect(&node, path, "v4.channel.k8s.io").await.unwrap()).await;
    assert_eq!((out.as_str(), status), ("fine\n", json!({"metadata": {}, "status": "Success"})));
}

#[tokio::test]
async fn input_reaches_the_command_and_its_end_is_told_by_v5() {
    let node = Node::start().await;
    node.run(0, &["wait"]).await;
    let path = "/exec/default/web/c?command=copy&input=1&output=1";
    let mut socket = connect(&node, path, BOTH).await.unwrap();
    let large = vec![b'x'; 300_000];
    for part in large.chunks(32 << 10) {
        send(&mut socket, 0, part).await;
    }
    send(&mut socket, 255, &[0]).await;
    let (out, _, status) = outcome(socket).await;
    assert_eq!((out.len(), status["status"].as_str()), (large.len(), Some("Success")));
}

#[tokio::test]
async fn a_command_that_cannot_start_is_told_on_the_status_channel() {
    let node = Node::start().await;
    node.run(0, &["wait"]).await;
    let path = "/exec/default/web/c?command=no-such-program&output=1";
    let (out, _, status) = outcome(connect(&node, path, BOTH).await.unwrap()).await;
    assert_eq!((out.as_str(), status["reason"].as_str()), ("", Some("InternalError")));
    assert!(status["message"].as_str().unwrap().contains("no-such-program"), "{status}");
}

#[tokio::test]
async fn attaching_shows_what_the_container_says_from_then_on() {
    let node = Node::start().await;
    node.run(0, &["copy"]).await;
    let path = "/attach/default/web/c?input=1&output=1&error=1";
    let mut socket = connect(&node, path, BOTH).await.unwrap();
    send(&mut socket, 0, b"hello").await;
    let reading = async {
        loop {
            let Some(Ok(Message::Binary(data))) = socket.next().await else { panic!("the attachment ended") };
            if data.as_ref() == b"\x01hello" {
                return;
            }
        }
    };
    tokio::time::timeout(WAIT, reading).await.expect("the container answers");
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_refused_with_the_reason() {
    let node = Node::start().await;
    let path = "/exec/default/web/c?command=ls&output=1";
    let refused = |error: Error| match error {
        Error::Http(answer) => {
            let text = String::from_utf8(answer.body().clone().unwrap_or_default()).unwrap();
            (answer.status().as_u16(), text)
        }
        other => panic!("{other}"),
    };
    let (status, why) = refused(connect(&node, path, BOTH).await.unwrap_err());
    assert_eq!((status, why.as_str()), (404, r#"container not found ("c")"#));
    node.run(0, &["wait"]).await;
    let (status, why) = refused(connect(&node, path, "v1.channel.k8s.io").await.unwrap_err());
    assert_eq!(status, 400);
    assert!(why.contains("v5.channel.k8s.io"), "{why}");
    let nothing = "/exec/default/web/c?command=ls";
    let (status, why) = refused(connect(&node, nothing, BOTH).await.unwrap_err());
    assert_eq!((status, why.as_str()), (400, "you must specify at least 1 of stdin, stdout, stderr"));
    assert_eq!(node.get(path).await.0.as_u16(), 400);
}
