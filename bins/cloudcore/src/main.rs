//! Cloudcore: the cloud side of KubeEdge on a Kubernetes cluster.

mod embedded;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use embedded::Embedded;
use kubeedge_bin::{EXIT_CODES, Flags, Program, Unusable, VERSION, shutdown_signal};
use kubeedge_cloud::{
    CloudCore, CloudCoreBuilder,
    config::{self, CloudPlan, ConfiguredCluster},
};
use kubeedge_config::{Host, PlanError, cloud::CloudCoreConfig};
use kubeedge_transport::{Adaptive, Quic, QuicSettings, WebSocket};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  cloudcore --minconfig > cloudcore.yaml      a file to start from; set kubeAPIConfig.kubeConfig in it
  cloudcore --check --config cloudcore.yaml   is the file all right, and which of its keys do nothing yet?
  cloudcore --config cloudcore.yaml           run; SIGINT or SIGTERM ends it in order
  cloudcore --embedded ./cloud --config cloudcore.yaml   run without a Kubernetes of your own
  cloudcore --defaultconfig                   every key with its default";

/// The cloud side of KubeEdge: serves edges on a Kubernetes cluster, with the configuration files of Go's
/// cloudcore
#[derive(Debug, Parser)]
#[command(name = "cloudcore", version = VERSION, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
struct CloudCoreProgram {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    embedded: Embedded,
}

impl Program for CloudCoreProgram {
    type Config = CloudCoreConfig;
    type Plan = CloudPlan;
    const FILE: &'static str = "/etc/kubeedge/config/cloudcore.yaml";

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn plan(&self, config: &CloudCoreConfig, host: &Host) -> Result<CloudPlan, PlanError> {
        let mut seed = DefaultHasher::new();
        (host.address, std::process::id()).hash(&mut seed);
        Ok(CloudPlan::new(config)?.on(host, seed.finish()))
    }

    fn not_acted_on(config: &CloudCoreConfig, host: &Host) -> Vec<String> {
        config::not_acted_on(config, host)
    }

    async fn run(self, config: CloudCoreConfig, plan: CloudPlan) -> anyhow::Result<()> {
        let mut shutdown = pin!(shutdown_signal());
        let limit = kubeedge_bin::raise_descriptors();
        // A node has two connections: its link, and its tunnel.
        let connections = 2 * u64::from(config.modules.cloud_hub.node_limit);
        if let Err(error) = kubeedge_bin::enough_descriptors(limit, connections) {
            tracing::warn!("modules.cloudHub.nodeLimit: {error}");
        }
        let (local, cluster) = match self.embedded.start().await? {
            Some((local, cluster)) => (Some(local), cluster),
            None => (None, config::cluster(&config).await.map_err(Unusable::new)?),
        };
        let cloud = tokio::select! {
            cloud = assemble(plan, cluster).build() => cloud?,
            () = &mut shutdown => return Ok(()),
        };
        let status = cloud.status();
        if let Some(local) = &local {
            local.cluster.set_streams(Arc::new(status.tunnels.clone()));
        }
        let ready = async move {
            status.ready().await;
            let (hub, https) = (status.hub.borrow().clone(), *status.https.borrow());
            tracing::info!(?hub, ?https, "edges can join and connect");
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = cloud.run(shutdown) => ended,
            () = ready => Ok(()),
        };
        if let Some(local) = local {
            local.stop().await?;
        }
        Ok(ended?)
    }
}

/// Puts a cloudcore together, with the transports the plan wants.
fn assemble(plan: CloudPlan, cluster: ConfiguredCluster) -> CloudCoreBuilder {
    let CloudPlan { mut settings, quic, .. } = plan;
    settings.hub.cluster_ca = cluster.ca;
    let websocket = WebSocket::default();
    let builder = match quic {
        None => CloudCore::assemble(settings, websocket, cluster.api),
        Some(door) => {
            let quic = Quic::new(QuicSettings { streams: door.streams, ..QuicSettings::default() });
            if door.alone {
                settings.listen = door.listen;
                CloudCore::assemble(settings, quic, cluster.api).tunnel_over(websocket)
            } else {
                CloudCore::assemble(settings, websocket, cluster.api).listen(quic, door.listen)
            }
        }
    };
    builder.codec(Arc::new(Adaptive::default()))
}

fn main() -> ExitCode {
    kubeedge_bin::main::<CloudCoreProgram>()
}
