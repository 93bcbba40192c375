//! A connection to a port of a sandbox, over a WebSocket as Kubernetes' port forwarding has it: of each port
//! one channel with data and one with an error, each of which begins with the number of the port.

use std::io;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};
use http::Uri;
use kubeedge_core::{failure::BoxError, runtime::Connection};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::wsstream::connect;
use kubeedge_common::channel::V4;

const DATA: u8 = 0;
const ERROR: u8 = 1;

/// What a message of the runtime says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(Bytes),
    Error(String),
    Nothing,
}

/// Opens the connection at `address`.
pub(crate) async fn open(address: &Uri, port: u16) -> Result<impl Connection + 'static, BoxError> {
    let (socket, _) = connect(address, V4).await?;
    let (sink, messages) = socket.split();
    let mut begun = [false; 2];
    let read = messages.filter_map(move |message| {
        future::ready(match message {
            Ok(Message::Binary(message)) => match said(&message, port, &mut begun) {
                Ok(Said::Data(data)) => Some(Ok(data)),
                Ok(Said::Error(why)) => Some(Err(io::Error::other(why))),
                Ok(Said::Nothing) => None,
                Err(error) => Some(Err(error)),
            },
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    // A reader stays at the end once it is there.
    let read = StreamReader::new(read.fuse().boxed());
    let written = sink.sink_map_err(io::Error::other).with(|data: Bytes| {
        let message = [&[DATA], data.as_ref()].concat();
        future::ready(Ok::<_, io::Error>(Message::Binary(message.into())))
    });
    let write = SinkWriter::new(CopyToBytes::new(written));
    Ok(tokio::io::join(read, Box::pin(write)))
}

/// Understands a message. The first of each channel is the port's number, little end first.
fn said(message: &Bytes, port: u16, begun: &mut [bool; 2]) -> io::Result<Said> {
    let Some((&channel, _)) = message.split_first() else { return Ok(Said::Nothing) };
    let data = message.slice(1..);
    let Some(begun) = begun.get_mut(usize::from(channel)) else { return Ok(Said::Nothing) };
    if !std::mem::replace(begun, true) {
        let right = data == port.to_le_bytes().as_slice();
        return right
            .then_some(Said::Nothing)
            .ok_or_else(|| io::Error::other(format!("the runtime forwards another port than {port}")));
    }
    Ok(match channel {
        ERROR => Said::Error(String::from_utf8_lossy(&data).into_owned()),
        _ => Said::Data(data),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_begins_with_the_port() {
        let mut begun = [false; 2];
        let mut hear = |message: &'static [u8]| said(&Bytes::from_static(message), 8080, &mut begun);
        assert_eq!(hear(b"\x00\x90\x1f").unwrap(), Said::Nothing);
        assert_eq!(hear(b"\x00hello").unwrap(), Said::Data("hello".into()));
        assert_eq!(hear(b"\x01\x90\x1f").unwrap(), Said::Nothing);
        assert_eq!(hear(b"\x01refused").unwrap(), Said::Error("refused".into()));
        assert_eq!(hear(b"").unwrap(), Said::Nothing);
        assert_eq!(hear(b"\x07what").unwrap(), Said::Nothing);
        said(&Bytes::from_static(b"\x00\x50\x00"), 8080, &mut [false; 2]).unwrap_err();
    }
}
