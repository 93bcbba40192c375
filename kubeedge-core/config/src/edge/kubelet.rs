//! The kubelet's own configuration, as Edged has it: a part of Kubernetes' `KubeletConfiguration` v1beta1.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{section::section, value::GoDuration};

section! {
    /// The kubelet's own configuration.
    TailoredKubeletConfig {
        /// The folder of static pods.
        static_pod_path: String = "/etc/kubeedge/manifests".to_owned(),
        /// The folder of pods' logs.
        pod_logs_dir: String = "/var/log/pods".to_owned(),
        /// How often pods are compared with what runs.
        sync_frequency: GoDuration = GoDuration::secs(60),
        /// How often static pods are looked for.
        file_check_frequency: GoDuration = GoDuration::secs(20),
        /// Where the local API listens.
        address: String = "127.0.0.1".to_owned(),
        /// Its port; 0 for none.
        read_only_port: u32 = 10350,
        /// Pulls of images a second; 0 for no limit.
        #[serde(rename = "registryPullQPS")]
        registry_pull_qps: u32 = 5,
        /// Pulls of images at once.
        registry_burst: u32 = 10,
        /// Events a second; 0 for no limit.
        #[serde(rename = "eventRecordQPS")]
        event_record_qps: u32 = 50,
        /// Events at once.
        event_burst: u32 = 100,
        /// Whether the local API has logs, exec and the like.
        enable_debugging_handlers: bool = true,
        /// Whether the local API has profiles.
        enable_profiling_handler: bool = true,
        /// Whether the local API changes the level of logs.
        enable_debug_flags_handler: bool = true,
        /// Whether the local API has the host's logs.
        enable_system_log_handler: bool = true,
        /// How late the kernel ends edgecore when memory is short, -1000 to 1000.
        oom_score_adj: i32 = -999,
        /// The cluster's DNS domain.
        cluster_domain: String = "cluster.local".to_owned(),
        /// How long exec and the like may be idle.
        streaming_connection_idle_timeout: GoDuration = GoDuration::secs(4 * 3600),
        /// How often the node's status is computed.
        node_status_update_frequency: GoDuration = GoDuration::secs(10),
        /// How often an unchanged status is sent.
        node_status_report_frequency: GoDuration = GoDuration::secs(300),
        /// How long the node's lease holds.
        node_lease_duration_seconds: u32 = 40,
        /// How long an unused image is kept at least.
        #[serde(rename = "imageMinimumGCAge")]
        image_minimum_gc_age: GoDuration = GoDuration::secs(120),
        /// How long an unused image is kept at most; 0 for ever.
        #[serde(rename = "imageMaximumGCAge")]
        image_maximum_gc_age: GoDuration = GoDuration::default(),
        /// How full the disk may be before images are removed.
        #[serde(rename = "imageGCHighThresholdPercent")]
        image_gc_high_threshold_percent: u32 = 85,
        /// How full the disk may be when removing ends.
        #[serde(rename = "imageGCLowThresholdPercent")]
        image_gc_low_threshold_percent: u32 = 80,
        /// How often the size of volumes is measured.
        volume_stats_agg_period: GoDuration = GoDuration::secs(60),
        /// Who makes control groups: `cgroupfs` or `systemd`.
        cgroup_driver: String = "cgroupfs".to_owned(),
        /// Whether each class of service has its control group.
        #[serde(rename = "cgroupsPerQOS")]
        cgroups_per_qos: bool = true,
        /// How CPUs are given to containers.
        cpu_manager_policy: String = "none".to_owned(),
        /// How often that is looked after.
        cpu_manager_reconcile_period: GoDuration = GoDuration::secs(10),
        /// How memory of NUMA nodes is given to containers.
        memory_manager_policy: String = "None".to_owned(),
        /// How CPUs, memory and devices are kept together.
        topology_manager_policy: String = "none".to_owned(),
        /// For `container` or `pod`.
        topology_manager_scope: String = "container".to_owned(),
        /// How long the runtime may take to answer.
        runtime_request_timeout: GoDuration = GoDuration::secs(120),
        /// How a pod reaches itself through a service.
        hairpin_mode: String = "promiscuous-bridge".to_owned(),
        /// How many pods the node takes.
        max_pods: u32 = 110,
        /// How many processes a pod may have; -1 for no limit.
        pod_pids_limit: i64 = -1,
        /// The host's name servers; empty for none.
        resolv_conf: String = "/etc/resolv.conf".to_owned(),
        /// Whether limits of CPU are enforced.
        #[serde(rename = "cpuCFSQuota")]
        cpu_cfs_quota: bool = true,
        /// Over which time limits of CPU are enforced.
        #[serde(rename = "cpuCFSQuotaPeriod")]
        cpu_cfs_quota_period: GoDuration = GoDuration::millis(100),
        /// How many images the node's status lists; -1 for all.
        node_status_max_images: i32 = 0,
        /// How many files edgecore may have open.
        max_open_files: u64 = 1_000_000,
        /// The encoding of requests to the API server.
        content_type: String = "application/json".to_owned(),
        /// Whether images are pulled one after the other.
        serialize_image_pulls: bool = true,
        /// What must be free; else pods are ended at once.
        eviction_hard: BTreeMap<String, String> = eviction_hard(),
        /// How long the node reports a pressure that is over.
        eviction_pressure_transition_period: GoDuration = GoDuration::secs(300),
        /// Whether the cluster attaches volumes.
        enable_controller_attach_detach: bool = true,
        /// Whether a hint for the packet filter is made.
        #[serde(rename = "makeIPTablesUtilChains")]
        make_iptables_util_chains: bool = true,
        /// No longer has an effect.
        iptables_masquerade_bit: i32 = 14,
        /// No longer has an effect.
        iptables_drop_bit: i32 = 15,
        /// Whether a host with swap is refused.
        fail_swap_on: bool = false,
        /// What pods may swap.
        memory_swap: MemorySwap = MemorySwap::default(),
        /// How large a log grows before it is rotated.
        container_log_max_size: String = "10Mi".to_owned(),
        /// How many logs of one container are kept.
        container_log_max_files: u32 = 5,
        /// How many logs are rotated at once.
        container_log_max_workers: u32 = 1,
        /// How often logs are looked at.
        container_log_monitor_interval: GoDuration = GoDuration::secs(10),
        /// How changes of ConfigMaps and Secrets are found: `Get`, `Cache` or `Watch`.
        config_map_and_secret_change_detection_strategy: String = "Get".to_owned(),
        /// What limits of the node are enforced for.
        enforce_node_allocatable: Vec<String> = vec!["pods".to_owned()],
        /// The folder of volume plugins.
        volume_plugin_dir: String = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned(),
        /// How the kubelet logs.
        logging: Logging = Logging::default(),
        /// How long the host's shutdown waits for pods.
        shutdown_grace_period: GoDuration = GoDuration::default(),
        /// How much of that is for critical pods.
        shutdown_grace_period_critical_pods: GoDuration = GoDuration::default(),
        /// Pauses between restarts.
        crash_loop_back_off: CrashLoopBackOff = CrashLoopBackOff::default(),
        /// Whether pods without a seccomp profile have the runtime's.
        seccomp_default: bool = false,
        /// At which part of its limit a container's memory is throttled.
        memory_throttling_factor: f64 = 0.9,
        /// Whether the node is registered.
        register_node: bool = true,
        /// Whether limits of local storage are enforced.
        local_storage_capacity_isolation: bool = true,
        /// Whether a host with cgroups v1 is refused.
        fail_cgroup_v1: bool = false,
        /// The container runtime.
        container_runtime_endpoint: String = "unix:///run/containerd/containerd.sock".to_owned(),
        /// The image service; empty: the container runtime.
        image_service_endpoint: String = "unix:///run/containerd/containerd.sock".to_owned(),
    }
    optional {
        /// Whether profiles show waiting for locks.
        enable_contention_profiling: bool,
        /// Name servers of the cluster.
        #[serde(rename = "clusterDNS")]
        cluster_dns: Vec<String>,
        /// The control group of edgecore.
        kubelet_cgroups: String,
        /// The control group of the host's other processes.
        system_cgroups: String,
        /// The control group of pods.
        cgroup_root: String,
        /// Whether only one process of a container is ended when memory is short.
        #[serde(rename = "singleProcessOOMKill")]
        single_process_oom_kill: bool,
        /// Options of the policy.
        cpu_manager_policy_options: BTreeMap<String, String>,
        /// Options of the policy.
        topology_manager_policy_options: BTreeMap<String, String>,
        /// What is kept for the class Guaranteed.
        qos_reserved: BTreeMap<String, String>,
        /// The addresses of pods.
        #[serde(rename = "podCIDR")]
        pod_cidr: String,
        /// How many images are pulled at once.
        max_parallel_image_pulls: u32,
        /// What must be free; else pods are ended after a while.
        eviction_soft: BTreeMap<String, String>,
        /// After which while.
        eviction_soft_grace_period: BTreeMap<String, String>,
        /// How many seconds a pod then has to end.
        eviction_max_pod_grace_period: u32,
        /// How much more is freed.
        eviction_minimum_reclaim: BTreeMap<String, String>,
        /// How many pods the node takes for each CPU.
        pods_per_core: u32,
        /// Whether a kernel that is set up otherwise is refused.
        protect_kernel_defaults: bool,
        /// Feature gates of Kubernetes.
        feature_gates: BTreeMap<String, bool>,
        /// What is kept for the host.
        system_reserved: BTreeMap<String, String>,
        /// What is kept for edgecore.
        kube_reserved: BTreeMap<String, String>,
        /// Which CPUs are kept for the host.
        #[serde(rename = "reservedSystemCPUs")]
        reserved_system_cpus: String,
        /// Which hidden metrics are shown.
        show_hidden_metrics_for_version: String,
        /// The control group that `systemReserved` is enforced for.
        system_reserved_cgroup: String,
        /// The control group that `kubeReserved` is enforced for.
        kube_reserved_cgroup: String,
        /// Settings of the kernel that pods may change.
        allowed_unsafe_sysctls: Vec<String>,
        /// Whether the kernel tells of memory that runs short.
        kernel_memcg_notification: bool,
        /// Whether the host's logs can be searched.
        enable_system_log_query: bool,
        /// How long the host's shutdown waits, by priority.
        shutdown_grace_period_by_pod_priority: Vec<ShutdownGracePeriod>,
        /// Memory that is kept, by NUMA node.
        reserved_memory: Vec<MemoryReservation>,
        /// Taints the node is registered with.
        register_with_taints: Vec<Taint>,
    }
}

fn eviction_hard() -> BTreeMap<String, String> {
    let signals = [
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
    ];
    signals.map(|(signal, threshold)| (signal.to_owned(), threshold.to_owned())).into()
}

section! {
    /// What pods may swap.
    MemorySwap {}
    optional {
        /// `NoSwap` or `LimitedSwap`.
        swap_behavior: String,
    }
}

section! {
    /// Pauses between restarts.
    CrashLoopBackOff {}
    optional {
        /// The longest.
        max_container_restart_period: GoDuration,
    }
}

section! {
    /// How the kubelet logs.
    Logging {
        /// `text` or `json`.
        format: String = "text".to_owned(),
        /// How often what was logged is written, as duration or count of nanoseconds.
        flush_frequency: Value = Value::from("5s"),
        /// The level of detail.
        verbosity: u32 = 0,
        /// What belongs to the formats.
        options: Value = serde_json::json!({
            "json": {"infoBufferSize": "0"},
            "text": {"infoBufferSize": "0"},
        }),
    }
    optional {
        /// Levels of detail by file.
        vmodule: Value,
    }
}

section! {
    /// How long the host's shutdown waits for pods of a priority.
    ShutdownGracePeriod {
        /// From this priority on.
        priority: i32 = 0,
        /// How many seconds.
        shutdown_grace_period_seconds: u64 = 0,
    }
}

section! {
    /// Memory that is kept.
    MemoryReservation {
        /// On this NUMA node.
        numa_node: u32 = 0,
        /// How much, by kind of memory.
        limits: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! {
    /// A taint of the node.
    Taint {
        /// The key.
        key: String = String::new(),
        /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
        effect: String = String::new(),
    }
    optional {
        /// The value.
        value: String,
        /// Since when.
        time_added: String,
    }
}
