//! The CRI runtime, with a real containerd behind it, does what every container runtime must.
#![cfg(feature = "cri")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "helpers of a test")]

#[path = "common/containerd.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod containerd;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use containerd::{BUSYBOX, Containerd};
use kubeedge_core::{
    conformance::runtime::{Abilities, RuntimeHarness},
    runtime::{ContainerRuntime, ImageRef},
};
use kubeedge_runtime::cri::{CriRuntime, CriSettings};

/// Cases that run at the same time share one containerd; the last one ends it.
static SHARED: Mutex<Weak<Containerd>> = Mutex::new(Weak::new());
static CASES: AtomicU32 = AtomicU32::new(0);

struct Cri {
    containerd: Arc<Containerd>,
    runtime: Arc<CriRuntime>,
    folder: PathBuf,
}

impl Cri {
    fn start() -> Option<Self> {
        let mut shared = SHARED.lock().unwrap();
        let containerd = match shared.upgrade() {
            Some(running) => running,
            None => Arc::new(Containerd::start()?),
        };
        *shared = Arc::downgrade(&containerd);
        let folder = containerd.folder().join(format!("case-{}", CASES.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder).unwrap();
        let runtime = connect(&containerd);
        Some(Self { containerd, runtime, folder })
    }
}

fn connect(containerd: &Containerd) -> Arc<CriRuntime> {
    let settings = CriSettings { endpoint: containerd.endpoint(), ..CriSettings::default() };
    Arc::new(CriRuntime::connect(settings).unwrap())
}

#[async_trait]
impl RuntimeHarness for Cri {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.runtime.clone()
    }

    fn image(&self) -> ImageRef {
        BUSYBOX.into()
    }

    fn absent_image(&self) -> ImageRef {
        "127.0.0.1:1/nothing:none".into()
    }

    fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::default();
        abilities.pod_network = true;
        abilities
    }

    fn echo_server(&self, port: u16) -> Option<Vec<String>> {
        // What it gets goes into the pipe that it sends from.
        let script = "mkfifo /echo; while :; do nc -l -p \"$1\" <>/echo >&0; done";
        Some(["sh", "-c", script, "sh", &port.to_string()].map(str::to_owned).into())
    }

    async fn restart(&self) -> Option<Arc<dyn ContainerRuntime>> {
        Some(connect(&self.containerd))
    }
}

kubeedge_core::runtime_conformance!(match Cri::start() {
    Some(cri) => std::future::ready(cri),
    None => return,
});
