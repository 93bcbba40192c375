//! `reliablesyncs.kubeedge.io/v1alpha1`: what each edge has confirmed.
//!
//! A record is named `<node>.<uid of the object>`. Its spec says which object it is about, its status which
//! version of it the node has stored.

#[cfg(feature = "crds")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{absent, kind};

kind! {
    /// What a node has of an object in a namespace; stands in that namespace.
    ObjectSync of "reliablesyncs.kubeedge.io" "v1alpha1", "objectsyncs", NamespaceResourceScope,
    {
        /// The object.
        spec: ObjectSyncSpec,
        /// What the node has of it.
        #[serde(skip_serializing_if = "absent")]
        status: ObjectSyncStatus,
    },
    {
        const SINGULAR: &'static str = "objectsync";
        const STATUS: bool = true;
    }
}

kind! {
    /// What a node has of an object outside of namespaces.
    ClusterObjectSync of "reliablesyncs.kubeedge.io" "v1alpha1", "clusterobjectsyncs", ClusterResourceScope,
    {
        /// The object.
        spec: ObjectSyncSpec,
        /// What the node has of it.
        #[serde(skip_serializing_if = "absent")]
        status: ObjectSyncStatus,
    },
    {
        const SINGULAR: &'static str = "clusterobjectsync";
        const STATUS: bool = true;
    }
}

/// The object a record is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectSyncSpec {
    /// Its `apiVersion`.
    #[serde(rename = "objectAPIVersion", skip_serializing_if = "absent")]
    pub object_api_version: String,
    /// Its kind.
    #[serde(skip_serializing_if = "absent")]
    pub object_kind: String,
    /// Its name.
    #[serde(skip_serializing_if = "absent")]
    pub object_name: String,
}

/// What the node has confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crds", derive(JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectSyncStatus {
    /// The resource version stored on the node; `0` before the first.
    #[serde(skip_serializing_if = "absent")]
    pub object_resource_version: String,
}
