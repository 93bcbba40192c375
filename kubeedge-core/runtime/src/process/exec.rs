//! Commands beside a container's program, with or without a terminal.

use std::{io, os::fd::OwnedFd, path::Path, pin::Pin, process::Stdio};

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kubeedge_core::{
    failure::Failure,
    runtime::{
        ExecSpec, Input, Output, Resize, RuntimeError, RuntimeKind, RuntimeResult, Streams, TerminalSize,
    },
};
use rustix::{
    process::{Pid, Signal, kill_process_group},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, Command},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Run, Shim, fail, records::Made};

const DOING: &str = "running a command in a container";
/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// Starts a command with the container's environment, in its folder.
pub(super) fn start(shim: &Shim, folder: &Path, made: &Made, what: ExecSpec) -> RuntimeResult<Streams> {
    let Some((program, args)) = what.command.split_first() else {
        return Err(fail(RuntimeKind::Invalid, DOING, made.spec.name.clone()).because("the command is empty"));
    };
    let on = |error: io::Error| fail(RuntimeKind::Invalid, DOING, program.clone()).because(error);
    let work = if made.run.folder.is_dir() { made.run.folder.clone() } else { folder.join("root") };
    if what.tty {
        let (terminal, device) = pseudo_terminal().map_err(on)?;
        let mut command = Command::new(&shim.program);
        command.args(&shim.args).arg("terminal").arg(device).arg(program).args(args);
        command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The shim makes its own session, which is a process group as well.
        let child = spawn(command, &made.run, &work, false).map_err(on)?;
        return with_terminal(terminal, child, what.stdin).map_err(on);
    }
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if what.stdin { Stdio::piped() } else { Stdio::null() });
    let mut child = spawn(command, &made.run, &work, true).map_err(on)?;
    let stdin = child.stdin.take().map(|stdin| Box::new(Closing(Some(stdin))) as _);
    let stdout = child.stdout.take().map(|from| pieces(from, Output::Stdout));
    let stderr = child.stderr.take().map(|from| pieces(from, Output::Stderr));
    let output = stream::select_all(stdout.into_iter().chain(stderr)).boxed();
    Ok(finish(stdin, output, child, (Resize::none(), None)))
}

fn spawn(mut command: Command, run: &Run, work: &Path, own_group: bool) -> io::Result<Child> {
    let terminal = command.as_std().get_envs().any(|(name, _)| name == "TERM");
    command.env_clear().envs(&run.env).current_dir(work);
    if terminal {
        command.env("TERM", "xterm");
    }
    if own_group {
        command.process_group(0);
    }
    if let Some(group) = run.group {
        command.gid(group);
    }
    if let Some(user) = run.user {
        command.uid(user);
    }
    command.spawn()
}

/// Kills the whole command when nobody waits for it any more.
struct Group {
    child: Child,
    pid: Option<Pid>,
}

impl Group {
    fn forget(&mut self) {
        self.pid = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn finish(
    stdin: Option<Input>,
    output: BoxStream<'static, RuntimeResult<Output>>,
    child: Child,
    (resize, resizing): (Resize, Option<AbortOnDropHandle<()>>),
) -> Streams {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let mut group = Group { child, pid };
    let exit = Box::pin(async move {
        let _resizing = resizing;
        let status = group.child.wait().await;
        // Waited for: its number may soon be another's.
        group.forget();
        let status = status.map_err(|error| Failure::new(RuntimeKind::Internal, DOING).because(error))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
        Ok(status.code().or(signal).unwrap_or(255))
    });
    Streams::new(output, exit).stdin(stdin).resize(resize)
}

/// What is read, piece by piece, until it ends.
fn pieces<R>(from: R, wrap: fn(Bytes) -> Output) -> BoxStream<'static, RuntimeResult<Output>>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let read = stream::unfold(from, move |mut from| async move {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        match from.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(wrap(piece.freeze())), from)),
            // A terminal whose last program has ended.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => None,
            Err(error) => Some((Err(reading(error)), from)),
        }
    });
    read.boxed()
}

fn reading(error: io::Error) -> RuntimeError {
    Failure::new(RuntimeKind::Internal, "reading from a command").because(error)
}

/// A new terminal: our side and the device of the program's.
fn pseudo_terminal() -> io::Result<(OwnedFd, String)> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let device = ptsname(&terminal, Vec::new())?;
    Ok((terminal, device.to_string_lossy().into_owned()))
}

fn with_terminal(terminal: OwnedFd, child: Child, input: bool) -> io::Result<Streams> {
    let writing = terminal.try_clone()?;
    let (resize, mut sizes) = Resize::channel();
    let sized = terminal.try_clone()?;
    let resizing = tokio::spawn(async move {
        while let Some(TerminalSize { columns, rows }) = sizes.next().await {
            let _ =
                tcsetwinsize(&sized, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 });
        }
    });
    let file = |fd: OwnedFd| tokio::fs::File::from_std(std::fs::File::from(fd));
    let stdin = input.then(|| Box::new(Unbuffered(file(writing))) as _);
    let output = pieces(file(terminal), Output::Stdout);
    Ok(finish(stdin, output, child, (resize, Some(AbortOnDropHandle::new(resizing)))))
}

/// An input that ends when it is shut down: tokio's own ends only when it is dropped.
struct Closing(Option<ChildStdin>);

impl Closing {
    fn open(&mut self) -> io::Result<Pin<&mut ChildStdin>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl tokio::io::AsyncWrite for Closing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        match self.open() {
            Ok(stdin) => stdin.poll_write(cx, bytes),
            Err(error) => std::task::Poll::Ready(Err(error)),
        }
    }
    /// A pipe holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        self.0 = None;
        std::task::Poll::Ready(Ok(()))
    }
}

/// A file that hands on what is written at once: a person waits for every key.
struct Unbuffered(tokio::fs::File);

impl tokio::io::AsyncWrite for Unbuffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    /// The end of input is a key of its own on a terminal (Ctrl-D).
    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_write(cx, b"\x04") {
            std::task::Poll::Ready(written) => std::task::Poll::Ready(written.map(drop)),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    }
}
