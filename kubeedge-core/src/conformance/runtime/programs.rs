//! Cases: what programs get and how they end.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::skips::skip,
    Program, RuntimeHarness,
    bench::{Bench, LONG, exit_of, must},
};
use crate::{
    message::Millis,
    runtime::{ContainerState, Mount},
};

/// Restart policies stand on this.
pub async fn exit_codes_tell_how_a_program_ended(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    for (name, code) in [("fine", 0), ("three", 3), ("most", 255)] {
        let id = bench.start(bench.spec(name, &Program::Exit(code))).await;
        assert_eq!(exit_of(&bench.until_exited(&id).await), code);
    }
    bench.close().await;
}

/// As shells and Kubernetes count.
pub async fn a_program_killed_by_a_signal_ends_with_128_and_its_number(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    for (name, signal) in [("killed", 9), ("aborted", 6)] {
        let id = bench.start(bench.spec(name, &Program::Signal(signal))).await;
        assert_eq!(exit_of(&bench.until_exited(&id).await), 128 + signal);
    }
    bench.close().await;
}

/// Made, then started, then ended: all in the time of the test.
pub async fn times_are_in_order_and_of_now(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let before = Millis::now().0;
    let id = bench.start(bench.spec("timed", &Program::Exit(1))).await;
    let container = bench.until_exited(&id).await;
    let ContainerState::Exited { started_at, finished_at, .. } = container.state else { panic!() };
    // Clocks of two processes may differ in how they round.
    let times = [before - 2000, container.created_at.0, started_at.0, finished_at.0, Millis::now().0 + 2000];
    assert!(times.is_sorted(), "{times:?}");
    bench.close().await;
}

/// Asked first, and with time to answer.
pub async fn a_program_asked_to_end_may_say_goodbye(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let id = bench.wait_in("polite", &Program::Farewell("goodbye then")).await;
    let asked = Instant::now();
    must(bench.runtime.stop_container(&id, LONG).await, "stopping");
    assert!(asked.elapsed() < LONG, "the end was not noticed within the grace");
    let ended = bench.container(&id).await.expect("what was stopped is still listed");
    assert_eq!(exit_of(&ended), 0);
    bench.until_logged("polite/0.log", "goodbye then").await;
    bench.close().await;
}

/// The grace is kept, and then it ends.
pub async fn a_program_that_does_not_care_is_killed_after_the_grace(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let id = bench.wait_in("stubborn", &Program::Stubborn).await;
    let (asked, grace) = (Instant::now(), Duration::from_secs(2));
    must(bench.runtime.stop_container(&id, grace).await, "stopping");
    assert!(asked.elapsed() >= grace, "killed after {:?}", asked.elapsed());
    let ended = bench.container(&id).await.expect("what was killed is still listed");
    assert_eq!(exit_of(&ended), 137);
    bench.close().await;
}

/// As Kubernetes has it: what is said last holds.
pub async fn later_environment_wins(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let mut spec = bench.spec("env", &Program::Env("GREETING"));
    let pairs = [("GREETING", "first"), ("OTHER", "x"), ("GREETING", "a=b \"c\" $d ü")];
    spec.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(bench.run(spec).await, (0, "a=b \"c\" $d ü\n".to_owned()));
    bench.close().await;
}

/// No shell comes between.
pub async fn arguments_arrive_as_they_are(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let mut spec = bench.spec("args", &Program::Args);
    spec.args.extend(["two words", "$HOME", "*", "\"q\" 'q'", "", "`id`"].map(str::to_owned));
    let said = "[two words]\n[$HOME]\n[*]\n[\"q\" 'q']\n[]\n[`id`]\n";
    assert_eq!(bench.run(spec).await, (0, said.to_owned()));
    bench.close().await;
}

/// Where the pod says: names without a slash before them are those of its folder.
pub async fn a_program_starts_in_its_working_folder(harness: impl RuntimeHarness) {
    let bench = Bench::of(harness).await;
    let work = mount(&bench, "work", "/data/work", false);
    std::fs::create_dir_all(&work.host_path).unwrap();
    std::fs::write(work.host_path.join("here"), "found\n").unwrap();
    let mut spec = bench.spec("folder", &Program::Read("here".into()));
    spec.working_dir = work.host_path.display().to_string();
    if bench.harness.abilities().mounts {
        spec.working_dir = work.container_path.display().to_string();
        spec.mounts = vec![work];
    }
    assert_eq!(bench.run(spec).await, (0, "found\n".to_owned()));
    bench.close().await;
}

fn mount(bench: &Bench<impl RuntimeHarness>, name: &str, container_path: &str, readonly: bool) -> Mount {
    Mount { host_path: bench.harness.folder().join(name), container_path: container_path.into(), readonly }
}

/// Volumes go both ways.
pub async fn a_mounted_folder_is_read_and_written(harness: impl RuntimeHarness) {
    if !harness.abilities().mounts {
        return skip("folders of the host are not seen inside");
    }
    let bench = Bench::of(harness).await;
    let mount = mount(&bench, "volume", "/data/volume", false);
    std::fs::create_dir_all(&mount.host_path).unwrap();
    std::fs::write(mount.host_path.join("in"), "from the host\n").unwrap();
    let mut read = bench.spec("read", &Program::Read("/data/volume/in".into()));
    read.mounts = vec![mount.clone()];
    assert_eq!(bench.run(read).await, (0, "from the host\n".to_owned()));
    let mut write = bench.spec("write", &Program::Write("/data/volume/out".into(), "from inside"));
    write.mounts = vec![mount.clone()];
    let id = bench.start(write).await;
    assert_eq!(exit_of(&bench.until_exited(&id).await), 0);
    assert_eq!(std::fs::read_to_string(mount.host_path.join("out")).unwrap(), "from inside");
    bench.close().await;
}

/// A single file, as `subPath` makes it.
pub async fn a_mounted_file_is_read(harness: impl RuntimeHarness) {
    if !harness.abilities().mounts {
        return skip("folders of the host are not seen inside");
    }
    let bench = Bench::of(harness).await;
    let mount = mount(&bench, "one.conf", "/data/app.conf", false);
    std::fs::write(&mount.host_path, "key = value\n").unwrap();
    let mut spec = bench.spec("read", &Program::Read("/data/app.conf".into()));
    spec.mounts = vec![mount];
    assert_eq!(bench.run(spec).await, (0, "key = value\n".to_owned()));
    bench.close().await;
}

/// Readable, and the host's file is safe.
pub async fn a_read_only_mount_refuses_writing(harness: impl RuntimeHarness) {
    if !harness.abilities().readonly_mounts {
        return skip("mounts do not refuse writing");
    }
    let bench = Bench::of(harness).await;
    let mount = mount(&bench, "fixed", "/data/fixed", true);
    std::fs::create_dir_all(&mount.host_path).unwrap();
    std::fs::write(mount.host_path.join("file"), "as it was").unwrap();
    let mut spec = bench.spec("write", &Program::Write("/data/fixed/file".into(), "changed"));
    spec.mounts = vec![mount.clone()];
    let id = bench.start(spec).await;
    assert_ne!(exit_of(&bench.until_exited(&id).await), 0);
    assert_eq!(std::fs::read_to_string(mount.host_path.join("file")).unwrap(), "as it was");
    bench.close().await;
}
