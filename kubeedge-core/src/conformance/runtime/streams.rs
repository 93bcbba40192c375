//! Cases: commands inside containers, ports, hints and usage, where offered.

use std::time::Duration;

use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{
    super::skips::skip,
    Program, RuntimeHarness,
    bench::{Bench, PATIENCE, exit_of, must, refused},
};
use crate::runtime::{ContainerId, ExecSpec, ExecSyncSpec, Output, RuntimeKind, SandboxId, Streams};

/// What the harness says the runtime can do is what the runtime offers: a wrapper that forgets to forward an
/// ability loses it without a word.
pub async fn abilities_are_offered_as_declared(harness: impl RuntimeHarness) {
    let (runtime, abilities) = (harness.runtime(), harness.abilities());
    for (what, declared, offered) in [
        ("exec", abilities.exec, runtime.exec().is_some()),
        ("attach", abilities.attach, runtime.attach().is_some()),
        ("port_forward", abilities.port_forward, runtime.port_forward().is_some()),
        ("events", abilities.events, runtime.events().is_some()),
        ("stats", abilities.stats, runtime.stats().is_some()),
    ] {
        assert_eq!(offered, declared, "{what}: what the runtime offers, and what Abilities say");
    }
}

/// Everything a command says, and its code.
async fn finish(streams: Streams) -> (String, String, i32) {
    let Streams { stdin, mut output, exit, resize } = streams;
    drop(stdin);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read = async {
        while let Some(said) = output.next().await {
            match must(said, "reading what a command says") {
                Output::Stdout(bytes) => out.extend_from_slice(&bytes),
                Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
        must(exit.await, "waiting for a command's code")
    };
    let code = timeout(PATIENCE, read).await.expect("a command ends");
    drop(resize);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), code)
}

/// A case about commands: a sandbox, unless the runtime runs none.
async fn with_exec<H: RuntimeHarness>(harness: H) -> Option<Bench<H>> {
    if harness.runtime().exec().is_none() {
        skip("it runs no commands in containers");
        return None;
    }
    Some(Bench::of(harness).await)
}

/// `kubectl exec` shows both, and scripts read the code.
pub async fn a_command_speaks_on_two_streams_and_returns_its_code(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.wait_in("host", &Program::Wait).await;
    let say = bench.harness.program(&Program::Say("to out\n".into(), "to err".into()));
    let streams = must(exec.exec_stream(&id, ExecSpec::new(say)).await, "starting a command");
    assert_eq!(finish(streams).await, ("to out\n".to_owned(), "to err".to_owned(), 0));
    let fail = bench.harness.program(&Program::Exit(5));
    let streams = must(exec.exec_stream(&id, ExecSpec::new(fail)).await, "starting a command");
    assert_eq!(finish(streams).await.2, 5);
    assert!(bench.container(&id).await.is_some_and(|container| container.state.is_running()));
    bench.close().await;
}

/// More than a pipe holds goes in and comes out.
pub async fn a_command_reads_its_input_to_the_end(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.wait_in("host", &Program::Wait).await;
    let what = ExecSpec::new(bench.harness.program(&Program::Copy)).stdin(true);
    let mut streams = must(exec.exec_stream(&id, what).await, "starting a command");
    let mut stdin = streams.stdin.take().expect("input was asked for");
    let text = "0123456789abcdef".repeat(20_000);
    let write = async {
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    };
    let ((), (out, err, code)) = tokio::join!(write, finish(streams));
    assert!(out == text, "{} of {} bytes came back", out.len(), text.len());
    assert_eq!((err.as_str(), code), ("", 0));
    bench.close().await;
}

/// Neither in what has ended nor in what never was.
pub async fn a_command_in_what_does_not_run_is_not_found(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.start(bench.spec("ended", &Program::Exit(0))).await;
    exit_of(&bench.until_exited(&id).await);
    for id in [id, ContainerId::from("0123456789abcdef")] {
        let command = bench.harness.program(&Program::Exit(0));
        refused(exec.exec_stream(&id, ExecSpec::new(command.clone())).await, RuntimeKind::NotFound);
        refused(exec.exec_sync(&id, ExecSyncSpec::new(command, PATIENCE)).await, RuntimeKind::NotFound);
    }
    bench.close().await;
}

/// An exec probe reads the code, and its event shows what was said.
pub async fn a_command_run_to_its_end_returns_all_it_said(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.wait_in("host", &Program::Wait).await;
    let say = bench.harness.program(&Program::Say("to out\n".into(), "to err".into()));
    let said = must(exec.exec_sync(&id, ExecSyncSpec::new(say, PATIENCE)).await, "running a command");
    assert_eq!((&said.stdout[..], &said.stderr[..]), (&b"to out\n"[..], &b"to err"[..]));
    assert_eq!((said.code, said.truncated), (0, false));
    let fail = bench.harness.program(&Program::Exit(5));
    let said = must(exec.exec_sync(&id, ExecSyncSpec::new(fail, PATIENCE)).await, "running a command");
    assert_eq!((said.code, said.stdout.len() + said.stderr.len()), (5, 0));
    bench.close().await;
}

/// A probe that prints without end fills no memory.
pub async fn the_output_of_a_command_is_cut_at_its_limit(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.wait_in("host", &Program::Wait).await;
    let say = bench.harness.program(&Program::Say("o".repeat(40_000), "e".repeat(40_000)));
    for (limit, truncated) in [(1000, true), (80_000, false)] {
        let what = ExecSyncSpec::new(say.clone(), PATIENCE).max_output(limit);
        let said = must(exec.exec_sync(&id, what).await, "running a command");
        assert_eq!((said.code, said.truncated), (0, truncated), "{limit} bytes");
        assert_eq!(said.stdout.len() + said.stderr.len(), limit);
        assert!(said.stdout.iter().all(|byte| *byte == b'o') && said.stderr.iter().all(|byte| *byte == b'e'));
    }
    bench.close().await;
}

/// A probe that hangs has failed, and its container runs on.
pub async fn a_command_that_takes_too_long_times_out(harness: impl RuntimeHarness) {
    let Some(bench) = with_exec(harness).await else { return };
    let exec = bench.runtime.exec().expect("it was there");
    let id = bench.wait_in("host", &Program::Wait).await;
    let wait = bench.harness.program(&Program::Wait);
    let began = Instant::now();
    let late = exec.exec_sync(&id, ExecSyncSpec::new(wait, Duration::from_secs(1))).await;
    refused(late, RuntimeKind::Timeout);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert!(bench.container(&id).await.is_some_and(|container| container.state.is_running()));
    bench.close().await;
}

/// `kubectl attach` shows what is said from then on, to the end; not every runtime knows the code then.
pub async fn who_joins_a_container_hears_its_last_words(harness: impl RuntimeHarness) {
    if harness.runtime().attach().is_none() {
        return skip("nobody joins its containers");
    }
    let bench = Bench::of(harness).await;
    let attach = bench.runtime.attach().expect("it was there");
    let id = bench.wait_in("host", &Program::Farewell("goodbye then")).await;
    let mut joined = must(attach.attach_stream(&id, ExecSpec::default()).await, "joining a container");
    must(bench.runtime.stop_container(&id, PATIENCE).await, "stopping");
    let mut heard = Vec::new();
    let listen = async {
        while let Some(said) = joined.output.next().await {
            if let Output::Stdout(bytes) = must(said, "listening to a container") {
                heard.extend_from_slice(&bytes);
            }
        }
    };
    timeout(PATIENCE, listen).await.expect("what a container says ends with it");
    assert!(String::from_utf8_lossy(&heard).contains("goodbye then"), "{heard:?}");
    bench.close().await;
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `kubectl port-forward` reaches what listens inside.
pub async fn a_forwarded_port_reaches_who_listens(harness: impl RuntimeHarness) {
    if harness.runtime().port_forward().is_none() {
        return skip("it forwards no ports");
    }
    let port = free_port();
    let Some(mut command) = harness.echo_server(port) else { return skip("its image has no server") };
    let bench = Bench::of(harness).await;
    let ports = bench.runtime.port_forward().expect("it was there");
    let args = command.split_off(1);
    let spec = bench.spec("server", &Program::Wait).command(command).args(args);
    bench.start(spec).await;
    let text = b"there and back";
    let echo = || async {
        let mut connection = ports.connect(&bench.sandbox, port).await.ok()?;
        connection.write_all(text).await.ok()?;
        connection.flush().await.ok()?;
        let mut heard = [0; 14];
        connection.read_exact(&mut heard).await.ok()?;
        Some(heard)
    };
    // A program listens a little after it was started.
    let heard = timeout(PATIENCE, async {
        loop {
            match echo().await {
                Some(heard) => return heard,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert_eq!(&heard.await.expect("what was said comes back"), text);
    bench.close().await;
}

/// Refused at once, or ended before anything was said.
pub async fn a_forwarded_port_where_nobody_listens_says_nothing(harness: impl RuntimeHarness) {
    if harness.runtime().port_forward().is_none() {
        return skip("it forwards no ports");
    }
    let bench = Bench::of(harness).await;
    let ports = bench.runtime.port_forward().expect("it was there");
    let nowhere = SandboxId::from("0123456789abcdef");
    refused(ports.connect(&nowhere, free_port()).await, RuntimeKind::NotFound);
    if let Ok(mut connection) = ports.connect(&bench.sandbox, free_port()).await {
        let mut heard = Vec::new();
        let read =
            timeout(PATIENCE, connection.read_to_end(&mut heard)).await.expect("a connection that ends");
        assert_eq!((read.ok().unwrap_or(0), heard.len()), (0, 0), "{heard:?}");
    }
    bench.close().await;
}

/// Edged need not wait for its next look.
pub async fn an_end_is_hinted_at(harness: impl RuntimeHarness) {
    let Some(mut events) = harness.runtime().events() else { return skip("it has no hints") };
    let bench = Bench::of(harness).await;
    let id = bench.wait_in("hinted", &Program::Wait).await;
    // What is known already was hinted at by now or is hinted at later; the end comes after it in any case.
    let hinted = async {
        loop {
            let hint = events.next().await.expect("hints do not end while the runtime is used");
            if hint.container == id
                && bench.container(&id).await.is_some_and(|container| !container.state.is_running())
            {
                return;
            }
        }
    };
    let stop = bench.runtime.stop_container(&id, PATIENCE);
    let (stopped, hinted) = tokio::join!(stop, timeout(PATIENCE, hinted));
    must(stopped, "stopping");
    hinted.expect("a hint at an end");
    bench.close().await;
}

/// `kubectl top` reads it.
pub async fn usage_of_what_runs_is_told(harness: impl RuntimeHarness) {
    if harness.runtime().stats().is_none() {
        return skip("it does not tell usage");
    }
    let bench = Bench::of(harness).await;
    let stats = bench.runtime.stats().expect("it was there");
    let id = bench.wait_in("used", &Program::Wait).await;
    let first = must(stats.usage(&id).await, "asking for usage");
    let second = must(stats.usage(&id).await, "asking for usage again");
    assert!(second.cpu_nanos >= first.cpu_nanos, "{first:?} {second:?}");
    assert!(first.memory_working_set > 0, "{first:?}");
    refused(stats.usage(&ContainerId::from("0123456789abcdef")).await, RuntimeKind::NotFound);
    bench.close().await;
}
