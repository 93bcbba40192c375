//! From a pod's containers to what the runtime is told: sandbox and container specifications. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, SecurityContext};
use kubeedge_common::quantity;
use kubeedge_core::runtime::{
    ContainerSpec as RuntimeContainer, Dns, ImageRef, Labels, Mount, PortMapping, Resources, SandboxSpec,
    Security,
};

use super::{
    EdgedSettings,
    env::expand,
    view::{HASH, POD_UID, container_hash, main_containers},
};

/// Where the files of a pod are: `<root>/pods/<uid>`.
pub(crate) fn pod_folder(settings: &EdgedSettings, uid: &str) -> PathBuf {
    settings.root.join("pods").join(uid)
}

/// Where the logs of a pod are: `<logs>/<namespace>_<name>_<uid>`.
pub(crate) fn log_folder(settings: &EdgedSettings, pod: &Pod) -> PathBuf {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    settings.logs.join(format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid)))
}

fn identity(pod: &Pod) -> Labels {
    let meta = &pod.metadata;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        ("io.kubernetes.pod.name", part(&meta.name)),
        ("io.kubernetes.pod.namespace", part(&meta.namespace)),
        (POD_UID, part(&meta.uid)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The sandbox of a pod.
pub(crate) fn sandbox(settings: &EdgedSettings, pod: &Pod, attempt: u32) -> SandboxSpec {
    let (meta, spec) = (&pod.metadata, pod.spec.clone().unwrap_or_default());
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.extend(identity(pod));
    let name = meta.name.clone().unwrap_or_default();
    let hostname = spec.hostname.clone().unwrap_or_else(|| name.chars().take(63).collect());
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    SandboxSpec::new(name, part(&meta.namespace), part(&meta.uid))
        .attempt(attempt)
        .hostname(hostname)
        .log_directory(log_folder(settings, pod))
        .labels(labels)
        .annotations(meta.annotations.clone().unwrap_or_default())
        .host_network(spec.host_network.unwrap_or(false))
        .host_pid(spec.host_pid.unwrap_or(false))
        .host_ipc(spec.host_ipc.unwrap_or(false))
        .ports(main_containers(pod).flat_map(host_ports).collect())
        .dns(dns(settings, &spec))
}

fn host_ports(container: &ContainerSpec) -> Vec<PortMapping> {
    let port = |number: i32| u16::try_from(number).ok().filter(|port| *port > 0);
    let ports = container.ports.iter().flatten().filter_map(|declared| {
        let mapping = PortMapping::new(port(declared.host_port?)?, port(declared.container_port)?)
            .protocol(declared.protocol.as_deref().unwrap_or("TCP"))
            .host_ip(declared.host_ip.as_deref().unwrap_or_default());
        Some(mapping)
    });
    ports.collect()
}

fn dns(settings: &EdgedSettings, spec: &k8s_openapi::api::core::v1::PodSpec) -> Option<Dns> {
    let mut dns = match spec.dns_policy.as_deref() {
        Some("None") => Dns::default(),
        Some("Default") => return None,
        _ if settings.cluster_dns.is_empty() || spec.host_network == Some(true) => return None,
        _ => Dns::default()
            .servers(&settings.cluster_dns)
            .searches([format!("svc.{}", settings.cluster_domain), settings.cluster_domain.clone()])
            .options(["ndots:5"]),
    };
    if let Some(config) = &spec.dns_config {
        dns.servers.extend(config.nameservers.iter().flatten().cloned());
        dns.searches.extend(config.searches.iter().flatten().cloned());
        dns.options.extend(config.options.iter().flatten().map(|option| {
            let name = option.name.clone().unwrap_or_default();
            option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}"))
        }));
    }
    Some(dns)
}

/// What a container's specification is made from.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub pod: &'a Pod,
    pub spec: &'a ContainerSpec,
    pub attempt: u32,
    pub env: Vec<(String, String)>,
    pub volumes: &'a BTreeMap<String, PathBuf>,
    pub folder: &'a Path,
}

/// A mount that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("volumeMount {mount:?} of container \"{container}\": {why}")]
pub(crate) struct MountError {
    container: String,
    mount: String,
    why: &'static str,
}

/// The file a container may write its last words to.
pub(crate) fn termination_log(folder: &Path, name: &str, attempt: u32) -> PathBuf {
    folder.join("containers").join(name).join(attempt.to_string())
}

/// A container of a pod.
pub(crate) fn container(parts: &Parts<'_>) -> Result<RuntimeContainer, MountError> {
    let (pod, spec) = (parts.pod, parts.spec);
    let values: BTreeMap<_, _> = parts.env.iter().cloned().collect();
    let expanded = |list: &Option<Vec<String>>| {
        list.iter().flatten().map(|word| expand(word, &values)).collect::<Vec<_>>()
    };
    let mut labels = identity(pod);
    labels.insert("io.kubernetes.container.name".to_owned(), spec.name.clone());
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    let last_words =
        spec.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned());
    let annotations = [
        (HASH, container_hash(spec)),
        ("io.kubernetes.container.restartCount", parts.attempt.to_string()),
        ("io.kubernetes.container.terminationMessagePath", last_words.clone()),
        (
            "io.kubernetes.container.terminationMessagePolicy",
            spec.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
        ("io.kubernetes.pod.terminationGracePeriod", grace.to_string()),
    ];
    let mut mounts = mounts(parts, &values)?;
    let host_path = termination_log(parts.folder, &spec.name, parts.attempt);
    mounts.push(Mount::new(host_path, last_words));
    let image = ImageRef(spec.image.clone().unwrap_or_default());
    Ok(RuntimeContainer::new(&spec.name, image)
        .attempt(parts.attempt)
        .command(expanded(&spec.command))
        .args(expanded(&spec.args))
        .working_dir(spec.working_dir.clone().unwrap_or_default())
        .log_path(Path::new(&spec.name).join(format!("{}.log", parts.attempt)))
        .labels(labels)
        .annotations(annotations.map(|(key, value)| (key.to_owned(), value)).into())
        .stdin(spec.stdin.unwrap_or(false))
        .tty(spec.tty.unwrap_or(false))
        .resources(resources(spec))
        .security(security(pod, spec.security_context.as_ref()))
        .mounts(mounts)
        .env(parts.env.clone()))
}

fn mounts(parts: &Parts<'_>, values: &BTreeMap<String, String>) -> Result<Vec<Mount>, MountError> {
    let fail =
        |mount: &str, why| MountError { container: parts.spec.name.clone(), mount: mount.to_owned(), why };
    let mut out = Vec::new();
    for mount in parts.spec.volume_mounts.iter().flatten() {
        let base =
            parts.volumes.get(&mount.name).ok_or_else(|| fail(&mount.name, "the pod has no such volume"))?;
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (_, Some(expression)) => expand(expression, values),
            (Some(path), None) => path.clone(),
            (None, None) => String::new(),
        };
        let plain = Path::new(&sub).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !plain {
            return Err(fail(&mount.name, "subPath must be relative and must not contain \"..\""));
        }
        let host_path = if sub.is_empty() { base.clone() } else { base.join(sub) };
        let readonly = mount.read_only.unwrap_or(false);
        out.push(Mount::new(host_path, &mount.mount_path).readonly(readonly));
    }
    Ok(out)
}

fn resources(spec: &ContainerSpec) -> Resources {
    const PERIOD: u64 = 100_000;
    let declared = spec.resources.clone().unwrap_or_default();
    let (limits, requests) = (declared.limits.unwrap_or_default(), declared.requests.unwrap_or_default());
    let cpu_limit = limits.get("cpu").map(|q| quantity::milli(&q.0));
    let cpu_request = requests.get("cpu").map(|q| quantity::milli(&q.0)).or(cpu_limit).unwrap_or(0);
    let memory = limits.get("memory").map_or(0, |q| quantity::units(&q.0));
    let quota = |milli: u64| i64::try_from((milli.saturating_mul(PERIOD) / 1000).max(1000)).unwrap_or(0);
    Resources::default()
        .cpu_shares((cpu_request.saturating_mul(1024) / 1000).max(2))
        .cpu_quota(cpu_limit.map_or(0, quota))
        .cpu_period(if cpu_limit.is_some() { PERIOD } else { 0 })
        .memory_bytes(memory)
        .oom_score_adj(if requests.is_empty() && limits.is_empty() { 1000 } else { 0 })
}

fn security(pod: &Pod, own: Option<&SecurityContext>) -> Security {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = own.cloned().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    Security::default()
        .run_as_user(own.run_as_user.or(of_pod.run_as_user))
        .run_as_group(own.run_as_group.or(of_pod.run_as_group))
        .supplemental_groups(groups)
        .privileged(own.privileged.unwrap_or(false))
        .readonly_rootfs(own.read_only_root_filesystem.unwrap_or(false))
        .no_new_privileges(own.allow_privilege_escalation == Some(false))
        .add_capabilities(capabilities.add.unwrap_or_default())
        .drop_capabilities(capabilities.drop.unwrap_or_default())
}
