//! Holds one container of the process runtime; started by it, not by people.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubeedge_runtime::process::shim_main(std::env::args_os().skip(1))
}
