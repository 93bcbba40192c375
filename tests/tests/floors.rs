//! The floors of the house: which crate may use which. `ARCHITECTURE.md` says why.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of a test")]

use std::{path::Path, process::Command};

use serde_json::Value;

/// Crates by floor, the lowest first; every crate not named stands on top: binaries, examples and tests. What
/// the binaries share stands below them.
const FLOORS: [&[&str]; 8] = [
    &["kubeedge-core"],
    &["kubeedge-common"],
    &["kubeedge-config"],
    &["kubeedge-transport", "kubeedge-store", "kubeedge-runtime", "kubeedge-device"],
    &["kubeedge-apiserver"],
    &["kubeedge-edge", "kubeedge-cloud"],
    &["kubeedge-site"],
    &["kubeedge-bin"],
];
const IMPLEMENTATIONS: usize = 3;
const SIDES: usize = 5;
const TOP: usize = FLOORS.len();

/// What the contracts must not bring along: TLS, databases, HTTP servers and clients, brokers, Kubernetes.
const NOT_IN_CORE: [&str; 24] = [
    "rustls",
    "tokio-rustls",
    "native-tls",
    "openssl",
    "ring",
    "aws-lc-rs",
    "rcgen",
    "rusqlite",
    "libsqlite3-sys",
    "redb",
    "axum",
    "hyper",
    "hyper-util",
    "reqwest",
    "tonic",
    "quinn",
    "tungstenite",
    "tokio-tungstenite",
    "rumqttc",
    "mqtt5",
    "kube",
    "kube-client",
    "kube-core",
    "k8s-openapi",
];

fn floor(package: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&package)).unwrap_or(TOP)
}

/// Why a crate must not use another one of ours; `None` if it may.
fn forbidden(from: &str, to: &str, only_in_tests: bool) -> Option<String> {
    let (above, below) = (floor(from), floor(to));
    let why = if above == SIDES && below == SIDES {
        "cloud and edge never see each other"
    } else if only_in_tests && above == below {
        return None;
    } else if below >= above {
        "a crate may use only what stands on a floor below it"
    } else if below == IMPLEMENTATIONS && (IMPLEMENTATIONS + 1..=SIDES).contains(&above) && !only_in_tests {
        "transports, stores, runtimes and mappers are seen only through the seams of kubeedge-core"
    } else {
        return None;
    };
    let kind = if only_in_tests { "[dev-dependencies]" } else { "[dependencies]" };
    Some(format!("{from} -> {to} in {kind}: {why}"))
}

fn cargo(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn no_crate_uses_what_stands_above_or_beside_it() {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]))
            .unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<&str> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    for floor in FLOORS.iter().copied().flatten() {
        assert!(ours.contains(floor), "{floor} is no crate of the workspace any more");
    }
    let mut wrong = Vec::new();
    for package in packages {
        let from = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if ours.contains(&to) && to != from {
                wrong.extend(forbidden(from, to, dependency["kind"] == "dev"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wall_that_is_broken_is_named() {
    for (from, to) in [
        ("kubeedge-edge", "kubeedge-cloud"),
        ("kubeedge-cloud", "kubeedge-store"),
        ("kubeedge-edge", "kubeedge-runtime"),
        ("kubeedge-apiserver", "kubeedge-store"),
        ("kubeedge-apiserver", "kubeedge-cloud"),
        ("kubeedge-core", "kubeedge-common"),
        ("kubeedge-edge", "kubeedge-site"),
        ("kubeedge-core", "kubeedge-transport"),
        ("kubeedge-store", "kubeedge-transport"),
        ("kubeedge-device", "kubeedge-edge"),
        ("kubeedge-core", "edgecore"),
        ("kubeedge-bin", "edgesite"),
        ("kubeedge-examples", "kubeedge-tests"),
    ] {
        let why = forbidden(from, to, false).unwrap();
        assert!(why.starts_with(&format!("{from} -> {to} in [dependencies]: ")), "{why}");
    }
    assert!(forbidden("kubeedge-edge", "kubeedge-cloud", true).is_some());
    assert!(forbidden("kubeedge-core", "kubeedge-store", true).is_some());
    for (from, to, only_in_tests) in [
        ("kubeedge-edge", "kubeedge-core", false),
        ("kubeedge-edge", "kubeedge-store", true),
        ("kubeedge-cloud", "kubeedge-apiserver", false),
        ("kubeedge-runtime", "kubeedge-common", false),
        ("kubeedge-site", "kubeedge-store", false),
        ("kubeedge-store", "kubeedge-transport", true),
        ("edgesite", "kubeedge-cloud", false),
        ("edgesite", "kubeedge-bin", false),
        ("kubeedge-examples", "kubeedge-device", false),
        ("kubeedge-examples", "kubeedge-tests", true),
    ] {
        assert_eq!(forbidden(from, to, only_in_tests), None);
    }
}

#[test]
fn the_contracts_bring_no_tls_database_server_or_kubernetes_along() {
    let tree = cargo(&[
        "tree",
        "--package",
        "kubeedge-core",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--offline",
    ]);
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains(&"serde_json"), "no list of crates: {tree}");
    let found: Vec<_> = NOT_IN_CORE.iter().filter(|name| crates.contains(name)).collect();
    assert!(found.is_empty(), "kubeedge-core with default features links {found:?}");
}
