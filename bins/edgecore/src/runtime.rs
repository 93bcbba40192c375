//! What runs pods, as the flag says and the configuration details.

use std::sync::Arc;

use clap::ValueEnum;
use kubeedge_bin::Unusable;
use kubeedge_core::runtime::ContainerRuntime;
use kubeedge_edge::config::EdgePlan;
use kubeedge_runtime::{
    cri::{CriRuntime, CriSettings},
    process::{ProcessRuntime, ProcessSettings},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Containers of the runtime at containerRuntimeEndpoint, such as containerd
    Cri,
    /// Programs of this host, as processes
    Process,
}

impl Runtime {
    /// Opens it.
    pub(crate) async fn open(self, plan: &EdgePlan) -> anyhow::Result<Arc<dyn ContainerRuntime>> {
        if self == Self::Process {
            let root = plan.database.with_file_name("containers");
            let settings = ProcessSettings { root, shim: kubeedge_bin::shim()? };
            return Ok(Arc::new(ProcessRuntime::open(settings).await?));
        }
        let settings = CriSettings {
            endpoint: plan.runtime.runtime.clone(),
            image_endpoint: plan.runtime.images.clone(),
            request_timeout: plan.runtime.timeout,
            ..CriSettings::default()
        };
        Ok(Arc::new(CriRuntime::connect(settings).map_err(Unusable::new)?))
    }
}
