//! A whole KubeEdge site in one process: Kubernetes API, cloudcore, edgecore, MQTT broker.

mod site;
mod table;

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  edgesite                                   a site in ./edgesite-data
  edgesite --demo                            with a simulated PLC to try devices on
  edgesite --data-dir /var/lib/site --port-base 20000
  edgesite --runtime cri                     pods run on containerd
  edgesite completion bash > /etc/bash_completion.d/edgesite

Exit codes: 0 stopped in order, 1 failed, 2 wrong arguments.";

/// Runs a whole KubeEdge site in one process: Kubernetes API, cloudcore, edgecore and an MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "edgesite", version, after_help = EXAMPLES)]
struct Options {
    /// Folder for everything that is kept; the kubeconfig is in it.
    #[arg(long, value_name = "DIR", default_value = "edgesite-data", env = "EDGESITE_DATA_DIR")]
    data_dir: PathBuf,
    /// First of the ports used; 0 takes free ones.
    #[arg(long, value_name = "PORT", default_value_t = 10_000)]
    port_base: u16,
    /// Address that everything listens on.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Name of the node.
    #[arg(long, value_name = "NAME", default_value = "edge-1")]
    node: String,
    /// Starts a simulated PLC to try devices on.
    #[arg(long)]
    demo: bool,
    /// What runs pods.
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    runtime: Runtime,
    /// Where containerd answers, for --runtime cri.
    #[arg(long, value_name = "URL", default_value = "unix:///run/containerd/containerd.sock")]
    cri_endpoint: String,
    /// Leaves the processes of pods running at the end (--runtime process).
    #[arg(long)]
    keep_pods: bool,
    #[command(flatten)]
    logs: kubeedge_bin::LogOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// Programs of this machine, as processes.
    Process,
    /// Containers of containerd or another CRI runtime.
    Cri,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints a completion script.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    if let Some(ended) = kubeedge_bin::process_shim() {
        return ended;
    }
    kubeedge_bin::exit(run(Options::parse()))
}

fn run(options: Options) -> anyhow::Result<()> {
    if let Some(Command::Completion { shell }) = options.command {
        kubeedge_bin::complete(shell, Options::command());
        return Ok(());
    }
    kubeedge_bin::start(&options.logs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(site::run(options)).context("edgesite")
}
