//! A containerd to measure or try things with: prints its endpoint and ends, without trace, when its input
//! does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, clippy::print_stderr)]
#![allow(dead_code, reason = "a harness shared with tests, which need more of it")]

#[path = "../../../kubeedge-core/runtime/tests/common/containerd.rs"]
mod harness;

use std::{
    io::{self, Read},
    process::ExitCode,
};

fn main() -> ExitCode {
    let Some(containerd) = harness::Containerd::start() else { return ExitCode::FAILURE };
    println!("{} {}", containerd.endpoint(), harness::BUSYBOX);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}
