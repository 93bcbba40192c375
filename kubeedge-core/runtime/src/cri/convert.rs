//! Between our words and the interface's. Pure.

use std::{
    collections::BTreeSet,
    iter,
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

use kubeedge_core::{
    message::Millis,
    runtime::{
        Container, ContainerId, ContainerSpec, ContainerState, ImageRef, Labels, PortMapping, RuntimeKind,
        RuntimeResult, Sandbox, SandboxId, SandboxSpec, Security,
    },
};

use super::{
    client::{CREATE, RUN_SANDBOX},
    messages::{self as cri, NamespaceMode},
};

/// The annotation under which a sandbox remembers what it was made from. Making a container takes the
/// sandbox's whole configuration again, and after a restart of this side only the runtime still has it.
const SPEC: &str = "edge.kubeedge.io/sandbox-spec";

/// What containers do not see of the host's /proc and /sys, unless privileged; the kubelet's default.
/// Runtimes hide nothing that is not named.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What containers cannot write to, unless privileged; the kubelet's default.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration of a sandbox.
pub(crate) fn sandbox_config(spec: SandboxSpec) -> RuntimeResult<cri::PodSandboxConfig> {
    let remembered = spec.clone().labels(Labels::new()).annotations(Labels::new());
    let remembered = serde_json::to_string(&remembered)
        .map_err(|error| RUN_SANDBOX.failed(RuntimeKind::Invalid, &spec.uid).because(error))?;
    let mut annotations = spec.annotations;
    annotations.insert(SPEC.to_owned(), remembered);
    let namespaces = namespaces(spec.host_network, spec.host_pid, spec.host_ipc);
    // A sandbox on the host's network has the host's name and ports.
    let (hostname, ports) =
        if spec.host_network { Default::default() } else { (spec.hostname, spec.ports.as_slice()) };
    Ok(cri::PodSandboxConfig {
        hostname,
        log_directory: text(&spec.log_directory),
        dns_config: spec.dns.map(|dns| cri::DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        port_mappings: ports.iter().map(port).collect::<RuntimeResult<_>>()?,
        labels: spec.labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: spec.cgroup_parent,
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                privileged: false,
            }),
        }),
        metadata: Some(cri::PodSandboxMetadata {
            name: spec.name,
            uid: spec.uid,
            namespace: spec.namespace,
            attempt: spec.attempt,
        }),
    })
}

fn namespaces(host_network: bool, host_pid: bool, host_ipc: bool) -> cri::NamespaceOption {
    let of = |host, own| i32::from(if host { NamespaceMode::Node } else { own });
    cri::NamespaceOption {
        network: of(host_network, NamespaceMode::Pod),
        pid: of(host_pid, NamespaceMode::Container),
        ipc: of(host_ipc, NamespaceMode::Pod),
    }
}

fn port(port: &PortMapping) -> RuntimeResult<cri::PortMapping> {
    let protocol = match port.protocol.as_str() {
        "" | "TCP" => cri::Protocol::Tcp,
        "UDP" => cri::Protocol::Udp,
        "SCTP" => cri::Protocol::Sctp,
        other => {
            let why = format!("the protocol of port {} is none of TCP, UDP, SCTP", port.container_port);
            return Err(RUN_SANDBOX.failed(RuntimeKind::Invalid, other).because(why));
        }
    };
    Ok(cri::PortMapping {
        protocol: protocol.into(),
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.clone(),
    })
}

/// The configuration a sandbox was made with, from what the runtime knows of it. Of a sandbox that another
/// agent made only what the runtime says is known: not its log folder.
pub(crate) fn config_of(status: cri::PodSandboxStatus) -> RuntimeResult<cri::PodSandboxConfig> {
    let metadata = status.metadata.unwrap_or_default();
    let mut annotations = status.annotations;
    let remembered = annotations
        .remove(SPEC)
        .and_then(|text| serde_json::from_str::<SandboxSpec>(&text).ok())
        .filter(|spec| spec.uid == metadata.uid && spec.namespace == metadata.namespace);
    let spec = remembered.unwrap_or_else(|| {
        let options = status.linux.and_then(|linux| linux.namespaces).and_then(|known| known.options);
        let options = options.unwrap_or_default();
        SandboxSpec::new(&metadata.name, metadata.namespace, metadata.uid)
            .attempt(metadata.attempt)
            .hostname(metadata.name)
            .host_network(options.network() == NamespaceMode::Node)
            .host_pid(options.pid() == NamespaceMode::Node)
            .host_ipc(options.ipc() == NamespaceMode::Node)
    });
    sandbox_config(spec.labels(status.labels).annotations(annotations))
}

/// Where a container's log goes, if it has one. A path that leads out of the sandbox's folder is refused.
pub(crate) fn log_file(sandbox: &cri::PodSandboxConfig, log_path: &Path) -> RuntimeResult<Option<PathBuf>> {
    if !log_path.components().all(|part| matches!(part, Component::Normal(_))) {
        let why = "the path of a log must be relative and without \"..\"";
        return Err(CREATE.failed(RuntimeKind::Invalid, &text(log_path)).because(why));
    }
    let none = sandbox.log_directory.is_empty() || log_path.as_os_str().is_empty();
    Ok((!none).then(|| Path::new(&sandbox.log_directory).join(log_path)))
}

/// The configuration of a container. The sandbox's is changed where the container needs it so.
pub(crate) fn container_config(
    spec: ContainerSpec,
    sandbox: &mut cri::PodSandboxConfig,
    user: User,
) -> cri::ContainerConfig {
    let of_sandbox = sandbox.linux.get_or_insert_default().security_context.get_or_insert_default();
    // Runtimes refuse privileged containers in a sandbox that does not expect them.
    of_sandbox.privileged |= spec.security.privileged;
    let (limits, namespaces) = (&spec.resources, of_sandbox.namespace_options);
    let resources = cri::LinuxContainerResources {
        cpu_period: at_most_i64(limits.cpu_period),
        cpu_quota: limits.cpu_quota,
        cpu_shares: at_most_i64(limits.cpu_shares),
        memory_limit_in_bytes: at_most_i64(limits.memory_bytes),
        oom_score_adj: limits.oom_score_adj.into(),
    };
    let pair = |(key, value)| cri::KeyValue { key, value };
    let mount = |mount: &kubeedge_core::runtime::Mount| cri::Mount {
        container_path: text(&mount.container_path),
        host_path: text(&mount.host_path),
        readonly: mount.readonly,
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name, attempt: spec.attempt }),
        image: Some(image_spec(&spec.image)),
        command: spec.command,
        args: spec.args,
        working_dir: spec.working_dir,
        envs: spec.env.into_iter().map(pair).collect(),
        mounts: spec.mounts.iter().map(mount).collect(),
        labels: spec.labels,
        annotations: spec.annotations,
        log_path: text(&spec.log_path),
        stdin: spec.stdin,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security(spec.security, user, namespaces)),
        }),
    }
}

/// Who runs a container's program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever the image says.
    OfImage,
    /// A number.
    Id(i64),
    /// A name the image knows.
    Name(String),
}

fn security(
    wish: Security,
    user: User,
    namespaces: Option<cri::NamespaceOption>,
) -> cri::LinuxContainerSecurityContext {
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    let value = |value| cri::Int64Value { value };
    let (run_as_user, run_as_username) = match user {
        User::OfImage => (None, String::new()),
        User::Id(id) => (Some(value(id)), String::new()),
        User::Name(name) => (None, name),
    };
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: wish.add_capabilities,
            drop_capabilities: wish.drop_capabilities,
        }),
        privileged: wish.privileged,
        namespace_options: namespaces,
        run_as_user,
        run_as_username,
        run_as_group: wish.run_as_group.map(value),
        readonly_rootfs: wish.readonly_rootfs,
        supplemental_groups: wish.supplemental_groups,
        no_new_privs: wish.no_new_privileges,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
    }
}

/// An image by name.
pub(crate) fn image_spec(image: &ImageRef) -> cri::ImageSpec {
    cri::ImageSpec { image: image.0.clone(), user_specified_image: image.0.clone() }
}

/// A sandbox as listed.
pub(crate) fn sandbox(listed: cri::PodSandbox) -> Sandbox {
    let ready = listed.state == i32::from(cri::PodSandboxState::SandboxReady);
    let metadata = listed.metadata.unwrap_or_default();
    let mut annotations = listed.annotations;
    annotations.remove(SPEC);
    let spec = SandboxSpec::new(metadata.name, metadata.namespace, metadata.uid)
        .attempt(metadata.attempt)
        .labels(listed.labels)
        .annotations(annotations);
    Sandbox::new(SandboxId(listed.id), &spec, millis(listed.created_at)).ready(ready)
}

/// A container as listed, with what only its status tells.
pub(crate) fn container(listed: cri::Container, state: ContainerState, log_path: PathBuf) -> Container {
    let metadata = listed.metadata.unwrap_or_default();
    let image = listed.image.unwrap_or_default();
    let asked_for =
        if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    let spec = ContainerSpec::new(metadata.name, ImageRef(asked_for))
        .attempt(metadata.attempt)
        .labels(listed.labels)
        .annotations(listed.annotations);
    let (id, sandbox) = (ContainerId(listed.id), SandboxId(listed.pod_sandbox_id));
    Container::new(id, sandbox, &spec, millis(listed.created_at))
        .image_id(listed.image_ref)
        .state(state)
        .log_path(log_path)
}

/// Where a container is in its life.
pub(crate) fn state(status: &cri::ContainerStatus) -> ContainerState {
    let started_at = millis(status.started_at);
    match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running { started_at },
        Ok(cri::ContainerState::ContainerExited) => {
            let usual = if status.exit_code == 0 { "Completed" } else { "Error" };
            let reason = if status.reason.is_empty() { usual } else { &status.reason };
            ContainerState::Exited {
                started_at,
                // What ends at once may be seen to end before it is seen to start.
                finished_at: millis(status.finished_at).max(started_at),
                code: status.exit_code,
                reason: reason.to_owned(),
                message: status.message.clone(),
            }
        }
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
    }
}

/// The names of an image, each once.
pub(crate) fn image(found: cri::Image) -> kubeedge_core::runtime::Image {
    let names: BTreeSet<String> = found.repo_tags.into_iter().chain(found.repo_digests).collect();
    kubeedge_core::runtime::Image::new(found.id).names(names).size(found.size)
}

/// The addresses of a sandbox; none with the host's network.
pub(crate) fn addresses(status: cri::PodSandboxStatus) -> Vec<IpAddr> {
    let network = status.network.unwrap_or_default();
    let all = iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
    all.filter_map(|ip| ip.parse().ok()).collect()
}

fn millis(nanos: i64) -> Millis {
    Millis((nanos / 1_000_000).max(0))
}

fn at_most_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
