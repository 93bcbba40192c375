//! Commands in containers. The runtime names an address at which the streams are to be had, once.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use http::{Uri, uri::Scheme};
use kubeedge_core::failure::chain;
use kubeedge_core::runtime::{
    ContainerId, ContainerState, Exec, ExecSpec, RuntimeError, RuntimeKind, RuntimeResult, Streaming,
};

use super::{
    CriRuntime, by_id,
    client::{ATTACH, CONTAINER_STATUS, Call, Client, EXEC},
    convert, messages as cri, spdy,
    streams::{self, Ways},
    wsstream,
};

/// How often, and how long apart, to look for the exit code of a container whose streams have ended.
const LOOKS: u32 = 20;
const APART: Duration = Duration::from_millis(100);

impl CriRuntime {
    /// A refusal to run something in a container that does not run is told as such.
    async fn why_no_stream(&self, id: &ContainerId, call: Call, error: RuntimeError) -> RuntimeError {
        match self.container_status(id).await {
            Ok(status) if status.state != cri::RUNNING => {
                call.failed(RuntimeKind::NotFound, &id.0).because(error)
            }
            _ => error,
        }
    }

    async fn streams(&self, id: &ContainerId, call: Call, what: ExecSpec) -> RuntimeResult<Exec> {
        let ways = match self.open(id, call, &what).await {
            Ok(ways) => ways,
            Err(error) => return Err(self.why_no_stream(id, call, error).await),
        };
        let (exec, pipes) = streams::pipes(call, &what);
        tokio::spawn(streams::carry(ways, pipes));
        Ok(exec)
    }

    /// Over a WebSocket, unless the end of the input has to be sent alone, which only newer runtimes understand there.
    async fn open(&self, id: &ContainerId, call: Call, what: &ExecSpec) -> RuntimeResult<Ways> {
        if what.stdin && !what.tty {
            match spdy::open(&self.address(id, call, what).await?, what).await {
                Ok(ways) => return Ok(ways),
                Err(error) => tracing::debug!(error = %chain(&*error), "no SPDY: trying a WebSocket"),
            }
        }
        let address = self.address(id, call, what).await?;
        let opened = wsstream::open(&address, what.tty).await;
        opened.map_err(|error| call.failed(RuntimeKind::Internal, &address.to_string()).because(error))
    }

    async fn address(&self, id: &ContainerId, call: Call, what: &ExecSpec) -> RuntimeResult<Uri> {
        let url = self.ask(id, call, what).await?.url;
        let unusable = |why: &'static str| call.failed(RuntimeKind::Unsupported, &url).because(why);
        let address: Uri =
            url.parse().map_err(|_| unusable("the runtime's address of the streams is no URL"))?;
        if address.scheme() != Some(&Scheme::HTTP) {
            return Err(unusable("only http is spoken: turn the runtime's TLS streaming off"));
        }
        Ok(address)
    }

    async fn ask(&self, id: &ContainerId, call: Call, what: &ExecSpec) -> RuntimeResult<cri::StreamUrl> {
        let (container_id, tty, stdin) = (id.0.clone(), what.tty, what.stdin);
        // A terminal has one output only.
        let (stdout, stderr) = (true, !tty);
        if what.command.is_empty() {
            let request = cri::AttachRequest { container_id, tty, stdin, stdout, stderr };
            return self.client.call(call, &id.0, request).await;
        }
        let cmd = what.command.clone();
        let request = cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
        self.client.call(call, &id.0, request).await
    }
}

#[async_trait]
impl Streaming for CriRuntime {
    async fn exec(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Exec> {
        if what.command.is_empty() {
            return Err(EXEC.failed(RuntimeKind::Invalid, &id.0).because("the command is empty"));
        }
        self.streams(id, EXEC, what).await
    }

    async fn attach(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Exec> {
        let what = ExecSpec { command: Vec::new(), ..what };
        let mut exec = self.streams(id, ATTACH, what).await?;
        exec.exit = exit_of(self.client.clone(), id.clone(), exec.exit).boxed();
        Ok(exec)
    }
}

/// The exit code of a container that was attached to: its streams do not tell it. 0 when it runs on.
async fn exit_of(
    client: Client,
    id: ContainerId,
    streams: impl Future<Output = RuntimeResult<i32>>,
) -> RuntimeResult<i32> {
    let ended = streams.await?;
    for _ in 0..LOOKS {
        let answer: cri::ContainerStatusResponse = client.call(CONTAINER_STATUS, &id.0, by_id(&id.0)).await?;
        if let ContainerState::Exited { code, .. } = convert::state(&answer.status.unwrap_or_default()) {
            return Ok(code);
        }
        tokio::time::sleep(APART).await;
    }
    Ok(ended)
}
