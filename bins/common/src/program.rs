//! A component with a configuration file: its flags, and the way from them to its exit code.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use clap_complete::Shell;
use kubeedge_config::{
    self as config, ConfigFile, Host, Loaded, PlanError, Warning, default_yaml, minimal_yaml,
};

use crate::{LogOptions, Unusable, complete, exit, print};

/// What `--version` says behind the program's name.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), " (KubeEdge)");

/// The meaning of exit codes, for the end of a help text.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   ended in order, or printed what was asked for
  1   failed while running
  2   wrong flags
  78  the configuration cannot be used";

/// Flags of every component with a configuration file.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// The configuration file; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print every key with its default, and exit
    #[arg(long, conflicts_with_all = ["minconfig", "check"])]
    defaultconfig: bool,
    /// Print the keys to look at first, and exit
    #[arg(long, conflicts_with = "check")]
    minconfig: bool,
    /// Read the configuration, say what is wrong with it, and exit
    #[arg(long)]
    check: bool,
    /// Print a script that completes flags in this shell, and exit
    #[arg(long, value_name = "SHELL")]
    completion: Option<Shell>,
    #[command(flatten)]
    logs: LogOptions,
}

/// A component with a configuration file.
pub trait Program: Parser {
    /// What its file holds.
    type Config: ConfigFile;

    /// What is to be done, made from the file and the flags.
    type Plan;

    /// The path of the file without `--config`.
    const FILE: &'static str;

    /// Threads that work; `None` for one a CPU.
    const THREADS: Option<usize> = None;

    /// The flags all components have.
    fn flags(&self) -> &Flags;

    /// Fails for what the rules of the file allow and this component is not able to.
    fn plan(&self, config: &Self::Config, host: &Host) -> Result<Self::Plan, PlanError>;

    /// The keys that are set away from their default and that nothing makes use of.
    fn not_acted_on(config: &Self::Config, host: &Host) -> Vec<String>;

    /// Works until a signal comes or something fails.
    fn run(self, config: Self::Config, plan: Self::Plan) -> impl Future<Output = anyhow::Result<()>>;
}

/// Runs a component from its flags to its exit code.
pub fn main<P: Program>() -> ExitCode {
    let matches = command::<P>().get_matches();
    exit(P::from_arg_matches(&matches).map_err(anyhow::Error::from).and_then(work))
}

/// The flags, with the default path in the help of `--config`.
fn command<P: Program>() -> clap::Command {
    P::command().mut_arg("config", |arg| arg.required(false).default_value(P::FILE))
}

fn work<P: Program>(program: P) -> anyhow::Result<()> {
    let flags = program.flags();
    let host = Host::detect();
    if let Some(shell) = flags.completion {
        complete(shell, command::<P>());
        return Ok(());
    }
    if flags.defaultconfig {
        return Ok(print(&default_yaml::<P::Config>(&host))?);
    }
    if flags.minconfig {
        return Ok(print(&minimal_yaml::<P::Config>(&host))?);
    }
    let Loaded { config, warnings } = load::<P::Config>(&flags.config, &host)?;
    let plan = program.plan(&config, &host).map_err(Unusable::new)?;
    let ignored = P::not_acted_on(&config, &host);
    if flags.check {
        return Ok(print(&report(&warnings, &ignored))?);
    }
    crate::start(&flags.logs)?;
    for warning in warnings {
        tracing::warn!(file = %flags.config.display(), "{warning}");
    }
    if !ignored.is_empty() {
        tracing::warn!(keys = %ignored.join(", "), "these keys are set and not acted on yet");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = P::THREADS {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build()?.block_on(program.run(config, plan))
}

fn load<C: ConfigFile>(path: &Path, host: &Host) -> Result<Loaded<C>, Unusable> {
    let loaded = if path == Path::new("-") {
        config::load_from("standard input", io::stdin().lock(), host)
    } else {
        config::load(path, host)
    };
    loaded.map_err(Unusable::new)
}

/// What `--check` says of a file that can be used.
fn report(warnings: &[Warning], ignored: &[String]) -> String {
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    let ignored = ignored.iter().map(|path| format!("warning: {path}: set, and not acted on yet\n"));
    let mut text: String = warnings.chain(ignored).collect();
    text.push_str("the configuration can be used\n");
    text
}
