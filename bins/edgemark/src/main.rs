//! Edgemark: many hollow edges in one process, to load a cloudcore and measure it.
//!
//! Each edge has a certificate of its own and speaks the wire of Go KubeEdge, so that either cloudcore can be
//! loaded: it registers its Node, keeps its lease, sends keepalives, confirms what it is sent, runs pods that
//! are only said to run, and reports twins of devices that are not there.

mod certificates;
mod cluster;
mod edge;
mod histogram;
mod modes;
mod options;
mod process;
mod progress;
mod report;
mod session;
mod stats;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use kubeedge_bin::{LogOptions, Unusable, VERSION};

use crate::{options::RunOptions, report::Outcome};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  edgemark run --cloud 10.0.0.1 --token TOKEN --nodes 1000 --mode hold --duration 10m --report hold.json
  edgemark run --cloud 10.0.0.1 --token-file token --nodes 5000 --mode storm --bystanders 500
  edgemark run --cloud 10.0.0.1 --token-file token --nodes 100 --mode flood --direction up --message-size 1024
  edgemark run --cloud 10.0.0.1 --token-file token --nodes 100 --mode flood --direction down --kubeconfig admin.conf
  edgemark run … --certs ./certs --pid $(pidof cloudcore)   keeps certificates, and watches cloudcore's memory
  edgemark completion bash > /etc/bash_completion.d/edgemark

The token: kubectl get secret -n kubeedge tokensecret -o jsonpath='{.data.tokendata}' | base64 -d
Cloudcore must let that many nodes in: modules.cloudHub.nodeLimit. Nodes that edgemark registers stay; to remove them:
kubectl delete nodes -l edgemark

Exit codes: 0 every promise held, 1 could not run, 2 wrong arguments, 3 ran, and edges were lost, left out or late,
130 interrupted; the report is written in the last two cases as well.";

/// Loads a cloudcore with many hollow edges and says how it bears them
#[derive(Debug, Parser)]
#[command(name = "edgemark", version = VERSION, after_help = EXAMPLES)]
struct Options {
    #[command(flatten)]
    logs: LogOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run hollow edges
    #[command(after_help = EXAMPLES)]
    Run(Box<RunOptions>),
    /// Print a script that completes flags in this shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.command {
        Command::Completion { shell } => {
            kubeedge_bin::complete(shell, Options::command());
            ExitCode::SUCCESS
        }
        Command::Run(run) => match work(*run, &options.logs) {
            Ok(Outcome::Done) => ExitCode::SUCCESS,
            Ok(Outcome::Fallen) => ExitCode::from(3),
            Ok(Outcome::Interrupted) => ExitCode::from(130),
            Err(error) if error.is::<Unusable>() => {
                // Wrong arguments, found after they were parsed.
                kubeedge_bin::exit(Err(error));
                ExitCode::from(2)
            }
            Err(error) => kubeedge_bin::exit(Err(error)),
        },
    }
}

fn work(run: RunOptions, logs: &LogOptions) -> anyhow::Result<Outcome> {
    let plan = run.plan().map_err(Unusable::new)?;
    let limit = kubeedge_bin::raise_descriptors();
    // Joining takes connections of its own for a moment; QUIC's links share a socket.
    let links = u64::from(plan.nodes - plan.over_quic) + 1;
    let connections = links + plan.concurrency as u64;
    kubeedge_bin::enough_descriptors(limit, connections)
        .map_err(|error| Unusable::new(format!("--nodes {}: {error}", plan.nodes)))?;
    kubeedge_bin::start(logs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(modes::run(plan))
}
