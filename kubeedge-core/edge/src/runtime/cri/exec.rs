//! Commands in containers. The runtime names an address at which the streams are to be had, once.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use http::{Uri, uri::Scheme};
use kubeedge_core::runtime::{
    ContainerId, ContainerState, Exec, ExecSpec, RuntimeError, RuntimeKind, RuntimeResult, Streaming,
};

use super::{
    CriRuntime, by_id,
    client::{ATTACH, CONTAINER_STATUS, Call, Client, EXEC},
    convert, messages as cri,
    streams::{self, Pipes},
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
        let asked = self.ask(id, call, &what).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => return Err(self.why_no_stream(id, call, error).await),
        };
        let address = address(call, &answer.url)?;
        let (exec, pipes) = streams::pipes(call, &what);
        open(call, &address, &what, pipes).await?;
        Ok(exec)
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

fn address(call: Call, url: &str) -> RuntimeResult<Uri> {
    let unusable = |why: &'static str| call.failed(RuntimeKind::Unsupported, url).because(why);
    let address: Uri = url.parse().map_err(|_| unusable("the runtime's address of the streams is no URL"))?;
    if address.scheme() != Some(&Scheme::HTTP) {
        return Err(unusable("only http is spoken: turn the runtime's TLS streaming off"));
    }
    Ok(address)
}

async fn open(call: Call, address: &Uri, what: &ExecSpec, pipes: Pipes) -> RuntimeResult<()> {
    let opened = wsstream::open(address, what.tty).await;
    let (pieces, inputs) =
        opened.map_err(|error| call.failed(RuntimeKind::Internal, &address.to_string()).because(error))?;
    tokio::spawn(streams::carry(pieces, inputs, pipes));
    Ok(())
}
