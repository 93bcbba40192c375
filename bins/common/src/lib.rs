//! What programs around an edgecore or cloudcore need, ours and vendors': logs, the crypto provider, signals,
//! exit codes, shell completion, tables.
//!
//! A program of a vendor's calls [`run`] with its work; a component with a configuration file calls [`main`]
//! with what it is, and gets its flags too.

mod descriptors;
mod program;
#[cfg(feature = "process")]
mod shim;
mod table;

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
pub use descriptors::{TooFewDescriptors, enough_descriptors, raise_descriptors};
pub use program::{EXIT_CODES, Flags, Program, VERSION, main};
#[cfg(feature = "process")]
pub use shim::{process_shim, shim};
pub use table::Table;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged unless told otherwise: of the embedded broker, what is wrong only.
const LEVEL: &str = "info,mqtt5=warn";

/// How a binary logs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogOptions {
    /// Form of the logs on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or filters such as `info,kubeedge_edge=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = LEVEL,
        env = "KUBEEDGE_LOG",
        global = true
    )]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// How many threads work where nothing is said: an edge has few processors, and what blocks has threads of
/// its own.
const THREADS: usize = 2;

/// Runs a program from its start to its exit code ([`exit`]). Logs go to stderr; `KUBEEDGE_LOG` says what is
/// logged. With the feature `process` this binary is its own shim of the process runtime ([`shim`]).
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     kubeedge_bin::run(serve())
/// }
///
/// async fn serve() -> anyhow::Result<()> {
///     tracing::info!("until a signal comes");
///     kubeedge_bin::shutdown_signal().await;
///     Ok(())
/// }
/// ```
pub fn run(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    #[cfg(feature = "process")]
    if let Some(ended) = process_shim() {
        return ended;
    }
    exit(start_logs().and_then(|()| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(THREADS).enable_all().build()?.block_on(work)
    }))
}

/// Begins the work of a program without options for its logs, as [`start`] does: `KUBEEDGE_LOG` says what is
/// logged.
pub fn start_logs() -> anyhow::Result<()> {
    let filter = std::env::var("KUBEEDGE_LOG").unwrap_or_else(|_| LEVEL.to_owned());
    start(&LogOptions { log_format: LogFormat::Text, log_level: filter })
}

/// Begins a binary's work: installs the crypto provider and starts the logs.
pub fn start(logs: &LogOptions) -> anyhow::Result<()> {
    // An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = EnvFilter::try_new(&logs.log_level)
        .with_context(|| format!("--log-level {:?}; try info or kubeedge_edge=debug", logs.log_level))?;
    let registry = tracing_subscriber::registry().with(filter);
    match logs.log_format {
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(io::stderr)).init(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal();
            registry.with(fmt::layer().with_ansi(colour).with_writer(io::stderr)).init();
        }
    }
    Ok(())
}

/// Completes at the first SIGINT, SIGTERM or SIGHUP (which ends Go's components as well). A second SIGINT or
/// SIGTERM ends the process at once.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::abort();
    });
}

/// A configuration that cannot be used: starting again changes nothing. Ends with 78, `EX_CONFIG` of
/// sysexits.
#[derive(Debug)]
pub struct Unusable(Box<dyn std::error::Error + Send + Sync>);

impl Unusable {
    /// For this reason.
    pub fn new(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unusable {}

/// The exit code of a binary's work: 0, or the error and its causes on stderr with 78 for [`Unusable`] and 1
/// for all else.
pub fn exit(done: anyhow::Result<()>) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Where stderr is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {}", kubeedge_core::failure::chain(&*error));
    match error.is::<Unusable>() {
        true => ExitCode::from(78),
        false => ExitCode::FAILURE,
    }
}

/// Writes to stdout. A reader that went away, such as `head`, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints a completion script.
pub fn complete(shell: clap_complete::Shell, mut command: clap::Command) {
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut io::stdout());
}
