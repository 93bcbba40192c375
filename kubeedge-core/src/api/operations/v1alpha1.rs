//! Jobs as KubeEdge before 1.22 wrote them; served, not stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ImagePrePullJobSpec, ImagePrePullStatus, RegistryApi, TaskStatus};
use crate::api::{absent, kind};

kind! {
    /// Brings nodes to another version of edgecore.
    NodeUpgradeJob of "operations.kubeedge.io" "v1alpha1", "nodeupgradejobs", ClusterResourceScope,
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
        const STORED: bool = false;
    }
}

kind! {
    /// Pulls images on nodes before they are needed.
    ImagePrePullJob of "operations.kubeedge.io" "v1alpha1", "imageprepulljobs", ClusterResourceScope,
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
        const STORED: bool = false;
        const REQUIRED: &'static [&'static str] = &["spec"];
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
    /// The digest the image must have.
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

/// Where the digest of an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default)]
pub struct ImageDigestGatter {
    /// The digest itself.
    #[serde(skip_serializing_if = "absent")]
    pub value: Option<String>,
    /// A registry that says it.
    #[serde(rename = "registryAPI", skip_serializing_if = "absent")]
    pub registry_api: Option<RegistryApi>,
}

/// How an upgrade goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct NodeUpgradeJobStatus {
    /// Where it is: empty, `Upgrading`, `BackingUp`, `RollingBack`, `Checking`.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// The version of edgecore now.
    #[serde(skip_serializing_if = "absent")]
    pub current_version: String,
    /// The version before.
    #[serde(skip_serializing_if = "absent")]
    pub historic_version: String,
    /// The step: `Init`, `Check`, `BackUp`, `Upgrade`, `TimeOut`, `Rollback`.
    #[serde(skip_serializing_if = "absent")]
    pub event: String,
    /// How the step went: `Success`, `Failure`.
    #[serde(skip_serializing_if = "absent")]
    pub action: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// When, as the node wrote it.
    #[serde(skip_serializing_if = "absent")]
    pub time: String,
    /// Each node.
    #[serde(skip_serializing_if = "absent")]
    pub node_status: Vec<TaskStatus>,
}

/// How the pulls go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ImagePrePullJobStatus {
    /// Where it is: empty, `prepulling`, `successful`, `failed`.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// The step: `Init`, `Check`, `Pull`, `TimeOut`.
    #[serde(skip_serializing_if = "absent")]
    pub event: String,
    /// How the step went: `Success`, `Failure`.
    #[serde(skip_serializing_if = "absent")]
    pub action: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// When, as the node wrote it.
    #[serde(skip_serializing_if = "absent")]
    pub time: String,
    /// Each node.
    #[serde(skip_serializing_if = "absent")]
    pub status: Vec<ImagePrePullStatus>,
}
