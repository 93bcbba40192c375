//! The streams of a command over SPDY/3.1 with Kubernetes' `v4.channel.k8s.io`: what every runtime's
//! streaming server speaks, and where the input can be ended alone.
//!
//! Only what a client of it needs: each stream is opened once, its headers are sent uncompressed inside
//! zlib's frame, and what the server says in headers is not read. These servers use no flow control.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future, sink, stream};
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{CONNECTION, HOST, UPGRADE},
};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use kubeedge_core::{
    failure::BoxError,
    runtime::{ExecSpec, Output, TerminalSize},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::streams::{Piece, Sent, Ways, dial};
use kubeedge_common::channel::V4;

const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

const SYN_STREAM: u16 = 1;
const GOAWAY: u16 = 7;
const CONTROL: u32 = 1 << 31;
const VERSION: u32 = 3 << 16;
const FIN: u32 = 1 << 24;

/// The longest frame taken, in bytes. Servers send 32 KiB at a time.
const MAX_FRAME: u32 = 1 << 20;
/// The longest verdict taken, in bytes.
const MAX_VERDICT: usize = 64 << 10;

/// Opens the streams at `address`.
pub(crate) async fn open(address: &Uri, what: &ExecSpec) -> Result<Ways, BoxError> {
    let connection = upgrade(address).await?;
    let (reader, mut writer) = tokio::io::split(connection);
    let wanted = [
        (ERROR, "error", true),
        (STDIN, "stdin", what.stdin),
        (STDOUT, "stdout", true),
        (STDERR, "stderr", !what.tty),
        (RESIZE, "resize", what.tty),
    ];
    for (stream, kind, _) in wanted.into_iter().filter(|(.., wanted)| *wanted) {
        writer.write_all(&syn_stream(stream, kind)).await?;
    }
    writer.flush().await?;
    let pieces = stream::unfold(Some((reader, Vec::new())), |state| async move {
        let (mut reader, mut verdict) = state?;
        match next(&mut reader, &mut verdict).await {
            Ok(Some(piece)) => Some((Ok(piece), Some((reader, verdict)))),
            Ok(None) if verdict.is_empty() => None,
            Ok(None) => Some((Ok(Piece::Verdict(verdict)), None)),
            Err(error) => Some((Err(error), None)),
        }
    });
    let tty = what.tty;
    let inputs = sink::unfold(writer, move |mut writer, input: Sent| async move {
        if let Some(frame) = frame(&input, tty) {
            writer.write_all(&frame).await?;
        }
        writer.flush().await?;
        Ok::<_, BoxError>(writer)
    });
    Ok((pieces.boxed(), Box::pin(inputs.sink_map_err(BoxError::from))))
}

async fn upgrade(address: &Uri) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, BoxError> {
    let stream = dial(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection moves only while it is driven, and goes on as the streams once it is upgraded.
    let driven = async move {
        let _ = connection.with_upgrades().await;
        future::pending().await
    };
    let host = address.authority().map_or("", |authority| authority.as_str());
    let request = Request::builder()
        .method(Method::POST)
        .uri(address.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, HeaderValue::from_str(host)?)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header(PROTOCOL_HEADER, V4)
        .body(Empty::<Bytes>::new())?;
    let upgraded = async move {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("the runtime refuses SPDY: {}", answer.status()).into());
        }
        if answer.headers().get(PROTOCOL_HEADER).is_none_or(|chosen| chosen != V4) {
            return Err(format!("the runtime does not speak {V4}").into());
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
    };
    tokio::select! {
        upgraded = upgraded => upgraded,
        never = driven => never,
    }
}

/// The next piece; `None` when the server has ended. What the error stream says is gathered until then.
async fn next(
    reader: &mut (impl AsyncRead + Unpin),
    verdict: &mut Vec<u8>,
) -> Result<Option<Piece>, BoxError> {
    loop {
        let Ok(first) = reader.read_u32().await else { return Ok(None) };
        let length = reader.read_u32().await? & (FIN - 1);
        if length > MAX_FRAME {
            return Err(
                format!("the runtime sends a frame of {length} bytes; {MAX_FRAME} is the limit").into()
            );
        }
        let mut data = vec![0; length as usize];
        reader.read_exact(&mut data).await?;
        if first & CONTROL != 0 {
            if first & 0xffff == u32::from(GOAWAY) {
                return Ok(None);
            }
            continue;
        }
        match first {
            _ if data.is_empty() => {}
            STDOUT => return Ok(Some(Piece::Output(Output::Stdout(data.into())))),
            STDERR => return Ok(Some(Piece::Output(Output::Stderr(data.into())))),
            ERROR if verdict.len() + data.len() <= MAX_VERDICT => verdict.extend_from_slice(&data),
            _ => {}
        }
    }
}

fn frame(input: &Sent, tty: bool) -> Option<Vec<u8>> {
    match input {
        Sent::Data(bytes) => Some(data(STDIN, 0, bytes)),
        Sent::End => Some(data(STDIN, FIN, &[])),
        Sent::Resize(TerminalSize { columns, rows }) if tty => {
            Some(data(RESIZE, 0, format!(r#"{{"Width":{columns},"Height":{rows}}}"#).as_bytes()))
        }
        Sent::Resize(_) => None,
    }
}

fn data(stream: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    // Input comes in chunks far shorter than the 16 MiB a frame can hold.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX) & (FIN - 1);
    [&stream.to_be_bytes(), &(flags | length).to_be_bytes(), bytes].concat()
}

/// Opens a stream whose only header says what it is for.
fn syn_stream(stream: u32, kind: &str) -> Vec<u8> {
    let mut headers = 1_u32.to_be_bytes().to_vec();
    for text in ["streamtype", kind] {
        headers.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        headers.extend_from_slice(text.as_bytes());
    }
    // All headers of a connection are one zlib stream: a head, then blocks that are stored as they are, each
    // with an empty one after it that makes the reader hand out what it has.
    let head: &[u8] = if stream == ERROR { &[0x78, 0x01] } else { &[] };
    let length = u16::try_from(headers.len()).unwrap_or(0);
    let block = [&[0], length.to_le_bytes().as_slice(), &(!length).to_le_bytes(), &headers].concat();
    let payload = [head, &block, &[0, 0, 0, 0xff, 0xff]].concat();
    // Stream, no parent stream, and the lowest bits: priority and slot.
    let body = [stream.to_be_bytes().as_slice(), &[0; 4], &[0; 2], &payload].concat();
    let first = CONTROL | VERSION | u32::from(SYN_STREAM);
    let length = u32::try_from(body.len()).unwrap_or(0);
    [&first.to_be_bytes(), &length.to_be_bytes(), body.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_with_what_it_is_for() {
        let frame = syn_stream(STDIN, "stdin");
        assert_eq!(frame[..8], [0x80, 3, 0, 1, 0, 0, 0, 47]);
        assert_eq!(frame[8..18], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[18..23], [0, 27, 0, 0xe4, 0xff]);
        assert_eq!(frame[23..50], *b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05stdin");
        assert_eq!(frame[50..], [0, 0, 0, 0xff, 0xff]);
        assert_eq!(syn_stream(ERROR, "error")[18..20], [0x78, 0x01]);
    }

    #[tokio::test]
    async fn frames_are_read_until_the_server_goes_away() {
        let goaway = [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let reply = [0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1];
        let sent = [
            &reply,
            data(STDOUT, 0, b"out").as_slice(),
            &data(ERROR, FIN, b"{}"),
            &data(STDERR, 0, b"e"),
            &goaway,
        ]
        .concat();
        let (mut reader, mut verdict) = (sent.as_slice(), Vec::new());
        let mut pieces = Vec::new();
        while let Some(piece) = next(&mut reader, &mut verdict).await.unwrap() {
            pieces.push(piece);
        }
        let (out, err) = (Output::Stdout("out".into()), Output::Stderr("e".into()));
        assert_eq!(pieces, [Piece::Output(out), Piece::Output(err)]);
        assert_eq!(verdict, b"{}");
    }

    #[tokio::test]
    async fn a_frame_beyond_the_limit_is_refused() {
        let mut reader: &[u8] = &[0, 0, 0, 5, 0, 0xff, 0xff, 0xff];
        assert!(next(&mut reader, &mut Vec::new()).await.is_err());
    }
}
