//! The streams of a command: what the caller holds, what the carrier moves, and what the verdict at the end
//! means.

use std::{pin::Pin, sync::Arc};

use futures::{
    FutureExt, Sink, SinkExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use http::Uri;
use kubeedge_core::{
    failure::BoxError,
    runtime::{ExecSpec, Input, Output, Resize, Resizes, RuntimeKind, RuntimeResult, Streams, TerminalSize},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, DuplexStream},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_util::task::AbortOnDropHandle;

use super::client::Call;

/// How many pieces of output wait for a slow reader before the command is held up.
const PIECES: usize = 16;
/// The most that is read from the caller's input at a time, in bytes.
const CHUNK: usize = 32 << 10;

/// What is typed on a terminal to end the input.
pub(crate) const END_OF_TRANSMISSION: u8 = 4;

/// What comes from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Output(Output),
    /// How it ended: a `Status` of Kubernetes as JSON.
    Verdict(Vec<u8>),
}

/// What goes to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Data(Vec<u8>),
    End,
    Resize(TerminalSize),
}

/// Both ways of an open connection.
pub(crate) type Ways =
    (BoxStream<'static, Result<Piece, BoxError>>, Pin<Box<dyn Sink<Sent, Error = BoxError> + Send>>);

/// Connects to the server that an address of streams names.
pub(crate) async fn dial(address: &Uri) -> Result<TcpStream, BoxError> {
    let host = address.host().ok_or("the address of the streams names no host")?;
    let port = address.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The far ends of what the caller holds.
#[derive(Debug)]
struct Pipes {
    stdin: Option<DuplexStream>,
    resize: Resizes,
    output: mpsc::Sender<RuntimeResult<Output>>,
    exit: oneshot::Sender<RuntimeResult<i32>>,
    call: Call,
}

/// What the caller holds of the open streams of a command. What carries between the two ends with the last of
/// output and exit.
pub(crate) fn carried(call: Call, what: &ExecSpec, ways: Ways) -> Streams {
    let (Streams { stdin, mut output, exit, resize, .. }, pipes) = pipes(call, what);
    let carrying = Arc::new(AbortOnDropHandle::new(tokio::spawn(carry(ways, pipes))));
    let carried = carrying.clone();
    let output = stream::poll_fn(move |context| {
        let _ = &carried;
        output.poll_next_unpin(context)
    });
    let exit = async move {
        let _carrying = carrying;
        exit.await
    };
    Streams::new(output.boxed(), exit.boxed()).stdin(stdin).resize(resize)
}

fn pipes(call: Call, what: &ExecSpec) -> (Streams, Pipes) {
    let (near, far) = tokio::io::duplex(CHUNK);
    let (resize, resized) = Resize::channel();
    let (output, mut pieces) = mpsc::channel(PIECES);
    let (exit, exited) = oneshot::channel();
    let said = stream::poll_fn(move |context| pieces.poll_recv(context));
    let ended = async move { exited.await.unwrap_or_else(|_| Err(call.failed(RuntimeKind::Down, ""))) };
    let near: Option<Input> = if what.stdin { Some(Box::new(near)) } else { None };
    let held = Streams::new(said.boxed(), ended.boxed()).stdin(near).resize(resize);
    let stdin = what.stdin.then_some(far);
    (held, Pipes { stdin, resize: resized, output, exit, call })
}

/// Moves everything until the command ends.
async fn carry((mut pieces, mut inputs): Ways, pipes: Pipes) {
    let Pipes { stdin, resize, output, exit, call } = pipes;
    let end = tokio::select! {
        end = outward(&mut pieces, &output, call) => Some(end),
        () = inward(stdin, resize, &mut inputs) => None,
    };
    let _ = inputs.close().await;
    if let Some(end) = end {
        let _ = exit.send(end);
    }
}

async fn outward(
    pieces: &mut (impl Stream<Item = Result<Piece, BoxError>> + Unpin),
    output: &mpsc::Sender<RuntimeResult<Output>>,
    call: Call,
) -> RuntimeResult<i32> {
    let mut end = None;
    while let Some(piece) = pieces.next().await {
        match piece {
            // Whoever dropped the output may still wait for the exit code.
            Ok(Piece::Output(piece)) => _ = output.send(Ok(piece)).await,
            Ok(Piece::Verdict(verdict)) => end = Some(understood(call, &verdict)),
            Err(error) if end.is_none() => return Err(call.failed(RuntimeKind::Down, "").because(error)),
            Err(_) => break,
        }
    }
    end.unwrap_or_else(|| {
        Err(call.failed(RuntimeKind::Down, "").because("the runtime closed the streams without a verdict"))
    })
}

/// Moves input as long as there is any; never returns, because the command goes on without.
async fn inward(
    mut stdin: Option<DuplexStream>,
    mut resize: Resizes,
    inputs: &mut (impl Sink<Sent, Error = BoxError> + Unpin),
) {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let input = tokio::select! {
            read = read(&mut stdin, &mut chunk) => match read {
                Ok(1..) => Sent::Data(chunk),
                _ => { stdin = None; Sent::End }
            },
            Some(size) = resize.next() => Sent::Resize(size),
            else => break,
        };
        // That the other side is gone shows on the way out.
        if inputs.send(input).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

async fn read(stdin: &mut Option<DuplexStream>, chunk: &mut Vec<u8>) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.read_buf(chunk).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verdict {
    status: String,
    message: String,
    reason: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

/// The exit code a verdict tells, or why there is none.
fn understood(call: Call, verdict: &[u8]) -> RuntimeResult<i32> {
    let verdict: Verdict = serde_json::from_slice(verdict)
        .map_err(|error| call.failed(RuntimeKind::Internal, "the verdict").because(error))?;
    if verdict.status == "Success" {
        return Ok(0);
    }
    let mut causes = verdict.details.causes.iter();
    let code = causes.find(|cause| cause.reason == "ExitCode").and_then(|cause| cause.message.parse().ok());
    match code {
        Some(code) if verdict.reason == "NonZeroExitCode" => Ok(code),
        _ => {
            let not_started = ["OCI runtime exec failed", "executable file not found"];
            let invalid = not_started.iter().any(|text| verdict.message.contains(text));
            let kind = if invalid { RuntimeKind::Invalid } else { RuntimeKind::Internal };
            Err(call.failed(kind, "").because(verdict.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::client::EXEC;

    #[test]
    fn a_verdict_tells_the_exit_code_or_why_there_is_none() {
        assert_eq!(understood(EXEC.call, br#"{"metadata":{},"status":"Success"}"#).unwrap(), 0);
        let failed = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(understood(EXEC.call, failed).unwrap(), 7);
        let unstarted =
            br#"{"status":"Failure","message":"OCI runtime exec failed: nope","reason":"InternalError"}"#;
        assert_eq!(understood(EXEC.call, unstarted).unwrap_err().kind(), RuntimeKind::Invalid);
        assert_eq!(understood(EXEC.call, b"{}").unwrap_err().kind(), RuntimeKind::Internal);
        assert_eq!(understood(EXEC.call, b"no JSON").unwrap_err().kind(), RuntimeKind::Internal);
    }
}
