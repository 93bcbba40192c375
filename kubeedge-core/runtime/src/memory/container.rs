//! A container in memory: started, asked to end, killed.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use kubeedge_core::runtime::{
    Container, ContainerId, ContainerSpec, ContainerState, Output, RuntimeKind, RuntimeResult,
};
use tokio::{
    fs::File,
    sync::{broadcast, mpsc, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Inner, State, failure,
    log::{self, Log},
    program::{Step, World, parse, run},
};

/// How much a program may print before its log is written.
pub(super) const CHUNKS: usize = 16;

/// A container, its specification and, once started, its program.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) listed: Container,
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) run: Option<Run>,
}

/// A program that was started. Dropping the last clone kills it.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) asked: watch::Sender<bool>,
    pub(super) kill: CancellationToken,
    _guard: Arc<DropGuard>,
    /// Its exit code, once it has ended.
    pub(super) ended: watch::Receiver<Option<i32>>,
    /// What it says, for those who join; closed when it has ended.
    pub(super) said: broadcast::WeakSender<Output>,
    pub(super) stdin: mpsc::Sender<Bytes>,
}

impl Run {
    /// Asks, waits for the grace, kills; returns when it has ended.
    pub(super) async fn end(&self, grace: Duration) {
        self.asked.send_replace(true);
        let mut ended = self.ended.clone();
        // A channel that closes means that the program is gone too.
        if tokio::time::timeout(grace, ended.wait_for(Option::is_some)).await.is_err() {
            self.kill.cancel();
            let _ = ended.wait_for(Option::is_some).await;
        }
    }
}

impl Inner {
    pub(super) async fn start(self: &Arc<Self>, id: &ContainerId) -> RuntimeResult<()> {
        let doing = "starting a container";
        let (spec, steps, log_path) = self.startable(id)?;
        let log = log::open(&log_path, !spec.log_path.as_os_str().is_empty()).await;
        let log = log.map_err(|error| failure(RuntimeKind::Internal, doing, &id.0).because(error))?;
        let mut state = self.state.lock();
        // Another call may have come between while the log was opened.
        let State { containers, sandboxes, .. } = &mut *state;
        let is_up = |held: &Held| sandboxes.get(&held.listed.sandbox).is_some_and(|place| place.listed.ready);
        let startable = containers.get_mut(id).filter(|held| held.run.is_none() && is_up(held));
        let Some(held) = startable else {
            let why = "it was removed or started, or its sandbox was stopped";
            return Err(failure(RuntimeKind::NotFound, doing, &id.0).because(why));
        };
        held.listed.state = ContainerState::Running { started_at: self.clock.now() };
        held.run = Some(self.spawn(id.clone(), steps, spec, log));
        drop(state);
        self.hint(id);
        Ok(())
    }

    fn startable(
        &self,
        id: &ContainerId,
    ) -> RuntimeResult<(Arc<ContainerSpec>, Vec<Step>, std::path::PathBuf)> {
        let doing = "starting a container";
        let state = self.state.lock();
        let held = state.containers.get(id).ok_or_else(|| failure(RuntimeKind::NotFound, doing, &id.0))?;
        if held.run.is_some() {
            return Err(failure(RuntimeKind::Invalid, doing, &id.0).because("it was started before"));
        }
        let own = state.images.get(&held.spec.image.0);
        let command = if held.spec.command.is_empty() {
            own.cloned().unwrap_or_default()
        } else {
            held.spec.command.clone()
        };
        let words = [command, held.spec.args.clone()].concat();
        let invalid = |why| failure(RuntimeKind::Invalid, doing, &id.0).because(why);
        let steps = parse(&words).map_err(|error| invalid(error.to_string()))?;
        Ok((held.spec.clone(), steps, held.listed.log_path.clone()))
    }

    fn spawn(
        self: &Arc<Self>,
        id: ContainerId,
        steps: Vec<Step>,
        spec: Arc<ContainerSpec>,
        log: Option<File>,
    ) -> Run {
        let (asked, ask) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let (stdin, input) = mpsc::channel(CHUNKS);
        let kill = CancellationToken::new();
        let said = broadcast::Sender::new(CHUNKS);
        let run = Run {
            asked,
            kill: kill.clone(),
            _guard: Arc::new(kill.clone().drop_guard()),
            ended,
            said: said.downgrade(),
            stdin,
        };
        let log = Log::new(log, self.clock.clone());
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            let (out, output) = mpsc::channel(CHUNKS);
            let world = World { spec, out, input: Some(input), asked: ask };
            let work = async {
                tokio::select! {
                    code = run_to_end(steps, world) => code,
                    () = kill.cancelled() => 137,
                }
            };
            let (code, ()) = tokio::join!(work, log.write(output, said));
            note(&weak, &id, code);
            end.send_replace(Some(code));
        });
        run
    }
}

/// Runs a program that owns its world, so that its output ends with it.
async fn run_to_end(steps: Vec<Step>, mut world: World) -> i32 {
    run(steps, &mut world).await
}

fn note(inner: &Weak<Inner>, id: &ContainerId, code: i32) {
    if let Some(inner) = inner.upgrade() {
        inner.ended(id, code);
    }
}
