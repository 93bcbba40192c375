//! Cases: the life of sandboxes and containers.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::future::join_all;

use super::{
    super::{executor::is_not_blocked, skips::skip},
    Program, RuntimeHarness,
    bench::{Bench, LONG, exit_of, must, pod, refused},
};
use crate::{
    message::Millis,
    runtime::{ContainerId, ContainerSpec, ContainerState, Labels, RuntimeKind, SandboxId},
};

/// Edged waits for a runtime that is ready, and puts its name before every container's id.
pub async fn a_runtime_says_what_it_is_and_that_it_is_ready(harness: impl RuntimeHarness) {
    let info = must(harness.runtime().info().await, "asking what it is");
    assert!(!info.name.is_empty() && !info.name.contains([':', '/']), "{info:?}");
    assert!(!info.version.is_empty() && info.ready, "{info:?}");
}

/// A sandbox is there and ready, then there and not ready, then gone.
pub async fn a_sandbox_is_listed_from_run_to_remove(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let [sandbox] = &bench.sandboxes().await[..] else { panic!("one sandbox expected") };
    assert_eq!(sandbox.id, bench.sandbox);
    assert!(sandbox.ready);
    assert_eq!((&sandbox.name, &sandbox.namespace), (&bench.pod.name, &bench.pod.namespace));
    assert_eq!((&sandbox.uid, sandbox.attempt), (&bench.pod.uid, 0));
    assert!((Millis::now().0 - sandbox.created_at.0).abs() < 120_000, "{sandbox:?}");
    must(bench.runtime.stop_sandbox(&bench.sandbox).await, "stopping a sandbox");
    assert!(bench.sandboxes().await.iter().all(|sandbox| !sandbox.ready));
    must(bench.runtime.remove_sandbox(&bench.sandbox).await, "removing a sandbox");
    assert_eq!(bench.sandboxes().await, []);
}

/// Name, namespace, uid and attempt together are one of a kind, also once stopped.
pub async fn a_sandbox_run_twice_exists(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    refused(bench.runtime.run_sandbox(bench.pod.clone()).await, RuntimeKind::Exists);
    must(bench.runtime.stop_sandbox(&bench.sandbox).await, "stopping a sandbox");
    refused(bench.runtime.run_sandbox(bench.pod.clone()).await, RuntimeKind::Exists);
    assert_eq!(bench.sandboxes().await.len(), 1);
    bench.close().await;
}

/// A pod whose sandbox died gets another one beside it.
pub async fn the_next_attempt_of_a_sandbox_is_another_sandbox(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    must(bench.runtime.stop_sandbox(&bench.sandbox).await, "stopping a sandbox");
    let mut next = bench.pod.clone();
    next.attempt = 1;
    let second = must(bench.runtime.run_sandbox(next).await, "running the next attempt");
    assert_ne!(second, bench.sandbox);
    let mut found: Vec<_> = bench.sandboxes().await.into_iter().map(|s| (s.attempt, s.ready)).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, false), (1, true)]);
    bench.close().await;
}

/// Stop and remove are idempotent, for things that never were too.
pub async fn stopping_and_removing_what_is_gone_succeeds(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let (runtime, nothing) = (&bench.runtime, Duration::ZERO);
    let made =
        must(runtime.create_container(&bench.sandbox, bench.spec("made", &Program::Wait)).await, "making");
    must(runtime.stop_container(&made, nothing).await, "stopping what never started");
    let ended = bench.start(bench.spec("ended", &Program::Exit(0))).await;
    bench.until_exited(&ended).await;
    for container in [made, ended, ContainerId::from("0123456789abcdef")] {
        for _ in 0..2 {
            must(
                runtime.stop_container(&container, nothing).await,
                "stopping a container that has ended or is gone",
            );
        }
        for _ in 0..2 {
            must(runtime.remove_container(&container).await, "removing a container");
        }
        must(runtime.stop_container(&container, nothing).await, "stopping a container that is gone");
    }
    for sandbox in [bench.sandbox.clone(), SandboxId::from("0123456789abcdef")] {
        for _ in 0..2 {
            must(runtime.stop_sandbox(&sandbox).await, "stopping a sandbox");
        }
        for _ in 0..2 {
            must(runtime.remove_sandbox(&sandbox).await, "removing a sandbox");
        }
        must(runtime.stop_sandbox(&sandbox).await, "stopping a sandbox that is gone");
    }
}

fn odd_labels() -> Labels {
    let labels = [
        ("io.kubernetes.pod.uid", "7f8c-…"),
        ("app.kubernetes.io/name", "grüße \"quoted\" $HOME `x`"),
        ("empty", ""),
        ("a=b", "c,d;e\nnext line\ttab \\ back"),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// What was noted is told as it was noted, odd characters and all.
pub async fn labels_and_annotations_come_back_unchanged(harness: impl RuntimeHarness) {
    let (runtime, mut spec) = (harness.runtime(), pod(&harness));
    let (labels, mut annotations) = (odd_labels(), odd_labels());
    annotations.insert("long".to_owned(), "x".repeat(8000));
    (spec.labels, spec.annotations) = (labels.clone(), annotations.clone());
    let sandbox = must(runtime.run_sandbox(spec.clone()).await, "running a sandbox");
    let bench = Bench { harness, runtime, pod: spec, sandbox };
    let mut container = bench.spec("labelled", &Program::Exit(0));
    (container.labels, container.annotations) = (labels.clone(), annotations.clone());
    container.attempt = 7;
    let id =
        must(bench.runtime.create_container(&bench.sandbox, container.clone()).await, "making a container");
    let sandbox = bench.sandboxes().await.remove(0);
    assert_eq!((&sandbox.labels, &sandbox.annotations), (&labels, &annotations));
    let listed = bench.container(&id).await.expect("a container that was made is listed");
    assert_eq!((&listed.labels, &listed.annotations), (&labels, &annotations));
    assert_eq!((listed.name.as_str(), listed.attempt), ("labelled", 7));
    assert_eq!(listed.image, container.image);
    assert!(!listed.image_id.is_empty());
    assert_eq!(listed.log_path, bench.log_file(&container.log_path));
    bench.close().await;
}

/// Edged puts the node's address in the pod's place then.
pub async fn a_sandbox_on_the_hosts_network_has_no_address(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let addresses = bench.sandboxes().await.remove(0).addresses;
    assert!(!bench.pod.host_network || addresses.is_empty(), "{addresses:?}");
    bench.close().await;
}

/// Two pods can listen on one port.
pub async fn sandboxes_with_a_network_of_their_own_have_addresses_of_their_own(harness: impl RuntimeHarness) {
    if !harness.abilities().pod_network {
        return skip("pods have no network of their own");
    }
    let runtime = harness.runtime();
    let mut sandboxes = Vec::new();
    for _ in 0..2 {
        let mut spec = pod(&harness);
        spec.host_network = false;
        sandboxes.push(must(runtime.run_sandbox(spec).await, "running a sandbox"));
    }
    let (all, _) = must(runtime.list_all().await, "listing");
    let listed = |id: &SandboxId| all.iter().find(|sandbox| sandbox.id == *id).expect("it is listed");
    let addresses: Vec<_> = sandboxes.iter().map(|id| &listed(id).addresses).collect();
    for id in &sandboxes {
        must(runtime.remove_sandbox(id).await, "removing a sandbox");
    }
    assert!(addresses.iter().all(|list| !list.is_empty()), "{addresses:?}");
    assert_ne!(addresses[0], addresses[1]);
}

/// A sandbox takes its containers with it.
pub async fn stopping_a_sandbox_kills_what_runs_in_it(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let kind = bench.wait_in("kind", &Program::Wait).await;
    let stubborn = bench.wait_in("stubborn", &Program::Stubborn).await;
    must(bench.runtime.stop_sandbox(&bench.sandbox).await, "stopping a sandbox");
    for id in [kind, stubborn] {
        let container = bench.container(&id).await.expect("what was killed is still listed");
        assert!(!container.state.is_running(), "{container:?}");
        assert_ne!(bench.until_exited(&id).await.state.exit_code(), Some(0));
    }
    bench.close().await;
}

/// Nothing is left of a sandbox that was removed, though something ran in it.
pub async fn removing_a_sandbox_removes_its_containers(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    bench.wait_in("stubborn", &Program::Stubborn).await;
    must(bench.runtime.create_container(&bench.sandbox, bench.spec("made", &Program::Wait)).await, "making");
    must(bench.runtime.remove_sandbox(&bench.sandbox).await, "removing a sandbox");
    assert_eq!(bench.containers().await, []);
    assert_eq!(bench.sandboxes().await, []);
}

/// Nothing is fetched on the way: pull policy is the caller's.
pub async fn a_container_without_image_is_not_made(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let mut spec = bench.spec("none", &Program::Exit(0));
    spec.image = bench.harness.absent_image();
    let name = spec.image.to_string();
    let error =
        refused(bench.runtime.create_container(&bench.sandbox, spec).await, RuntimeKind::ImageUnavailable);
    assert!(crate::failure::chain(&error).contains(&name), "{error:?}");
    assert_eq!(bench.containers().await, []);
    bench.close().await;
}

/// Name and attempt are one of a kind in a sandbox.
pub async fn a_container_made_twice_exists(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let spec = bench.spec("one", &Program::Exit(0));
    must(bench.runtime.create_container(&bench.sandbox, spec.clone()).await, "making a container");
    refused(bench.runtime.create_container(&bench.sandbox, spec).await, RuntimeKind::Exists);
    assert_eq!(bench.containers().await.len(), 1);
    bench.close().await;
}

/// A restarted container stands beside the ended one that tells its story.
pub async fn the_next_attempt_of_a_container_is_another_container(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let mut spec = bench.spec("one", &Program::Exit(4));
    let first = bench.start(spec.clone()).await;
    bench.until_exited(&first).await;
    spec.attempt = 1;
    let second = bench.start(spec).await;
    assert_ne!(first, second);
    bench.until_exited(&second).await;
    let mut found: Vec<_> = bench.containers().await.iter().map(|c| (c.attempt, exit_of(c))).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, 4), (1, 4)]);
    bench.close().await;
}

/// A sandbox that is not there takes no container.
pub async fn a_container_of_no_sandbox_is_not_made(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let nowhere = SandboxId::from("0123456789abcdef");
    let spec = bench.spec("one", &Program::Exit(0));
    refused(bench.runtime.create_container(&nowhere, spec).await, RuntimeKind::NotFound);
    bench.close().await;
}

/// Making is not starting.
pub async fn a_container_that_was_made_does_not_run_yet(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let spec = bench.spec("one", &Program::Wait);
    let id = must(bench.runtime.create_container(&bench.sandbox, spec).await, "making a container");
    assert_eq!(bench.container(&id).await.map(|c| c.state), Some(ContainerState::Created));
    must(bench.runtime.start_container(&id).await, "starting a container");
    assert!(bench.container(&id).await.is_some_and(|container| container.state.is_running()));
    bench.close().await;
}

/// A sandbox that was stopped runs nothing any more.
pub async fn a_container_of_a_stopped_sandbox_does_not_start(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let spec = bench.spec("late", &Program::Wait);
    let id = must(bench.runtime.create_container(&bench.sandbox, spec).await, "making a container");
    must(bench.runtime.stop_sandbox(&bench.sandbox).await, "stopping a sandbox");
    assert!(bench.runtime.start_container(&id).await.is_err(), "started in a sandbox that was stopped");
    let state = bench.container(&id).await.map(|container| container.state);
    assert!(state.as_ref().is_none_or(|state| !state.is_running()), "{state:?}");
    bench.close().await;
}

/// An id nobody gave names nothing.
pub async fn starting_what_is_not_there_is_not_found(harness: impl RuntimeHarness) {
    let runtime = harness.runtime();
    let id = ContainerId::from("0123456789abcdef");
    refused(runtime.start_container(&id).await, RuntimeKind::NotFound);
}

/// The user reads why in the pod's status, and it is not said to run.
pub async fn a_program_that_is_not_there_is_invalid_and_does_not_run(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let spec = bench.spec("broken", &Program::Missing);
    let program = spec.command[0].clone();
    let id = must(bench.runtime.create_container(&bench.sandbox, spec).await, "making a container");
    let error = refused(bench.runtime.start_container(&id).await, RuntimeKind::Invalid);
    assert!(crate::failure::chain(&error).contains(&program), "{error:?}");
    let state = bench.container(&id).await.map(|container| container.state);
    assert!(state.as_ref().is_none_or(|state| !state.is_running()), "{state:?}");
    assert_ne!(state.and_then(|state| state.exit_code()), Some(0));
    must(bench.runtime.remove_container(&id).await, "removing what could not be started");
    assert_eq!(bench.containers().await, []);
    bench.close().await;
}

/// One that is removed while it runs is killed.
pub async fn a_running_container_that_is_removed_is_gone(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let id = bench.wait_in("stubborn", &Program::Stubborn).await;
    must(bench.runtime.remove_container(&id).await, "removing what runs");
    assert_eq!(bench.containers().await, []);
    must(
        bench.runtime.create_container(&bench.sandbox, bench.spec("stubborn", &Program::Wait)).await,
        "making anew",
    );
    bench.close().await;
}

/// Eight at once, each with its own end and its own log.
pub async fn many_containers_of_one_sandbox_are_kept_apart(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let runs = (0..8).map(|n| {
        let (name, text) = (format!("c{n}"), format!("I am {n}\n"));
        let spec = bench.spec(&name, &Program::Say(text.clone(), String::new()));
        let bench = &bench;
        async move { assert_eq!(bench.run(spec).await, (0, text)) }
    });
    join_all(runs).await;
    let codes = (0..8).map(|n| {
        let (bench, spec) = (&bench, bench.spec(&format!("e{n}"), &Program::Exit(n)));
        async move {
            let id = bench.start(spec).await;
            assert_eq!(exit_of(&bench.until_exited(&id).await), n);
        }
    });
    join_all(codes).await;
    assert_eq!(bench.containers().await.len(), 16);
    bench.close().await;
}

/// Two users who stop one container at once both learn of its end.
pub async fn stopping_twice_at_once_ends_both(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let id = bench.wait_in("one", &Program::Farewell("bye")).await;
    let (first, second) =
        tokio::join!(bench.runtime.stop_container(&id, LONG), bench.runtime.stop_container(&id, LONG));
    must(first, "stopping");
    must(second, "stopping beside another");
    assert_eq!(bench.container(&id).await.as_ref().map(exit_of), Some(0));
    bench.close().await;
}

/// A whole edgecore may run on one thread: what waits for a disk or a program waits elsewhere.
pub async fn a_runtime_does_not_block_the_executor(harness: impl RuntimeHarness) {
    let bench = &Bench::of(harness).await;
    let attempts = &AtomicU32::new(0);
    is_not_blocked(|| async move {
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        let spec = ContainerSpec { attempt, ..bench.spec("one", &Program::Wait) };
        let id = bench.start(spec).await;
        for _ in 0..20 {
            bench.containers().await;
        }
        must(bench.runtime.stop_container(&id, Duration::ZERO).await, "stopping");
        bench.containers().await;
        must(bench.runtime.remove_container(&id).await, "removing");
    })
    .await;
    must(bench.runtime.remove_sandbox(&bench.sandbox).await, "removing a sandbox");
}

/// Edged finds its pods running after a restart, and leaves them so.
pub async fn containers_outlive_their_user(harness: impl RuntimeHarness) {
    let mut bench = Bench::of(harness).await;
    let (runs, ended) = (bench.wait_in("runs", &Program::Wait).await, bench.spec("ended", &Program::Exit(3)));
    let ended = bench.start(ended).await;
    bench.until_exited(&ended).await;
    let before = bench.containers().await;
    let Some(restarted) = bench.harness.restart().await else {
        skip("containers do not outlive it");
        return bench.close().await;
    };
    bench.runtime = restarted;
    let mut after = bench.containers().await;
    after.sort_by_key(|container| before.iter().position(|old| old.id == container.id));
    assert_eq!(after, before);
    assert!(bench.sandboxes().await.iter().all(|sandbox| sandbox.ready));
    refused(bench.runtime.run_sandbox(bench.pod.clone()).await, RuntimeKind::Exists);
    must(bench.runtime.stop_container(&runs, LONG).await, "stopping what an earlier user started");
    assert!(bench.container(&runs).await.is_some_and(|container| container.state.exit_code().is_some()));
    bench.close().await;
}
