//! Edgemark against a cloudcore of its own: each mode, and what a user sees of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{path::Path, process::Command};

use kubeedge_tests::{Background, Cloud, Kubectl, PATIENCE, binary, run, skipped};
use serde_json::Value;

/// A cloudcore, its cluster, and edgemark with these arguments against it.
struct Bench {
    folder: tempfile::TempDir,
    cloud: Cloud,
    cluster: Kubectl,
}

impl Bench {
    fn new(limit: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cloud, cluster) = Cloud::embedded_for(folder.path(), limit);
        Self { folder, cloud, cluster }
    }

    fn edgemark(&self, args: &[&str]) -> Command {
        let (hub, https) = self.cloud.ports();
        let mut command = Command::new(binary("edgemark"));
        command.args(["run", "--cloud", "127.0.0.1", "--port", &hub.to_string()]);
        command.args(["--https-port", &https.to_string(), "--token", &self.cluster.join_token()]);
        command.args(["--pid", &self.cloud.id().to_string()]);
        command.arg("--report").arg(self.file()).args(args);
        command
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("report.json")
    }

    /// Runs edgemark to its end: its exit code, its report, and what it printed.
    fn run(&self, args: &[&str]) -> (Option<i32>, Value, String) {
        let output = run(&mut self.edgemark(args));
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.code(), report(&self.file()), said)
    }
}

fn report(file: &Path) -> Value {
    let text = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn edges_join_register_hold_their_links_and_run_what_they_are_sent() {
    if skipped(&["kubectl"]) {
        return;
    }
    let bench = Bench::new(20);
    let certificates = bench.folder.path().join("certificates").display().to_string();
    let first = ["--nodes", "5", "--mode", "hold", "--duration", "1s", "--certs", &certificates];
    let (code, told, said) = bench.run(&first);
    assert_eq!(code, Some(0), "{said}\n{told:#}");
    assert_eq!(
        (&told["joined"]["signed"], &told["connected"]["in_sync"]),
        (&5.into(), &5.into()),
        "{told:#}"
    );
    assert_eq!(told["held"]["lost"], 0, "{told:#}");
    assert!(told["watched"]["after"]["resident_kb"].as_u64().unwrap() > 0, "{told:#}");
    assert!(told["times"]["renewing"]["count"].as_u64().unwrap() >= 5, "{told:#}");
    assert!(said.contains("5 in sync"), "{said}");
    // Certificates are kept, and the nodes are known.
    let mut again = Background::start(&mut bench.edgemark(&[
        "--nodes",
        "5",
        "--mode",
        "hold",
        "--duration",
        "10m",
        "--certs",
        &certificates,
        "--twins",
        "1s",
    ]));
    bench.cluster.until(&["get", "nodes", "-l", "edgemark"], |said| said.matches(" Ready ").count() == 5);
    bench
        .cluster
        .apply("{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {nodeName: edgemark-3, containers: [{name: c, image: nothing}]}}")
        .unwrap();
    bench.cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    bench.cluster.kubectl(&["delete", "pod", "web", "--timeout=60s"]);
    // Interrupted, it still reports.
    let _ = std::fs::remove_file(bench.file());
    run(Command::new("kill").args(["-INT", &again.id().to_string()]));
    assert_eq!(again.ended(PATIENCE), Some(130), "{}", again.said());
    let told = report(&bench.file());
    assert_eq!((&told["interrupted"], &told["joined"]["kept"]), (&true.into(), &5.into()), "{told:#}");
    assert!(told["counts"]["confirmed"].as_u64().unwrap() >= 1, "{told:#}");
}

#[test]
fn edges_that_all_leave_return_over_websocket_and_quic_and_bystanders_keep_their_leases() {
    if skipped(&["kubectl"]) {
        return;
    }
    let bench = Bench::new(20);
    let quic = bench.cloud.links().1.to_string();
    let (code, told, said) = bench.run(&[
        "--nodes",
        "8",
        "--bystanders",
        "3",
        "--mode",
        "storm",
        "--over-quic",
        "2",
        "--quic-port",
        &quic,
        "--duration",
        "1s",
        "--lease",
        "1s",
    ]);
    assert_eq!(code, Some(0), "{said}\n{told:#}");
    let storm = &told["storm"];
    assert_eq!((&storm["edges"], &storm["bystanders"]), (&5.into(), &3.into()), "{told:#}");
    assert!(storm["in_sync_seconds"].as_f64().is_some(), "{told:#}");
    assert_eq!((&storm["bystanders_expired"], &storm["lost"]), (&0.into(), &0.into()), "{told:#}");
    assert_eq!((&told["counts"]["connects"], &told["over_quic"]), (&13.into(), &2.into()), "{told:#}");
}

#[test]
fn a_flood_is_answered_whichever_way_it_takes() {
    if skipped(&["kubectl"]) {
        return;
    }
    let bench = Bench::new(20);
    let kubeconfig = bench.cluster.kubeconfig().display().to_string();
    for direction in ["up", "lease", "down"] {
        let (code, told, said) = bench.run(&[
            "--nodes",
            "3",
            "--mode",
            "flood",
            "--duration",
            "1s",
            "--direction",
            direction,
            "--message-size",
            "100",
            "--kubeconfig",
            &kubeconfig,
        ]);
        assert_eq!(code, Some(0), "{said}\n{told:#}");
        let flood = &told["flood"];
        assert!(flood["answered"].as_u64().unwrap() > 3, "{told:#}");
        let times = if direction == "down" { "delivering" } else { "answering" };
        assert!(told["times"][times]["count"].as_u64() >= flood["answered"].as_u64(), "{told:#}");
        assert!(flood["cloud_cpu_us_per_message"].as_f64().is_some(), "{told:#}");
    }
}

#[test]
fn what_does_not_fit_is_told_by_flag_and_reason() {
    if skipped(&["kubectl"]) {
        return;
    }
    let bench = Bench::new(2);
    let (code, told, said) =
        bench.run(&["--nodes", "3", "--mode", "hold", "--duration", "1s", "--within", "2s"]);
    assert_eq!(code, Some(3), "{said}\n{told:#}");
    assert!(told["fallen"][0].as_str().unwrap().starts_with("1 of 3 edges were not in sync"), "{told:#}");
    assert!(said.contains("this cloud serves 2 nodes"), "{said}");
    let refused = |args: &[&str]| {
        let output = run(Command::new(binary("edgemark")).arg("run").args(args));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (some, token) = (["--cloud", "127.0.0.1", "--mode", "hold"], bench.cluster.join_token());
    for wrong in [["--over-quic", "3"], ["--over-quic=1", "--transport=quic"]] {
        let (code, said) = refused(&[&some[..], &["--nodes", "2", "--token", &token], &wrong[..]].concat());
        assert!(code == Some(2) && said.contains("--over-quic"), "{code:?} {said}");
    }
    let (code, said) = refused(&[&some[..], &["--nodes", "2", "--token", "rubbish"]].concat());
    assert!(code == Some(2) && said.contains("--token"), "{code:?} {said}");
    let (code, said) = refused(&[&some[..], &["--nodes", "1000000", "--token", &token]].concat());
    assert!(
        code == Some(2) && said.contains("--nodes 1000000") && said.contains("ulimit"),
        "{code:?} {said}"
    );
    let closed = kubeedge_tests::free_port().to_string();
    let (code, said) =
        refused(&[&some[..], &["--nodes", "1", "--https-port", &closed, "--token", &token]].concat());
    assert!(code == Some(1) && said.contains("--https-port"), "{code:?} {said}");
}

#[test]
fn help_shows_examples_and_exit_codes_and_flags_are_completed() {
    let said = |args: &[&str]| {
        String::from_utf8_lossy(&run(Command::new(binary("edgemark")).args(args)).stdout).into_owned()
    };
    let help = said(&["run", "--help"]);
    for part in ["Examples:", "--mode storm", "--bystanders", "Exit codes:", "130"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let script = said(&["completion", "bash"]);
    assert!(script.contains("--message-size") && script.contains("edgemark"), "{script}");
}
