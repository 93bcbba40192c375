//! An edge that behaves: it asks, and is answered.

use std::{net::SocketAddr, time::Duration};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use kubeedge_core::{
    message::{Content, Message},
    pki::Identity,
    transport::{Endpoint, Frame, Link, Transport, TransportError},
    wire::{Codec, GoJson},
};
use kubeedge_tests::PATIENCE;
use kubeedge_transport::{WebSocket, WebSocketSettings};
use tokio::{sync::mpsc, time::timeout};

/// How often a node says that it is alive; the cloud waits for 30 s.
const BEAT: Duration = Duration::from_secs(5);
const PROJECT: &str = "e632aba927ea4ac2b575ec1603d56f10";

pub(crate) struct Bystander {
    node: String,
    tx: mpsc::Sender<Frame>,
    rx: BoxStream<'static, Result<Frame, TransportError>>,
}

impl Bystander {
    /// Dials the hub as this node with this certificate, and says every while that it is alive.
    pub(crate) async fn dial(
        hub: SocketAddr,
        identity: &Identity,
        node: &str,
    ) -> Result<Self, TransportError> {
        let mut who = identity.credentials();
        who.claims = vec![("node_id".into(), node.into()), ("project_id".into(), PROJECT.into())];
        // Larger than the cloud takes, to be able to send what it does not.
        let settings = WebSocketSettings { max_frame: 64 << 20, ..WebSocketSettings::default() };
        let to = Endpoint::from(format!("{hub}/{PROJECT}/{node}/events"));
        let Link { tx: mut link, rx, .. } = WebSocket::new(settings).dial(&to, &who).await?;
        let (tx, mut frames) = mpsc::channel::<Frame>(1);
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            loop {
                let frame = tokio::select! {
                    frame = frames.recv() => match frame {
                        Some(frame) => frame,
                        None => return drop(link.close().await),
                    },
                    _ = beat.tick() => keepalive(),
                };
                if link.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { node: node.to_owned(), tx, rx })
    }

    /// Sends a frame; whether the link was there to take it.
    pub(crate) async fn send(&mut self, frame: Frame) -> bool {
        self.tx.send(frame).await.is_ok()
    }

    /// Says something.
    pub(crate) async fn say(&mut self, message: &Message) -> bool {
        self.send(GoJson.encode(message).unwrap()).await
    }

    /// Passes over what has come.
    pub(crate) fn pass_over(&mut self) {
        while let Some(Some(Ok(_))) = self.rx.next().now_or_never() {}
    }

    /// Asks and waits for the answer, so many times.
    pub(crate) async fn exchanges(&mut self, times: usize) {
        for _ in 0..times {
            let question =
                question("query", &format!("kube-node-lease/lease/{}", self.node), Content::text(""));
            assert!(self.say(&question).await, "the bystander's link is gone");
            let answer = async {
                while let Some(frame) = self.rx.next().await {
                    let message = GoJson.decode(frame.expect("the bystander's link holds")).unwrap();
                    if message.header.parent.as_ref() == Some(&question.header.id) {
                        return;
                    }
                }
                panic!("the bystander's link ended");
            };
            timeout(PATIENCE, answer).await.expect("the bystander is not answered");
        }
    }

    /// Waits for the end of the link.
    pub(crate) async fn ended(&mut self) {
        let ended = async { while let Some(Ok(_)) = self.rx.next().await {} };
        timeout(PATIENCE, ended).await.expect("the session must end");
    }
}

pub(crate) fn question(operation: &str, resource: &str, content: Content) -> Message {
    Message::new("edged".into(), operation.to_owned().into(), resource.to_owned())
        .in_group("resource".into())
        .with(content)
}

fn keepalive() -> Frame {
    let message = Message::new("websocket".into(), "keepalive".into(), "node".to_owned());
    GoJson.encode(&message.in_group("resource".into()).with(Content::text("ping"))).unwrap()
}
