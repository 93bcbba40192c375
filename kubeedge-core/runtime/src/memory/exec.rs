//! Commands beside a container's program, and joining it.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use kubeedge_core::runtime::{
    Attach, ContainerId, ContainerSpec, Exec, ExecSpec, Input, RuntimeError, RuntimeKind, RuntimeResult,
    Streams,
};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::{
    io::{CopyToBytes, SinkWriter},
    sync::PollSender,
};

use super::{
    MemoryRuntime,
    container::{CHUNKS, Run},
    failure,
    program::{World, parse, run},
};

impl MemoryRuntime {
    fn running(&self, id: &ContainerId, doing: &'static str) -> RuntimeResult<(Run, Arc<ContainerSpec>)> {
        let state = self.inner.state.lock();
        let held = state.containers.get(id).filter(|held| held.listed.state.is_running());
        let found = held.and_then(|held| Some((held.run.clone()?, held.spec.clone())));
        found.ok_or_else(|| {
            failure(RuntimeKind::NotFound, doing, &id.0).because("no container of this id runs")
        })
    }
}

fn writer(to: mpsc::Sender<Bytes>) -> Input {
    let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    Box::new(SinkWriter::new(CopyToBytes::new(PollSender::new(to).sink_map_err(closed))))
}

fn lost(id: &ContainerId) -> RuntimeError {
    failure(RuntimeKind::Internal, "waiting for a command to end", &id.0)
}

#[async_trait]
impl Exec for MemoryRuntime {
    async fn exec_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams> {
        let doing = "running a command in a container";
        let (within, spec) = self.running(id, doing)?;
        let invalid = |why: String| failure(RuntimeKind::Invalid, doing, &id.0).because(why);
        let steps = parse(&what.command).map_err(|error| invalid(error.to_string()))?;
        let (out, output) = mpsc::channel(CHUNKS);
        let (stdin, input) = mpsc::channel(CHUNKS);
        // A command is not asked to end; it dies with its container.
        let (unasked, asked) = watch::channel(false);
        let kill = within.kill.child_token();
        let guard = kill.clone().drop_guard();
        let mut ended = within.ended.clone();
        let mut world = World { spec, out, input: Some(input), asked };
        let work = tokio::spawn(async move {
            let _unasked = unasked;
            tokio::select! {
                code = run(steps, &mut world) => code,
                () = kill.cancelled() => 137,
                _ = ended.wait_for(Option::is_some) => 137,
            }
        });
        let id = id.clone();
        let exit = async move {
            let _guard = guard;
            work.await.map_err(|error| lost(&id).because(error))
        };
        let output =
            stream::unfold(output, |mut output| async move { Some((Ok(output.recv().await?), output)) });
        let stdin = what.stdin.then(|| writer(stdin));
        Ok(Streams::new(output.boxed(), exit.boxed()).stdin(stdin))
    }
}

#[async_trait]
impl Attach for MemoryRuntime {
    async fn attach_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams> {
        let doing = "joining a container";
        let (within, spec) = self.running(id, doing)?;
        let missed = || failure(RuntimeKind::NotFound, doing, &id.0).because("it has just ended");
        let said = within.said.upgrade().ok_or_else(missed)?.subscribe();
        let output = stream::unfold(said, |mut said| async move {
            loop {
                match said.recv().await {
                    Ok(output) => return Some((Ok(output), said)),
                    // Whoever reads too slowly misses something; the log has it.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let stdin = (what.stdin && spec.stdin).then(|| writer(within.stdin.clone()));
        let (id, mut ended) = (id.clone(), within.ended.clone());
        let exit = async move {
            let code = ended.wait_for(Option::is_some).await.map(|code| *code);
            code.ok().flatten().ok_or_else(|| lost(&id))
        };
        Ok(Streams::new(output.boxed(), exit.boxed()).stdin(stdin))
    }
}
