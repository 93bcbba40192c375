//! Kubernetes' remote command protocol over WebSocket: messages that begin with the number of their channel.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt, stream::BoxStream};
use kubeedge_core::{
    failure::chain,
    runtime::{Input, Output, Resize, RuntimeError, RuntimeResult, Streams, TerminalSize},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::exec::Task;
use kubeedge_common::channel::{CLOSE, RESIZE, STATUS, STDERR, STDIN, STDOUT};

/// How long a client may take to close its side; until then what it still sends is read, so that nothing said
/// to it is lost.
const PARTING: Duration = Duration::from_secs(5);

/// Carries a command's input and output until it ends or the client leaves, which ends the command.
pub(super) async fn run<S>(
    socket: WebSocketStream<S>,
    task: &Task,
    started: RuntimeResult<Streams>,
    idle: Duration,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to, mut from) = socket.split();
    // Other than the kubelet, without an empty first message: kubectl complains of what comes before its
    // streams are made.
    let active = Notify::new();
    let status = match started {
        Err(error) => internal(&error),
        Ok(Streams { stdin, output, exit, resize, .. }) => {
            let talk = async {
                speak(&mut to, task, output, &active).await?;
                Ok(if task.attach {
                    exit.await.map(|_| success())
                } else {
                    exit.await.map(|code| ended(task, code))
                })
            };
            let ended: Result<RuntimeResult<Value>, Error> = tokio::select! {
                ended = talk => ended,
                () = listen(&mut from, task, stdin, &resize, &active) => return Ok(()),
                () = rest(idle, &active) => return Ok(()),
            };
            ended?.unwrap_or_else(|error| internal(&error))
        }
    };
    to.send(message(STATUS, status.to_string().as_bytes())).await?;
    // kubectl takes a close without a code for a broken connection.
    let end = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    to.send(Message::Close(Some(end))).await?;
    let parting = async { while let Some(Ok(_)) = from.next().await {} };
    let _ = tokio::time::timeout(PARTING, parting).await;
    Ok(())
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut framed = BytesMut::with_capacity(data.len() + 1);
    framed.put_u8(channel);
    framed.put_slice(data);
    Message::Binary(framed.freeze())
}

/// Completes when nothing has happened for so long.
async fn rest(idle: Duration, active: &Notify) {
    while tokio::time::timeout(idle, active.notified()).await.is_ok() {}
}

async fn speak(
    to: &mut (impl Sink<Message, Error = Error> + Unpin),
    task: &Task,
    mut output: BoxStream<'static, RuntimeResult<Output>>,
    active: &Notify,
) -> Result<(), Error> {
    while let Some(said) = output.next().await {
        active.notify_one();
        match said {
            Ok(Output::Stdout(bytes)) if task.stdout => to.send(message(STDOUT, &bytes)).await?,
            Ok(Output::Stderr(bytes)) if task.stderr => to.send(message(STDERR, &bytes)).await?,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %chain(&error), "a command's output broke off");
                break;
            }
        }
    }
    Ok(())
}

/// A terminal's size as clients send it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Hands the client's words on until it leaves.
pub(crate) async fn listen(
    from: &mut (impl Stream<Item = Result<Message, Error>> + Unpin),
    task: &Task,
    mut stdin: Option<Input>,
    resize: &Resize,
    active: &Notify,
) {
    while let Some(Ok(message)) = from.next().await {
        active.notify_one();
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some((channel, data)) = data.split_first() else { continue };
        match *channel {
            STDIN => write(&mut stdin, data).await,
            RESIZE if task.what.tty => {
                if let Ok(Size { width, height }) = serde_json::from_slice(data) {
                    resize.to(TerminalSize { columns: width, rows: height }).await;
                }
            }
            CLOSE if task.half_closes && data == [STDIN] => end(&mut stdin).await,
            other => tracing::debug!(channel = other, "ignored a message of a command's client"),
        }
    }
}

/// Writes input; a command that reads no more gets no more.
async fn write(stdin: &mut Option<Input>, data: &[u8]) {
    let Some(open) = stdin else { return };
    let written = async {
        open.write_all(data).await?;
        open.flush().await
    };
    if written.await.is_err() {
        *stdin = None;
    }
}

async fn end(stdin: &mut Option<Input>) {
    if let Some(mut open) = stdin.take() {
        let _ = open.shutdown().await;
    }
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn ended(task: &Task, code: i32) -> Value {
    if code == 0 {
        return success();
    }
    let command = task.what.command.join(" ");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: error executing command [{command}], exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn internal(error: &RuntimeError) -> Value {
    let why = format!("error executing command in container: {}", chain(error));
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    })
}
