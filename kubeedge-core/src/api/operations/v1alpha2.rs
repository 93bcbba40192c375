//! Jobs as KubeEdge writes them since 1.22.
//!
//! A job has a `phase`, and so has each node, with the actions taken there. The fields beside them that
//! v1alpha1 had are still there for those who read them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImagePrePullJobSpec, ImagePrePullStatus, RegistryApi};
use crate::api::{absent, kind};

kind! {
    /// Brings nodes to another version of edgecore.
    NodeUpgradeJob of "operations.kubeedge.io" "v1alpha2", "nodeupgradejobs", ClusterResourceScope,
    {
        /// Which version, which nodes.
        spec: NodeUpgradeJobSpec,
        /// How it goes.
        #[serde(skip_serializing_if = "absent")]
        status: NodeUpgradeJobStatus,
    },
    {
        const SINGULAR: &'static str = "nodeupgradejob";
        const STATUS: bool = true;
    }
}

kind! {
    /// Pulls images on nodes before they are needed.
    ImagePrePullJob of "operations.kubeedge.io" "v1alpha2", "imageprepulljobs", ClusterResourceScope,
    {
        /// Which images, which nodes.
        spec: ImagePrePullJobSpec,
        /// How it goes.
        #[serde(skip_serializing_if = "absent")]
        status: ImagePrePullJobStatus,
    },
    {
        const SINGULAR: &'static str = "imageprepulljob";
        const STATUS: bool = true;
        const REQUIRED: &'static [&'static str] = &["spec"];
    }
}

kind! {
    /// Changes fields of edgecore's configuration on nodes.
    ConfigUpdateJob of "operations.kubeedge.io" "v1alpha2", "configupdatejobs", ClusterResourceScope,
    {
        /// Which fields, which nodes.
        spec: ConfigUpdateJobSpec,
        /// How it goes.
        #[serde(skip_serializing_if = "absent")]
        status: ConfigUpdateJobStatus,
    },
    {
        const SINGULAR: &'static str = "configupdatejob";
        const STATUS: bool = true;
    }
}

/// Which version to bring to which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeUpgradeJobSpec {
    /// The version.
    #[serde(skip_serializing_if = "absent")]
    pub version: String,
    /// Nodes by name; a job names nodes or has a `labelSelector`, not both.
    #[serde(skip_serializing_if = "absent")]
    pub node_names: Vec<String>,
    /// Nodes by their labels.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    #[serde(skip_serializing_if = "absent")]
    pub label_selector: Option<LabelSelector>,
    /// How long a node may take, in seconds; 0 is KubeEdge's 300.
    #[serde(skip_serializing_if = "absent")]
    pub timeout_seconds: Option<i32>,
    /// The image that holds the new edgecore; KubeEdge: `kubeedge/installation-package`.
    #[serde(skip_serializing_if = "absent")]
    pub image: String,
    /// The digests the image must have.
    #[serde(skip_serializing_if = "absent")]
    pub image_digest_gatter: Option<ImageDigestGatter>,
    /// How many nodes at a time; KubeEdge: 1.
    #[serde(skip_serializing_if = "absent")]
    pub concurrency: i32,
    /// What to check on a node before: `cpu`, `mem`, `disk`.
    #[serde(skip_serializing_if = "absent")]
    pub check_items: Vec<String>,
    /// Which part of the nodes may fail before the job stops; KubeEdge: 0.1.
    #[serde(skip_serializing_if = "absent")]
    pub failure_tolerate: String,
    /// Whether someone at the node must agree.
    #[serde(skip_serializing_if = "absent")]
    pub require_confirmation: bool,
}

/// Where the digests of an image come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct ImageDigestGatter {
    /// The digest for x86-64.
    #[serde(skip_serializing_if = "absent")]
    pub amd64: Option<String>,
    /// The digest for 64-bit ARM.
    #[serde(skip_serializing_if = "absent")]
    pub arm64: Option<String>,
    /// A registry that says it.
    #[serde(rename = "registryAPI", skip_serializing_if = "absent")]
    pub registry_api: Option<RegistryApi>,
}

/// How an upgrade goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeJobStatus {
    /// Where the job is: `Init`, `InProgress`, `Completed`, `Failure`.
    pub phase: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "absent")]
    pub reason: String,
    /// Each node.
    #[serde(default, skip_serializing_if = "absent")]
    pub node_status: Vec<NodeUpgrade>,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub state: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub current_version: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub historic_version: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub event: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub action: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub time: String,
}

/// The upgrade of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeUpgrade {
    /// The node.
    #[serde(skip_serializing_if = "absent")]
    pub node_name: String,
    /// Where it is: `Pending`, `InProgress`, `Successful`, `Failure`, `Unknown`.
    #[serde(skip_serializing_if = "absent")]
    pub phase: String,
    /// What was done there, in order.
    #[serde(skip_serializing_if = "absent")]
    pub action_flow: Vec<ActionStatus>,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// The version before.
    #[serde(skip_serializing_if = "absent")]
    pub historic_version: String,
    /// The version now.
    #[serde(skip_serializing_if = "absent")]
    pub current_version: String,
    /// As in v1alpha1.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// As in v1alpha1.
    #[serde(skip_serializing_if = "absent")]
    pub event: String,
}

/// One action on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct ActionStatus {
    /// What was done, such as `Check`, `BackUp`, `Upgrade`, `Pull`.
    #[serde(skip_serializing_if = "absent")]
    pub action: String,
    /// `True` or `False`, as conditions have it.
    #[serde(skip_serializing_if = "absent")]
    pub status: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// When, in UTC.
    #[serde(skip_serializing_if = "absent")]
    pub time: String,
}

/// How the pulls go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ImagePrePullJobStatus {
    /// Where the job is: `Init`, `InProgress`, `Completed`, `Failure`.
    pub phase: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "absent")]
    pub reason: String,
    /// Each node.
    #[serde(default, skip_serializing_if = "absent")]
    pub node_status: Vec<NodePull>,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub state: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub event: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub action: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub time: String,
    /// As in v1alpha1.
    #[serde(default, skip_serializing_if = "absent")]
    pub status: Vec<ImagePrePullStatus>,
}

/// The pulls of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodePull {
    /// The node.
    #[serde(skip_serializing_if = "absent")]
    pub node_name: String,
    /// Where it is: `Pending`, `InProgress`, `Successful`, `Failure`, `Unknown`.
    #[serde(skip_serializing_if = "absent")]
    pub phase: String,
    /// What was done there, in order.
    #[serde(skip_serializing_if = "absent")]
    pub action_flow: Vec<ActionStatus>,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// Its images.
    #[serde(skip_serializing_if = "absent")]
    pub image_status: Vec<ImageStatus>,
}

/// One image on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct ImageStatus {
    /// The image.
    #[serde(skip_serializing_if = "absent")]
    pub image: String,
    /// `True` or `False`, as conditions have it.
    #[serde(skip_serializing_if = "absent")]
    pub status: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
}

/// Which fields to change on which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigUpdateJobSpec {
    /// Fields of edgecore's configuration by their path, and what they become.
    pub update_fields: BTreeMap<String, String>,
    /// Nodes by name; a job names nodes or has a `labelSelector`, not both.
    #[serde(default, skip_serializing_if = "absent")]
    pub node_names: Vec<String>,
    /// Nodes by their labels.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    #[serde(default, skip_serializing_if = "absent")]
    pub label_selector: Option<LabelSelector>,
    /// How long a node may take, in seconds; 0 is KubeEdge's 300.
    #[serde(default, skip_serializing_if = "absent")]
    pub timeout_seconds: Option<i32>,
    /// How many nodes at a time; KubeEdge: 1.
    #[serde(default, skip_serializing_if = "absent")]
    pub concurrency: i32,
    /// Which part of the nodes may fail before the job stops; KubeEdge: 0.1.
    #[serde(default, skip_serializing_if = "absent")]
    pub failure_tolerate: String,
}

/// How the changes go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConfigUpdateJobStatus {
    /// Where the job is: `Init`, `InProgress`, `Completed`, `Failure`.
    pub phase: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "absent")]
    pub reason: String,
    /// Each node.
    #[serde(default, skip_serializing_if = "absent")]
    pub node_status: Vec<NodeConfigUpdate>,
}

/// The changes on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeConfigUpdate {
    /// The node.
    #[serde(skip_serializing_if = "absent")]
    pub node_name: String,
    /// Where it is: `Pending`, `InProgress`, `Successful`, `Failure`, `Unknown`.
    #[serde(skip_serializing_if = "absent")]
    pub phase: String,
    /// What was done there, in order.
    #[serde(skip_serializing_if = "absent")]
    pub action_flow: Vec<ActionStatus>,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
}
