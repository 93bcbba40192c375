//! Doors for fuzzers: what reads a peer's bytes, without the sockets around it. No stable interface.

use std::io::Cursor;

use futures::StreamExt;
use kubeedge_core::transport::{Frame, Peer, TransportError};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::{
    WebSocket, WebSocketSettings,
    ws::{accept, link},
};

/// What a listener makes of these bytes after the upgrade, until the peer ends or the first error.
pub async fn frames(bytes: &[u8], max_frame: usize) -> Vec<Result<Frame, TransportError>> {
    let config = WebSocket::new(WebSocketSettings { max_frame, ..WebSocketSettings::default() }).config();
    let stream = tokio::io::join(Cursor::new(bytes.to_vec()), tokio::io::sink());
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    link::join(socket, Peer::default(), max_frame).rx.collect().await
}

/// The claims that a listener reads in the head of an upgrade request, or the status it is refused with.
pub fn upgrade(head: &str) -> Result<Vec<(String, String)>, &'static str> {
    accept::parse(head).map(|request| request.claims).map_err(|(status, _)| status)
}
