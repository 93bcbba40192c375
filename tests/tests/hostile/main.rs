//! Hostile peers at the doors of a cloudcore: declared and endless lengths, senseless contents, others'
//! names, floods, and those who say or hear nothing. What each does is bounded in memory and told in few
//! lines, and a bystander is served meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod bodies;
mod bystander;
mod contents;
mod doors;
mod floods;
mod frames;
mod raw;

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use kubeedge_core::{
    message::Millis,
    pki::{Authority, Identity, Key, Names, Usage},
};
use kubeedge_tests::{Cloud, Kubectl, skipped};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::bystander::Bystander;

/// More than this a cloudcore must not grow, whatever one peer does: a few frames of the largest size.
const GROWTH: usize = 96 << 20;
/// Ten nodes at most are connected, each of which may be told of once a second for two reasons.
const LINES_A_SECOND: usize = 20;
/// A line about a peer is no longer than this.
const LONGEST_LINE: usize = 1000;

/// A cloudcore with a cluster of its own, and a bystander that is connected to it.
struct Place {
    cloud: Cloud,
    api: Kubectl,
    ca: Authority,
    runtime: Runtime,
    memory: usize,
    since: Instant,
    bystander: Bystander,
    _folder: TempDir,
}

impl Place {
    /// `None` for want of kubectl.
    fn start() -> Option<Self> {
        if skipped(&["kubectl"]) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (cloud, api) = Cloud::embedded(folder.path());
        let path = ["-o", "jsonpath={.data.cadata} {.data.cakeydata}"];
        let secret = api.kubectl(&[&["get", "secret", "-n", "kubeedge", "casecret"][..], &path].concat());
        let (certificate, key) = secret.split_once(' ').unwrap();
        let der = |text: &str| STANDARD.decode(text.trim()).unwrap();
        let ca = Authority::load(der(certificate), Key::from_der(der(key)).unwrap()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = identity(&ca, "quiet");
        let mut bystander = runtime.block_on(Bystander::dial(cloud.doors()[0], &identity, "quiet")).unwrap();
        runtime.block_on(bystander.exchanges(20));
        let memory = cloud.memory();
        let since = Instant::now();
        Some(Self { cloud, api, ca, runtime, memory, since, bystander, _folder: folder })
    }

    /// The certificate of a node.
    fn identity(&self, node: &str) -> Identity {
        identity(&self.ca, node)
    }

    /// The bystander asks and is answered, so many times.
    fn bystander_is_served(&mut self, times: usize) {
        self.runtime.block_on(self.bystander.exchanges(times));
    }

    /// It has grown by no more than it may.
    fn memory_is_bounded(&self, what: &str) {
        let grown = self.cloud.memory().saturating_sub(self.memory);
        assert!(grown < GROWTH, "{what}: cloudcore has grown by {} MiB", grown >> 20);
    }

    /// No panic, and no more lines than these since `before` and some a second for each who misbehaves, none
    /// of them long.
    fn few_lines(&self, before: &str, most: usize, what: &str) {
        let said = self.cloud.said();
        assert!(!said.contains("panicked"), "{what}: {said}");
        let new: Vec<_> = said[before.len()..].lines().collect();
        let seconds = usize::try_from(self.since.elapsed().as_secs()).unwrap();
        let most = most + seconds * LINES_A_SECOND;
        assert!(
            new.len() <= most,
            "{what}: {} lines, such as\n{}",
            new.len(),
            new[..new.len().min(20)].join("\n")
        );
        let long = new.iter().find(|line| line.len() > LONGEST_LINE);
        assert!(long.is_none(), "{what}: a line of {} bytes", long.map_or(0, |line| line.len()));
    }
}

fn identity(ca: &Authority, node: &str) -> Identity {
    let now = Millis::now().0 / 1000 - 60;
    let name = format!("system:node:{node}");
    ca.issue(&name, &["system:nodes"], &Names::default(), Usage::Client, now, 1).unwrap()
}
