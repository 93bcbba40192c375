//! Container runtimes: processes of the host, CRI, memory.

mod log_format;
pub mod memory;
#[cfg(feature = "process")]
pub mod process;
