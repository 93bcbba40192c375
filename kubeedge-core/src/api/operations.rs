//! `operations.kubeedge.io`: work done on many nodes at a time, such as an upgrade.
//!
//! Each job picks nodes by name or by label, works on some of them at a time, and stops when too many fail.
//! v1alpha2 is stored and acted on; v1alpha1 is what KubeEdge before 1.22 wrote.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::absent;

pub mod v1alpha1;
pub mod v1alpha2;

/// What an ImagePrePullJob does, in both versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ImagePrePullJobSpec {
    /// The images and the nodes.
    #[serde(skip_serializing_if = "absent")]
    pub image_pre_pull_template: ImagePrePullTemplate,
}

/// Which images to pull on which nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ImagePrePullTemplate {
    /// The images.
    #[serde(skip_serializing_if = "absent")]
    pub images: Vec<String>,
    /// Nodes by name; a job names nodes or has a `labelSelector`, not both.
    #[serde(skip_serializing_if = "absent")]
    pub node_names: Vec<String>,
    /// Nodes by their labels.
    #[cfg_attr(feature = "crds", schemars(extend("x-kubernetes-map-type" = "atomic")))]
    #[serde(skip_serializing_if = "absent")]
    pub label_selector: Option<LabelSelector>,
    /// What to check on a node before: `cpu`, `mem`, `disk`.
    #[serde(skip_serializing_if = "absent")]
    pub check_items: Vec<String>,
    /// Which part of the nodes may fail before the job stops; KubeEdge: 0.1.
    #[serde(skip_serializing_if = "absent")]
    pub failure_tolerate: String,
    /// How many nodes at a time; KubeEdge: 1.
    #[serde(skip_serializing_if = "absent")]
    pub concurrency: i32,
    /// How long a node may take, in seconds; 0 is KubeEdge's 300.
    #[serde(skip_serializing_if = "absent")]
    pub timeout_seconds: Option<i32>,
    /// The Secret with the registry's account, as `namespace/name`.
    #[serde(skip_serializing_if = "absent")]
    pub image_secrets: String,
    /// How often a pull that fails is tried again.
    #[serde(skip_serializing_if = "absent")]
    pub retry_times: i32,
}

/// An image registry that is asked for a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
pub struct RegistryApi {
    /// Its host.
    pub host: String,
    /// The token shown to it.
    pub token: String,
}

/// The pulls of one node as v1alpha1 tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ImagePrePullStatus {
    /// The node.
    #[serde(skip_serializing_if = "absent")]
    pub node_status: TaskStatus,
    /// Its images.
    #[serde(skip_serializing_if = "absent")]
    pub image_status: Vec<ImageState>,
}

/// One image on one node as v1alpha1 tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ImageState {
    /// The image.
    #[serde(skip_serializing_if = "absent")]
    pub image: String,
    /// `successful` or `failed`.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
}

/// A task on one node as v1alpha1 tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct TaskStatus {
    /// The node.
    #[serde(skip_serializing_if = "absent")]
    pub node_name: String,
    /// Where it is: empty, `Upgrading`, `BackingUp`, `RollingBack`, `Checking`.
    #[serde(skip_serializing_if = "absent")]
    pub state: String,
    /// The step: `Init`, `Check`, `Pull`, `TimeOut`.
    #[serde(skip_serializing_if = "absent")]
    pub event: String,
    /// How the step went: `Success`, `Failure`, `TimeOut`.
    #[serde(skip_serializing_if = "absent")]
    pub action: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "absent")]
    pub reason: String,
    /// When, as the node wrote it.
    #[serde(skip_serializing_if = "absent")]
    pub time: String,
}
