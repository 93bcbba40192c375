//! A binary as the shim of the process runtime.

use std::process::ExitCode;

use anyhow::Context;
use kubeedge_runtime::process::{Shim, shim_main};

/// The word that makes a binary the shim.
const SHIM: &str = "process-shim";

/// Does a shim's work if that is what this process was started for, see [`shim`]. To be called before
/// anything else.
pub fn process_shim() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let is_shim = args.next().is_some_and(|word| word == SHIM);
    is_shim.then(|| shim_main(args))
}

/// This binary as the shim of the process runtime.
pub fn shim() -> anyhow::Result<Shim> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    Ok(Shim { program, args: vec![SHIM.to_owned()] })
}
