//! Makes the committed Rust code from proto files:
//! `cargo run --manifest-path tests/generate/Cargo.toml [-- --write]`.
//!
//! Without `--write` it compares, and fails when what is committed is not what the proto files say.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A set of proto files, and where the code made from it stands.
struct Set {
    /// The crate, from the top of the repository; the proto files are in its folder `proto`.
    krate: &'static str,
    files: &'static [&'static str],
    into: &'static str,
    /// The files that are made, one for each package.
    made: &'static [&'static str],
    /// Messages whose secrets `Debug` would print.
    secret: &'static [&'static str],
}

/// The Container Runtime Interface, and the events of containerd.
const CRI: Set = Set {
    krate: "kubeedge-core/runtime",
    files: &["cri.proto", "containerd.proto"],
    into: "src/cri/generated",
    made: &["runtime.v1.rs", "containerd.services.events.v1.rs"],
    secret: &["AuthConfig"],
};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let write = std::env::args().any(|argument| argument == "--write");
    let mut as_committed = true;
    for set in [CRI] {
        as_committed &= check(&set, write)?;
    }
    Ok(if as_committed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the committed code of a set is what its proto files say; afterwards it is, if it may be written.
fn check(set: &Set, write: bool) -> Result<bool, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(set.krate);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/generated");
    fs::create_dir_all(&folder)?;
    let files = protox::compile(set.files, [root.join("proto")])?;
    prost_build::Config::new()
        .out_dir(&folder)
        .btree_map(["."])
        .bytes(["."])
        .skip_debug(set.secret)
        .compile_fds(files)?;
    let mut as_committed = true;
    for name in set.made {
        let (made, path) = (fs::read_to_string(folder.join(name))?, root.join(set.into).join(name));
        if made == fs::read_to_string(&path).unwrap_or_default() {
            continue;
        }
        if write {
            fs::write(&path, made)?;
        } else {
            eprintln!(
                "{} is not what the proto files say: run this with --write and commit it",
                path.display()
            );
            as_committed = false;
        }
    }
    Ok(as_committed)
}
