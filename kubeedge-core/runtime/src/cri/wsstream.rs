//! The streams of a command over a WebSocket: binary messages whose first byte names the channel, as
//! Kubernetes' `v4.channel.k8s.io` and `v5.channel.k8s.io` have it. Only the latter can end the input alone.

use futures::{SinkExt, StreamExt, future};
use http::{HeaderValue, Uri, header::SEC_WEBSOCKET_PROTOCOL};
use kubeedge_core::{
    failure::BoxError,
    runtime::{Output, TerminalSize},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::streams::{END_OF_TRANSMISSION, Piece, Sent, Ways, dial};
use kubeedge_common::channel::{CLOSE, RESIZE, STATUS, STDERR, STDIN, STDOUT, V4, V5};

/// The largest message taken from a runtime, in bytes. They send 32 KiB at a time.
const MAX_MESSAGE: usize = 1 << 20;

/// Opens the streams at `address`. With a terminal the end of the input is typed where it cannot be sent.
pub(crate) async fn open(address: &Uri, tty: bool) -> Result<Ways, BoxError> {
    let (socket, chosen) = connect(address, &format!("{V5}, {V4}")).await?;
    Ok(ways(socket, chosen.is_some_and(|chosen| chosen == V5), tty))
}

/// A WebSocket to `address` that offers these protocols, and the one that was chosen.
pub(crate) async fn connect(
    address: &Uri,
    protocols: &str,
) -> Result<(WebSocketStream<TcpStream>, Option<HeaderValue>), BoxError> {
    let authority = address.authority().ok_or("the address of the streams names no host")?;
    let mut request =
        format!("ws://{authority}{}", address.path_and_query().map_or("/", |path| path.as_str()))
            .into_client_request()?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(protocols)?);
    let stream = dial(address).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (socket, answer) = client_async_with_config(request, stream, Some(config)).await?;
    Ok((socket, answer.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()))
}

fn ways(socket: WebSocketStream<TcpStream>, can_close: bool, tty: bool) -> Ways {
    let (sink, messages) = socket.split();
    let pieces = messages.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => piece(&bytes).map(Ok),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        })
    });
    let inputs = sink.sink_map_err(BoxError::from).with_flat_map(move |input| {
        let message = frame(&input, can_close, tty).map(|frame| Ok(Message::Binary(frame.into())));
        futures::stream::iter(message)
    });
    (pieces.boxed(), Box::pin(inputs))
}

/// What a message holds; each channel begins with an empty one.
fn piece(message: &[u8]) -> Option<Piece> {
    let (channel, data) = message.split_first().filter(|(_, data)| !data.is_empty())?;
    match *channel {
        STDOUT => Some(Piece::Output(Output::Stdout(data.to_vec().into()))),
        STDERR => Some(Piece::Output(Output::Stderr(data.to_vec().into()))),
        STATUS => Some(Piece::Verdict(data.to_vec())),
        _ => None,
    }
}

fn frame(input: &Sent, can_close: bool, tty: bool) -> Option<Vec<u8>> {
    match input {
        Sent::Data(data) => Some([&[STDIN], data.as_slice()].concat()),
        Sent::End if can_close => Some(vec![CLOSE, STDIN]),
        Sent::End if tty => Some(vec![STDIN, END_OF_TRANSMISSION]),
        Sent::End => None,
        Sent::Resize(TerminalSize { columns, rows }) => {
            let size = format!(r#"{{"Width":{columns},"Height":{rows}}}"#);
            Some([&[RESIZE], size.as_bytes()].concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_their_channel() {
        assert_eq!(piece(b"\x01out"), Some(Piece::Output(Output::Stdout("out".into()))));
        assert_eq!(piece(b"\x02err"), Some(Piece::Output(Output::Stderr("err".into()))));
        assert_eq!(piece(b"\x03{}"), Some(Piece::Verdict(b"{}".to_vec())));
        assert_eq!(piece(b"\x01"), None);
        assert_eq!(piece(b""), None);
        assert_eq!(piece(b"\x09what"), None);
    }

    #[test]
    fn the_end_of_the_input_is_sent_where_it_can_be_and_else_typed() {
        assert_eq!(frame(&Sent::End, true, false), Some(vec![255, 0]));
        assert_eq!(frame(&Sent::End, false, true), Some(vec![0, 4]));
        assert_eq!(frame(&Sent::End, false, false), None);
        assert_eq!(
            frame(&Sent::Resize(TerminalSize { columns: 80, rows: 24 }), true, true),
            Some(b"\x04{\"Width\":80,\"Height\":24}".to_vec())
        );
    }
}
