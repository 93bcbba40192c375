//! Cases: commands inside containers, hints and usage, where offered.

use futures::StreamExt;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    Program, RuntimeHarness,
    bench::{Bench, PATIENCE, exit_of, must, refused},
};
use crate::runtime::{ContainerId, Exec, ExecSpec, Output, RuntimeKind};

/// Everything a command says, and its code.
async fn finish(exec: Exec) -> (String, String, i32) {
    let Exec { stdin, mut output, exit, resize } = exec;
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

fn plain(command: Vec<String>) -> ExecSpec {
    ExecSpec { command, ..ExecSpec::default() }
}

/// `kubectl exec` shows both, and scripts read the code.
pub async fn a_command_speaks_on_two_streams_and_returns_its_code(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(streaming) = bench.runtime.streaming() {
        let id = bench.wait_in("host", &Program::Wait).await;
        let say = bench.harness.program(&Program::Say("to out\n".into(), "to err".into()));
        let exec = must(streaming.exec(&id, plain(say)).await, "starting a command");
        assert_eq!(finish(exec).await, ("to out\n".to_owned(), "to err".to_owned(), 0));
        let fail = bench.harness.program(&Program::Exit(5));
        let exec = must(streaming.exec(&id, plain(fail)).await, "starting a command");
        assert_eq!(finish(exec).await.2, 5);
        assert!(bench.container(&id).await.is_some_and(|container| container.state.is_running()));
    }
    bench.close().await;
}

/// More than a pipe holds goes in and comes out.
pub async fn a_command_reads_its_input_to_the_end(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(streaming) = bench.runtime.streaming() {
        let id = bench.wait_in("host", &Program::Wait).await;
        let command = bench.harness.program(&Program::Copy);
        let what = ExecSpec { command, stdin: true, tty: false };
        let mut exec = must(streaming.exec(&id, what).await, "starting a command");
        let mut stdin = exec.stdin.take().expect("input was asked for");
        let text = "0123456789abcdef".repeat(20_000);
        let write = async {
            stdin.write_all(text.as_bytes()).await.unwrap();
            stdin.shutdown().await.unwrap();
        };
        let ((), (out, err, code)) = tokio::join!(write, finish(exec));
        assert!(out == text, "{} of {} bytes came back", out.len(), text.len());
        assert_eq!((err.as_str(), code), ("", 0));
    }
    bench.close().await;
}

/// Neither in what has ended nor in what never was.
pub async fn a_command_in_what_does_not_run_is_not_found(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(streaming) = bench.runtime.streaming() {
        let id = bench.start(bench.spec("ended", &Program::Exit(0))).await;
        exit_of(&bench.until_exited(&id).await);
        for id in [id, ContainerId::from("0123456789abcdef")] {
            let command = bench.harness.program(&Program::Exit(0));
            refused(streaming.exec(&id, plain(command)).await, RuntimeKind::NotFound);
        }
    }
    bench.close().await;
}

/// `kubectl attach` shows what is said from then on, to the end; not every runtime knows the code then.
pub async fn who_joins_a_container_hears_its_last_words(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(streaming) = bench.runtime.streaming() {
        let id = bench.wait_in("host", &Program::Farewell("goodbye then")).await;
        let mut joined = match streaming.attach(&id, ExecSpec::default()).await {
            Err(error) if error.kind() == RuntimeKind::Unsupported => return bench.close().await,
            joined => must(joined, "joining a container"),
        };
        must(bench.runtime.stop(&id, PATIENCE).await, "stopping");
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
    }
    bench.close().await;
}

/// Edged need not wait for its next look.
pub async fn an_end_is_hinted_at(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(mut events) = bench.runtime.events() {
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
        let stop = bench.runtime.stop(&id, PATIENCE);
        let (stopped, hinted) = tokio::join!(stop, timeout(PATIENCE, hinted));
        must(stopped, "stopping");
        hinted.expect("a hint at an end");
    }
    bench.close().await;
}

/// `kubectl top` reads it.
pub async fn usage_of_what_runs_is_told(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    if let Some(stats) = bench.runtime.stats() {
        let id = bench.wait_in("used", &Program::Wait).await;
        let first = must(stats.usage(&id).await, "asking for usage");
        let second = must(stats.usage(&id).await, "asking for usage again");
        assert!(second.cpu_nanos >= first.cpu_nanos, "{first:?} {second:?}");
        assert!(first.memory_working_set > 0, "{first:?}");
        refused(stats.usage(&ContainerId::from("0123456789abcdef")).await, RuntimeKind::NotFound);
    }
    bench.close().await;
}
