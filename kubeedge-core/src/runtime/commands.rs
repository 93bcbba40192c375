//! Commands inside containers, and joining what runs in one.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{TryStreamExt, future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use super::{AsyncWrite, ContainerId, RuntimeError, RuntimeKind, RuntimeResult};

/// A command to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether input will be written.
    pub stdin: bool,
    /// Whether it gets a terminal (stderr then comes with stdout).
    pub tty: bool,
}

impl ExecSpec {
    /// This program and these arguments, without input or terminal.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

setters! { ExecSpec {
    command: words Vec<String>,
    stdin: is bool,
    tty: is bool,
} }

/// What a running command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// On stdout.
    Stdout(Bytes),
    /// On stderr.
    Stderr(Bytes),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Changes the size of a command's terminal. A clone changes the same one.
#[derive(Clone, Debug)]
pub struct Resize(mpsc::Sender<TerminalSize>);

impl Resize {
    /// Both ends: what the user of a command holds, and what the runtime reads the sizes from. A few sizes
    /// may wait.
    pub fn channel() -> (Self, Resizes) {
        let (sender, receiver) = mpsc::channel(4);
        (Self(sender), Resizes(receiver))
    }

    /// For a command without a terminal.
    pub fn none() -> Self {
        Self::channel().0
    }

    /// Has the terminal be of this size; without effect where there is none, or none any more. Cancel-safe.
    pub async fn to(&self, size: TerminalSize) {
        let _ = self.0.send(size).await;
    }
}

/// The sizes that a terminal shall have, one after the other.
#[derive(Debug)]
pub struct Resizes(mpsc::Receiver<TerminalSize>);

impl Resizes {
    /// The next size; `None` when nobody can send one any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.0.recv().await
    }
}

/// The input of a command. Shutting it down ends the input.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// A running command. Dropping it kills the command where the runtime can.
#[non_exhaustive]
pub struct Streams {
    /// Its input; `None` when none was asked for.
    pub stdin: Option<Input>,
    /// What it says, until it ends.
    pub output: BoxStream<'static, RuntimeResult<Output>>,
    /// The exit code, once it has ended. To be awaited after or beside the output.
    pub exit: BoxFuture<'static, RuntimeResult<i32>>,
    /// Changes the size of its terminal.
    pub resize: Resize,
}

impl Streams {
    /// A command without input and terminal.
    pub fn new(
        output: BoxStream<'static, RuntimeResult<Output>>,
        exit: BoxFuture<'static, RuntimeResult<i32>>,
    ) -> Self {
        Self { stdin: None, output, exit, resize: Resize::none() }
    }
}

setters! { Streams {
    stdin: is Option<Input>,
    resize: is Resize,
} }

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// A command that is run to its end without input, such as that of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecSyncSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take. Some runtimes count whole seconds and round up.
    pub timeout: Duration,
    /// How many bytes of its output are kept, of both streams together.
    pub max_output: usize,
}

impl ExecSyncSpec {
    /// This program and these arguments, within this time; 10 KiB of output are kept, as the kubelet does for
    /// probes.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>, timeout: Duration) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { command, timeout, max_output: 10 << 10 }
    }
}

setters! { ExecSyncSpec {
    max_output: is usize,
} }

/// What a command said that ran to its end, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecOutput {
    /// The exit code; 128 + n for a signal n.
    pub code: i32,
    /// What it said on stdout.
    pub stdout: Bytes,
    /// What it said on stderr.
    pub stderr: Bytes,
    /// Whether it said more than was kept.
    pub truncated: bool,
}

impl ExecOutput {
    /// A command that ended with this code and said this, of which at most `max_output` bytes are kept, those
    /// of stdout first.
    pub fn new(code: i32, mut stdout: Bytes, mut stderr: Bytes, max_output: usize) -> Self {
        let truncated = stdout.len().saturating_add(stderr.len()) > max_output;
        stdout.truncate(max_output);
        stderr.truncate(max_output - stdout.len());
        Self { code, stdout, stderr, truncated }
    }
}

/// Running commands inside containers.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Starts a command. [`RuntimeKind::NotFound`] when the container does not run.
    async fn exec_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams>;

    /// Runs a command to its end. Its output beyond the limit is dropped while it runs on.
    /// [`RuntimeKind::Timeout`] when it takes longer than it may; it is killed then where the runtime can.
    /// [`RuntimeKind::NotFound`] when the container does not run.
    ///
    /// As provided it reads what [`Self::exec_stream`] starts. A runtime with a call of its own for this uses
    /// that one.
    async fn exec_sync(&self, id: &ContainerId, what: ExecSyncSpec) -> RuntimeResult<ExecOutput> {
        let ExecSyncSpec { command, timeout, max_output } = what;
        let running = async {
            let streams = self.exec_stream(id, ExecSpec { command, ..ExecSpec::default() }).await?;
            read_to_end(streams, max_output).await
        };
        let late =
            |_| Err(RuntimeError::new(RuntimeKind::Timeout, "running a command in a container").on(&id.0));
        tokio::time::timeout(timeout, running).await.unwrap_or_else(late)
    }
}

async fn read_to_end(streams: Streams, max_output: usize) -> RuntimeResult<ExecOutput> {
    let Streams { stdin, mut output, exit, resize: _resize } = streams;
    drop(stdin);
    let mut kept = ExecOutput::default();
    let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
    while let Some(said) = output.try_next().await? {
        let room = max_output.saturating_sub(stdout.len() + stderr.len());
        let (to, said) = match said {
            Output::Stdout(said) => (&mut stdout, said),
            Output::Stderr(said) => (&mut stderr, said),
        };
        kept.truncated |= said.len() > room;
        to.extend_from_slice(said.get(..room).unwrap_or(&said));
    }
    kept.code = exit.await?;
    (kept.stdout, kept.stderr) = (stdout.freeze(), stderr.freeze());
    Ok(kept)
}

/// Joining the main process of a container.
#[async_trait]
pub trait Attach: Send + Sync {
    /// Joins the main process of a container: what it says from now on, and its input if it has one. Its exit
    /// code may be told as 0 where the runtime does not know it, or when it runs on.
    /// [`RuntimeKind::NotFound`] when the container does not run.
    async fn attach_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams>;
}
