//! Edged: runs the pods of this node.

use std::collections::BTreeMap;

use super::{
    super::{section::section, value::GoDuration},
    TailoredKubeletConfig,
};

section! {
    /// Runs the pods of this node. Most keys are flags of Kubernetes' kubelet.
    Edged {
        /// Whether it runs.
        enable: bool = true,
        /// Whether events are sent to the cluster.
        report_event: bool = false,
        /// The node's name. Empty: the host's.
        hostname_override: String = String::new(),
        /// The folder of volumes and the like.
        root_directory: String = "/var/lib/kubelet".to_owned(),
        /// The image that holds a pod's namespaces.
        pod_sandbox_image: String = "kubeedge/pause:3.6".to_owned(),
        /// The namespace in the first question for pods.
        register_node_namespace: String = "default".to_owned(),
        /// Whether the node takes pods once it is registered.
        register_schedulable: bool = true,
        /// How many ended containers are kept; -1 for all.
        max_container_count: i32 = -1,
        /// How many ended containers are kept of each container of a pod.
        max_per_pod_container_count: i32 = 1,
        /// How long an ended container is kept at least.
        #[serde(rename = "minimumGCAge")]
        minimum_gc_age: GoDuration = GoDuration::default(),
        /// Windows only.
        windows_priority_class: String = "NORMAL_PRIORITY_CLASS".to_owned(),
        /// What Kubernetes has in the kubelet's own file.
        tailored_kubelet_config: TailoredKubeletConfig = TailoredKubeletConfig::default(),
    }
    optional {
        /// The node's address. Without: found out.
        #[serde(rename = "nodeIP")]
        node_ip: String,
        /// The network interface whose address is the node's.
        custom_interface_name: String,
        /// Labels the node is registered with.
        node_labels: BTreeMap<String, String>,
        /// The control group of the runtime.
        runtime_cgroups: String,
        /// Windows only.
        windows_service: bool,
        /// A program that mounts.
        experimental_mounter_path: String,
        /// Whether thresholds of eviction do not count against what pods may have.
        experimental_node_allocatable_ignore_eviction_threshold: bool,
        /// Whether volumes of ended pods stay mounted.
        keep_terminated_pod_volumes: bool,
        /// Whether pods without a seccomp profile have the runtime's.
        seccomp_default: bool,
    }
}
