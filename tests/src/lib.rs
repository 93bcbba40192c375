//! What the end-to-end tests share: binaries of this workspace, real peers, and waiting with a deadline.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod peers;
mod process;
mod site;

pub use peers::{Pymodbus, free_port, publish, subscribe};
pub use process::{Background, binary, kill_below, repository, run, sh, skipped, tool, until};
pub use site::Site;
