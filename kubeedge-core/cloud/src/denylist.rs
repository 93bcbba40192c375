//! Certificates that are cut off before they expire: by node, by serial, or all that a node got before a
//! moment.
//!
//! An operator writes them into the ConfigMap [`NAME`] of namespace `kubeedge`, which need not be there:
//!
//! ```yaml
//! data:
//!   nodes: |
//!     edge-7                                # nothing of this node is taken, it cannot join either
//!     edge-8 before 2026-11-21T12:00:00Z    # only certificates made since; it may join anew with a token
//!   serials: |
//!     5f3a9c0d11223344                      # as cloudcore logs it, or openssl x509 -noout -serial prints it
//! ```
//!
//! The ConfigMap is watched, and read every fifteen seconds besides, so that a watch that has died in silence
//! delays nothing for long. New connections are refused at once, links and tunnels that exist are cut, and no
//! certificate is renewed, on every cloudcore of the cluster. While the API server cannot be asked, the last
//! list counts.
//!
//! Go KubeEdge has nothing of the kind.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, Status};
use kubeedge_core::{
    failure::BoxError,
    kernel::{Module, ModuleContext},
    name::{Group, ModuleName, is_node_name},
    pki::Leaf,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{sync::watch, time::MissedTickBehavior};

use crate::{
    cluster::{self, Clients, NAMESPACE, namespaced},
    informer::{Informer, Informers},
};

/// The name of the ConfigMap.
pub const NAME: &str = "cloudcore-denylist";
/// The name of the module that reads it.
pub const DENYLIST: ModuleName = ModuleName::of("denylist");
/// The pause between two readings without a change being told.
const EVERY: Duration = Duration::from_secs(15);

/// What the list goes by of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    serial: Box<str>,
    not_before: i64,
}

impl From<&Leaf> for Mark {
    fn from(leaf: &Leaf) -> Self {
        Self { serial: leaf.serial.as_str().into(), not_before: leaf.not_before }
    }
}

impl Mark {
    /// The serial number in hexadecimal.
    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }
}

/// The entries of a list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entries {
    /// Nodes, and before when their certificates were made (seconds since the Unix epoch); `None` for all.
    nodes: HashMap<String, Option<i64>>,
    serials: HashSet<String>,
}

impl Entries {
    /// Reads the values of the ConfigMap. Lines that mean nothing are returned beside the others.
    fn read(config: &ConfigMap) -> (Self, Vec<String>) {
        let (mut entries, mut bad) = (Self::default(), Vec::new());
        let lines = |key: &str| {
            let text = config.data.iter().flatten().find(|(name, _)| *name == key);
            let lines = text.map(|(_, text)| text.as_str()).unwrap_or_default().lines();
            lines
                .map(|line| line.split('#').next().unwrap_or_default().trim())
                .filter(|line| !line.is_empty())
        };
        for line in lines("nodes") {
            if !entries.node(line) {
                bad.push(line.to_owned());
            }
        }
        for line in lines("serials") {
            match serial(line) {
                Some(serial) => drop(entries.serials.insert(serial)),
                None => bad.push(line.to_owned()),
            }
        }
        (entries, bad)
    }

    /// Takes `<node>` or `<node> before <RFC 3339>`; of several entries of a node the one that denies most
    /// counts.
    fn node(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.split_whitespace().collect();
        let (name, before) = match words.as_slice() {
            [name] => (*name, None),
            [name, "before", moment] => match OffsetDateTime::parse(moment, &Rfc3339) {
                Ok(moment) => (*name, Some(moment.unix_timestamp())),
                Err(_) => return false,
            },
            _ => return false,
        };
        if !is_node_name(name) {
            return false;
        }
        let known = self.nodes.entry(name.to_owned()).or_insert(before);
        *known = known.zip(before).map(|(known, before)| known.max(before));
        true
    }

    /// Why a node is denied that shows this certificate, or none.
    fn why(&self, node: &str, mark: Option<&Mark>) -> Option<&'static str> {
        if mark.is_some_and(|mark| self.serials.contains(&*mark.serial)) {
            return Some("the certificate is on the deny list of this cloud");
        }
        match self.nodes.get(node)? {
            None => Some("the node is on the deny list of this cloud"),
            Some(before) if mark.is_some_and(|mark| mark.not_before < *before) => {
                Some("certificates of this node as old as this one are on the deny list of this cloud")
            }
            Some(_) => None,
        }
    }
}

/// A serial number in hexadecimal, with or without colons and `0x`, as [`Leaf::serial`] has it.
fn serial(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let digits: String = text.strip_prefix("0x").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    let is_serial = !digits.is_empty() && digits.len() <= 64 && digits.chars().all(|c| c.is_ascii_hexdigit());
    is_serial.then(|| digits.trim_start_matches('0').to_owned())
}

/// The list as it is now and later. Cheap to clone; the default one is empty for ever.
#[derive(Clone, Debug)]
pub struct Denylist(watch::Receiver<Option<Arc<Entries>>>);

impl Default for Denylist {
    fn default() -> Self {
        Self(watch::Sender::new(None).subscribe())
    }
}

impl Denylist {
    /// Completes when the list has been read for the first time, or nobody is going to.
    pub(crate) async fn ready(&self) {
        let _ = self.0.clone().wait_for(Option::is_some).await;
    }

    /// Why a node is denied that shows this certificate, or none.
    pub(crate) fn why(&self, node: &str, mark: Option<&Mark>) -> Option<&'static str> {
        self.0.borrow().as_ref()?.why(node, mark)
    }

    /// Completes when the node with this certificate is denied, at once if it is already.
    pub(crate) async fn denied(mut self, node: &str, mark: Option<&Mark>) -> &'static str {
        loop {
            self.0.mark_unchanged();
            if let Some(why) = self.why(node, mark) {
                return why;
            }
            if self.0.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// The module that keeps the list; see the module's documentation.
#[derive(Clone, Debug)]
pub struct DenylistKeeper {
    clients: Arc<Clients>,
    maps: Arc<Informer>,
    list: watch::Sender<Option<Arc<Entries>>>,
    said: String,
}

impl DenylistKeeper {
    /// A keeper on these clients and informers.
    pub fn new(clients: &Arc<Clients>, informers: &Informers) -> Self {
        let maps = informers.of(&ApiResource::erase::<ConfigMap>(&()));
        Self { clients: clients.clone(), maps, list: watch::Sender::new(None), said: String::new() }
    }

    /// The list it keeps.
    pub fn list(&self) -> Denylist {
        Denylist(self.list.subscribe())
    }

    async fn refresh(&mut self) {
        match self.fetch().await {
            Ok(config) => self.take(&config),
            // Nothing an outsider could bring about; an empty list is what there was before there were lists.
            Err(status) if status.is_forbidden() => {
                self.complain(format!(
                    "cloudcore may not read it, so that it denies nobody: {}",
                    status.message
                ));
                self.take(&ConfigMap::default());
            }
            Err(status) => self.complain(format!("not read, the last one counts: {}", status.message)),
        }
    }

    async fn fetch(&self) -> Result<ConfigMap, Box<Status>> {
        let path = namespaced("/api/v1", NAMESPACE, "configmaps", &[NAME]);
        match self.clients.ours().get(&path).await {
            Err(status) if status.is_not_found() => Ok(ConfigMap::default()),
            answer => serde_json::from_slice(&answer?)
                .map_err(|error| cluster::failure(500, "InternalError", error.to_string())),
        }
    }

    fn take(&mut self, config: &ConfigMap) {
        let (entries, bad) = Entries::read(config);
        if !bad.is_empty() {
            let bad: Vec<_> = bad.iter().take(5).collect();
            self.complain(format!("lines that name no node and no serial are passed over: {bad:?}"));
        }
        let is_new = |known: &Option<Arc<Entries>>| known.as_deref() != Some(&entries);
        if !is_new(&self.list.borrow()) {
            return;
        }
        let (nodes, serials) = (entries.nodes.len(), entries.serials.len());
        if nodes + serials > 0 || self.list.borrow().is_some() {
            tracing::info!(nodes, serials, "the deny list has changed");
        }
        self.list.send_replace(Some(Arc::new(entries)));
    }

    /// Says what is wrong, once for each reason.
    fn complain(&mut self, why: String) {
        if self.said != why {
            tracing::error!(config_map = format!("{NAMESPACE}/{NAME}"), why, "the deny list");
            self.said = why;
        }
    }
}

#[async_trait]
impl Module for DenylistKeeper {
    fn name(&self) -> ModuleName {
        DENYLIST
    }

    fn group(&self) -> Group {
        Group::of("denylist")
    }

    async fn run(&mut self, ctx: &mut ModuleContext) -> Result<(), BoxError> {
        let mut changes = self.maps.subscribe();
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                tokio::select! {
                    change = changes.next() => {
                        let key = change.new.as_ref().or(change.old.as_ref()).map(|object| &object.key);
                        if key.is_some_and(|key| key.namespace == NAMESPACE && key.name == NAME) {
                            self.refresh().await;
                        }
                    }
                    _ = tick.tick() => self.refresh().await,
                }
            }
        };
        tokio::select! {
            () = ctx.shutdown.requested() => Ok(()),
            () = work => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(nodes: &str, serials: &str) -> (Entries, Vec<String>) {
        let data = [("nodes".to_owned(), nodes.to_owned()), ("serials".to_owned(), serials.to_owned())];
        Entries::read(&ConfigMap { data: Some(data.into()), ..ConfigMap::default() })
    }

    fn mark(serial: &str, not_before: i64) -> Mark {
        Mark { serial: serial.into(), not_before }
    }

    #[test]
    fn a_list_names_nodes_serials_and_moments_and_what_it_cannot_mean_is_told() {
        let (list, bad) = entries(
            "edge-7 # stolen\n\n  edge-8 before 1970-01-01T00:01:40Z\n# edge-9\nEdge\nedge-1 after x\nedge-1 before x",
            "0A:1b:2C\n0x00ff\nxyz\n 77",
        );
        assert_eq!(bad, ["Edge", "edge-1 after x", "edge-1 before x", "xyz"]);
        assert!(list.why("edge-7", None).is_some() && list.why("edge-7", Some(&mark("1", 200))).is_some());
        assert!(list.why("edge-8", Some(&mark("1", 99))).is_some());
        assert!(list.why("edge-8", Some(&mark("1", 100))).is_none() && list.why("edge-8", None).is_none());
        for (serial, is_denied) in [("a1b2c", true), ("ff", true), ("77", true), ("7", false)] {
            assert_eq!(list.why("edge-1", Some(&mark(serial, 0))).is_some(), is_denied, "{serial}");
        }
        assert!(list.why("edge-9", Some(&mark("1", 0))).is_none());
    }

    #[test]
    fn of_several_entries_of_a_node_the_one_that_denies_most_counts() {
        let (list, _) = entries(
            "a before 1970-01-01T00:00:10Z\na before 1970-01-01T00:00:20Z\nb\nb before 1970-01-01T00:00:10Z",
            "",
        );
        assert_eq!(list.nodes["a"], Some(20));
        assert_eq!(list.nodes["b"], None);
    }

    #[tokio::test]
    async fn a_list_that_nobody_keeps_is_empty_and_ready() {
        let list = Denylist::default();
        list.ready().await;
        assert_eq!(list.why("edge-1", None), None);
    }
}
