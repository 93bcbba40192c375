//! A whole KubeEdge site in one process: Kubernetes API, cloudcore, edgecore, MQTT broker.

mod table;

use std::{net::IpAddr, path::PathBuf, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use kubeedge_core::runtime::ContainerRuntime;
use kubeedge_device::{Mapper, modbus::Modbus, simulated::Simulated};
use kubeedge_runtime::{
    cri::{CriRuntime, CriSettings},
    process::{ProcessRuntime, ProcessSettings},
};
use kubeedge_site::{Site, SiteError, SiteSettings};

/// How long processes of pods have to end, with the site.
const GRACE: Duration = Duration::from_secs(5);

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
    runtime.block_on(serve(options)).context("edgesite")
}

/// Runs the site until a signal or until a part of it fails.
async fn serve(options: Options) -> anyhow::Result<()> {
    let (begun, mut signal) = (std::time::Instant::now(), pin!(kubeedge_bin::shutdown_signal()));
    let (folder, node) = (options.data_dir.clone(), options.node.clone());
    let (address, port_base, plc) = (options.address, options.port_base, options.demo);
    let settings = SiteSettings { folder, address, port_base, node, plc };
    let mut site = Site::open(settings)
        .context("--data-dir")?
        .edge(|edge| edge.mapper(Mapper::new(Modbus::new())).mapper(Mapper::new(Simulated::new())));
    let (runtime, pods) = options.pods(&site).await?;
    let started = tokio::select! {
        started = site.start(runtime) => started.map(Some),
        () = &mut signal => Ok(None),
    };
    let ended = match started {
        Ok(Some(running)) => {
            table::print(&running, options.runtime, begun.elapsed())?;
            tokio::select! {
                () = signal => Ok(()),
                error = site.failed() => Err(error),
            }
        }
        early => early.map(drop),
    };
    let stopped = site.stop().await;
    if let Some(pods) = pods.filter(|_| !options.keep_pods) {
        pods.stop_all(GRACE).await;
    }
    let hint = format!("if a port is taken, choose others with --port-base (now {port_base})");
    match ended.and(stopped) {
        Err(error @ SiteError::Ports { .. }) => Err(error).context(hint),
        ended => Ok(ended?),
    }
}

impl Options {
    /// What runs pods; and the process runtime once more, whose processes end with the site.
    async fn pods(&self, site: &Site) -> anyhow::Result<(Arc<dyn ContainerRuntime>, Option<ProcessRuntime>)> {
        match self.runtime {
            Runtime::Process => {
                let root = site.edge_folder()?.join("containers");
                let settings = ProcessSettings { root, shim: kubeedge_bin::shim()? };
                let runtime = ProcessRuntime::open(settings).await?;
                Ok((Arc::new(runtime.clone()), Some(runtime)))
            }
            Runtime::Cri => {
                let settings = CriSettings { endpoint: self.cri_endpoint.clone(), ..CriSettings::default() };
                Ok((Arc::new(CriRuntime::connect(settings)?), None))
            }
        }
    }
}
