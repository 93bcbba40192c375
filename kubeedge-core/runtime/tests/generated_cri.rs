//! The messages of the Container Runtime Interface are those of `proto/`: what is committed was made from it.
#![cfg(feature = "cri")]
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{fs, path::Path};

/// Set to write the files instead of comparing them.
const WRITE: &str = "KUBEEDGE_GENERATE";

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile(["cri.proto", "containerd.proto"], [root.join("proto")]).unwrap();
    prost_build::Config::new()
        .out_dir(into)
        .btree_map(["."])
        .bytes(["."])
        // It would print the password of a registry.
        .skip_debug(["AuthConfig"])
        .compile_fds(files)
        .unwrap();
}

#[test]
fn generated_messages_are_those_of_the_proto_files() {
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cri/generated");
    for package in ["runtime.v1.rs", "containerd.services.events.v1.rs"] {
        let made = fs::read_to_string(folder.path().join(package)).unwrap();
        if std::env::var_os(WRITE).is_some() {
            fs::write(committed.join(package), &made).unwrap();
        }
        let kept = fs::read_to_string(committed.join(package)).unwrap_or_default();
        assert!(
            made == kept,
            "{package} is not what proto/ says: run this test with {WRITE}=1 and commit it"
        );
    }
}
