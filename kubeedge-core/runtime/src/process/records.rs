//! What is known of sandboxes and containers: files that outlive edgecore, and their copy in memory.
//!
//! ```text
//! sandboxes/<id>/sandbox.json
//! containers/<id>/made.json what the container shall be      (written by the runtime)
//!                 held.json its shim and its process         (written by the shim once it runs)
//!                 exit.json how it ended                     (written by the shim)
//!                 alive     a named pipe that the shim has open as long as it lives
//!                 root/     where it starts, with its mounts
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kubeedge_common::file;
use kubeedge_core::{
    message::Millis,
    runtime::{
        Container, ContainerId, ContainerSpec, ContainerState, RuntimeKind, RuntimeResult, Sandbox,
        SandboxId, SandboxSpec, Usage,
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{IMAGE, Run, broken, fail, now, text};

/// The largest file that is read back.
const MAX_FILE: u64 = 4 << 20;
/// The mode of the folders made, before the umask.
const FOLDER: u32 = 0o777;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(&id.0)
    }

    pub(super) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.root.join("sandboxes").join(&id.0)
    }
}

fn names(folder: &Path) -> RuntimeResult<Vec<String>> {
    let doing = "opening the folder of the process runtime";
    let listed = fs::create_dir_all(folder).and_then(|()| fs::read_dir(folder));
    let entries = listed.map_err(|error| broken(doing, folder, error))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn read_or_tell<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match read(path) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(file = %path.display(), error = %error, "a record of the process runtime cannot be read and is left out");
            None
        }
    }
}

/// A record, if there is one.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    Ok(Some(serde_json::from_reader(io::Read::take(io::BufReader::new(file), MAX_FILE))?))
}

/// Writes a record, durably and so that a reader sees all of it or none. Its environment may hold Secrets.
pub(super) fn write<T: Serialize>(path: &Path, what: &T) -> io::Result<()> {
    file::replace(path, &serde_json::to_vec(what)?, 0o600)
}

/// A sandbox on file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KnownSandbox {
    pub(super) spec: SandboxSpec,
    pub(super) created_at: Millis,
    pub(super) ready: bool,
}

/// What a container shall be, on file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) sandbox: SandboxId,
    pub(super) spec: ContainerSpec,
    pub(super) created_at: Millis,
    pub(super) run: Run,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pid: i32,
    /// The clock tick at which it started, since the boot `boot`.
    start: u64,
    boot: u64,
}

impl Identity {
    /// Of this process or one of its children. A child that has ended but was not waited for still has its
    /// number.
    pub(super) fn of(pid: Pid) -> io::Result<Self> {
        let pid = pid.as_raw_nonzero().get();
        Ok(Self { pid, start: stat_field(pid, 22)?, boot: boot_time()? })
    }

    fn pid(self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }

    fn is_alive(self) -> bool {
        start_tick(self.pid).is_ok_and(|start| start == self.start)
            && boot_time().is_ok_and(|boot| boot.abs_diff(self.boot) < 60)
    }
}

/// Field `number` (from 1, as in proc(5), at least 3) of a process' stat.
fn stat_field(pid: i32, number: usize) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = rest.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::other("/proc/<pid>/stat is not as expected"))
}

fn start_tick(pid: i32) -> io::Result<u64> {
    // A zombie is no longer a process for us.
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    if text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    stat_field(pid, 22)
}

fn boot_time() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|time| time.trim().parse().ok()).ok_or_else(|| io::Error::other("/proc/stat has no btime"))
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) shim: Identity,
    pub(super) process: Identity,
    pub(super) started_at: Millis,
}

impl Held {
    /// Sends a signal to the container's process group.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.process.pid().filter(|_| self.process.is_alive()) {
            // It may have ended this instant.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Completes when the shim of the container in this folder has ended, and with it the container.
    /// Cancel-safe.
    pub(super) async fn ended(&self, folder: &Path) {
        let pipe = pipe::OpenOptions::new().open_receiver(folder.join(ALIVE));
        let pipe = pipe.inspect_err(|error| tracing::debug!(error = %error, "cannot watch a shim"));
        // Nothing is ever written to it: reading ends with the last process that has it open. But a pipe that
        // was let go of before it was opened here never says so: hence the regular look.
        let let_go = async {
            match pipe {
                Ok(mut pipe) => drop(pipe.read_u8().await),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::pin!(let_go);
        let mut pause = LOOK;
        while self.shim.is_alive() {
            tokio::select! {
                () = &mut let_go, if pause == LOOK => pause = LAST_LOOK,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// How often to look whether a shim lives when nothing tells.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look once it has let go of its pipe, which is the last but one thing a process does.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// The named pipe a shim has open as long as it lives, in the container's folder.
pub(super) const ALIVE: &str = "alive";

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exit {
    pub(super) started_at: Millis,
    pub(super) finished_at: Millis,
    pub(super) code: i32,
    pub(super) reason: String,
    pub(super) message: String,
}

/// All that is known of a container.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) made: Made,
    pub(super) held: Option<Held>,
    pub(super) exit: Option<Exit>,
}

impl Known {
    fn refresh(&mut self, folder: &Path) {
        if self.exit.is_some() {
            return;
        }
        if self.held.is_none() {
            self.held = read_or_tell(&folder.join("held.json"));
        }
        let alive = self.held.as_ref().is_some_and(|held| held.shim.is_alive());
        // Looked at after the shim's life: what it wrote last is seen.
        self.exit = read_or_tell(&folder.join("exit.json"));
        if let Some(held) = self.held.as_ref().filter(|_| self.exit.is_none() && !alive) {
            held.signal(Signal::KILL);
            let exit = lost(held);
            if let Err(error) = write(&folder.join("exit.json"), &exit) {
                tracing::warn!(folder = %folder.display(), error = %error, "cannot note the end of a container");
            }
            self.exit = Some(exit);
        }
    }

    fn state(&self) -> ContainerState {
        match (&self.exit, &self.held) {
            (Some(exit), _) => ContainerState::Exited {
                started_at: exit.started_at,
                finished_at: exit.finished_at,
                code: exit.code,
                reason: exit.reason.clone(),
                message: exit.message.clone(),
            },
            (None, Some(held)) => ContainerState::Running { started_at: held.started_at },
            (None, None) => ContainerState::Created,
        }
    }

    fn container(&self, id: &ContainerId) -> Container {
        let Made { sandbox, spec, created_at, run } = &self.made;
        Container::new(id.clone(), sandbox.clone(), spec, *created_at)
            .image_id(IMAGE)
            .state(self.state())
            .log_path(&run.log)
    }
}

/// The end of a container whose shim was killed, or that was running when the machine went down.
fn lost(held: &Held) -> Exit {
    Exit {
        started_at: held.started_at,
        finished_at: now(),
        code: 255,
        reason: "Unknown".to_owned(),
        message: "the process that held the container is gone; was it killed, or the machine restarted?"
            .to_owned(),
    }
}

/// The copy in memory, and where the files are. Owned by a thread: using it blocks.
#[derive(Debug)]
pub(super) struct Records {
    folders: Folders,
    sandboxes: BTreeMap<SandboxId, KnownSandbox>,
    containers: BTreeMap<ContainerId, Known>,
}

impl Records {
    /// Makes what is missing and reads what is there. What cannot be read is reported and left alone.
    pub(super) fn open(folders: Folders) -> RuntimeResult<Self> {
        let mut records = Self { folders, sandboxes: BTreeMap::new(), containers: BTreeMap::new() };
        for name in names(&records.folders.root.join("sandboxes"))? {
            let id = SandboxId(name);
            if let Some(known) = read_or_tell(&records.folders.sandbox(&id).join("sandbox.json")) {
                records.sandboxes.insert(id, known);
            }
        }
        for name in names(&records.folders.root.join("containers"))? {
            let id = ContainerId(name);
            if let Some(made) = read_or_tell(&records.folders.container(&id).join("made.json")) {
                records.containers.insert(id, Known { made, held: None, exit: None });
            }
        }
        records.refresh_all();
        Ok(records)
    }

    fn has_sandbox(&self, spec: &SandboxSpec) -> bool {
        let key =
            |spec: &SandboxSpec| (spec.name.clone(), spec.namespace.clone(), spec.uid.clone(), spec.attempt);
        self.sandboxes.values().any(|known| key(&known.spec) == key(spec))
    }

    pub(super) fn add_sandbox(&mut self, id: SandboxId, spec: SandboxSpec) -> RuntimeResult<()> {
        if self.has_sandbox(&spec) {
            let pod = format!("{}/{} attempt {}", spec.namespace, spec.name, spec.attempt);
            return Err(fail(RuntimeKind::Exists, "making a sandbox", pod));
        }
        let folder = self.folders.sandbox(&id);
        let known = KnownSandbox { spec, created_at: now(), ready: true };
        let made =
            file::make_folder(&folder, FOLDER).and_then(|()| write(&folder.join("sandbox.json"), &known));
        made.map_err(|error| broken("making a sandbox", &folder, error))?;
        self.sandboxes.insert(id, known);
        Ok(())
    }

    /// Whether containers can run in a sandbox.
    pub(super) fn is_ready(&self, id: &SandboxId) -> bool {
        self.sandboxes.get(id).is_some_and(|sandbox| sandbox.ready)
    }

    /// Notes that nothing starts in a sandbox any more.
    pub(super) fn stop_sandbox(&mut self, id: &SandboxId) -> RuntimeResult<()> {
        let Some(known) = self.sandboxes.get_mut(id).filter(|known| known.ready) else { return Ok(()) };
        known.ready = false;
        let file = self.folders.sandbox(id).join("sandbox.json");
        write(&file, known).map_err(|error| broken("stopping a sandbox", &file, error))
    }

    pub(super) fn forget_sandbox(&mut self, id: &SandboxId) {
        self.sandboxes.remove(id);
    }

    pub(super) fn inside(&self, id: &SandboxId) -> Vec<ContainerId> {
        let inside = self.containers.iter().filter(|(_, known)| known.made.sandbox == *id);
        inside.map(|(id, _)| id.clone()).collect()
    }

    fn has_container(&self, within: &SandboxId, name: &str, attempt: u32) -> bool {
        self.containers.values().any(|Known { made, .. }| {
            made.sandbox == *within && made.spec.name == name && made.spec.attempt == attempt
        })
    }

    pub(super) fn add_container(
        &mut self,
        id: ContainerId,
        within: SandboxId,
        spec: ContainerSpec,
    ) -> RuntimeResult<()> {
        let (doing, folder) = ("making a container", self.folders.container(&id));
        let Some(sandbox) = self.sandboxes.get(&within).filter(|sandbox| sandbox.ready) else {
            return Err(fail(RuntimeKind::NotFound, "making a container in a sandbox", within.0));
        };
        if self.has_container(&within, &spec.name, spec.attempt) {
            let name = format!("{} attempt {}", spec.name, spec.attempt);
            return Err(fail(RuntimeKind::Exists, doing, name));
        }
        let run = text::run(&folder, &sandbox.spec, &spec)?;
        let made = Made { sandbox: within, spec, created_at: now(), run };
        let root = folder.join("root");
        file::make_folder(&root, FOLDER).map_err(|error| broken(doing, &root, error))?;
        for (inside, outside) in &made.run.links {
            link(&root.join(inside), outside).map_err(|error| broken(doing, inside, error))?;
        }
        if let Some(logs) = made.run.log.parent() {
            fs::create_dir_all(logs).map_err(|error| broken("making the folder of the logs", logs, error))?;
        }
        write(&folder.join("made.json"), &made).map_err(|error| broken(doing, &folder, error))?;
        self.containers.insert(id, Known { made, held: None, exit: None });
        Ok(())
    }

    /// What holds a container, while it runs.
    pub(super) fn held(&mut self, id: &ContainerId) -> Option<Held> {
        self.refresh(id);
        let known = self.containers.get(id)?;
        known.held.clone().filter(|_| known.exit.is_none())
    }

    /// What a container shall be, while it runs.
    pub(super) fn running_made(&mut self, id: &ContainerId) -> Option<Made> {
        self.held(id)?;
        self.containers.get(id).map(|known| known.made.clone())
    }

    /// Fails with the reason when a container cannot be started.
    pub(super) fn startable(&self, id: &ContainerId) -> RuntimeResult<()> {
        let failed = |kind| fail(kind, super::STARTING, id.0.clone());
        let known = self.containers.get(id).ok_or_else(|| failed(RuntimeKind::NotFound))?;
        if known.held.is_some() || known.exit.is_some() {
            let why = "it was started before; make a new one with the next attempt";
            return Err(failed(RuntimeKind::Invalid).because(why));
        }
        if !self.may_run(id) {
            return Err(failed(RuntimeKind::Invalid).because(super::STOPPED));
        }
        Ok(())
    }

    /// What the shim of a container that was just launched has noted.
    pub(super) fn launched(&mut self, id: &ContainerId) -> Option<Held> {
        self.refresh(id);
        self.containers.get(id).and_then(|known| known.held.clone())
    }

    /// Whether a container is there and its sandbox was not stopped.
    pub(super) fn may_run(&self, id: &ContainerId) -> bool {
        let sandbox = self.containers.get(id).and_then(|known| self.sandboxes.get(&known.made.sandbox));
        sandbox.is_some_and(|sandbox| sandbox.ready)
    }

    pub(super) fn forget_container(&mut self, id: &ContainerId) {
        self.containers.remove(id);
    }

    /// Looks at what the shim of a container has noted, and whether it lives.
    pub(super) fn refresh(&mut self, id: &ContainerId) {
        if let Some(known) = self.containers.get_mut(id) {
            known.refresh(&self.folders.container(id));
        }
    }

    pub(super) fn refresh_all(&mut self) {
        for (id, known) in &mut self.containers {
            known.refresh(&self.folders.container(id));
        }
    }

    pub(super) fn running(&self) -> Vec<(ContainerId, Held)> {
        let running = self.containers.iter().filter(|(_, known)| known.exit.is_none());
        running.filter_map(|(id, known)| Some((id.clone(), known.held.clone()?))).collect()
    }

    pub(super) fn list(&self) -> (Vec<Sandbox>, Vec<Container>) {
        // Every sandbox shares the host's network and so has no addresses of its own.
        let sandboxes = self.sandboxes.iter().map(|(id, KnownSandbox { spec, created_at, ready })| {
            Sandbox::new(id.clone(), spec, *created_at).ready(*ready)
        });
        let containers = self.containers.iter().map(|(id, known)| known.container(id));
        (sandboxes.collect(), containers.collect())
    }
}

/// A mount in the container's folder. A mount within another one cannot be shown there.
fn link(inside: &Path, outside: &Path) -> io::Result<()> {
    if let Some(parent) = inside.parent() {
        fs::create_dir_all(parent)?;
    }
    match std::os::unix::fs::symlink(outside, inside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What the processes of a container use together. A process that ends meanwhile counts for nothing.
pub(super) fn usage(held: &Held) -> Usage {
    let (mut usage, mut left) = (Usage::default(), vec![held.process.pid]);
    let (page, tick) = (rustix::param::page_size() as u64, rustix::param::clock_ticks_per_second().max(1));
    while let Some(pid) = left.pop() {
        left.extend(children(pid));
        // User and system time of the process itself and of its children that have ended.
        let ticks: u64 = (14..=17).filter_map(|field| stat_field(pid, field).ok()).sum();
        usage.cpu_nanos += ticks * (1_000_000_000 / tick);
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let mut pages = statm.split_whitespace().skip(1).filter_map(|field| field.parse::<u64>().ok());
        if let (Some(resident), Some(shared)) = (pages.next(), pages.next()) {
            usage.memory_working_set += resident.saturating_sub(shared) * page;
        }
    }
    usage
}

/// The processes a process has started and not yet waited for.
pub(super) fn children(of: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<_> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
