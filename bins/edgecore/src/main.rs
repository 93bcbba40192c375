//! Edgecore: the edge side of KubeEdge, on one node.

mod link;
mod runtime;

use std::{
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use clap::Parser;
use kubeedge_bin::{EXIT_CODES, Flags, Program, VERSION, shutdown_signal};
use kubeedge_config::{Host, PlanError, edge::EdgeCoreConfig};
use kubeedge_core::store::MetaStore;
use kubeedge_device::{Mapper, modbus::Modbus, simulated::Simulated};
use kubeedge_edge::{
    EdgeCore,
    config::{self, BOOTSTRAP_FILE, EdgePlan},
    meta::BY_RESOURCE,
};
use kubeedge_store::{SqliteOptions, SqliteStore};
use kubeedge_transport::{Adaptive, WebSocket};
use runtime::Runtime;

const EXAMPLES: &str = "\
Examples:
  edgecore --minconfig > edgecore.yaml      a file to start from; set the servers and the token of edgeHub in it
  edgecore --check --config edgecore.yaml   is the file all right, and which of its keys do nothing yet?
  edgecore --config edgecore.yaml           run with containerd; SIGINT or SIGTERM ends it, pods go on
  edgecore --config edgecore.yaml --runtime process --data-dir ./edge   needs neither root nor containerd";

/// The edge side of KubeEdge: runs pods and devices on a node, with the configuration files of Go's edgecore
#[derive(Debug, Parser)]
#[command(name = "edgecore", version = VERSION, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct EdgeCoreProgram {
    #[command(flatten)]
    flags: Flags,
    /// What runs pods
    #[arg(long, value_enum, default_value_t = Runtime::Cri)]
    runtime: Runtime,
    /// Keep everything in this folder, whatever paths the configuration names
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Program for EdgeCoreProgram {
    type Config = EdgeCoreConfig;
    type Plan = EdgePlan;
    const FILE: &'static str = "/etc/kubeedge/config/edgecore.yaml";
    const THREADS: Option<usize> = Some(2);

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn plan(&self, config: &EdgeCoreConfig, host: &Host) -> Result<EdgePlan, PlanError> {
        EdgePlan::new(config, host)
    }

    fn not_acted_on(config: &EdgeCoreConfig, host: &Host) -> Vec<String> {
        config::not_acted_on(config, host)
    }

    async fn run(self, _: EdgeCoreConfig, mut plan: EdgePlan) -> anyhow::Result<()> {
        let shutdown = pin!(shutdown_signal());
        plan.bootstrap(Path::new(BOOTSTRAP_FILE));
        if let Some(folder) = &self.data_dir {
            std::fs::create_dir_all(folder).with_context(|| format!("--data-dir {}", folder.display()))?;
            plan.keep_in(&folder.canonicalize()?);
        }
        let options = SqliteOptions { adopt: Some(BY_RESOURCE), ..SqliteOptions::default() };
        let store = Arc::new(SqliteStore::open(&plan.database, options).await?);
        let runtime = self.runtime.open(&plan).await?;
        let link = link::transport(&plan);
        let edge = EdgeCore::assemble(plan.settings, link, store.clone(), runtime)
            .tunnel_over(WebSocket::default())
            .codec(Arc::new(Adaptive::default()))
            .mapper(Mapper::new(Modbus::new()))
            .mapper(Mapper::new(Simulated::new()));
        let ended = edge.build()?.run(shutdown).await;
        store.close().await?;
        Ok(ended?)
    }
}

fn main() -> ExitCode {
    kubeedge_bin::process_shim().unwrap_or_else(kubeedge_bin::main::<EdgeCoreProgram>)
}
