//! `apps.kubeedge.io/v1alpha1`: groups of nodes, and workloads that differ from group to group.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod overriders;

pub use self::overriders::{
    ClaimName, EnvOverrider, ImageOverrider, ImagePredicate, Overriders, Resources, ResourcesOverrider,
    WordsOverrider,
};
use super::{absent, kind};

kind! {
    /// Nodes that belong together, such as those of one site.
    NodeGroup of "apps.kubeedge.io" "v1alpha1", "nodegroups", ClusterResourceScope,
    {
        /// Which nodes.
        spec: NodeGroupSpec,
        /// Which nodes were found.
        #[serde(skip_serializing_if = "absent")]
        status: NodeGroupStatus,
    },
    {
        const SINGULAR: &'static str = "nodegroup";
        const SHORT_NAMES: &'static [&'static str] = &["ng"];
        const STATUS: bool = true;
        const REQUIRED: &'static [&'static str] = &["spec"];
    }
}

kind! {
    /// A workload that is deployed to several groups of nodes, in each with its own changes.
    EdgeApplication of "apps.kubeedge.io" "v1alpha1", "edgeapplications", NamespaceResourceScope,
    {
        /// What to deploy where.
        spec: EdgeApplicationSpec,
        /// What became of it.
        #[serde(skip_serializing_if = "absent")]
        status: EdgeApplicationStatus,
    },
    {
        const SINGULAR: &'static str = "edgeapplication";
        const SHORT_NAMES: &'static [&'static str] = &["eapp"];
        const STATUS: bool = true;
        const REQUIRED: &'static [&'static str] = &["spec"];
    }
}

/// Which nodes a group has: those named and those with the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeGroupSpec {
    /// Nodes by name.
    #[serde(skip_serializing_if = "absent")]
    pub nodes: Vec<String>,
    /// Nodes that have all of these labels.
    #[serde(skip_serializing_if = "absent")]
    pub match_labels: BTreeMap<String, String>,
    /// Whether services answer within the group alone.
    #[serde(skip_serializing_if = "absent")]
    pub topology_enabled: bool,
}

/// Which nodes were found for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeGroupStatus {
    /// Each node.
    #[serde(skip_serializing_if = "absent")]
    pub node_statuses: Vec<GroupedNode>,
}

/// One node of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GroupedNode {
    /// The node.
    pub node_name: String,
    /// `Ready`, `NotReady` or `Unknown`.
    pub ready_status: String,
    /// `Succeeded` or `Failed`.
    pub selection_status: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "absent")]
    pub selection_status_reason: String,
}

/// What to deploy where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EdgeApplicationSpec {
    /// The objects to make.
    #[serde(default, skip_serializing_if = "absent")]
    pub workload_template: ResourceTemplate,
    /// The nodes, and what changes there.
    pub workload_scope: WorkloadScope,
}

/// Objects to make in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct ResourceTemplate {
    /// Whole objects of Kubernetes.
    #[serde(skip_serializing_if = "absent")]
    pub manifests: Vec<Map<String, Value>>,
}

/// Where a workload goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadScope {
    /// Groups of nodes.
    #[serde(skip_serializing_if = "absent")]
    pub target_node_groups: Vec<TargetNodeGroup>,
    /// Nodes by their labels.
    #[serde(skip_serializing_if = "absent")]
    pub target_node_labels: Vec<TargetNodeLabel>,
}

/// A group of nodes, and what changes there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct TargetNodeGroup {
    /// The name of the NodeGroup.
    pub name: String,
    /// What changes.
    #[serde(default, skip_serializing_if = "absent")]
    pub overriders: Overriders,
}

/// Nodes with labels, and what changes there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct TargetNodeLabel {
    /// The labels.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    #[serde(skip_serializing_if = "absent")]
    pub label_selector: LabelSelector,
    /// What changes.
    #[serde(skip_serializing_if = "absent")]
    pub overriders: Overriders,
}

/// What became of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct EdgeApplicationStatus {
    /// Each object.
    #[serde(skip_serializing_if = "absent")]
    pub workload_status: Vec<ManifestStatus>,
}

/// What became of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct ManifestStatus {
    /// The object.
    pub identifier: ResourceIdentifier,
    /// Whether it is as wanted: `Processing` or `Available`.
    #[cfg_attr(feature = "crds", schemars(extend("enum" = ["Processing", "Available"])))]
    #[serde(rename = "conditions", default, skip_serializing_if = "absent")]
    pub condition: String,
}

/// An object of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct ResourceIdentifier {
    /// Its place in the list, from 0.
    pub ordinal: u32,
    /// Its API group.
    #[serde(default, skip_serializing_if = "absent")]
    pub group: String,
    /// Its API version.
    #[serde(default, skip_serializing_if = "absent")]
    pub version: String,
    /// Its kind.
    #[serde(default, skip_serializing_if = "absent")]
    pub kind: String,
    /// Its kind's plural.
    #[serde(default, skip_serializing_if = "absent")]
    pub resource: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "absent")]
    pub namespace: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "absent")]
    pub name: String,
}
