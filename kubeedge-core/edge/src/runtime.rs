//! Container runtimes: processes of the host, CRI, memory.

#[cfg(feature = "cri")]
pub mod cri;
mod log_format;
pub mod memory;
#[cfg(feature = "process")]
pub mod process;
