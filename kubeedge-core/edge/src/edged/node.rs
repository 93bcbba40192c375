//! The node as the cluster sees it: registration, status and lease.

use std::{collections::BTreeMap, fs, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{
            ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
            NodeStatus, NodeSystemInfo,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
    },
    jiff::Timestamp,
};
use kubeedge_core::{
    backoff::Backoff,
    clock::Clock,
    kernel::Shutdown,
    message::Millis,
    name::NodeName,
    runtime::{ContainerRuntime, Info},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{EdgedSettings, view::time};
use crate::meta::{Client, ClientError};

/// How often the lease is renewed and the status computed; Go's nodeStatusUpdateFrequency.
const BEAT: Duration = Duration::from_secs(10);
/// How often the status is sent though nothing changed; Go's nodeStatusReportFrequency.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5 * 60);
/// How soon a beat that failed is tried again; while the link is down this costs one local message.
const RETRY: Duration = Duration::from_millis(100);
/// The longest pause between tries while the cloud cannot be reached; a try without a link costs nothing.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
const LEASE_SECONDS: i32 = 40;

/// Keeps the node registered and alive in the cluster.
#[derive(Debug)]
pub(crate) struct Heart<'a> {
    pub node: &'a NodeName,
    pub clock: &'a Clock,
    pub settings: &'a EdgedSettings,
    pub client: &'a Client,
    pub runtime: &'a dyn ContainerRuntime,
    pub machine: &'a Machine,
}

#[derive(Default)]
struct Pulse {
    registered: Option<Node>,
    lease: Option<Lease>,
    sent: Option<(Value, Instant)>,
}

impl Heart<'_> {
    /// Beats until shutdown.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut pulse = Pulse::default();
        let mut retry = Backoff::new(RETRY, LONGEST_RETRY, 0);
        loop {
            let beat = self.beat(&mut pulse).await;
            if let Err(error) = &beat {
                tracing::debug!(node = %self.node, error = %error, "node heartbeat not taken");
            }
            let pause = if beat.is_ok() {
                retry.reset();
                BEAT
            } else {
                retry.next_pause()
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn beat(&self, pulse: &mut Pulse) -> Result<(), ClientError> {
        let name = self.node.as_str();
        if pulse.registered.is_none() {
            pulse.registered = Some(self.register().await?);
            tracing::info!(node = %name, "node registered");
        }
        self.renew(pulse).await?;
        let now = self.clock.now();
        let status = self.status(before(pulse), now).await;
        let comparable = without_heartbeats(&status);
        let due = match &pulse.sent {
            Some((sent, at)) => *sent != comparable || at.elapsed() >= AT_LEAST_EVERY,
            None => true,
        };
        let due = due || self.is_held_for_another(&status).await;
        if due {
            let patch = node_patch(&status);
            match self.client.patch_node_status(name, &patch).await {
                Ok(node) => pulse.registered = Some(node),
                // Deleted behind our back: register anew with the next beat.
                Err(error) => {
                    if error.is_not_found() {
                        *pulse = Pulse::default();
                    }
                    return Err(error);
                }
            }
            pulse.sent = Some((comparable, Instant::now()));
        }
        Ok(())
    }

    /// Whether the cluster holds the node for ready when it is not, or the other way round: after an absence
    /// the cluster has marked it, and drives pods away if it is not told soon. The copy that the cloud keeps
    /// up to date says so.
    async fn is_held_for_another(&self, status: &NodeStatus) -> bool {
        let copy = self.client.node(self.node.as_str()).await.ok().flatten();
        copy.is_some_and(|node| node.status.as_ref().and_then(readiness) != readiness(status))
    }

    async fn register(&self) -> Result<Node, ClientError> {
        let name = self.node.as_str();
        let node = self.node(self.clock.now()).await;
        match self.client.register_node(&node).await {
            Err(error) if error.reason() == Some("AlreadyExists") => {
                // The object's uid is not needed before the first status patch returns it.
                Ok(self.client.node(name).await?.unwrap_or(node))
            }
            done => done,
        }
    }

    async fn renew(&self, pulse: &mut Pulse) -> Result<(), ClientError> {
        let name = self.node.as_str();
        let mut lease = match pulse.lease.take() {
            Some(lease) => lease,
            None => self.client.lease(name).await?.unwrap_or_else(|| self.new_lease(pulse)),
        };
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time =
            Some(MicroTime(Timestamp::from_millisecond(self.clock.now().0).unwrap_or_default()));
        spec.holder_identity = Some(name.to_owned());
        // Left empty on an error (a conflict, a lost link): the next beat reads the lease again.
        pulse.lease = Some(self.client.put_lease(&lease).await?);
        Ok(())
    }

    fn new_lease(&self, pulse: &Pulse) -> Lease {
        let name = self.node.to_string();
        let uid = pulse.registered.as_ref().and_then(|node| node.metadata.uid.clone());
        let owner = uid.map(|uid| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        });
        let namespace = Some("kube-node-lease".to_owned());
        Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace,
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name),
                lease_duration_seconds: Some(LEASE_SECONDS),
                ..LeaseSpec::default()
            }),
        }
    }

    fn hostname(&self) -> &str {
        self.settings.hostname.as_deref().unwrap_or(self.node.as_str())
    }

    async fn node(&self, now: Millis) -> Node {
        let settings = self.settings;
        let (arch, os) = (self.machine.arch.clone(), "linux".to_owned());
        let mut labels: BTreeMap<_, _> = [
            ("beta.kubernetes.io/arch", arch.clone()),
            ("beta.kubernetes.io/os", os.clone()),
            ("kubernetes.io/arch", arch),
            ("kubernetes.io/hostname", self.hostname().to_owned()),
            ("kubernetes.io/os", os),
            ("node-role.kubernetes.io/agent", String::new()),
            ("node-role.kubernetes.io/edge", String::new()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        labels.extend(settings.node_labels.clone());
        let mut annotations = settings.node_annotations.clone();
        annotations.insert("volumes.kubernetes.io/controller-managed-attach-detach".into(), "true".into());
        let taints = Some(settings.node_taints.clone()).filter(|taints| !taints.is_empty());
        Node {
            metadata: ObjectMeta {
                name: Some(self.node.to_string()),
                labels: Some(labels),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec { taints, ..NodeSpec::default() }),
            status: Some(self.status(None, now).await),
        }
    }

    async fn status(&self, before: Option<&NodeStatus>, now: Millis) -> NodeStatus {
        let info =
            self.runtime.info().await.unwrap_or_else(|error| Info::default().message(error.to_string()));
        let images = self.runtime.images().list().await.unwrap_or_default();
        let settings = self.settings;
        let address =
            |kind: &str, address: &str| NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
        let mut capacity = self.machine.capacity();
        capacity.insert("pods".to_owned(), Quantity(settings.max_pods.to_string()));
        let port = i32::from(settings.server_port);
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", &settings.node_ip),
                address("Hostname", self.hostname()),
            ]),
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            conditions: Some(conditions(&info, before, now)),
            daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
            images: Some(
                images
                    .into_iter()
                    .take(50)
                    .map(|image| ContainerImage {
                        names: Some(image.names),
                        size_bytes: i64::try_from(image.size).ok(),
                    })
                    .collect::<Vec<_>>(),
            )
            .filter(|images| !images.is_empty()),
            node_info: Some(self.machine.info(&settings.version, &info)),
            ..NodeStatus::default()
        }
    }
}

/// Whether a status says that the node is ready.
fn readiness(status: &NodeStatus) -> Option<&str> {
    let conditions = status.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|ready| ready.status.as_str())
}

fn before(pulse: &Pulse) -> Option<&NodeStatus> {
    pulse.registered.as_ref().and_then(|node| node.status.as_ref())
}

fn conditions(info: &Info, before: Option<&NodeStatus>, now: Millis) -> Vec<NodeCondition> {
    let old = |kind: &str| before.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == kind));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let since =
            old(kind).filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(time(now)),
            last_transition_time: Some(since.unwrap_or_else(|| time(now))),
        }
    };
    let ready = match (info.ready, info.network_ready) {
        (true, true) => condition("Ready", "True", "EdgeReady", "edge is posting ready status"),
        (true, false) => condition(
            "Ready",
            "False",
            "KubeletNotReady",
            &format!("container runtime network not ready: {}", info.message),
        ),
        (false, _) => condition(
            "Ready",
            "False",
            "KubeletNotReady",
            &format!("container runtime is down: {}", info.message),
        ),
    };
    vec![
        condition(
            "MemoryPressure",
            "False",
            "EdgeHasSufficientMemory",
            "edge has sufficient memory available",
        ),
        condition("DiskPressure", "False", "EdgeHasNoDiskPressure", "edge has no disk pressure"),
        condition("PIDPressure", "False", "EdgeHasSufficientPID", "edge has sufficient PID available"),
        ready,
    ]
}

fn without_heartbeats(status: &NodeStatus) -> Value {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    serde_json::to_value(status).unwrap_or_default()
}

fn node_patch(status: &NodeStatus) -> Value {
    let order: Vec<_> = status.conditions.iter().flatten().map(|c| json!({"type": c.type_})).collect();
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("$setElementOrder/conditions".to_owned(), order.into());
        // Told at registration only: from then on the cloud writes the port of its tunnel there.
        fields.remove("daemonEndpoints");
    }
    json!({"status": value})
}

/// What the machine is, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    arch: String,
    cpus: usize,
    memory_kib: u64,
    disk_kib: u64,
    kernel: String,
    os_image: String,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
}

impl Machine {
    /// Reads what the kernel tells of itself. Blocking, quick; what cannot be read stays empty.
    pub(crate) fn read(root: &std::path::Path) -> Self {
        let text =
            |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let memory = text("/proc/meminfo");
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        let release = text("/etc/os-release");
        let os = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let disk = rustix::fs::statvfs(root).or_else(|_| rustix::fs::statvfs("/"));
        Self {
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory.unwrap_or(0),
            disk_kib: disk.map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize) / 1024),
            kernel: text("/proc/sys/kernel/osrelease"),
            os_image: os.map(|name| name.trim_matches('"').to_owned()).unwrap_or_default(),
            machine_id: text("/etc/machine-id"),
            system_uuid: text("/sys/class/dmi/id/product_uuid"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
        }
    }

    pub(crate) fn capacity(&self) -> BTreeMap<String, Quantity> {
        [
            ("cpu", self.cpus.to_string()),
            ("memory", format!("{}Ki", self.memory_kib)),
            ("ephemeral-storage", format!("{}Ki", self.disk_kib)),
        ]
        .map(|(key, value)| (key.to_owned(), Quantity(value)))
        .into()
    }

    fn info(&self, version: &str, runtime: &Info) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: self.arch.clone(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
            kernel_version: self.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: version.to_owned(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone(),
            swap: None,
            system_uuid: self.system_uuid.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_it_has() {
        let machine = Machine::read(std::path::Path::new("/"));
        assert!(
            machine.cpus > 0 && machine.memory_kib > 0 && machine.disk_kib > 0 && !machine.kernel.is_empty()
        );
    }

    #[test]
    fn a_node_whose_runtime_is_down_is_not_ready_and_says_why() {
        let info = Info::default().message("socket is gone");
        let conditions = conditions(&info, None, Millis(1000));
        let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "False");
        assert!(ready.message.as_ref().unwrap().contains("socket is gone"));
    }

    #[test]
    fn a_nodes_status_leaves_the_port_alone_that_the_cloud_has_set_for_logs() {
        let endpoint = DaemonEndpoint { port: 10350 };
        let endpoints = NodeDaemonEndpoints { kubelet_endpoint: Some(endpoint) };
        let status = NodeStatus { daemon_endpoints: Some(endpoints), ..NodeStatus::default() };
        assert_eq!(node_patch(&status)["status"].get("daemonEndpoints"), None);
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time_and_its_heartbeat_is_no_change() {
        let info = Info::default().ready(true).network_ready(true);
        let first =
            NodeStatus { conditions: Some(conditions(&info, None, Millis(1000))), ..NodeStatus::default() };
        let later = NodeStatus {
            conditions: Some(conditions(&info, Some(&first), Millis(9000))),
            ..NodeStatus::default()
        };
        let times = |s: &NodeStatus| s.conditions.as_ref().unwrap()[0].last_transition_time.clone();
        assert_eq!(times(&first), times(&later));
        assert_eq!(without_heartbeats(&first), without_heartbeats(&later));
    }
}
