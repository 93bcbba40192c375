//! A broker that does what a test wants, also what no broker should.

use bytes::BytesMut;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::PATIENCE;

const MOST: usize = 64 << 20;

pub(super) struct FakeBroker {
    listener: TcpListener,
    /// Connections that the test did not ask for; they stay open.
    others: Vec<Client>,
}

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    read: BytesMut,
}

impl FakeBroker {
    pub(super) async fn listen() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (Self { listener, others: Vec::new() }, port)
    }

    /// The next connection of EventBus that reads (`sub`) or publishes (`pub`).
    pub(super) async fn accept(&mut self, role: &str) -> Client {
        loop {
            let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
            let mut client = Client { stream, read: BytesMut::new() };
            let Some(Packet::Connect(connect)) = client.next().await else { continue };
            client.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
            if connect.client_id.contains(role) {
                return client;
            }
            self.others.push(client);
        }
    }
}

impl Client {
    /// The next packet; `None` when EventBus has gone.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.read, MOST) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next publish, and nothing is said of it.
    pub(super) async fn publish(&mut self) -> Publish {
        tokio::time::timeout(PATIENCE, self.any_publish()).await.expect("nothing was published")
    }

    async fn any_publish(&mut self) -> Publish {
        loop {
            match self.next().await.expect("EventBus has gone") {
                Packet::Publish(publish) => return publish,
                Packet::PingReq => self.send(Packet::PingResp).await,
                _ => {}
            }
        }
    }

    /// The payload of the next publish, which is confirmed.
    pub(super) async fn taken(&mut self) -> String {
        let publish = self.publish().await;
        self.confirm(&publish).await;
        String::from_utf8(publish.payload.to_vec()).unwrap()
    }

    pub(super) async fn confirm(&mut self, publish: &Publish) {
        self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    }

    /// Closes, after EventBus has read all that was said.
    pub(super) async fn close(mut self) {
        self.stream.shutdown().await.unwrap();
        while self.next().await.is_some() {}
    }

    pub(super) async fn send(&mut self, packet: Packet) {
        let mut written = BytesMut::new();
        packet.write(&mut written, MOST).unwrap();
        self.stream.write_all(&written).await.unwrap();
    }
}
