//! Commands in containers. The runtime names an address at which the streams are to be had, once.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use http::{Uri, uri::Scheme};
use kubeedge_core::failure::chain;
use kubeedge_core::runtime::{
    Attach, Connection, ContainerId, ContainerState, Exec, ExecOutput, ExecSpec, ExecSyncSpec, PortForward,
    RuntimeError, RuntimeKind, RuntimeResult, SandboxId, Streams,
};

use super::{
    CriRuntime,
    client::{ATTACH, CONTAINER_STATUS, Call, Client, EXEC, EXEC_SYNC, PORT_FORWARD},
    convert, messages as cri, ports, spdy, status_of,
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
            Ok(status) if status.state() != cri::ContainerState::ContainerRunning => {
                call.failed(RuntimeKind::NotFound, &id.0).because(error)
            }
            _ => error,
        }
    }

    async fn streams(&self, id: &ContainerId, call: Call, what: ExecSpec) -> RuntimeResult<Streams> {
        let ways = match self.open(id, call, &what).await {
            Ok(ways) => ways,
            Err(error) => return Err(self.why_no_stream(id, call, error).await),
        };
        Ok(streams::carried(call, &what, ways))
    }

    /// Over a WebSocket, unless the end of the input has to be sent alone, which only newer runtimes
    /// understand there.
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
        address(call, &self.ask(id, what).await?)
    }

    /// Where the streams of a command are to be had.
    async fn ask(&self, id: &ContainerId, what: &ExecSpec) -> RuntimeResult<String> {
        let (container_id, tty, stdin) = (id.0.clone(), what.tty, what.stdin);
        // A terminal has one output only.
        let (stdout, stderr) = (true, !tty);
        if what.command.is_empty() {
            let request = cri::AttachRequest { container_id, tty, stdin, stdout, stderr };
            return Ok(self.client.call(ATTACH, &id.0, request).await?.url);
        }
        let cmd = what.command.clone();
        let request = cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr };
        Ok(self.client.call(EXEC, &id.0, request).await?.url)
    }
}

/// An address of streams, if it is one that is spoken to.
fn address(call: Call, url: &str) -> RuntimeResult<Uri> {
    let unusable = |why: &'static str| call.failed(RuntimeKind::Unsupported, url).because(why);
    let address: Uri = url.parse().map_err(|_| unusable("the runtime's address of the streams is no URL"))?;
    if address.scheme() != Some(&Scheme::HTTP) {
        return Err(unusable("only http is spoken: turn the runtime's TLS streaming off"));
    }
    Ok(address)
}

#[async_trait]
impl Exec for CriRuntime {
    async fn exec_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams> {
        not_empty(EXEC.call, id, &what.command)?;
        self.streams(id, EXEC.call, what).await
    }

    /// By the interface's own call, with which the runtime itself kills what takes too long.
    async fn exec_sync(&self, id: &ContainerId, what: ExecSyncSpec) -> RuntimeResult<ExecOutput> {
        not_empty(EXEC_SYNC.call, id, &what.command)?;
        let timeout = i64::try_from(what.timeout.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest {
            container_id: id.0.clone(),
            cmd: what.command,
            // 0 would be without limit.
            timeout: timeout.max(1),
        };
        let answer = self.client.call_longer(EXEC_SYNC, &id.0, request, what.timeout).await;
        let said = match answer {
            Ok(said) => said,
            Err(error) => return Err(self.why_no_stream(id, EXEC_SYNC.call, error).await),
        };
        Ok(ExecOutput::new(said.exit_code, said.stdout, said.stderr, what.max_output))
    }
}

fn not_empty(call: Call, id: &ContainerId, command: &[String]) -> RuntimeResult<()> {
    if command.is_empty() {
        return Err(call.failed(RuntimeKind::Invalid, &id.0).because("the command is empty"));
    }
    Ok(())
}

#[async_trait]
impl Attach for CriRuntime {
    async fn attach_stream(&self, id: &ContainerId, what: ExecSpec) -> RuntimeResult<Streams> {
        let mut joined = self.streams(id, ATTACH.call, what.command([""; 0])).await?;
        joined.exit = exit_of(self.client.clone(), id.clone(), joined.exit).boxed();
        Ok(joined)
    }
}

#[async_trait]
impl PortForward for CriRuntime {
    async fn connect(&self, id: &SandboxId, port: u16) -> RuntimeResult<Box<dyn Connection>> {
        let request = cri::PortForwardRequest { pod_sandbox_id: id.0.clone(), port: vec![port.into()] };
        let answer = self.client.call(PORT_FORWARD, &id.0, request).await?;
        let address = address(PORT_FORWARD.call, &answer.url)?;
        let opened = ports::open(&address, port).await;
        let opened =
            opened.map_err(|error| PORT_FORWARD.failed(RuntimeKind::Internal, &answer.url).because(error))?;
        Ok(Box::new(opened))
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
        let answer = client.call(CONTAINER_STATUS, &id.0, status_of(&id.0)).await?;
        if let ContainerState::Exited { code, .. } = convert::state(&answer.status.unwrap_or_default()) {
            return Ok(code);
        }
        tokio::time::sleep(APART).await;
    }
    Ok(ended)
}
