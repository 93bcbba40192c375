//! Container runtimes: processes of the host, CRI, memory.

#[cfg(feature = "process")]
pub mod process;
