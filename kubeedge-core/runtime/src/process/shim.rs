//! The shim: a small process that starts one container, writes its log and notes how it ended.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
};

use kubeedge_core::{
    failure::Failure,
    runtime::{RuntimeKind, RuntimeResult},
};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group,
    set_child_subreaper, setrlimit, setsid, wait,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Child,
};

use crate::log_format::LogStream;

use super::{
    Run, STARTING, Shim, fail,
    log::Log,
    now,
    records::{self, Exit, Held, Identity, Made},
};

/// What the shim says once the program runs.
const STARTED: &str = "started";
/// The most a shim has to say.
const MAX_WORD: u64 = 4096;

/// Has a shim start the container in this folder; returns when its program runs. The shim goes to `reap`,
/// which waits for its end.
pub(super) async fn launch(shim: &Shim, folder: &Path, reap: impl FnOnce(Child)) -> RuntimeResult<()> {
    let doing = STARTING;
    let mut command = tokio::process::Command::new(&shim.program);
    command.args(&shim.args).arg("run").arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let internal = |error: io::Error, on: &Path| {
        Failure::new(RuntimeKind::Internal, doing).on(on.display().to_string()).because(error)
    };
    let mut child = command.spawn().map_err(|error| internal(error, &shim.program))?;
    let mut word = String::new();
    if let Some(said) = child.stdout.take() {
        let read = BufReader::new(said.take(MAX_WORD)).read_line(&mut word).await;
        read.map_err(|error| internal(error, folder))?;
    }
    // In any case, so that it does not stay as a zombie.
    reap(child);
    match word.trim_end() {
        STARTED => Ok(()),
        "" => Err(fail(RuntimeKind::Internal, doing, shim.program.display().to_string())
            .because("the shim ended without a word")),
        why => Err(fail(RuntimeKind::Invalid, doing, folder.display().to_string()).because(why.to_owned())),
    }
}

/// What a shim's process does: `run FOLDER` holds a container, `terminal DEVICE PROGRAM ARGS…` becomes a
/// program on a terminal of its own. Blocks until it is over. Not for a process that does anything else.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let done = match args.as_slice() {
        [word, folder] if word == "run" => hold(Path::new(folder)),
        [word, device, program, args @ ..] if word == "terminal" => {
            terminal(Path::new(device), program, args)
        }
        _ => Err(io::Error::other("the process shim is started by edgecore: run FOLDER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started it reads this; if nobody does, there is nobody to tell.
            let _ = writeln!(io::stdout(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(folder: &Path) -> io::Result<()> {
    let made: Made = records::read(&folder.join("made.json"))?
        .ok_or_else(|| io::Error::other(format!("{} holds no container", folder.display())))?;
    // Its own session: it outlives whoever started it, and signals of a terminal do not reach it.
    let _ = setsid();
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
    let _alive = hold_open(&folder.join(records::ALIVE))?;
    let started_at = now();
    let (child, log) = match start(&made.run) {
        Ok(started) => started,
        Err(error) => {
            let message = error.to_string();
            let (code, reason) = (128, "StartError".to_owned());
            let exit = Exit { started_at, finished_at: now(), code, reason, message };
            records::write(&folder.join("exit.json"), &exit)?;
            return Err(error);
        }
    };
    follow(folder, child, &log, started_at)
}

/// Makes the named pipe whose end tells that of this process.
fn hold_open(pipe: &Path) -> io::Result<std::fs::File> {
    mkfifoat(CWD, pipe, Mode::RUSR | Mode::WUSR)?;
    // Opened for writing alone it would wait for a reader.
    std::fs::File::options().read(true).write(true).open(pipe)
}

/// Starts the program.
fn start(run: &Run) -> io::Result<(std::process::Child, Log)> {
    let naming = |what: &Path, error: &io::Error| io::Error::other(format!("{}: {error}", what.display()));
    let log = Log::open(&run.log).map_err(|error| naming(&run.log, &error))?;
    limit(run);
    let mut command = Command::new(&run.program);
    command.args(&run.args).env_clear().envs(&run.env).current_dir(&run.folder).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(group) = run.group {
        command.gid(group);
    }
    if let Some(user) = run.user {
        command.uid(user);
    }
    if !run.folder.is_dir() {
        return Err(naming(&run.folder, &io::Error::other("the working directory does not exist")));
    }
    let child = command.spawn().map_err(|error| naming(&PathBuf::from(&run.program), &error))?;
    Ok((child, log))
}

/// Limits as far as they go without cgroups; the shim itself is small enough to live with them.
fn limit(run: &Run) {
    if run.memory_bytes > 0 {
        let bytes = Some(run.memory_bytes);
        let _ = setrlimit(Resource::Data, Rlimit { current: bytes, maximum: bytes });
    }
    // Only root may lower it; raising is always allowed.
    let _ = std::fs::write("/proc/self/oom_score_adj", run.oom_score_adj.to_string());
}

/// Copies the output until the program and all it started have ended, and notes how.
fn follow(
    folder: &Path,
    mut child: std::process::Child,
    log: &Log,
    started_at: kubeedge_core::message::Millis,
) -> io::Result<()> {
    let main = Pid::from_child(&child);
    let held =
        Held { shim: Identity::of(rustix::process::getpid())?, process: Identity::of(main)?, started_at };
    records::write(&folder.join("held.json"), &held)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = thread::scope(|scope| {
        scope.spawn(|| stdout.map(|from| log.copy(LogStream::Stdout, from)));
        scope.spawn(|| stderr.map(|from| log.copy(LogStream::Stderr, from)));
        let _ = writeln!(io::stdout(), "{STARTED}");
        // The reader is done with us: what the program says goes to its log alone.
        if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&nowhere);
        }
        let status = wait_for(main);
        let _ = kill_process_group(main, Signal::KILL);
        end_orphans();
        status
    });
    let (code, reason) = match status
        .and_then(|status| status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)))
    {
        Some(0) => (0, "Completed"),
        Some(code) => (code, "Error"),
        None => (255, "Unknown"),
    };
    let (reason, message) = (reason.to_owned(), String::new());
    records::write(&folder.join("exit.json"), &Exit { started_at, finished_at: now(), code, reason, message })
}

/// Waits for the program, and on the way for orphans that it left to us.
fn wait_for(main: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Kills what the program left behind, also what has changed its process group.
fn end_orphans() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    loop {
        for pid in records::children(own).into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // No children are left.
            Err(_) => return,
        }
    }
}

/// Becomes a program whose terminal is the given device.
fn terminal(device: &Path, program: &OsString, args: &[OsString]) -> io::Result<()> {
    setsid()?;
    let opened = std::fs::File::options().read(true).write(true).open(device)?;
    rustix::process::ioctl_tiocsctty(&opened)?;
    let mut command = Command::new(program);
    command.args(args).stdin(opened.try_clone()?).stdout(opened.try_clone()?).stderr(opened);
    Err(command.exec())
}
