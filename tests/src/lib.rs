//! What the end-to-end tests share: binaries of this workspace, real peers, and waiting with a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[cfg(feature = "fuzz")]
pub mod fuzz;
mod kubectl;
mod overheard;
mod parts;
mod peers;
mod process;
mod site;

pub use kubectl::Kubectl;
pub use overheard::Overheard;
pub use parts::{Cloud, Edge};
pub use peers::{Pymodbus, free_port, mosquitto, old_kubectl, publish, publish_all, subscribe};
pub use process::{
    Background, binary, kill_below, reads_what_it_prints, repository, run, run_with_input, sh, skipped, text,
    tool, until,
};
pub use site::Site;

/// How long something may take that takes a second or two on a machine that does nothing else.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
