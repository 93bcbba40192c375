//! The runtime in memory does what every container runtime must.
#![allow(clippy::unwrap_used)]

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use kubeedge_core::{
    conformance::runtime::{Abilities, Program, RuntimeHarness},
    runtime::{ContainerRuntime, ImageRef},
};
use kubeedge_runtime::memory::{MemoryRuntime, MemorySettings};
use tempfile::TempDir;

struct Memory {
    runtime: MemoryRuntime,
    folder: TempDir,
}

impl Memory {
    fn new() -> Self {
        let images = [("test:1".to_owned(), vec!["wait".to_owned()])].into();
        let settings = MemorySettings { images, ..MemorySettings::default() };
        Self { runtime: MemoryRuntime::new(settings), folder: TempDir::new().unwrap() }
    }
}

#[async_trait]
impl RuntimeHarness for Memory {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(self.runtime.clone())
    }

    fn image(&self) -> ImageRef {
        "test:1".into()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::default();
        abilities.pod_network = true;
        abilities.port_forward = false;
        abilities.stats = false;
        abilities
    }

    fn program(&self, what: &Program) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        match what {
            Program::Exit(code) => vec!["exit".into(), code.to_string()],
            Program::Signal(signal) => vec!["signal".into(), signal.to_string()],
            Program::Wait => words("echo ready ; wait"),
            Program::Farewell(text) => {
                [vec!["trap".into(), (*text).into()], words("; echo ready ; wait")].concat()
            }
            Program::Stubborn => words("ignore ; echo ready ; wait"),
            Program::Say(out, err) => {
                ["print", out.as_str(), ";", "warn", err.as_str()].map(str::to_owned).into()
            }
            Program::Env(name) => vec!["env".into(), (*name).into()],
            Program::Args => words("args"),
            Program::Read(file) => vec!["read".into(), path(file)],
            Program::Write(file, text) => vec!["write".into(), path(file), (*text).into()],
            Program::Copy => words("copy"),
            Program::Missing => words("/no/such/program"),
        }
    }

    async fn restart(&self) -> Option<Arc<dyn ContainerRuntime>> {
        Some(self.runtime())
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

kubeedge_core::runtime_conformance!(async { Memory::new() });
